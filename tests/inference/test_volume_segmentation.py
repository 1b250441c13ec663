import numpy as np
import pytest

from medsegdiff.api import Segmenter
from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case
from medsegdiff.inference.files import Extras
from medsegdiff.inference.predict import predict
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.io.volumes import read_volume, to_slices
from tests.data.volumes import ball, write
from tests.fake_denoiser import Bright
from tests.web.test_worker import VOLUMES


@pytest.fixture
def path(tmp_path):
    image, _ = ball()
    image[..., :2] = 0  # blank slices
    return write(tmp_path / "v.nii.gz", image)


@pytest.fixture
def segment(path, tmp_path):
    def segment(**options):
        return Segmenter(Bright(), VOLUMES).segment_volume(path, members=2, cache_dir=tmp_path / "cache", **options)

    return segment


def test_the_files_are_those_of_the_command(segment, path, tmp_path):
    dataset = prepare([Case("v", (path,))], 16, tmp_path / "other", progress=False, spec=VOLUMES.spec, skip_blank=True)
    batches = BatchSegmenter(Bright(), VOLUMES.diffusion, SamplingConfig(members=2))
    predict(batches, dataset.cases, dataset, tmp_path / "command", "weights", Extras(maps=True))
    segment().save(tmp_path / "python", maps=True)
    names = {file.name for file in (tmp_path / "python").glob("v*")}
    assert names == {f"v{end}" for end in (".nii.gz", "_prob.nii.gz", "_std.nii.gz", "_entropy.nii.gz", "_overlay.png")}
    for name in [*names, "images.csv"]:
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()


def test_slices_are_as_the_files_have_them(segment, tmp_path):
    found = segment(slices=[4, 5])
    assert found.numbers == [4, 5] and 0 < found.agreement <= 1 and found.images.shape == (10, 24, 20, 3)
    mask = read_volume(found.save(tmp_path / "out", overlay=False))
    slices = to_slices(mask.values, mask.geometry)
    np.testing.assert_array_equal(slices[4], found.mask(4))
    assert slices[4:6].any() and not slices[:4].any() and not slices[6:].any()
    assert found.std(4).min() >= 0 and found.std(4).max() <= 0.5 and found.std(4).shape == found.mask(4).shape


@pytest.mark.parametrize("number", [0, 10, -1])
def test_a_slice_that_is_blank_or_not_there_is_refused(segment, number):
    with pytest.raises(InputError, match=rf"slice {number} of v\.nii\.gz is blank, or not one of 0 to 9"):
        segment(slices=[number])


def test_no_slice_and_no_file_are_refused(segment):
    with pytest.raises(InputError, match="slices: none given"):
        segment(slices=[])
    with pytest.raises(InputError, match="files: none given"):
        Segmenter(Bright(), VOLUMES).segment_volume([])
