"""Our weights as files for others: safetensors, PyTorch's `.pt`, ONNX; each with a model card."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from medsegdiff.base.errors import InputError
from medsegdiff.base.files import writing
from medsegdiff.base.ownership import Ledger
from medsegdiff.checkpoints.card import card_of, describe, markdown
from medsegdiff.checkpoints.finite import broken
from medsegdiff.checkpoints.foreign import fit
from medsegdiff.checkpoints.weights import Weights
from medsegdiff.config.run import RunConfig

PREPROCESSING = "preprocessing.json"
_WRITER = "convert"
# PyTorch itself writes its format, in a process of its own: this package never imports it.
_SAVE = "import sys, torch\nfrom safetensors.torch import load_file\ntorch.save(load_file(sys.argv[1]), sys.argv[2])"


def export(weights: Weights, out: Path, kind: str, precision: str = "fp32", notes: Sequence[str] = ()) -> list[Path]:
    """Write `weights` to the file `out`, or of kind "onnx" into the folder `out`; returns what was written.

    Args:
        weights: what to write
        out: earlier files of the same names are replaced if they were written so, too
        kind: "safetensors", "pt" or "onnx"
        precision: "fp32", or, of the numbers stored in a safetensors file and of an ONNX network's products, "fp16"
        notes: what the model card is to say besides

    Raises:
        InputError: the weights do not fit their network, something else is in the way, the disk refuses, or what the
            kind needs is not installed.
    """
    arrays, adapted = fit(weights.arrays, weights.config.network, weights.source)
    weights, notes = weights._replace(arrays=arrays, config=_portable(weights.config)), [*notes, *adapted]
    folder = out if kind == "onnx" else out.parent
    ledger = Ledger(folder, _WRITER)
    card = folder / "card.json" if kind == "onnx" else card_of(out)
    text = card.with_suffix(".md")
    with ledger.together(card.name) as stage, writing(out):
        if kind == "onnx":
            files = _write_onnx(weights, stage, precision)
        else:
            files = [stage / out.name]
            _write_safetensors(weights, stage / f"{out.stem}.safetensors", precision)
            if kind == "pt":
                _write_pt(stage / f"{out.stem}.safetensors", files[0])
        described = describe(weights, files, notes)
        (stage / card.name).write_text(json.dumps(described, indent=1), encoding="utf-8")
        (stage / text.name).write_text(markdown(described, card.name), encoding="utf-8")
        names = [file.name for file in files]
    return [folder / name for name in [*names, card.name, text.name]]


def _portable(config: RunConfig) -> RunConfig:
    """The configuration without the paths of the machine that trained."""
    paths = ("data_dir", "cache_dir", "out_dir", "split", "resume_checkpoint")
    return RunConfig.from_flat({name: value for name, value in config.flat().items() if name not in paths})


def _write_safetensors(weights: Weights, path: Path, precision: str) -> None:
    metadata = {"format": "pt", "config": json.dumps(weights.config.flat())}  # pt: as PyTorch lays numbers out
    kind = np.float16 if precision == "fp16" else np.float32
    arrays = {name: array.astype(kind) for name, array in weights.arrays.items()}
    if found := broken(arrays):
        raise InputError(f"{path.name}: not written: as fp16, {found}; leave out `precision`")
    path.write_bytes(save(arrays, metadata))  # not save_file, which lets nobody else read it


def _write_pt(source: Path, path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SAVE, str(source), str(path)], capture_output=True, text=True, check=False
    )
    source.unlink()
    if done.returncode:
        line = done.stderr.strip().splitlines()[-1:] or ["it does not run"]
        raise InputError(
            f"{path.name}: PyTorch, which writes its own format, refuses ({line[0][:100]}); install it "
            "(pip install torch), or write a .safetensors file, which PyTorch reads, too"
        )


def _write_onnx(weights: Weights, folder: Path, precision: str) -> list[Path]:
    try:
        import onnx
    except ImportError:
        raise InputError("onnx is not installed; install it: pip install 'medsegdiff-jittor[onnx]'") from None

    from medsegdiff.checkpoints.graph.onnx import graphs

    files = []
    for name, model in graphs(weights.config.network, weights.arrays, precision == "fp16").items():
        files.append(folder / f"{name}.onnx")
        onnx.save(model, files[-1])
        onnx.checker.check_model(files[-1], full_check=True)
    files.append(folder / PREPROCESSING)
    files[-1].write_text(json.dumps(preprocessing(weights.config), indent=1), encoding="utf-8")
    return files


def preprocessing(config: RunConfig) -> dict[str, Any]:
    """What a program without this package must know to sample masks."""
    network, diffusion = config.network, config.diffusion
    return {
        "image": {
            "channels": network.image_channels,
            "size": [network.image_size, network.image_size],
            "resize": "bilinear with antialiasing, as Pillow's BILINEAR",
            "scaling": config.data.scaling or "8-bit",  # that is: divided by 255
            "layout": "N, C, H, W; float32 in [0, 1]; red, green, blue of photos",
        },
        "mask": {
            "channels": network.mask_channels,
            "sampled": "standard normal noise at first; in the end 0 outside and 1 inside, to be clipped to [0, 1]",
        },
        "diffusion": {
            "alphas_cumprod": np.asarray(diffusion.schedule.alphas_cumprod).tolist(),
            "time_scale": 1000 / diffusion.diffusion_steps if diffusion.rescale_timesteps else 1.0,
            "target": diffusion.target,
        },
        "config": config.flat(),
    }
