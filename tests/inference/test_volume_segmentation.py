from dataclasses import replace

import numpy as np
import pytest

from medsegdiff.api import Segmenter
from medsegdiff.base.errors import InputError
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.cases import Case, from_files
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


def test_slices_may_be_an_array_and_count_once(segment):
    assert segment(slices=np.array([5, 4, 4])).numbers == [4, 5]


@pytest.mark.parametrize("slices", [4, [4.0], ["4"], [True], np.arange(10) == 4, slice(4, 6)])
def test_what_are_no_slices_is_refused(segment, slices):
    with pytest.raises(InputError, match="must be whole numbers, in a list"):
        segment(slices=slices)


def test_a_slice_that_was_not_segmented_has_no_mask(segment):
    found = segment(slices=[4])
    for show in (found.mask, found.std):
        with pytest.raises(InputError, match="slice 5 of v was not segmented"):
            show(5)


@pytest.mark.parametrize(
    ("files", "said"),
    [(None, "files: a NoneType; give a path"), (np.zeros((4, 4, 4)), "files: a ndarray"), ("x.png", "is a picture")],
)
def test_what_is_no_volume_is_refused(files, said):
    with pytest.raises(InputError, match=said):
        Segmenter(Bright(), VOLUMES).segment_volume(files)


@pytest.mark.parametrize(("id", "said"), [(5, "id 5: must be a text"), ("\udce9", "its name is not UTF-8")])
def test_a_name_that_is_none_is_refused(segment, id, said):
    with pytest.raises(InputError, match=said):
        segment(id=id)


def test_channels_are_named_as_the_command_names_them(tmp_path):
    files = [write(tmp_path / f"ct_{number:04}.nii.gz", ball(seed=number)[0]) for number in range(2)]
    segmenter = Segmenter(Bright(), replace(VOLUMES, network=NetworkConfig(image_channels=2)))
    found = segmenter.segment_volume(files, members=1, slices=[4], cache_dir=tmp_path / "cache")
    assert [found.id] == [case.id for case in from_files(files, several_channels=True)] == ["ct"]


def test_no_slice_and_no_file_are_refused(segment):
    with pytest.raises(InputError, match="slices: none given"):
        segment(slices=[])
    with pytest.raises(InputError, match="files: none given"):
        Segmenter(Bright(), VOLUMES).segment_volume([])
