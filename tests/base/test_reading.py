import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.base.reading import note, read_json, read_text, read_yaml, reading


def refusal(function, path):
    with pytest.raises(InputError) as caught:
        function(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def opened(path):
    with reading(path) as file:
        return file.read()


@pytest.mark.parametrize("function", [opened, read_text, read_yaml])
def test_only_regular_files_are_read_and_nothing_hangs(tmp_path, function):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "empty").touch()
    for name, words in {
        "pipe": "a pipe, where a file was expected",
        "/dev/zero": "a device, where a file was expected",
        "": "a folder, where a file was expected",
        "absent": "no such file",
        "loop": "cannot be opened",
        "n" * 300: "cannot be opened",
        "empty": "the file is empty",
        "a\0b": "cannot be a file's name",
    }.items():
        assert words in refusal(function, tmp_path / name)
    (tmp_path / "good").write_bytes(b"\xef\xbb\xbfa: 1")
    assert function(tmp_path / "good") in (b"\xef\xbb\xbfa: 1", "a: 1", {"a": 1})


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_stays_open(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    before = open_files()
    for path in [tmp_path / "pipe", tmp_path, tmp_path / "absent"] * 5:
        refusal(opened, path)
    assert open_files() == before


def test_text_that_is_not_utf8_or_too_large_is_refused(tmp_path):
    (tmp_path / "a").write_bytes("é".encode("latin-1"))
    assert "not UTF-8" in refusal(read_text, tmp_path / "a")
    with (tmp_path / "b").open("wb") as file:
        file.truncate(1 << 33)
    assert "larger than 64 MB" in refusal(read_text, tmp_path / "b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "line 2: an alias (*a)"),
        ("[" * 10**5, "nested deeper than 20 levels"),
        ("a: " * 30, "is no file of options"),
        ("a: [", "is no file of options"),
        ("a: !!python/object/apply:os.getcwd []", "is no file of options"),
        pytest.param(
            "a: " + "9" * 10**5,
            "is no file of options",
            marks=pytest.mark.skipif(not hasattr(sys, "get_int_max_str_digits"), reason="Python 3.9.2 reads it"),
        ),
        ("a: \x07", "is no file of options"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_at_once(tmp_path, text, words):
    (tmp_path / "a.yaml").write_text(text)
    assert words in refusal(read_yaml, tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "words"), [("{", "is not JSON"), ("[" * 10**5, "is not JSON"), (b"\xff", "not UTF-8")]
)
def test_json_that_is_none_is_refused(tmp_path, text, words):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert words in refusal(read_json, tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert read_json(tmp_path / "a.json") == {"a": [1]}


def test_numbers_are_those_of_the_command_line(tmp_path):
    told = {"1e-4": 1e-4, "2.5E3": 2500, "-1e+2": -100, "1e4x": "1e4x", "16": 16, "010": "010", ".5": 0.5, "5.": 5}
    told |= {"1:30": "1:30", "1_000": "1_000", "2020-01-01": "2020-01-01", "0x1F": "0x1F", "-.inf": -math.inf, "": None}
    (tmp_path / "a.yaml").write_text("".join(f"- {text}\n" for text in told))
    assert read_yaml(tmp_path / "a.yaml") == list(told.values())


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 1\n", "{x: {a: 1, 'a': 2}}", "a: 1\n<<: {a: 2}\n"])
def test_a_name_that_is_given_twice_is_named(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    assert "a is given twice" in refusal(read_yaml, tmp_path / "a.yaml")


def test_notes_name_the_first_files_of_each_kind_once(capsys):
    for _ in range(2):
        for index in range(9):
            note(f"notes/{index}.png", "is odd")
    note("notes/0.png", "is even")
    said = capsys.readouterr().err.splitlines()
    assert said[:4] == [f"note: notes/{index}.png: is odd" for index in range(4)]
    assert said[4:] == [
        "note: notes/4.png: is odd (further files of this kind are not named)",
        "note: notes/0.png: is even",
    ]


def test_a_name_that_the_locale_hides_is_not_blamed(tmp_path):
    code = "import os, sys; from pathlib import Path; from medsegdiff.base.reading import check_name\n"
    code += "try: check_name(Path(os.listdir(sys.argv[1])[0]))\nexcept Exception as error: print(error)"
    (tmp_path / "\u00e4.png").touch()
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert "its name cannot be read by this locale; set LC_ALL=C.UTF-8" in done.stdout
