import pytest

from benchmarks.records import Records, Scores, Setting
from medsegdiff.base.errors import InputError


def test_rows_are_kept_in_the_file_and_found_again(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    records = Records(path, ("model", "steps", "dice"))
    records.add(dice="0.5", model="a", steps=2)
    records.add(dice="0.25", model="b", steps=2)
    assert path.read_text().split() == ["model,steps,dice", "a,2,0.5", "b,2,0.25"]
    again = Records(path, ("model", "steps", "dice"))
    assert again.rows == records.rows
    assert [row["dice"] for row in again.find(steps=2)] == ["0.5", "0.25"]
    assert [row["dice"] for row in again.find(steps=2, model="b")] == ["0.25"]
    assert again.find(steps=3) == []


@pytest.mark.parametrize("text", ["", "sampler,steps,id,dice\n", "model,dice,steps\n"])
def test_a_file_with_other_columns_is_refused(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=r"rows\.csv: its columns are not model,steps,dice"):
        Records(tmp_path / "rows.csv", ("model", "steps", "dice"))


def test_scores_are_those_of_the_setting_and_of_all_its_images(tmp_path):
    scores = Scores(tmp_path / "scores.csv")
    setting = Setting("a", members=1, images=2)
    for wanted in (setting, setting._replace(model="b"), setting._replace(members=2), setting._replace(images=1)):
        for name in ("x", "y"):
            scores.records.add(**wanted._asdict(), sampler="ddpm", steps=5, id=name, dice=len(scores.records.rows) / 10)
    scores.records.add(**setting._asdict(), sampler="ddpm", steps=8, id="x", dice=0.9)  # cut short
    assert scores.read(setting) == {("ddpm", 5): {"x": 0.0, "y": 0.1}}
    assert scores.read(setting._replace(members=2)) == {("ddpm", 5): {"x": 0.4, "y": 0.5}}
