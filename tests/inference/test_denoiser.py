"""The batches of masks need no network but what `Denoiser` says, on no backend in particular."""

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.diffusion.process import DiffusionConfig, Output
from medsegdiff.inference.segmenter import BatchSegmenter
from tests.fake_denoiser import Bright

DIFFUSION = DiffusionConfig(diffusion_steps=8, noise_schedule="cosine", predict_xstart=True)


def image(index):
    """Dark, with a bright square whose place depends on the index."""
    pixels = np.full((3, 16, 16), 0.1, np.float32)
    pixels[:, 2 + index : 8 + index, 3:9] = 0.9
    return pixels


def run(denoiser, ids, **options):
    return list(BatchSegmenter(denoiser, DIFFUSION, SamplingConfig(**options)).segment(ids, image, keep_members=True))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpm++", "sde-dpm++"])
def test_any_denoiser_is_sampled_with(sampler):
    denoiser = Bright()
    results = run(denoiser, ["a", "b", "c"], members=3, sampler=sampler, batch_size=4)
    assert [len(images) for images in denoiser.encoded] == [1, 1, 1]
    assert [result.index for result in results] == [0, 1, 2]
    for result in results:
        np.testing.assert_array_equal(result.probability[0] > 0.5, image(result.index)[0] > 0.5)
        np.testing.assert_allclose(result.cal, image(result.index)[:1], atol=1e-6)
        assert result.std.max() > 0.01


def test_a_batch_s_rows_are_those_of_the_images_and_flips_they_belong_to():
    for result in run(Bright(), ["a", "b"], members=5, tta=True, batch_size=3):
        for member in result.members:
            np.testing.assert_array_equal(member[0] > 0.5, image(result.index)[0] > 0.5)


def test_images_of_one_name_are_told_apart_and_have_the_same_noise():
    same = {result.index: result for result in run(Bright(), ["x", "x"], members=2)}
    alone = {0: run(Bright(), ["x"], members=2)[0]}
    np.testing.assert_array_equal(same[0].members, alone[0].members)
    np.testing.assert_array_equal(same[1].probability[0] > 0.5, image(1)[0] > 0.5)


@pytest.mark.parametrize("part", ["target", "variance", "cal"])
def test_what_is_not_finite_is_refused_whichever_array_it_is_in(part):
    class Broken(Bright):
        def denoise(self, mask_t, t, condition):
            output = Output(mask_t * 0, mask_t * 0, mask_t * 0)
            broken = getattr(output, part).copy()
            broken[1, 0, 3, 3] = np.inf
            return output._replace(**{part: broken})

    with pytest.raises(InputError, match=r"^b: what the network predicts is not finite.*another checkpoint$"):
        run(Broken(), ["a", "b"], members=1)
    with pytest.raises(InputError, match=r"precision fp32$"):
        run(Broken(), ["a", "b"], members=1, precision="bf16")
