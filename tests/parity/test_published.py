"""Each published configuration: a `.pt` file as PyTorch writes it, converted, computes what the original does.

Where no numbers of the original are stored, those of its twin serve, which is held to the original by those that are.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch, which writes the files, is not installed")

from benchmarks.torch_network import TorchMedSegDiff, load_parity_weights  # noqa: E402
from medsegdiff.app.cli import main  # noqa: E402
from medsegdiff.checkpoints.foreign import fit  # noqa: E402
from medsegdiff.checkpoints.weights import load_weights  # noqa: E402
from medsegdiff.nn.versions import build_network  # noqa: E402
from medsegdiff.nn.weights import load  # noqa: E402
from medsegdiff.parity import cases, replay  # noqa: E402

FOLDER = Path(__file__).parent / "cases"
pytestmark = [pytest.mark.parity, pytest.mark.extended]


def case_of(version, size, twin):
    """The stored case, or one with its twin's numbers."""
    path = FOLDER / f"forward-{version}-{size}.npz"
    if path.exists():
        return cases.load(path)
    meta = cases.load(FOLDER / "forward-v1-256.npz").meta
    meta = {**meta, "config": {**meta["config"], "image_size": size, "version": version.lstrip("v")}}
    case = cases.Case(path.stem, "forward", meta, {"t": np.array([42])})
    x_t = cases.normal(f"{case.name}:x_t", case.mask_shape)
    with torch.no_grad():
        found = twin(*map(torch.from_numpy, (case.image(), x_t, case.arrays["t"].astype(np.float32))))
    out = torch.cat([found.target, found.variance], dim=1).numpy()
    return dataclasses.replace(case, arrays={**case.arrays, "out": out, "cal": found.cal.numpy()})


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("version", ["new", "v1"])
def test_a_converted_file_computes_what_the_original_does(monkeypatch, tmp_path, version, size):
    stored = cases.load(FOLDER / "forward-v1-256.npz").network
    twin = TorchMedSegDiff(dataclasses.replace(stored, image_size=size, version=version)).eval()
    load_parity_weights(twin)
    published, ours = tmp_path / "published.pt", tmp_path / "ours.safetensors"
    torch.save({f"module.{name}": value for name, value in twin.state_dict().items()}, published)
    words = ["--trained-as", "isic-published", "--image-size", str(size)]
    assert main(["convert", str(published), str(ours), *words]) == 0
    case = case_of(version, size, twin)
    del twin
    loaded = load_weights(ours)
    assert loaded.config.network.version == version
    assert loaded.config.network.level_widths == case.network.level_widths
    network = build_network(loaded.config.network)
    load(network, fit(loaded.arrays, loaded.config.network, loaded.source)[0], loaded.source)
    monkeypatch.setattr(replay, "build", lambda case: network)
    rows = replay.forward(case)
    print(*rows, sep="\n")
    assert len(rows) == 2 + ("names" in case.arrays)
    assert all(row.passed for row in rows), rows
