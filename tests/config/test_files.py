from importlib import resources

import pytest
import yaml

from medsegdiff.app.cli import main
from medsegdiff.base.errors import InputError
from medsegdiff.config.files import find_config, names
from medsegdiff.config.run import RunConfig


def test_what_comes_with_the_package_is_found_in_it():
    folder = resources.files("medsegdiff") / "configs"
    assert {f"{name}.yaml" for name in names()} == {file.name for file in folder.iterdir()} > {"isic.yaml"}
    for name in names():
        options = yaml.safe_load(find_config(name).read_text())
        assert options.items() <= RunConfig.from_flat(options).flat().items()


@pytest.mark.parametrize("name", ["isic-small", "isic-small.yaml", "configs/isic-small.yaml"])
def test_a_name_is_one_that_comes_with_the_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "isic-small").mkdir()  # as a user's data may be called
    assert yaml.safe_load(find_config(name).read_text())["num_channels"] == 32


def test_the_user_s_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "isic.yaml").write_text("steps: 7\n")
    assert find_config("isic.yaml").read_text() == "steps: 7\n"
    assert find_config("isic").read_text() != "steps: 7\n"


def test_what_is_there_but_no_file_is_left_to_the_reader(tmp_path):
    assert find_config(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("isic-smal", "did you mean isic-small?"),
        ("nothing", "give a YAML file, or one of isic, isic-published, isic-small"),
        ("else/isic.yaml", "else/isic.yaml: no such file of options"),
        ("isic.txt", "isic.txt: no such file of options"),
        ("x" * 5000, "no such file of options"),
        ("~nobody-here/a.yaml", "~nobody-here/a.yaml: no such file of options"),
    ],
)
def test_an_unknown_name_is_one_line(name, said):
    with pytest.raises(InputError) as caught:
        find_config(name)
    assert said in str(caught.value)


def test_train_takes_a_name_and_the_command_line_overrides_it(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--config", "isic-small", "--lr", "0.5", "--print-config"])
    options = yaml.safe_load(capsys.readouterr().out)
    assert (options["num_channels"], options["predict_xstart"], options["lr"]) == (32, True, 0.5)
    assert main(["train", "--config", "isic-smal"]) == 2
    assert "did you mean isic-small?" in capsys.readouterr().err
