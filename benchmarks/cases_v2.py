"""Write the stored cases of version v2: what the same network in PyTorch computes in float64, from inputs by name.

python -m benchmarks.cases_v2 [--out-dir tests/parity/cases]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gradients import step_of, torch_loss
from benchmarks.torch_network import COUNTER, load_parity_weights, set_dropout
from benchmarks.torch_v2 import twin
from medsegdiff.base.files import replacing
from medsegdiff.config.network import NetworkConfig
from medsegdiff.parity.cases import Case, normal, stream

WIDTH, STEPS = 64, 5
# In the first, everything as it is by default; in the others what is chosen otherwise.
FORWARD: dict[str, dict[str, Any]] = {
    "forward-v2-64": {"image_size": 64},
    "forward-v2-128": {"image_size": 128},
    "forward-v2-64-options": {
        "image_size": 64,
        "image_input": False,
        "anchor_levels": 2,
        "spectrum": "sine",
        "attention_norm": "softmax",
        "ssformer_blocks": 2,
    },
}
TRAIN: dict[str, dict[str, Any]] = {"train-v2-64": {"image_size": 64}}


def main(argv: Sequence[str] | None = None) -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out-dir", type=Path, default=Path("tests/parity/cases"))
    parser.add_argument("--cases", nargs="+", default=[*FORWARD, *TRAIN], choices=[*FORWARD, *TRAIN])
    given = parser.parse_args(argv)
    for kind, cases, compute in (("forward", FORWARD, forward), ("train", TRAIN, train)):
        for name in cases.keys() & set(given.cases):
            case = empty(name, kind, cases[name])
            arrays = {**case.arrays, **compute(case)}
            with replacing(given.out_dir / f"{name}.npz") as beside, beside.open("wb") as file:
                np.savez_compressed(file, meta=json.dumps(case.meta), **arrays)


def empty(name: str, kind: str, options: dict[str, Any]) -> Case:
    """A case with its inputs only."""
    network = dataclasses.asdict(NetworkConfig(num_channels=WIDTH, version="v2", **options))
    config = {**network, "in_ch": network.pop("image_channels") + 1, "diffusion_steps": 100, "timestep_respacing": ""}
    batch = 1 if options["image_size"] > 64 else 2
    meta: dict[str, Any] = {"kind": kind, "config": config, "batch": batch}
    shape: Any = batch
    if kind == "train":
        meta.update(lr=1e-4, weight_decay=0.0, steps=STEPS)
        shape = (STEPS, batch)
    t = stream(f"{name}:t").integers(0, 100, shape)
    t[..., 0] -= t[..., 0] % 5  # or the conditioning network's own loss would count for none
    return Case(name, kind, meta, {"t": t})


def network_of(case: Case) -> Any:
    """The network in PyTorch, float64, with the weights of every case."""
    network = twin(case.network).double()
    load_parity_weights(network)
    set_dropout(network, 0.0)
    return network


def forward(case: Case) -> dict[str, np.ndarray]:
    """One call of the network in evaluation mode."""
    network = network_of(case).eval()
    x_t = torch.from_numpy(normal(f"{case.name}:x_t", case.mask_shape)).double()
    with torch.no_grad():
        prediction = network(torch.from_numpy(case.image()).double(), x_t, torch.from_numpy(case.arrays["t"]))
    state = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    return {
        "out": torch.cat([prediction.target, prediction.variance], dim=1).float().numpy(),
        "cal": prediction.cal.float().numpy(),
        "names": np.array(list(state)),
        "shapes": np.array([json.dumps(list(value.shape)) for value in state.values()]),
    }


def train(case: Case) -> dict[str, np.ndarray]:
    """A few steps of AdamW on generated ellipses, with every gradient of the first."""
    network = network_of(case).train()
    optimiser = torch.optim.AdamW(network.parameters(), case.meta["lr"], weight_decay=case.meta["weight_decay"])
    rows: dict[str, list[Any]] = {name: [] for name in ("loss_diff", "vb", "loss_cal", "loss", "total")}
    found: dict[str, Any] = {}
    for step in range(case.meta["steps"]):
        losses = torch_loss(case)(*step_of(case, network, torch.float64, step))
        optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
        values = losses.diff, losses.vb, losses.cal, losses.diffusion, losses.total()
        for name, value in zip(rows, values):
            rows[name].append(value.detach().numpy())
        if step == 0:
            gradients = {name: value.grad.numpy() for name, value in network.named_parameters()}
            found["grad_names"] = np.array(list(gradients))
            found["grad_norm"] = np.array([np.linalg.norm(value) for value in gradients.values()])
            found["grad_probe"] = np.array(
                [(value * normal(f"probe:{name}", value.shape)).sum() for name, value in gradients.items()]
            )
        optimiser.step()
    found["param_norm_after"] = np.array([value.detach().norm().item() for value in network.parameters()])
    buffers = {name: value for name, value in network.named_buffers() if not name.endswith(COUNTER)}
    found["buffer_names"] = np.array(list(buffers))
    found["buffer_norm_after"] = np.array([value.norm().item() for value in buffers.values()])
    return {**{name: np.array(values) for name, values in rows.items()}, **found}


if __name__ == "__main__":
    main()
