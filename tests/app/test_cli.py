from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from medsegdiff import __version__
from medsegdiff.app.cli import COMMANDS, main, report
from medsegdiff.app.data import ACTIONS
from medsegdiff.base import machine
from medsegdiff.base.errors import InputError
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig


def fails_in_one_line(capsys, *words) -> str:
    """Run a command that must fail for bad input; returns what it says."""
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    return said.err


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"medsegdiff {__version__}\n"


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), (["-h"], 0), (["help"], 0), ([], 2)])
def test_overview_names_every_command(words, code, capsys):
    assert main(words) == code
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "128 + N stopped by signal N\n(130: Ctrl-C)." in text
    assert max(map(len, text.splitlines())) <= 80


# argparse ends the process after printing help, so main does not return here.
@pytest.mark.parametrize("command", [*COMMANDS, *(f"data {action}" for action in ACTIONS)])
def test_help_of_every_command(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: medsegdiff {command}" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("words", [["sample"], ["data", "phantom"]])
def test_help_is_a_command_too(words, capsys):
    texts = []
    for line in ([*words, "--help"], ["help", *words]):
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert ended.value.code == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert texts[0].startswith(f"usage: medsegdiff {' '.join(words)} [options]\n")


def test_the_help_lists_choices_and_the_usual_options_first(capsys):
    with pytest.raises(SystemExit):
        main(["help", "sample"])
    text = capsys.readouterr().out
    for choices in ("{ddpm,ddim,dpm++,sde-dpm++}", "{mean,vote,staple,published}", "{fp32,bf16,fp16}", "{ema,model}"):
        assert choices in text
    first = text[text.index("usual options:") : text.index("sampling:")]
    assert [word for word in first.split() if word.startswith("--")] == [
        "--model-path",
        "--images",
        "--data-dir",
        "--out-dir",
        "--members",
    ]


@pytest.mark.parametrize(
    ("command", "sections", "without"),
    [
        ("train", (DataConfig, TrainingConfig, NetworkConfig, DiffusionConfig), set()),
        ("sample", (SamplingConfig,), set()),
    ],
)
def test_help_mentions_every_field(command, sections, without, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    words = capsys.readouterr().out.split()
    for section in sections:
        for field in dataclasses.fields(section):
            if field.name not in without:
                assert f"--{field.name.replace('_', '-')}" in words


def test_help_waits_for_nothing_heavy():
    code = f"""
import contextlib, io, sys
from medsegdiff.app.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    for command in {COMMANDS!r}:
        with contextlib.suppress(SystemExit):
            main([command, "--help"])
heavy = {{"jittor", "jittor_utils", "matplotlib", "tensorboardX"}} & sys.modules.keys()
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_imports_nothing_before_ctrl_c_is_looked_after():
    code = "import sys; before = {*sys.modules}; import medsegdiff; print({*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "{'medsegdiff'}\n"


def test_module_and_command_are_one():
    done = subprocess.run(
        [sys.executable, "-m", "medsegdiff", "sample", "--colour", "red"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["segment"], "train, sample"),
        (["trian"], "did you mean train?"),
        (["help", "evalute"], "did you mean evaluate?"),
        (["sample", "--membres", "3"], "--membres: no such option; did you mean --members?"),
        (["data", "phantom", "--siez", "3"], "did you mean --size? (see medsegdiff data phantom --help)"),
        (
            ["data", "prepere"],
            "prepere: must be one of phantom, download, check, prepare, cache (see",
        ),
        (["data", "download", "isic"], "error: NAME isic: must be one of isic2016, "),
        (["data", "download"], "error: NAME: missing (see"),
        (["train", "--lr", "nan"], "error: --lr: must be a number, not nan (see"),
        (["report"], "error: RUN: missing (see medsegdiff report --help)"),
        (["convert"], "error: IN, OUT: missing (see"),
        (["train", "--colour", "red"], "--colour"),
        (["train", "--steps", "many"], "steps"),
        (["sample", "--steps", "x"], "error: --steps: must be a whole number, not x (see"),
        (["train", "--image-size", "65"], "--image-size 65"),
        (["train", "--config", "none.yaml"], "none.yaml"),
        (["train"], "--data-dir"),
        (["train", "--data-dir", "/no/such/folder"], "/no/such/folder"),
        (["demo", "--out-dir", ""], '--out-dir "": is empty'),
        (["sample"], "--images"),
        (["sample", "--sampler", "guess"], "--sampler guess"),
        (["evaluate"], "--pred-path"),
        (["evaluate", "--pred-path", "x"], "--gt-path"),
    ],
)
def test_bad_input_is_one_line(words, named, capsys):
    assert named in fails_in_one_line(capsys, *words)


def test_a_name_of_two_lines_is_said_in_one(capsys):
    assert main(["report", "a\nb"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [["--debug", "segment"], ["train", "--debug", "--steps", "many"]])
def test_debug_shows_where(words, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "InputError" in said


def raising(error):
    def command():
        raise error

    return command


def test_exit_code_of_a_command_is_passed_on():
    assert [report(lambda code=code: code) for code in (0, 1, 130)] == [0, 1, 130]


def test_interruption(capsys):
    assert report(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image-size", "100"], "--image-size 100: must be divisible by 32; the nearest is 96"),
        (["--config", "FILE"], "FILE: image_size 100: must be divisible by 32; the nearest is 96"),
        (["--config", "FILE", "--image_size", "90"], "--image-size 90: must be divisible by 32; the nearest is 96"),
        (["--config", "FILE", "--image_size", "64", "--eta", "1"], "--eta: no such option"),
    ],
)
def test_options_are_named_as_they_were_given(tmp_path, capsys, words, said):
    file = tmp_path / "options.yaml"
    file.write_text("image_size: 100\n")
    words = [str(file) if word == "FILE" else word for word in words]
    assert main(["train", "--data-dir", str(tmp_path), *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said.replace('FILE', str(file))}")


def test_the_unexpected_is_one_line_too(capsys):
    assert report(raising(ValueError("two\nlines"))) == 2
    assert capsys.readouterr().err == "error: unexpected ValueError: two lines (--debug shows where)\n"
    assert report(raising(InputError("a file: is bad")), debug=True) == 2
    assert "Traceback" in capsys.readouterr().err


def test_work_for_one_process_is_not_done_by_several(monkeypatch, capsys):
    from medsegdiff.base import ranks

    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "fail", lambda code, complaint: print(complaint) or code)
    for command in COMMANDS:
        if command not in ("train", "sample"):
            assert main([command]) == 2
            assert capsys.readouterr().out.startswith(f"error: {command}: runs in one process")


def test_on_another_system_commands_that_need_no_jittor_run(monkeypatch, capsys):
    monkeypatch.setattr(machine.platform, "system", lambda: "Windows")
    assert main(["help"]) == 0
    capsys.readouterr()
    assert "none.pt: no such file" in fails_in_one_line(capsys, "convert", "none.pt", "out.safetensors")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/a/file"),
            "error: /a/file: cannot be written: no space left",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            "error: standard output or a file: cannot be written: the file",
        ),
        (
            shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
            "error: no space left on the disk; free",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "aaa"),
            "error: aaa: the name is too long; choose a shorter",
        ),
        (
            OSError(errno.ELOOP, "Too many levels of symbolic links", "aaa"),
            "error: aaa: a link that leads back to itself; remove",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file or directory"),
            "error: the working directory: is not there, or",
        ),
        (RuntimeError("g++: fatal error: error writing to -: No space left on device"), "error: no space left on the"),
    ],
)
def test_a_full_disk_is_told_as_such(capsys, error, said):
    assert report(raising(error)) == 2
    err = capsys.readouterr().err
    assert err.startswith(said)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [["convert", "a.pt", "x.safetensors"], ["sample", "--images", "a.png"], ["demo"], ["report", "."]],
)
def test_a_working_directory_that_was_removed_is_told_before_any_work(tmp_path, monkeypatch, capsys, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert fails_in_one_line(capsys, *words) == (
        "error: the working directory was removed; change to another, and repeat the command\n"
    )


@pytest.mark.parametrize("error", [ImportError("no"), SystemExit(1), InputError("half a file")])
def test_what_a_library_makes_of_ctrl_c_is_ctrl_c(capsys, error):
    def command():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    assert report(command) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_request_to_end_is_heard(capsys):
    assert report(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "stopped\n"


def test_a_script_gets_one_json_object_alone(tmp_path, capsys):
    words = ["data", "phantom", "--out-dir", str(tmp_path / "isic"), "--train", "1", "--test", "1"]
    assert main([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"out_dir": str(tmp_path / "isic"), "train": 1, "test": 1}
    assert said.err.startswith("wrote 1 training and 1 test images")
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["data", "cache", "--clear", "--cache-dir", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"removed_bytes": 0, "folder": str(tmp_path)}
    assert main(["data", "phantom", "--quiet", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: --out-dir: missing")
