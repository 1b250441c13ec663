import base64
import html
import re
from dataclasses import replace

import numpy as np
import pytest

from medsegdiff.api import Segmenter
from medsegdiff.web import view
from tests.dicom_series import maker
from tests.fake_denoiser import Bright
from tests.web.test_worker import CONFIG, VOLUMES


def segment(image, **options):
    return Segmenter(Bright(), CONFIG).segment(image, id="a<b", **options)


@pytest.fixture
def image():
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[5:15, 5:20] = 255
    return pixels


def contents(page):
    """What each link of a page downloads, and the bytes, by file name."""
    links = re.findall(r'download="([^"]+)" href="data:([^;]+);base64,([^"]+)">([\w ]+)<', page)
    return {html.unescape(name): (what, kind, base64.b64decode(content)) for name, kind, content, what in links}


def test_what_is_downloaded_is_what_save_writes(image, tmp_path):
    found = segment(image)
    found.save(tmp_path / "saved", maps=True)
    links = contents(view.finished(found, tmp_path / "out", image[None]))
    assert [what for what, *_ in links.values()] == ["mask", "probability", "uncertainty", "overlay"]
    for name, (_, kind, content) in links.items():
        assert kind == "image/png" and content == (tmp_path / "saved" / name).read_bytes()


def test_of_a_series_there_is_nifti_and_a_segmentation_and_each_slice_is_shown(tmp_path):
    folder, *_ = maker(tmp_path)()
    config = replace(VOLUMES, data=replace(VOLUMES.data, scaling="-1024..3071"))
    found = Segmenter(Bright(), config).segment_volume(folder, slices=[3, 4], cache_dir=tmp_path / "cache")
    truth = np.zeros(found.images.shape[:3], bool)
    truth[3] = found.mask(3) > 0
    page = view.finished(found, tmp_path / "out", found.images, truth, number=4)
    links = contents(page)
    assert [(name, what) for name, (what, *_) in links.items()] == [
        ("series.nii.gz", "mask"), ("series_prob.nii.gz", "probability"), ("series_std.nii.gz", "uncertainty"),
        ("series_overlay.png", "overlay"), ("series.dcm", "DICOM segmentation"),
    ]  # fmt: skip
    assert links["series.nii.gz"][2][:2] == b"\x1f\x8b" and links["series.dcm"][1] == "application/dicom"
    frames = re.findall(r'<div data-slice="(\d+)"( hidden)?>(.*?)</div>', page)
    assert [int(number) for number, hidden, _ in frames if not hidden] == [4] and len(frames) == len(truth)
    assert {int(number) for number, _, svg in frames if 'class="heat"' in svg} == {3, 4}
    assert "of the slices that were segmented" in page


def test_each_class_has_its_probability_and_its_uncertainty(image, tmp_path):
    config = replace(CONFIG, network=replace(CONFIG.network, num_classes=3))
    found = Segmenter(Bright(classes=2), config).segment(image, id="a1")
    links = contents(view.finished(found, tmp_path, image[None]))
    assert [(name, what) for name, (what, *_) in links.items()] == [
        ("a1.png", "mask"), ("a1_prob1.png", "probability 1"), ("a1_prob2.png", "probability 2"),
        ("a1_std1.png", "uncertainty 1"), ("a1_std2.png", "uncertainty 2"), ("a1_overlay.png", "overlay"),
    ]  # fmt: skip


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


def test_a_ground_truth_gives_scores(image, tmp_path):
    found = segment(image)
    page = view.finished(found, tmp_path / "a", image[None], found.mask[None] > 0)
    assert "dice 1.000" in page and 'class="truth"' in page and "Yellow: the ground truth" in page
    page = view.finished(found, tmp_path / "b", image[None])
    assert 'class="truth"' not in page and "Yellow" not in page
