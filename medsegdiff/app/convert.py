"""`medsegdiff convert`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Literal

from medsegdiff.app.options import Parser, add_section, add_weights
from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import tell
from medsegdiff.config.network import NetworkConfig
from medsegdiff.diffusion.process import DiffusionConfig

SUMMARY = "convert weights: .pt, .pkl or ours, to safetensors, .pt or ONNX"

_KINDS = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt"}
# What no weights tell; the rest of a network's options is seen in them.
_NETWORK = (
    *("image_size", "num_heads", "num_head_channels", "num_heads_upsample", "use_new_attention_order"),
    *("ssformer_heads", "attention_norm"),
)
_DIFFUSION = (
    *("diffusion_steps", "noise_schedule", "mask_scale"),
    *("predict_xstart", "predict_v", "sigma_small", "rescale_timesteps"),
)


def configure(parser: Parser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "input",
        type=str,
        metavar="IN",
        help="a .pt, .pth, .ckpt or .pkl file of a published network; or a run's folder, a checkpoint, a .safetensors "
        "file",
    )
    text = "a .safetensors or .pt file, or with --to onnx a folder"
    parser.add_argument("output", type=str, metavar="OUT", help=text)
    text = "what to write; by default as OUT's suffix says"
    parser.option("--to", "", text, Literal["", "safetensors", "pt", "onnx"])
    add_weights(parser)
    text = "number format of a .safetensors file, or of an ONNX network's products"
    parser.option("--precision", "fp32", text, Literal["fp32", "fp16"])
    text = "options that a .pt or .pkl file was trained with, as for train: a YAML file, or isic-published"
    parser.option("--trained-as", "", text, metavar="FILE")
    for section, title, names in ((NetworkConfig, "network", _NETWORK), (DiffusionConfig, "diffusion", _DIFFUSION)):
        fields = [f.name for f in dataclasses.fields(section)]
        nothing = dict.fromkeys(names)
        add_section(parser, section, f"or single options: {title}", [n for n in fields if n not in names], **nothing)
    parser.put_first("--to", "--weights", "--precision", "--trained-as")


def run(options: Any) -> int:
    """Run the command; returns the exit code."""
    from medsegdiff.checkpoints.export import export
    from medsegdiff.checkpoints.load import load_any

    if not options.input:
        raise InputError('IN "": is empty; give a file or a folder, or . for the working directory')
    out = Path(options.output)
    kind = options.to or _KINDS.get(out.suffix, "")
    if not options.output or not kind:
        raise InputError(
            f"{options.output}: must end in .safetensors or .pt; for a folder of ONNX files give --to onnx"
        )
    if kind != "onnx" and _KINDS.get(out.suffix) != kind:
        raise InputError(f"{out}: a file of --to {kind} must end in .{kind}")
    if options.precision != "fp32" and kind == "pt":
        raise InputError(f"--precision {options.precision}: is for .safetensors and ONNX; .pt files are float32")
    if os.path.lexists(out) and os.path.realpath(out) == os.path.realpath(options.input):
        raise InputError(f"{out}: is what is to be converted, and would be lost; give another OUT")
    given = {name: value for name in (*_NETWORK, *_DIFFUSION) if (value := getattr(options, name)) is not None}
    weights, notes = load_any(Path(options.input), options.weights, options.trained_as, given)
    written = export(weights, out, kind, options.precision, notes)
    tell("\n".join(map(str, written)), files=written)
    return 0
