import io
import stat
import tarfile
import zipfile

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.data.archives import unpack


@pytest.fixture
def zipped(tmp_path):
    """A function that writes members, by name, into a zip file."""

    def write(members):
        path = tmp_path / "a.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
        return path

    return write


@pytest.fixture
def tarred(tmp_path):
    def write(members):
        path = tmp_path / "a.tar"
        with tarfile.open(path, "w") as archive:
            for name, content in members:
                info = tarfile.TarInfo(name)
                if isinstance(content, bytes):
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
                else:
                    info.type, info.linkname = content
                    archive.addfile(info)
        return path

    return write


@pytest.fixture
def into(tmp_path):
    folder = tmp_path / "outer" / "into"
    folder.mkdir(parents=True)
    yield folder
    assert [path.name for path in folder.parent.iterdir()] == ["into"]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MEMBERS = [("top/a.txt", b"a"), ("top/sub/b.txt", b"bb"), ("top/._a.txt", b"x"), ("__MACOSX/top/._a.txt", b"x")]


@pytest.mark.parametrize("kind", ["zipped", "tarred"])
def test_a_top_folder_and_hidden_files_are_left_out(kind, into, request):
    assert unpack(request.getfixturevalue(kind)(MEMBERS), into) == 2
    assert files(into) == {"a.txt": b"a", "sub/b.txt": b"bb"}


def test_without_a_top_folder_all_stays_where_it_is(zipped, into):
    assert unpack(zipped([("a.txt", b"a"), ("sub/b.txt", b"bb")]), into) == 2
    assert files(into) == {"a.txt": b"a", "sub/b.txt": b"bb"}


@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/tmp/evil", "..\\evil"])
@pytest.mark.parametrize("kind", ["zipped", "tarred"])
def test_a_name_that_leads_out_is_refused(kind, name, into, request):
    archive = request.getfixturevalue(kind)([("top/a.txt", b"a"), (name, b"evil")])
    with pytest.raises(InputError, match="leads out of the folder"):
        unpack(archive, into)
    assert files(into) == {}


def test_a_link_in_a_zip_is_refused(tmp_path, into):
    link = zipfile.ZipInfo("top/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'top/link' is a link"):
        unpack(tmp_path / "a.zip", into)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_device_in_a_tar_is_refused(kind, tarred, into):
    with pytest.raises(InputError, match="'top/x' is a link or a device"):
        unpack(tarred([("top/a", b"a"), ("top/x", (kind, "/etc/passwd"))]), into)
    assert files(into) == {}


def test_a_bomb_is_refused_before_it_is_unpacked(zipped, into):
    archive = zipped([("zeros", bytes(1 << 26))])
    with pytest.raises(InputError, match=r"1 files of 64 MB in an archive of \d+ KB"):
        unpack(archive, into)
    assert files(into) == {}


def test_a_size_that_lies_does_not_unpack_more(zipped, into):
    archive = zipped([("zeros", bytes(1 << 26))])
    # the sizes in the local header and in the directory
    archive.write_bytes(archive.read_bytes().replace((1 << 26).to_bytes(4, "little"), (64).to_bytes(4, "little")))
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, into)
    assert sum(map(len, files(into).values())) <= 64


def test_two_members_of_one_name_are_refused(tarred, into):
    with pytest.raises(InputError, match="comes twice"):
        unpack(tarred([("a", b"a"), ("./a", b"b")]), into)


@pytest.mark.parametrize("kind", ["zipped", "tarred"])
def test_an_archive_that_is_cut_off_or_none_is_refused(kind, into, request, tmp_path):
    archive = request.getfixturevalue(kind)([("a", bytes(range(256)) * 100), ("b", b"b")])
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 3])
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, into)
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, into)


def test_a_flipped_byte_is_found(zipped, into):
    archive = zipped([("a.jpg", bytes(range(256)) * 100)])
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, into)


def test_an_empty_archive_is_refused(zipped, into):
    with pytest.raises(InputError, match="holds no file"):
        unpack(zipped([]), into)
