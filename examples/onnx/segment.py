"""Segment photos with NumPy, Pillow and ONNX Runtime alone, in the files of `medsegdiff convert RUN DIR --to onnx`.

python segment.py DIR photo.jpg mask.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

MEMBERS, STEPS = 5, 10


def run(session, values):
    """All outputs of a graph, by name."""
    names = [given.name for given in session.get_outputs()]
    return dict(zip(names, session.run(None, {given.name: values[given.name] for given in session.get_inputs()})))


def sample(folder, image, seed=0):
    """The mean of `MEMBERS` masks (M, S, S), in [0, 1], of an image (C, S, S) in [0, 1]."""
    told = json.loads((folder / "preprocessing.json").read_text())
    encode, denoise = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        for name in ("encode", "denoise")
    )
    condition = run(encode, {"image": image[None]})
    condition = {name: np.repeat(value, MEMBERS, axis=0) for name, value in condition.items()}
    kept = np.array(told["diffusion"]["alphas_cumprod"])
    steps = np.linspace(len(kept) - 1, 0, STEPS).round().astype(int)
    shape = (MEMBERS, told["mask"]["channels"], *told["image"]["size"])
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    for step, following in zip(steps, [*steps[1:], None]):  # DDIM (Song et al. 2021), without noise between
        t = np.float32([step * told["diffusion"]["time_scale"]])
        target = run(denoise, {"mask": x, "t": t, **condition})["target"]
        a = np.float32(kept[step])
        predicted = {"clean mask": target, "noise": (x - np.sqrt(1 - a) * target) / np.sqrt(a)}
        predicted["v"] = np.sqrt(a) * x - np.sqrt(1 - a) * target
        x0 = np.clip(predicted[told["diffusion"]["target"]], -1, 1)
        noise, b = (x - np.sqrt(a) * x0) / np.sqrt(1 - a), np.float32(1 if following is None else kept[following])
        x = np.sqrt(b) * x0 + np.sqrt(1 - b) * noise
    return np.clip(x, 0, 1).mean(axis=0)


def main(folder, photo, out):
    picture = Image.open(photo).convert("RGB")
    size = json.loads((Path(folder) / "preprocessing.json").read_text())["image"]["size"]
    small = np.asarray(picture.resize(size, Image.Resampling.BILINEAR), np.float32) / 255
    mask = sample(Path(folder), np.ascontiguousarray(small.transpose(2, 0, 1)))[0]
    large = Image.fromarray(mask).resize(picture.size, Image.Resampling.BILINEAR)
    Image.fromarray(np.uint8(255) * (np.asarray(large) > 0.5)).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
