"""Writes the files beside it with PyTorch and Jittor: python tests/checkpoints/files/make.py"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
KINDS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}


def weights():
    values = torch.arange(-6.0, 6.0).reshape(3, 4) / 8
    state = OrderedDict((name, values.to(kind)) for name, kind in KINDS.items())
    state["turned"] = values.t()
    state["part"] = values[1:, 2]
    state["scalar"] = torch.tensor(2.5)
    state["empty"] = torch.zeros(0, 3)
    state["parameter"] = torch.nn.Parameter(values)
    return state


def main():
    state = weights()
    torch.save(state, HERE / "zip.pt")
    torch.save(state, HERE / "legacy.pt", _use_new_zipfile_serialization=False)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    wrapped = {f"module.{name}": value for name, value in state.items()}
    averaged = {f"module.{name}": value + 1 for name, value in state.items()}
    everything = {"epoch": 3, "optimizer": optimizer.state_dict(), "state_dict": wrapped, "ema": averaged, "lr": 0.1}
    torch.save(everything, HERE / "everything.pt")

    from medsegdiff.runtime.backend import jt

    values = (np.arange(-6, 6).reshape(3, 4) / 8).astype(np.float32)
    plain = {"float32": jt.array(values), "float16": jt.array(values).float16(), "note": "text", "step": 3}
    jt.save(plain, str(HERE / "jittor.pkl"))
    jt.save(plain, str(HERE / "jittor.pt"))


if __name__ == "__main__":
    main()
