import base64
import re

import numpy as np
import pytest

from medsegdiff.api import Segmenter
from medsegdiff.web import view
from tests.fake_denoiser import Bright
from tests.web.test_worker import CONFIG


def segment(image, **options):
    return Segmenter(Bright(), CONFIG).segment(image, id="a<b", **options)


@pytest.fixture
def image():
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[5:15, 5:20] = 255
    return pixels


def test_what_is_downloaded_is_what_save_writes(image, tmp_path):
    found = segment(image)
    found.save(tmp_path, maps=True)
    page = view.finished(found)
    links = re.findall(r'download="([^"]+)" href="data:image/png;base64,([^"]+)">(\w+)<', page)
    assert [what for _, _, what in links] == ["mask", "probability", "uncertainty", "overlay"]
    for name, content, _ in links:
        assert base64.b64decode(content) == (tmp_path / name.replace("&lt;", "<")).read_bytes()


def test_each_step_shows_the_mask_so_far(image):
    pages = []
    segment(
        image, steps=3, on_step=lambda ids, members, state: pages.append(view.forming(image, state, len(pages) + 1))
    )
    assert [re.search(r'data-step="(\d)"', page)[1] for page in pages] == ["1", "2", "3"]
    assert all('<path d="M' in page and "data:image/png" in page for page in pages)


def test_agreement_is_a_sentence_with_its_limits(image):
    said = view.agreement(segment(image))
    assert "agree well" in said and "not that it is right" in said
    assert "at least two" in view.agreement(segment(image, members=1))
    assert "does not mean that nothing is there" in view.agreement(segment(np.zeros_like(image)))


def test_a_ground_truth_gives_scores(image):
    found = segment(image)
    page = view.finished(found, found.mask > 0)
    assert "dice 1.000" in page and 'class="truth"' in page
    assert "not scored" in view.scores(found, np.zeros((3, 4), bool))
    assert 'class="truth"' not in view.finished(found)
