import shutil

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.web.runs import read_runs
from tests.web.conftest import predict, train


def test_predictions_bring_the_training_that_their_weights_come_from(training, predictions):
    [run] = read_runs([predictions])
    assert (run.name, run.training, run.predictions) == ("run", training, predictions)
    assert run.curves["val_dice"] == [(20, 0.25), (30, 0.75)]
    assert run.scores["case<0>"]["dice"] == 1
    assert (run.config["image_size"], run.sampled["seconds"]) == (32, 8)
    assert not any("predictions" in line or "training" in line for line in run.missing)


def test_both_named_or_the_folder_above_them_are_the_same_run(training, predictions):
    assert read_runs([training, predictions]) == read_runs([predictions]) == read_runs([predictions, predictions])
    assert read_runs([training.parent]) == read_runs([predictions])


def test_scores_that_lie_elsewhere_know_their_predictions(training, predictions, tmp_path):
    elsewhere = tmp_path / "scores"
    elsewhere.mkdir()
    for name in ("metrics.json", "metrics.csv"):
        (predictions / name).rename(elsewhere / name)
    [run] = read_runs([elsewhere])
    assert (run.training, run.predictions, len(run.scores)) == (training, predictions, 8)


def test_a_copy_or_a_moved_folder_is_looked_at_itself(training, predictions):
    copy = predictions.with_name("copy")
    shutil.copytree(predictions, copy)
    assert [run.predictions for run in read_runs([copy])] == [copy]
    (copy / "run.json").unlink()
    shutil.rmtree(predictions)
    assert [run.predictions for run in read_runs([copy])] == [copy]


def test_one_folder_with_all_of_it_is_one_run(training, predictions):
    for name in ("metrics.json", "metrics.csv"):
        (predictions / name).rename(training / name)
    [run] = read_runs([training])
    assert run.training == training
    assert run.curves and run.scores and run.origin


def test_what_is_not_there_is_said(tmp_path, training):
    [alone] = read_runs([training])
    assert any(line.startswith("predictions: none named") for line in alone.missing)
    unscored = predict(tmp_path / "p", tmp_path / "moved" / "step-000001" / "model.safetensors", scored=False)
    [run] = read_runs([unscored])
    assert f"scores: run medsegdiff evaluate --pred-path {unscored}" in run.missing
    assert any(line.startswith("the training: neither named nor") for line in run.missing)
    for path in unscored.glob("*_std.png"):
        path.unlink()
    assert "uncertainty: run medsegdiff sample with --maps" in read_runs([unscored])[0].missing
    train(tmp_path / "bare", dice=("", "", ""))
    [bare] = read_runs([tmp_path / "bare"])
    assert any(line.startswith("validation") for line in bare.missing)


def test_names_tell_runs_apart(tmp_path):
    for name in ("a/run", "b/run", "c"):
        train(tmp_path / name)
    runs = read_runs([tmp_path / name for name in ("a/run", "b/run", "c")])
    assert [run.name for run in runs] == ["a/run", "b/run", "c"]


def test_time_between_runs_does_not_count(training):
    [run] = read_runs([training])
    assert run.seconds_per_step == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.json", "{", "run.json: is not JSON"),
        ("run.json", "[" * 100_000, "run.json: is not JSON"),
        ("config.yaml", "a: [", "config.yaml: is no file of options"),
        ("log.csv", b"\xff\n", "log.csv: not UTF-8"),
        ("log.csv", "step,loss\n10,high\n", "log.csv: is not what train writes .*high"),
        ("log.csv", f"step,loss\n10,{'1' * 200_000}\n", "log.csv: is not what train writes"),
        ("events.jsonl", "[]}\n", "events.jsonl: is not what train writes"),
        ("events.jsonl", "[" * 100_000 + "}\n", "events.jsonl: is not what train writes"),
    ],
)
def test_damaged_files_are_named(training, name, text, message):
    (training / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message):
        read_runs([training])


def test_folders_without_runs_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no training and no predictions"):
        read_runs([tmp_path])
    with pytest.raises(InputError, match="no such folder"):
        read_runs([tmp_path / "nothing"])
