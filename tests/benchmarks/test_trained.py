from pathlib import Path

import numpy as np

from benchmarks.trained import Trained, name_of
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig


def test_a_model_is_named_by_its_step_and_its_weights():
    arrays = {"a": np.float32([1, 2]), "b": np.float32([[3]])}
    name = name_of(Weights(RunConfig(), arrays, "run/step-000012/ema-0.9.safetensors"))
    assert name.startswith("step-000012-")
    assert len(name) == len("step-000012-") + 8
    other = {"a": np.float32([1, 2.001]), "b": np.float32([[3]])}
    assert name_of(Weights(RunConfig(), other, "run/step-000012/ema-0.9.safetensors")) != name
    assert name_of(Weights(RunConfig(), arrays, "copies/small.safetensors")) == name.replace("step-000012", "small")


def test_images_are_spread_over_the_dataset_and_segmented_alike_in_any_choice(given):
    model_path, data_dir = Path(given[1]), Path(given[3])
    two, three = (Trained(model_path, data_dir, images) for images in (2, 9))
    assert two.dataset.ids == [three.dataset.ids[0], three.dataset.ids[2]]
    sampling = SamplingConfig(steps=2, members=2)
    whole = {result.id: result.members for result in three.segment(sampling, three.dataset.ids)}
    (last,) = two.segment(sampling, [two.dataset.ids[1]])
    np.testing.assert_array_equal(last.members, whole[three.dataset.ids[2]])


def test_dice_is_taken_at_the_image_s_own_resolution(given):
    trained = Trained(Path(given[1]), Path(given[3]), 1)
    (id,) = trained.dataset.ids
    truth = trained.truths[id]
    assert truth.shape == (64, 64)
    assert trained.dice(id, truth[None].astype(np.float32)) == 1
    assert trained.dice(id, np.zeros((1, 32, 32), np.float32)) == 0


def test_the_mask_is_cleaned_where_that_is_asked_for(given):
    trained = Trained(Path(given[1]), Path(given[3]), 1)
    (id,) = trained.dataset.ids
    found = trained.truths[id][None].astype(np.float32)
    outside = np.argwhere(found[0] == 0)
    y, x = outside[np.abs(outside[:, None] - np.argwhere(found[0])).max(axis=2).min(axis=1).argmax()]  # the farthest
    found[0, y, x] = 1
    assert trained.dice(id, found) < 1
    assert trained.dice(id, found, postprocess=True) == 1
