from __future__ import annotations

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.io import folders


def test_each_folder_is_found_once_though_links_lead_back(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        for other in "xyz":
            (tmp_path / name / other).symlink_to("..")
    assert list(folders.folders_below(tmp_path)) == [tmp_path, *(tmp_path / name for name in "abc")]
    assert list(folders.folders_below(tmp_path / "none")) == []


def test_too_many_folders_are_no_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MOST_FOLDERS", 3)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(InputError, match="holds more than 3 folders; give the one that holds the dataset"):
        list(folders.folders_below(tmp_path))


def test_a_glance_sees_the_nearest_folders_and_ends_wherever_it_begins(tmp_path, monkeypatch):
    (tmp_path / "a/b/c/d/e/f/g").mkdir(parents=True)
    (tmp_path / "h/again").mkdir(parents=True)
    (tmp_path / "h/again/back").symlink_to("../..")
    names = ["/".join(path.relative_to(tmp_path).parts) for path in folders.glance(tmp_path)]
    assert names[:5] == ["", "a", "h", "a/b", "h/again"]
    assert "a/b/c/d/e" in names and "a/b/c/d/e/f" not in names
    monkeypatch.setattr(folders, "GLANCED", 3)
    assert len(list(folders.glance(tmp_path))) == 3  # two entries, one, and one too many
    assert list(folders.glance(tmp_path / "none")) == []


def test_a_glance_passes_over_what_is_forbidden(tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / name).mkdir()
    listing = folders.list_folder

    def forbidden(folder):
        if folder.name == "a":
            raise InputError("permission denied")
        return listing(folder)

    monkeypatch.setattr(folders, "list_folder", forbidden)
    assert list(folders.glance(tmp_path)) == [tmp_path, tmp_path / "b"]
