"""Downloads from a server on this machine that does what servers do on bad days."""

import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nibabel
import numpy as np
import pytest
from PIL import Image

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.data import download as module
from medsegdiff.data.download import DATASETS, Dataset, download
from medsegdiff.data.layouts import LAYOUTS, choose
from medsegdiff.data.layouts.isic import find

FOLDERS = [f"ISBI2016_ISIC_Part1_{split}_{kind}" for split in ("Training", "Test") for kind in ("Data", "GroundTruth")]


class Handler(BaseHTTPRequestHandler):
    """Serves `server.files`; `server.misbehave(handler, content)` may answer in its stead."""

    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if self.server.misbehave and self.server.misbehave(self, content):
            return
        if content is None:
            self.send_error(404)
            return
        self.part(content)

    def part(self, content, length=None, stop=None, honour=True):
        """Answer what is asked of `content`; `length` and `stop` are what is said and sent."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and honour else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) if length is None else length - start))
        self.end_headers()
        self.wfile.write(body[:stop])
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.asked, server.misbehave = {}, [], None
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def archive_of(folder, count=3):
    """A zip file of a challenge: noise as images, or masks, in a top folder."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for index in range(count):
            picture = io.BytesIO()
            if folder.endswith("Data"):
                Image.effect_noise((64, 48), 80).convert("RGB").save(picture, "JPEG")
                name = f"ISIC_{index:07d}.jpg"
            else:
                Image.new("L", (64, 48), 255 * (index % 2)).save(picture, "PNG")
                name = f"ISIC_{index:07d}_Segmentation.png"
            archive.writestr(f"{folder}/{name}", picture.getvalue())
    return out.getvalue()


@pytest.fixture
def isic(server, monkeypatch):
    """ISIC 2016 in small on the server."""
    archives = {}
    for folder in FOLDERS:
        content = archive_of(folder)
        server.files[f"/2016/{folder}.zip"] = content
        archives[f"2016/{folder}.zip"] = f"sha256:{hashlib.sha256(content).hexdigest()}"
    monkeypatch.setitem(DATASETS, "isic2016", Dataset("http://nowhere.invalid", archives))
    return server


@pytest.fixture
def single(server, monkeypatch):
    """A dataset of one archive."""
    content = archive_of(FOLDERS[0], 40)
    server.files[f"/{FOLDERS[0]}.zip"] = content
    checksum = f"md5:{hashlib.md5(content).hexdigest()}"
    monkeypatch.setitem(DATASETS, "isic2016", Dataset(server.url, {f"{FOLDERS[0]}.zip": checksum}))
    return server


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".medsegdiff.jsonl")


def test_what_is_fetched_is_read_as_a_dataset(isic, tmp_path, capsys):
    words = ["data", "download", "isic2016", "--out-dir", str(tmp_path / "isic"), "--base-url", isic.url + "/"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [f"{tmp_path / 'isic' / folder}: complete" for folder in FOLDERS]
    for split in ("train", "test"):
        cases = find(tmp_path / "isic", split)
        assert [case.id for case in cases] == ["ISIC_0000000", "ISIC_0000001", "ISIC_0000002"]
        assert all(case.mask.is_file() for case in cases)
    assert visible(tmp_path / "isic") == sorted(FOLDERS)
    source = json.loads((tmp_path / "isic" / FOLDERS[0] / "source.json").read_text())
    content = isic.files[f"/2016/{FOLDERS[0]}.zip"]
    assert source == {
        "url": f"{isic.url}/2016/{FOLDERS[0]}.zip",
        "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
        "bytes": len(content),
        "files": 3,
    }


def test_the_same_command_again_fetches_what_has_gone_only(isic, tmp_path):
    download("isic2016", tmp_path, isic.url)
    isic.asked.clear()
    download("isic2016", tmp_path, isic.url)
    assert isic.asked == []
    (tmp_path / FOLDERS[1] / "ISIC_0000001_Segmentation.png").unlink()
    download("isic2016", tmp_path, isic.url)
    assert isic.asked == [(f"/2016/{FOLDERS[1]}.zip", None)]
    assert (tmp_path / FOLDERS[1] / "ISIC_0000001_Segmentation.png").is_file()


def test_files_of_others_stay(isic, tmp_path):
    mine = tmp_path / FOLDERS[0] / "ISIC_0000001.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"ISIC_0000001.jpg: not written by data download"):
        download("isic2016", tmp_path, isic.url)
    assert mine.read_bytes() == b"mine"
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


def test_a_connection_that_breaks_off_is_continued(single, tmp_path):
    length = len(single.files[f"/{FOLDERS[0]}.zip"])

    def misbehave(handler, content):
        handler.part(content, stop=length // 3)
        return True

    single.misbehave = misbehave
    download("isic2016", tmp_path)
    starts = [int(asked[6:-1]) for _, asked in single.asked if asked]
    assert len(starts) >= 2
    assert 0 < starts[0] < starts[1] < length
    assert len(list((tmp_path / FOLDERS[0]).glob("*.jpg"))) == 40


def test_a_server_that_cannot_continue_starts_anew(single, tmp_path):
    answers = []

    def misbehave(handler, content):
        answers.append(handler.headers.get("Range"))
        handler.part(content, stop=20_000 if len(answers) == 1 else None, honour=False)
        return True

    single.misbehave = misbehave
    download("isic2016", tmp_path)
    assert answers[0] is None
    assert re.fullmatch(r"bytes=1\d{4}-", answers[1])


def test_what_an_earlier_command_fetched_is_continued(single, tmp_path):
    single.misbehave = lambda handler, content: (
        not handler.part(content, stop=20_000) if len(single.asked) == 1 else (not handler.send_error(503))
    )
    with pytest.raises(InputError, match=r"cannot be downloaded \(503 .*what has arrived is kept"):
        download("isic2016", tmp_path)
    assert visible(tmp_path) == [f".{FOLDERS[0]}.zip.part"]
    single.misbehave = None
    single.asked.clear()
    download("isic2016", tmp_path)
    assert len(single.asked) == 1
    assert re.fullmatch(r"bytes=1\d{4}-", single.asked[0][1])
    assert visible(tmp_path) == [FOLDERS[0]]


def test_a_server_that_is_busy_is_asked_again(single, tmp_path):
    single.misbehave = lambda handler, _: len(single.asked) < 4 and not handler.send_error(503)
    download("isic2016", tmp_path)
    assert len(single.asked) == 4


@pytest.mark.parametrize("code", [403, 404, 500])
def test_a_server_that_refuses_is_one_line_and_leaves_nothing(code, single, tmp_path, capsys):
    single.misbehave = lambda handler, _: not handler.send_error(code)
    assert main(["data", "download", "isic2016", "--out-dir", str(tmp_path)]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert str(code) in said[0]
    assert "mirror" in said[0]
    assert visible(tmp_path) == []
    assert len(single.asked) == (5 if code == 500 else 1)


def test_a_length_that_is_too_short_is_found_out(single, tmp_path):
    single.misbehave = lambda handler, content: len(single.asked) == 1 and not handler.part(content, length=2000)
    download("isic2016", tmp_path)
    assert [asked for _, asked in single.asked] == [None, "bytes=2000-"]


def test_a_length_that_is_too_long_is_found_out(single, tmp_path):
    single.misbehave = lambda handler, content: (
        not handler.headers.get("Range") and not handler.part(content, length=len(content) + 5000)
    )
    download("isic2016", tmp_path)
    assert len(single.asked) == 2  # the second: nothing follows
    assert visible(tmp_path) == [FOLDERS[0]]


@pytest.mark.parametrize("honour", [True, False])
def test_another_file_is_refused_and_removed(honour, single, tmp_path):
    single.files[f"/{FOLDERS[0]}.zip"] = b"<html>Please log in</html>" * 100
    single.misbehave = lambda handler, content: not handler.part(content, honour=honour)
    with pytest.raises(InputError, match=r"its md5 is [0-9a-f]{32}, not [0-9a-f]{32}: damaged, or another file"):
        download("isic2016", tmp_path)
    assert visible(tmp_path) == []


def test_no_server_at_all_is_one_line(server, tmp_path, monkeypatch, capsys):
    server.shutdown()
    server.server_close()
    words = ["data", "download", "isic2016", "--out-dir", str(tmp_path), "--base-url", server.url]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: http.*Training_Data.zip: cannot be downloaded \(ConnectionError\); check .*\n", said)
    assert visible(tmp_path) == []


def test_an_archive_that_leads_out_leaves_nothing(server, tmp_path, monkeypatch):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/a.jpg", b"a")
        archive.writestr("x/../../../evil", b"evil")
    server.files["/x.zip"] = content.getvalue()
    checksum = f"md5:{hashlib.md5(content.getvalue()).hexdigest()}"
    monkeypatch.setitem(DATASETS, "isic2016", Dataset(server.url, {"x.zip": checksum}))
    with pytest.raises(InputError, match="leads out of the folder"):
        download("isic2016", tmp_path / "deep" / "out")
    assert visible(tmp_path) == ["deep"]
    assert visible(tmp_path / "deep") == ["out"]
    assert not any(path.is_dir() for path in (tmp_path / "deep" / "out").iterdir())


def test_bad_options_are_refused(tmp_path, capsys):
    for words, said in (
        (["isic2016"], "--out-dir: missing"),
        (["isic2016", "--out-dir", str(tmp_path), "--base-url", "file:///etc"], "must begin with https"),
        (["isic1816", "--out-dir", str(tmp_path)], "isic1816"),
    ):
        assert main(["data", "download", *words]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_archives_have_the_names_that_are_read(tmp_path):
    for name in ("isic2016", "isic2017", "isic2018"):
        for path, checksum in DATASETS[name].archives.items():
            assert re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", checksum)
            (tmp_path / name / path.rpartition("/")[2][: -len(".zip")]).mkdir(parents=True)
        for split in ("train", "test"):  # a pair of folders is found for each, here without pictures
            with pytest.raises(InputError, match=r"no \.jpg or \.png image in this folder"):
                find(tmp_path / name, split)


def test_the_decathlons_task_is_read_as_volumes(server, tmp_path, monkeypatch):
    packed = tmp_path / "Task04_Hippocampus.tar"
    with tarfile.open(packed, "w") as archive:
        for number in range(2):
            for folder in ("imagesTr", "labelsTr"):
                path = tmp_path / f"{folder}{number}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(np.full((4, 5, 6), number, np.uint8), np.eye(4)), path)
                archive.add(path, f"Task04_Hippocampus/{folder}/hippocampus_{number}.nii.gz")
            archive.add(path, f"Task04_Hippocampus/imagesTr/._hippocampus_{number}.nii.gz")  # as macOS adds
        (tmp_path / "dataset.json").write_text(
            '{"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "front"}}'
        )
        archive.add(tmp_path / "dataset.json", "Task04_Hippocampus/dataset.json")
    server.files["/Task04_Hippocampus.tar"] = packed.read_bytes()
    checksum = f"md5:{hashlib.md5(packed.read_bytes()).hexdigest()}"
    monkeypatch.setitem(DATASETS, "msd-hippocampus", Dataset(server.url, {"Task04_Hippocampus.tar": checksum}))
    (folder,) = download("msd-hippocampus", tmp_path / "out")
    assert folder == tmp_path / "out/Task04_Hippocampus"
    assert choose(folder) == "volume"
    assert [case.id for case in LAYOUTS["volume"].find(folder, "train")] == ["hippocampus_0", "hippocampus_1"]
