from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal, Optional, get_args, get_origin, get_type_hints

import pytest
import yaml

from medsegdiff.app import sample as app_sample
from medsegdiff.app import train as app_train
from medsegdiff.app.options import Parser, add_section, helps, output_folder, respelled
from medsegdiff.base.errors import InputError
from medsegdiff.config.data import DataConfig
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.config.training import TrainingConfig
from medsegdiff.diffusion.process import DiffusionConfig

SECTIONS = (DataConfig, TrainingConfig, NetworkConfig, DiffusionConfig, SamplingConfig)


@dataclass(frozen=True)
class Section:
    """A section.

    Args:
        image_size: side of the image,
            in pixels
        rate: a rate
        learn_sigma: predict the variance
        cache_dir: a folder
        schedule: a curve
    """

    image_size: int = 64
    rate: float = 1e-4
    learn_sigma: bool = True
    cache_dir: Optional[str] = None
    schedule: Literal["", "linear", "cosine"] = ""


def parse(*words):
    parser = Parser(prog="medsegdiff test")
    parser.add_argument("--config", action="config")
    add_section(parser, Section, "section")
    return parser.parse_args(list(words))


def test_defaults_are_the_dataclass_s():
    options = vars(parse())
    assert {name: options[name] for name in dataclasses.asdict(Section())} == dataclasses.asdict(Section())


@pytest.mark.parametrize("words", [("--image-size", "32"), ("--image_size", "32"), ("--image_size=32",)])
def test_dashes_and_underscores_are_alike(words):
    assert parse(*words).image_size == 32


def test_what_is_no_folder_is_no_place_to_write_to(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("loop", "dangling", "file"):
        with pytest.raises(InputError, match=f"{name}: a file, or a link .* is in the way; give another out_dir"):
            output_folder(str(tmp_path / name))
    for name in ("new", "link"):
        assert output_folder(str(tmp_path / name)) == tmp_path / name


def test_a_value_may_begin_with_a_minus():
    parser = Parser(prog="medsegdiff train")
    app_train.configure(parser)
    options = parser.parse_args(["--scaling", "-160..240", "--num-head-channels", "-1", "--lr", "-.5"])
    assert (options.scaling, options.num_head_channels, options.lr) == ("-160..240", -1, -0.5)


def test_values_keep_their_underscores():
    words = respelled(["--out_dir", "my_run", "--cache_dir=a_b", "x_y"], "_", "-")
    assert words == ["--out-dir", "my_run", "--cache-dir=a_b", "x_y"]
    assert parse("--cache_dir=a_b").cache_dir == "a_b"


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (("--learn-sigma",), True),
        (("--learn_sigma", "True"), True),
        (("--learn_sigma", "False"), False),
        (("--learn-sigma=false",), False),
        (("--learn_sigma", "--rate", "1"), True),
    ],
)
def test_booleans_with_and_without_value(words, value):
    assert parse(*words).learn_sigma is value


def test_numbers_are_converted():
    assert parse("--rate", "3e-4").rate == pytest.approx(3e-4)


def test_command_line_overrides_the_file(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text(yaml.safe_dump({"image_size": 32, "learn_sigma": False}))
    for words in (
        ["--config", str(file), "--image-size", "96"],
        ["--image-size", "96", "--config", str(file)],
        ["--image-size=96", f"--config={file}"],
    ):
        assert parse(*words).image_size == 96
    options = parse("--config", str(file), "--image-size", "96")
    assert (options.image_size, options.learn_sigma, options.rate) == (96, False, 1e-4)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--colour", "red"), "colour"),
        (("--image-size", "large"), "image_size"),
        (("--learn-sigma", "perhaps"), "learn_sigma"),
        (("--image-size",), "image-size"),
        (("stray",), "stray"),
    ],
)
def test_complaints_are_one_line(words, named):
    with pytest.raises(InputError) as caught:
        parse(*words)
    message = str(caught.value)
    assert "\n" not in message
    assert named in message.replace(named.replace("_", "-"), named)
    assert "medsegdiff test --help" in message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image-siez", "64"], "--image-siez: no such option; did you mean --image-size?"),
        (["--image_siez=64"], "--image-siez: no such option; did you mean --image-size?"),
        (["--zzz"], "--zzz: no such option"),
        (["stray"], "stray: belongs to no option"),
        (["--image-size"], "--image-size: needs a value"),
        (["--schedule", "step"], "--schedule step: must be one of linear, cosine"),
        (["--image-size", "large"], "--image-size: must be a whole number, not large"),
    ],
)
def test_complaints_say_what_is_wrong_and_what_is_near(words, said):
    with pytest.raises(InputError) as caught:
        parse(*words)
    assert str(caught.value) == f"{said} (see medsegdiff test --help)"


def test_an_unknown_name_in_a_file_has_the_nearest_too(tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("image_siez: 64")
    with pytest.raises(InputError, match=r"options\.yaml: image_siez: no such option; did you mean image_size\?"):
        parse("--config", str(file))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--image-size", "large"], "--image-size: must be a whole number"),
        (["--config", "FILE"], "FILE: image_size: must be a whole number"),
        (["--config", "FILE", "--image-size", "larger"], "--image-size: must be a whole number"),
    ],
)
def test_a_bad_value_is_named_where_it_was_given(tmp_path, words, said):
    file = tmp_path / "options.yaml"
    file.write_text("image_size: large")
    with pytest.raises(InputError) as caught:
        parse(*(str(file) if word == "FILE" else word for word in words))
    assert str(caught.value).startswith(said.replace("FILE", str(file)))


def help_of(section, *first):
    parser = Parser(prog="medsegdiff test")
    parser.add_argument("--config", action="config", help="a file")
    add_section(parser, section, "section")
    parser.put_first(*first)
    return parser.format_help()


def test_the_help_has_no_types_and_only_defaults_that_say_something():
    text = help_of(Section)
    assert "type:" not in text
    assert "default: )" not in text
    assert "null" not in text
    assert "a rate (default: 0.0001)" in text
    assert "--schedule {linear,cosine}" in text
    assert "--image-size N" in text
    assert text.startswith("usage: medsegdiff test [options]\n")


def test_usual_options_come_first_and_once():
    text = help_of(Section, "--rate", "--config")
    places = [
        text.index(words) for words in ("usual options:", "--rate", "--config", "section:", "--image-size", "-h,")
    ]
    assert places == sorted(places)
    assert text.count("  --rate ") == text.count("  --config ") == 1


@pytest.mark.parametrize("section", SECTIONS)
def test_every_choice_is_a_type_so_that_the_help_lists_it(section):
    """Where a dataclass refuses a word that it does not know, its type names those that it does."""
    for name, kind in get_type_hints(section).items():
        if kind is str:
            try:
                section(**{name: "no-such-word"})
            except InputError as error:
                assert "must be one of" not in str(error), name
        elif get_origin(kind) is Literal:
            with pytest.raises(InputError):
                section(**{name: "no-such-word"})
            assert getattr(section(), name) in get_args(kind)


@pytest.mark.parametrize("text", ["colour: red", "image_size: large", "image_size: [", "- 1"])
def test_a_bad_file_is_one_line(text, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        parse("--config", str(file))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"none\.yaml"):
        parse("--config", str(tmp_path / "none.yaml"))


def test_skipped_fields_are_no_options():
    parser = Parser(prog="medsegdiff test")
    add_section(parser, Section, "section", skip=["rate"], image_size=128)
    assert parser.parse_args([]).image_size == 128
    with pytest.raises(InputError):
        parser.parse_args(["--rate", "1"])


def test_help_is_the_docstring_s():
    assert helps(Section)["image_size"] == "side of the image, in pixels"
    parser = Parser(prog="medsegdiff test")
    add_section(parser, Section, "section")
    assert "the image, in pixels" in " ".join(parser.format_help().split())


def test_an_option_that_the_help_names_is_a_flag():
    parser = Parser(prog="medsegdiff test")
    add_section(parser, NetworkConfig, "section")
    assert "overrides --num-heads unless" in " ".join(parser.format_help().split())


@pytest.mark.parametrize("section", SECTIONS)
def test_every_field_has_its_help(section):
    assert helps(section).keys() == {field.name for field in dataclasses.fields(section)}


@pytest.mark.parametrize("command", ["train", "sample"])
@pytest.mark.parametrize("option", ["--print-config", "--print_config"])
def test_the_configuration_is_printed_and_read_back(command, option, tmp_path, capsys):
    module = importlib.import_module(f"medsegdiff.app.{command}")
    parser = Parser(prog=f"medsegdiff {command}")
    module.configure(parser)
    assert "--print-config" in parser.format_help()
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--batch-size", "7", option])
    assert ended.value.code == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out)
    options = parser.parse_args(["--config", str(file)])
    assert options.batch_size == 7
    del options["config"]
    assert options.as_dict() == yaml.safe_load(file.read_text())


def test_a_saved_configuration_is_read_back(tmp_path):
    """What training writes as config.yaml can be given as --config."""
    from medsegdiff.app import train

    config = RunConfig(training=TrainingConfig(lr=3e-4), network=NetworkConfig(image_size=64, learn_sigma=False))
    values = config.flat()
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values))
    parser = Parser(prog="medsegdiff train")
    train.configure(parser)
    assert RunConfig.from_flat(vars(parser.parse_args(["--config", str(file)]))) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image_size: &a [1]\nrate: *a\n", "line 2: an alias"),
        ("image_size: " + "[" * 10**5, "nested deeper than"),
        ("- 1\n", "holds no options"),
        ("", "empty"),
        ("image_size: 64\nimage_size: 32\n", "image_size is given twice"),
        ("image_size: 64\nimage-size: 32\n", "image_size is given twice"),
        ("section:\n  image_size: 64\n", "section: no such option"),
        ("config: other.yaml\n", "config: no such option"),
        ("image_size: 64\nhelp: true\n", "help: no such option"),
    ],
)
def test_a_file_of_options_is_read_safely(tmp_path, text, words):
    path = tmp_path / "options.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"options\.yaml: .*{words}"):
        parse("--config", str(path))
    path.write_text("image_size: 32\nrate: 1e-3\n")
    assert (parse("--config", str(path)).image_size, parse("--config", str(path)).rate) == (32, 1e-3)


def test_a_pipe_is_no_file_of_options(tmp_path):
    os.mkfifo(tmp_path / "options.yaml")
    with pytest.raises(InputError, match=r"options\.yaml: a pipe"):
        parse("--config", str(tmp_path / "options.yaml"))


def parsed(configure, *words):
    parser = Parser(prog="medsegdiff x")
    configure(parser)
    return parser.parse_args(list(words))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("attention_resolutions: 16", 'attention_resolutions: must be text: in YAML write "16", with quotes'),
        ('data_dir: "a\\0b"', r"data_dir 'a\x00b': holds a NUL character; remove it"),
    ],
)
def test_what_yaml_makes_of_a_text_is_told(tmp_path, line, words):
    (tmp_path / "a.yaml").write_text(f"{line}\n")
    with pytest.raises(InputError, match=re.escape(words)):
        parsed(app_train.configure, "--config", str(tmp_path / "a.yaml"))


def test_a_tilde_is_the_home_folder_in_files_and_after_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a.yaml").write_text("model_path: ~/run\nimages: [~/a, b]\ntrace: [~/a]\n")
    options = parsed(
        app_sample.configure, "--config", str(tmp_path / "a.yaml"), "--data-dir=~/data", "--out-dir", "~me"
    )
    assert (options.model_path, options.data_dir, options.out_dir) == ("/home/me/run", "/home/me/data", "~me")
    assert (options.images, options.trace) == (["/home/me/a", "b"], ["~/a"])
    run = app_train.read_options(RunConfig(), {"data_dir": "~/data"})
    assert run.data.data_dir == "/home/me/data"


def test_a_list_that_is_given_twice_is_refused():
    with pytest.raises(InputError, match="images: given several times; give all after one: images A B"):
        parsed(app_sample.configure, "--images", "a", "--images=b")


def test_without_docstrings_the_options_are_there():
    """As under `python -OO`, which leaves them out."""
    command = [sys.executable, "-OO", "-m", "medsegdiff", "sample", "--images", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "error: none: no such file or folder")
