import random

import pytest

from benchmarks.gpu import pieces


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "home" / "jit").mkdir(parents=True)
    (tmp_path / "home" / "jit" / "kernel.so").write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / "home" / "jit" / "kernel.log").write_bytes(b"not wanted")
    (tmp_path / "home" / "link.so").symlink_to("jit/kernel.so")
    return tmp_path / "home"


def test_what_was_packed_is_unpacked_but_for_logs(folder, tmp_path):
    count, size = pieces.pack(folder, tmp_path / "out", piece=2000)
    assert count == 3
    assert size == sum(path.stat().st_size for path in pieces.found(tmp_path / "out"))
    assert pieces.unpack(tmp_path / "out", tmp_path / "new") == 2
    assert (tmp_path / "new" / "link.so").read_bytes() == (folder / "jit" / "kernel.so").read_bytes()
    assert not (tmp_path / "new" / "jit" / "kernel.log").exists()


def test_more_than_comes_back_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match="more than 2 pieces"):
        pieces.pack(folder, tmp_path / "out", piece=2000, most=2)
    assert not list(pieces.found(tmp_path / "out"))


def test_without_pieces_nothing_is_unpacked(tmp_path):
    assert pieces.unpack(tmp_path, tmp_path / "new") == 0
    assert not (tmp_path / "new").exists()
