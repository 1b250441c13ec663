import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.io.ensembles import ImageRow, read_ensembles, write_ensembles


def test_the_table_of_ensembles_is_read_as_it_was_written(tmp_path):
    assert read_ensembles(tmp_path) == {}
    ensembles = {"a": ImageRow(5, 2, 0.25), "b": ImageRow(1, 0, None), "c,d": ImageRow(3, 3, 1.0)}
    write_ensembles(tmp_path, ensembles)
    assert read_ensembles(tmp_path) == ensembles


@pytest.mark.parametrize(
    "text",
    [
        "",
        "id,members,agreement\na,5,1\n",
        "id,members,agreement\n",
        "i,members,empty,agreement\n",
        "id,members,empty,agreement\na,x,0,0.5\n",
        "id,members,empty,agreement\na,5\n",
        "id,members,empty,agreement\na,5,6,0.5\n",
        "id,members,empty,agreement\na,5,-1,0.5\n",
    ],
)
def test_another_table_is_refused(tmp_path, text):
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(InputError, match=r"images\.csv: is not the table of id, members, empty, agreement"):
        read_ensembles(tmp_path)


@pytest.mark.parametrize("agreement", ["nan", "1.5", "-0.1", "high"])
def test_an_agreement_is_from_0_to_1(tmp_path, agreement):
    (tmp_path / "images.csv").write_text(f"id,members,empty,agreement\na,5,0,{agreement}\n")
    with pytest.raises(InputError, match=r"images\.csv"):
        read_ensembles(tmp_path)
