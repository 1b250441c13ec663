import json

import numpy as np
import pytest

from medsegdiff.base.ownership import digest
from medsegdiff.checkpoints.graph.networks import shapes
from medsegdiff.checkpoints.load import load_any
from medsegdiff.checkpoints.shipped import DEFAULT, FOLDER, find_model, names


@pytest.mark.parametrize("name", names())
def test_a_network_of_the_package_fits_its_options_and_its_card(name):
    weights = load_any(FOLDER / f"{name}.safetensors").weights
    assert {key: array.shape for key, array in weights.arrays.items()} == shapes(weights.config.network)
    assert all(array.dtype == np.float32 for array in weights.arrays.values())
    assert (weights.config.data.data_dir, weights.config.data.cache_dir) == ("", None)
    file = find_model(name)
    assert file.stat().st_size < 16e6
    card = json.loads(file.with_name(f"{file.name}.card.json").read_text(encoding="utf-8"))
    assert card["files"] == {file.name: digest(file)}
    assert file.with_name(f"{file.name}.card.md").exists()


def test_the_default_is_there_and_a_training_of_its_name_comes_first(tmp_path, monkeypatch):
    assert DEFAULT in names()
    monkeypatch.chdir(tmp_path)
    assert find_model(DEFAULT).parent == FOLDER
    (tmp_path / DEFAULT / "Train").mkdir(parents=True)  # the dataset
    assert find_model(DEFAULT).parent == FOLDER
    (tmp_path / DEFAULT / "step-000001").mkdir()
    assert find_model(DEFAULT).resolve() == tmp_path / DEFAULT
    assert find_model("elsewhere").name == "elsewhere"
