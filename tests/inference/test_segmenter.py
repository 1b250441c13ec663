import dataclasses

import numpy as np
import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.base.randomness import generator
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.kernels.precision import unavailable
from medsegdiff.nn import weights
from medsegdiff.nn.versions import build_network

SAMPLING = SamplingConfig(steps=3, members=3, batch_size=4)
# A third level, so that the transformer has 64 places, as in the published network, and not 256.
V2 = {"version": "v2", "channel_mult": "1,1,1"}


def active(config):
    """A network whose output layer is not zero, which would make every comparison below empty."""
    network = build_network(config).initialise(1)
    network.out[2].weight.assign(network.out[2].weight + 0.05)
    return network


@pytest.fixture(scope="module")
def network():
    return active(NetworkConfig(image_size=32, num_channels=32, channel_mult="1,1", num_res_blocks=1))


def build(network, config, sampling=SAMPLING, **options):
    sampling = dataclasses.replace(sampling, **options)
    return BatchSegmenter(JittorDenoiser(network, sampling.precision), config.diffusion, sampling)


def run(network, discs, config, ids=None, **options):
    segmenter = build(network, config, **options)
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
            np.testing.assert_array_equal(result.members, whole[name].members)


@pytest.mark.parametrize(
    ("network_options", "precision"),
    [
        ({"num_channels": 128}, "fp32"),
        ({"version": "v1"}, "fp32"),
        (V2, "fp32"),
        (V2, "bf16"),
        ({}, "bf16"),
    ],
    ids=["width-128", "v1", "v2", "v2-bf16", "bf16"],
)
def test_members_are_the_same_bytes_in_every_batch(discs, config, network_options, precision):
    if unavailable(precision):
        pytest.skip(unavailable(precision))
    network = active(dataclasses.replace(config.network, **network_options))
    options = {"members": 16, "steps": 2, "precision": precision}
    one, many = (run(network, discs, config, discs.ids[:1], batch_size=size, **options) for size in (1, 16))
    np.testing.assert_array_equal(one[discs.ids[0]].members, many[discs.ids[0]].members)
    np.testing.assert_array_equal(one[discs.ids[0]].cal, many[discs.ids[0]].cal)


def test_members_differ_and_mean_and_deviation_are_theirs(network, discs, config):
    for result in run(network, discs, config).values():
        assert result.members.shape == (3, 1, 32, 32)
        assert np.abs(result.members[0] - result.members[1]).max() > 0.01
        np.testing.assert_allclose(result.probability, result.members.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(result.std, result.members.std(axis=0), atol=1e-6)


def test_more_members_do_not_change_the_first_ones(network, discs, config):
    few, many = run(network, discs, config, members=2), run(network, discs, config, members=5)
    for name in few:
        np.testing.assert_array_equal(few[name].members, many[name].members[:2])


def test_the_seed_changes_the_masks(network, discs, config):
    first, other = run(network, discs, config), run(network, discs, config, seed=1)
    assert all(np.abs(first[name].probability - other[name].probability).max() > 0.01 for name in first)


@pytest.mark.parametrize(
    ("sampler", "steps", "evaluations"), [("ddpm", 0, 30), ("ddim", 5, 5), ("dpm++", 4, 4), ("sde-dpm++", 3, 3)]
)
def test_each_sampler_takes_the_evaluations_it_says(network, discs, config, sampler, steps, evaluations):
    sampling = SamplingConfig(sampler=sampler, steps=steps, members=2)
    segmenter = build(network, config, sampling)
    counted = []
    list(segmenter.segment(discs.ids[:1], discs.image, on_step=lambda ids, members, _: counted.append((ids, members))))
    assert counted == [(["disc-0", "disc-0"], [0, 1])] * evaluations
    assert segmenter.evaluations == evaluations


@pytest.mark.parametrize("rule", ["vote", "published", "staple"])
def test_members_are_fused_by_the_rule(network, discs, config, rule):
    from medsegdiff.masks import fusion

    rules = {"vote": lambda members: fusion.mean(members > 0.5), "published": fusion.published, "staple": fusion.staple}
    for result in run(network, discs, config, fusion=rule).values():
        expected = np.stack([rules[rule](result.members[:, 0])])
        np.testing.assert_allclose(result.probability, expected, atol=1e-6)


def test_blended_members_are_between_sample_and_cal(network, discs, config):
    plain, blended = run(network, discs, config), run(network, discs, config, blend=True)
    for name, result in blended.items():
        assert np.abs(result.members - plain[name].members).max() > 0.01
        # Samples inside [0, 1] were not clipped, so what was blended is known.
        inside = (plain[name].members > 0) & (plain[name].members < 1)
        for k in range(3):
            half = 0.5 * result.cal + 0.5 * plain[name].members[k]
            quarter = result.cal + 0.25 * plain[name].members[k]
            fits = [
                np.allclose(result.members[k][inside[k]], way[inside[k]].clip(0, 1), atol=1e-5)
                for way in (half, quarter)
            ]
            assert any(fits)


def test_an_ensemble_grows_until_it_has_settled(network, discs, config):
    most = run(network, discs, config, members=9)
    errors = {}
    for name, result in most.items():
        stds = [result.members[:k].std(axis=0, ddof=1).astype(np.float64) for k in range(2, 10)]
        areas = [max(result.members[:k].mean(axis=0).sum(), 1) for k in range(2, 10)]
        errors[name] = [s.sum() / np.sqrt(k) / a for k, s, a in zip(range(2, 10), stds, areas)]
    until = float(np.median([e[3] for e in errors.values()]))
    counts = {}
    for batch in (1, 4, 16):
        adaptive = run(network, discs, config, members="2..9", until=until, batch_size=batch)
        for name, result in adaptive.items():
            expected = next((k for k, e in zip(range(2, 10), errors[name]) if e <= until), 9)
            assert result.count == len(result.members) == expected
            np.testing.assert_array_equal(result.members, most[name].members[:expected])
            counts[name] = result.count
    assert len(set(counts.values())) > 1  # or nothing adapted


def test_noise_can_be_shuffled_among_the_images_or_left_out(network, discs, config):
    usual = run(network, discs, config)
    shuffled, silent = (run(network, discs, config, control=control) for control in ("shuffle-noise", "no-noise"))
    for name in usual:
        assert np.abs(shuffled[name].members - usual[name].members).max() > 0.01
        assert silent[name].std.max() == 0
    # Image 0 with the name of image 1 has the noise that shuffling gives it.
    swapped = build(network, config)
    condition = swapped.denoiser.encode(discs.image(0)[None])
    state = list(swapped.states(condition, [discs.ids[1]], [0]))[-1]
    np.testing.assert_array_equal(np.clip(state.x[0], 0, 1), shuffled[discs.ids[0]].members[0])
    with pytest.raises(InputError, match=r"shuffle-noise.*at least two"):
        run(network, discs, config, ids=discs.ids[:1], control="shuffle-noise")


def test_several_classes_are_sampled_together(discs, config):
    network = active(dataclasses.replace(config.network, num_classes=4))
    for result in run(network, discs, config, fusion="staple").values():
        assert result.members.shape == (3, 3, 32, 32)
        assert result.probability.shape == result.std.shape == result.cal.shape == (3, 32, 32)
        assert 0 <= result.agreement <= 1


def test_each_image_is_encoded_once(network, discs, config, monkeypatch):
    segmenter = build(network, config, batch_size=2, members=5)
    encoded = []
    encode = segmenter.denoiser.encode
    monkeypatch.setattr(segmenter.denoiser, "encode", lambda images: encoded.append(len(images)) or encode(images))
    list(segmenter.segment(discs.ids[:3], discs.image))
    assert encoded == [1, 1, 1]


def test_the_noise_of_a_member_is_named_by_seed_id_member_and_draw(network, config):
    segmenter = build(network, config)
    condition = segmenter.denoiser.encode(np.zeros((1, 3, 32, 32), np.float32))
    seen = []
    import medsegdiff.diffusion.samplers as samplers

    def spy(denoise, diffusion, noise):
        seen.append(noise(0))
        yield samplers.State(seen[0], seen[0], None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samplers, "ddpm", spy)
        list(segmenter.states(condition, ["x"], [7]))
    np.testing.assert_array_equal(seen[0][0], generator(0, "mask", "x", 7, 0).standard_normal((1, 32, 32), np.float32))


def test_image_and_masks_are_computed_in_the_precision_that_is_asked_for(network, discs, config, precisions_seen):
    run(network, discs, config, precision="bf16")
    assert set(precisions_seen) == {"bf16"}
    precisions_seen.clear()
    run(network, discs, config)
    assert set(precisions_seen) == {"fp32"}
    with pytest.raises(InputError, match="precision half: must be one of fp32, bf16, fp16"):
        SamplingConfig(precision="half")


def test_chosen_images_are_segmented_as_among_all(network, discs, config):
    for control in ("", "shuffle-noise"):
        segmenter = build(network, config, control=control)
        whole = {result.id: result for result in segmenter.segment(discs.ids[:4], discs.image, True)}
        part = list(segmenter.segment(discs.ids[:4], discs.image, True, chosen=range(1, 4, 2)))
        assert [result.id for result in part] == [discs.ids[1], discs.ids[3]]
        for result in part:
            np.testing.assert_array_equal(result.members, whole[result.id].members)


@pytest.mark.parametrize("version", ["new", "v1"])
@pytest.mark.parametrize(
    "part", ["out.2.bias", "hwm.conv_blocks_context.0.blocks.0.conv.weight", "input_blocks.0.0.weight"]
)
def test_a_prediction_that_is_not_finite_is_no_mask_and_its_image_is_named(discs, config, version, part):
    network = active(dataclasses.replace(config.network, version=version))
    weight = weights.state(network)[part]
    weight.assign(weight + float("nan"))
    for control in ("", "shuffle-noise"):
        with pytest.raises(InputError, match=r"^disc-0: what the network predicts is not finite.*another checkpoint$"):
            run(network, discs, config, control=control)


def test_one_image_among_several_is_the_one_that_is_named(network, discs, config):
    def image(index):
        return discs.image(index) * np.float32(np.nan if index == 2 else 1)

    segmenter = build(network, config, members=1, batch_size=4)
    with pytest.raises(InputError, match=r"^disc-2: "):
        list(segmenter.segment(discs.ids[:4], image))


@pytest.mark.parametrize("blend", [False, True])
def test_members_of_flipped_images_are_flipped_back(network, discs, config, blend):
    name, pixels = discs.ids[1], discs.image(1)
    turned = run(network, discs, config, ids=[name], tta=True, members=6, blend=blend)[name]
    sampling = dataclasses.replace(SAMPLING, members=6, blend=blend)
    cals = []
    for member in range(6):
        axes = ((), (2,), (1,), (1, 2))[member % 4]
        segmenter = build(network, config, sampling)
        (one,) = segmenter.segment([name], [np.flip(pixels, axes).copy()].__getitem__, keep_members=True)
        np.testing.assert_array_equal(turned.members[member], np.flip(one.members[member], axes))
        cals.append(np.flip(one.cal, axes))
    np.testing.assert_allclose(turned.cal, np.mean(cals, axis=0), atol=1e-6)
    np.testing.assert_allclose(turned.probability, turned.members.mean(axis=0), atol=1e-6)
    assert turned.count == 6


def test_flips_depend_neither_on_the_batch_nor_on_the_order(network, discs, config):
    whole = run(network, discs, config, tta=True, members=5)
    for other in (
        run(network, discs, config, tta=True, members=5, batch_size=1),
        run(network, discs, config, ids=discs.ids[:4][::-1], tta=True, members=5, batch_size=7),
    ):
        for name, result in other.items():
            np.testing.assert_array_equal(result.members, whole[name].members)
