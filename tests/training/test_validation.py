import numpy as np
import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.base.ownership import Ledger
from medsegdiff.masks.decision import decide
from medsegdiff.training.trainer import Trainer
from medsegdiff.training.validation import Abandoned, Outcome, Progress, Validator, _grid, _panel, dice, write_picture
from tests.training.variants import with_training, with_validation


def test_progress_counts_validations_since_the_best():
    progress = Progress()
    assert [progress.take(step, score) for step, score in ((1, 0.0), (2, 0.5), (3, 0.5), (4, 0.4), (5, 0.6))] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert progress == Progress(last=5, best=0.6, best_step=5, stale=0)
    progress.take(6, 0.1)
    assert (progress.last, progress.stale) == (6, 1)
    assert not progress.take(7, float("nan"))
    assert (progress.best, progress.stale) == (0.6, 2)


def test_dice_is_that_of_the_decided_mask_and_the_mean_over_classes():
    truth = np.zeros((1, 4, 4), np.float32)
    truth[0, :2] = 1

    def of(probability, truth):
        return dice([(decide(probability), truth > 0.5)])

    assert of(truth * 0.51, truth) == 1.0
    assert of(np.full((1, 4, 4), 0.6, np.float32), truth) == pytest.approx(2 * 8 / (16 + 8))
    two = np.stack([truth[0], 1 - truth[0]])
    assert of(np.stack([two[0], 0 * two[1]]), two) == 0.5


def test_dice_is_that_of_all_slices_of_a_patient_and_counts_no_class_that_none_has():
    full, none = np.ones((4, 4)), np.zeros((4, 4))
    slices = [(full.astype(np.uint8), np.stack([full, none]) > 0), (none.astype(np.uint8), np.stack([full, none]) > 0)]
    assert dice(slices) == pytest.approx(2 * 16 / (16 + 32))
    assert dice([(none, np.stack([none, none]) > 0)]) == 1.0


@pytest.fixture
def validated(config):
    return with_validation(with_training(config, ema_rate="0.5,0.9"), val_interval=1, val_steps=3)


def test_the_same_weights_give_the_same_outcome_and_are_not_changed(validated, discs):
    trainer = Trainer(validated)
    before = {name: value.numpy() for name, value in trainer.state.items()}
    validator = Validator(validated, discs)
    first, again = validator(trainer.smoothed()), validator(trainer.smoothed())
    assert isinstance(first, Outcome)
    assert first.dice == again.dice
    np.testing.assert_array_equal(first.picture, again.picture)
    assert trainer.network.is_training()
    assert trainer.network.hwm.is_training()
    for name, value in trainer.state.items():
        np.testing.assert_array_equal(value.numpy(), before[name])


def test_what_is_segmented_with_are_the_weights_given(validated, discs):
    trainer = Trainer(validated)
    validator = Validator(validated, discs)
    changed = {name: value + 0.05 for name, value in trainer.state.items()}
    assert (validator(trainer.state).picture != validator(changed).picture).any()


@pytest.mark.parametrize(("batch", "microbatch", "processes", "at_once"), [(8, -1, 4, 2), (8, 4, 2, 2), (2, -1, 4, 1)])
def test_one_process_segments_no_more_at_once_than_it_trains_on(
    validated, discs, monkeypatch, batch, microbatch, processes, at_once
):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", str(processes))
    config = with_training(validated, batch_size=batch, microbatch=microbatch)
    assert Validator(config, discs).sampling.batch_size == at_once


def test_it_can_be_abandoned_at_every_network_evaluation(validated, discs):
    calls = []

    def abandon():
        calls.append(1)
        return len(calls) == 2

    with pytest.raises(Abandoned):
        Validator(validated, discs)(Trainer(validated).state, abandon)
    assert len(calls) == 2


@pytest.mark.parametrize(("channels", "classes"), [(3, 1), (1, 1), (4, 2)])
def test_a_panel_shows_the_image_with_outlines_and_the_probability(channels, classes):
    image = np.full((channels, 32, 32), 0.5, np.float32)
    truth, probability = (np.zeros((classes, 32, 32), np.float32) for _ in range(2))
    truth[-1, 8:20, 8:20] = 1
    probability[-1, 10:24, 10:24] = 0.75
    panel = _panel(image, probability, truth)
    assert panel.shape == (128, 2 * 128 + 4, 3)
    assert panel.dtype == np.uint8
    assert (panel[60, 132 + 60] == 191).all()
    assert (panel[10, 132 + 10] == 0).all()
    left = panel[:, :128].reshape(-1, 3).astype(int)
    assert (left.max(axis=1) - left.min(axis=1)).max() > 100  # coloured outlines on grey


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_panels_are_laid_out_about_square_and_none_is_lost(count):
    panels = [np.full((128, 260, 3), index + 1, np.uint8) for index in range(count)]
    picture = _grid(panels)
    assert set(np.unique(picture)) - {255} == set(range(1, count + 1))
    if count > 2:
        assert 0.5 < picture.shape[1] / picture.shape[0] < 2.5


def test_the_picture_is_written_under_its_step(tmp_path):
    write_picture(Ledger(tmp_path, "train"), 12, np.zeros((4, 6, 3), np.uint8))
    assert Image.open(tmp_path / "samples" / "step-000012.png").size == (6, 4)


def test_weights_that_predict_what_is_not_finite_have_no_dice(validated, discs):
    state = Trainer(validated).state
    broken = {**state, "out.2.bias": state["out.2.bias"] + float("nan")}
    with pytest.raises(InputError, match=r"^disc-0: what the network predicts is not finite"):
        Validator(validated, discs)(broken)


def test_it_is_computed_in_the_precision_of_the_training(validated, discs, precisions_seen):
    validated = with_training(validated, precision="bf16")
    trainer = Trainer(validated)
    precisions_seen.clear()
    Validator(validated, discs)(trainer.smoothed())
    assert set(precisions_seen) == {"bf16"}
