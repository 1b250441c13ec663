import pytest
from PIL import Image

from medsegdiff.base.errors import InputError
from medsegdiff.data.cases import from_files


def save(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4)).save(path)
    return path


def ids(*paths):
    return [case.id for case in from_files(paths)]


def test_pictures_of_every_suffix_but_no_superpixels(tmp_path):
    for name in ("b.PNG", "a.TIF", "c copy (1).v2.webp", "d_superpixels.png", "e.txt"):
        (tmp_path / name).touch()
    assert ids(tmp_path) == ["a", "b", "c copy (1).v2"]
    assert ids(tmp_path / "d_superpixels.png") == ["d_superpixels"]  # who names it means it


def test_the_same_name_in_two_folders_is_two_cases(tmp_path):
    one, two = save(tmp_path / "p1/001.png"), save(tmp_path / "p2/001.png")
    other = save(tmp_path / "p2/002.png")
    assert ids(one, two) == ["p1_001", "p2_001"]
    assert ids(one.parent, two.parent) == ids(tmp_path) == ["p1_001", "p2_001", "002"]
    assert ids(other, one) == ["002", "001"]
    deep = [save(tmp_path / name / "left/001.png") for name in ("q1", "q2")]
    assert ids(*deep, one) == ["q1_left_001", "q2_left_001", "p1_001"]


@pytest.mark.parametrize(
    ("images", "left"),
    [
        (("a.png", "x/b.png"), "x"),
        (("x/a.png", "y/z/b.png"), "y/z"),
        (("a.png", "x/y/z/b.png"), "x/y/z"),
        (("a.png",), ""),
    ],
)
def test_images_in_deeper_folders_are_said(tmp_path, capsys, images, left):
    for name in images:
        save(tmp_path / name)
    assert ids(tmp_path) == ["a"]
    said = f"{tmp_path / left}: holds further images, which are not included with those of {tmp_path}; give it, too"
    assert capsys.readouterr().err == (f"note: {said}\n" if left else "")


def test_the_same_name_with_two_suffixes_is_two_cases(tmp_path):
    save(tmp_path / "a/x.png")
    save(tmp_path / "a/x.jpg")
    save(tmp_path / "b/x.png")
    assert ids(tmp_path / "a") == ["x_jpg", "x_png"]
    assert ids(tmp_path / "b", tmp_path / "a") == ["x", "x_jpg", "x_png"]


def test_an_image_given_twice_and_names_that_nothing_tells_apart_are_refused(tmp_path):
    one = save(tmp_path / "a/x.png")
    with pytest.raises(InputError, match="id x occurs twice"):
        from_files([one, one])
    with pytest.raises(InputError, match="id a_y occurs twice"):
        from_files([save(tmp_path / "a/y.png"), save(tmp_path / "b/y.png"), save(tmp_path / "c/a_y.png")])


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such file or folder"):
        from_files([tmp_path / "absent"])
    with pytest.raises(InputError, match="holds no image"):
        from_files([tmp_path])
