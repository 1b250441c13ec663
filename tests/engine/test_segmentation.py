import dataclasses

import numpy as np
import pytest

from medsegdiff.engine.config import SamplingConfig
from medsegdiff.engine.segmentation import Segmenter
from medsegdiff.nn.network import MedSegDiff
from medsegdiff.runtime.randomness import generator

SAMPLING = SamplingConfig(steps=3, members=3, batch_size=4)


@pytest.fixture(scope="module")
def network():
    from medsegdiff.nn.config import NetworkConfig

    config = NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1)
    network = MedSegDiff(config).initialise(1)
    # A zero output layer would make every prediction zero, and every comparison below empty.
    network.out[2].weight.assign(network.out[2].weight + 0.05)
    return network


def run(network, discs, config, ids=None, **options):
    segmenter = Segmenter(network, config.diffusion, dataclasses.replace(SAMPLING, **options))
    ids = discs.ids[:4] if ids is None else ids
    results = segmenter.segment(ids, lambda i: discs.image(discs.ids.index(ids[i])), keep_members=True)
    return {result.id: result for result in results}


def test_results_depend_neither_on_the_batch_nor_on_the_order(network, discs, config):
    whole = run(network, discs, config)
    for other in (
        run(network, discs, config, batch_size=1),
        run(network, discs, config, batch_size=16),
        run(network, discs, config, ids=discs.ids[:4][::-1]),
        run(network, discs, config, ids=[discs.ids[2]]),
    ):
        for name, result in other.items():
            np.testing.assert_allclose(result.members, whole[name].members, atol=2e-6)


def test_members_differ_and_mean_and_deviation_are_theirs(network, discs, config):
    for result in run(network, discs, config).values():
        assert result.members.shape == (3, 1, 32, 32)
        assert np.abs(result.members[0] - result.members[1]).max() > 0.01
        np.testing.assert_allclose(result.mean, result.members.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(result.std, result.members.std(axis=0), atol=1e-6)


def test_more_members_do_not_change_the_first_ones(network, discs, config):
    few, many = run(network, discs, config, members=2), run(network, discs, config, members=5)
    for name in few:
        np.testing.assert_allclose(few[name].members, many[name].members[:2], atol=2e-6)


def test_the_seed_changes_the_masks(network, discs, config):
    first, other = run(network, discs, config), run(network, discs, config, seed=1)
    assert all(np.abs(first[name].mean - other[name].mean).max() > 0.01 for name in first)


@pytest.mark.parametrize(("sampler", "steps", "evaluations"), [("ddpm", 0, 30), ("ddim", 5, 5), ("dpm++", 4, 4)])
def test_each_sampler_takes_the_evaluations_it_says(network, discs, config, sampler, steps, evaluations):
    sampling = SamplingConfig(sampler=sampler, steps=steps, members=2)
    segmenter = Segmenter(network, config.diffusion, sampling)
    counted = []
    list(segmenter.segment(discs.ids[:1], discs.image, progress=counted.append))
    assert counted == [2] * evaluations
    assert segmenter.evaluations == evaluations


def test_each_image_is_encoded_once(network, discs, config, monkeypatch):
    segmenter = Segmenter(network, config.diffusion, dataclasses.replace(SAMPLING, batch_size=2, members=5))
    encoded = []
    encode = segmenter.encode
    monkeypatch.setattr(segmenter, "encode", lambda images: encoded.append(len(images)) or encode(images))
    list(segmenter.segment(discs.ids[:3], discs.image))
    assert encoded == [1, 1, 1]


def test_the_noise_of_a_member_is_named_by_seed_id_member_and_draw(network, config):
    segmenter = Segmenter(network, config.diffusion, SAMPLING)
    condition = segmenter.encode(np.zeros((1, 3, 32, 32), np.float32))
    seen = []
    import medsegdiff.diffusion.samplers as samplers

    def spy(denoise, diffusion, noise):
        seen.append(noise(0))
        yield samplers.State(seen[0], seen[0], None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "ddpm", spy)
        list(segmenter.states(condition, ["x"], [7]))
    np.testing.assert_array_equal(seen[0][0], generator(0, "mask", "x", 7, 0).standard_normal((1, 32, 32), np.float32))
