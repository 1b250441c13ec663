"""The options of a network, as far as the names and shapes of its weights tell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

Shapes = Mapping[str, tuple[int, ...]]


def recognise(shapes: Shapes, image_size: Optional[int] = None, usual_size: Optional[int] = None) -> dict[str, Any]:
    """Options of `NetworkConfig` by name; `image_size` is among them for version "v1" only, unless it is given.

    `usual_size` is the image size of all networks whose weights do not tell it.

    Raises:
        KeyError: these are not the weights of a network of ours; the name that it lacks.
        IndexError, ValueError, ZeroDivisionError: they are not, as their shapes tell.
    """
    width, inputs = shapes["input_blocks.0.0.weight"][:2]
    masks = shapes["hwm.seg_outputs.0.weight"][0]
    levels, blocks = _levels(shapes)
    found: dict[str, Any] = {
        "num_channels": width,
        "image_channels": shapes["hwm.conv_blocks_context.0.blocks.0.conv.weight"][1],
        "num_classes": masks + 1,
        "num_res_blocks": blocks,
        "channel_mult": ",".join(str(level // width) for level in levels),
        "learn_sigma": shapes["out.2.weight"][0] == 2 * masks,
        "use_scale_shift_norm": shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * levels[0],
        "resblock_updown": len(levels) > 1 and f"input_blocks.{blocks + 1}.0.op.weight" not in shapes,
        "class_cond": "label_emb.weight" in shapes,
        "version": "new",
    }
    if found["class_cond"]:
        found["num_label_classes"] = shapes["label_emb.weight"][0]
    if "hwm.ffparser.0.complex_weight" in shapes:
        found["version"] = "v1"
        image_size = image_size or 2 * shapes["hwm.ffparser.0.complex_weight"][1]
    if "anchors.0.mean" in shapes:
        found.update(version="v2", image_input=inputs > masks, **_spectrum(shapes))
    image_size = image_size or usual_size
    if image_size is not None:
        found["image_size"] = image_size
        stages = [1 + level * (blocks + 1) for level in range(len(levels))]
        attended = [level for level, stage in enumerate(stages) if f"input_blocks.{stage}.1.qkv.weight" in shapes]
        found["attention_resolutions"] = ",".join(str(image_size // 2**level) for level in attended)
    return found


def _levels(shapes: Shapes) -> tuple[list[int], int]:
    """The width of each level from full resolution down, and the residual blocks a level."""
    count = 0
    while f"output_blocks.{count}.0.out_layers.3.weight" in shapes:
        count += 1
    widths = [shapes[f"output_blocks.{stage}.0.out_layers.3.weight"][0] for stage in range(count)]
    ends = [stage for stage in range(count) if _upsamples(shapes, f"output_blocks.{stage}")]
    blocks = ends[0] if ends else count - 1  # a level has one more on the way up, at whose end it upsamples
    return widths[:: -(blocks + 1)], blocks


def _spectrum(shapes: Shapes) -> dict[str, Any]:
    """Options of version "v2"."""
    found: dict[str, Any] = {"anchor_levels": 2 if "anchors.1.mean" in shapes else 1, "ssformer": "none"}
    block, count = "ssformer.blocks.{}.noise", 0
    while f"{block.format(count)}.query.weight" in shapes:
        count += 1
    if count:
        weighted, width = shapes[f"{block.format(0)}.query.weight"][:2]
        found.update(ssformer="spectrum" if weighted == 2 * width else "cross", ssformer_blocks=count)
    if found["ssformer"] == "spectrum":
        found["spectrum"] = "nbp" if f"{block.format(0)}.filter.out.weight" in shapes else "sine"
    return found


def _upsamples(shapes: Shapes, stage: str) -> bool:
    layers = (f"{stage}.{layer}.{part}.weight" for layer in (1, 2) for part in ("conv", "in_layers.2"))
    return any(name in shapes for name in layers)
