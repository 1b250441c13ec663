"""A plain U-Net in PyTorch on the same images: what a network without diffusion achieves in the same processor time.

    python -m benchmarks.plain_unet --config RUN/config.yaml --minutes 60 --out-dir DIR [--data-dir DIR]
    medsegdiff evaluate --data-dir DIR --pred-path DIR/predictions

Images, split, size, batches and augmentation are those of the configuration, which a training wrote or which comes with
the package; what belongs to diffusion is passed over. The network is nnU-Net's plain one in two dimensions (Isensee et
al., Nature Methods 2021): two convolutions a level with instance norm and leaky ReLU, soft Dice and cross-entropy.
How long a step takes is measured first, so many steps as fit into the processor time are trained, of which the
learning rate depends, and the number is printed: `--steps` repeats exactly that training.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.base.files import make_folder
from medsegdiff.base.ownership import digest
from medsegdiff.base.screen import Bar
from medsegdiff.config.files import find_config
from medsegdiff.config.run import RunConfig
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.data.cache import prepare
from medsegdiff.data.layouts import find_test
from medsegdiff.data.loader import Batches
from medsegdiff.diffusion.process import DiffusionConfig, Output
from medsegdiff.inference.predict import predict
from medsegdiff.inference.segmenter import BatchSegmenter
from medsegdiff.training.images import find_images, open_images

_MEASURED = 20  # steps by which the time of a step is judged; the first few are warm-up
_LEVELS, _WIDEST = 5, 256
_LOGGED = 50  # steps


def main(argv: Sequence[str] | None = None) -> None:
    """Train, and segment the test images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="isic-small", help="options of a training, of which the data's are taken")
    parser.add_argument("--data-dir", default="", help="the dataset's folder, if not the configuration's")
    parser.add_argument("--out-dir", type=Path, default=Path("results/plain-unet"))
    parser.add_argument("--minutes", type=float, default=30, help="of processor time, that training may take")
    parser.add_argument("--steps", type=int, default=0, help="train so many instead")
    parser.add_argument("--width", type=int, default=32, help="channels of the first level")
    parser.add_argument("--lr", type=float, default=1e-3, help="of AdamW, falling linearly to 0")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32", help="bf16: by torch.autocast")
    options = parser.parse_args(argv)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    given = yaml.safe_load(find_config(options.config).read_text(encoding="utf-8"))
    where = {"data_dir": options.data_dir or given.get("data_dir", ""), "out_dir": str(options.out_dir / "run")}
    images = find_images(RunConfig.from_flat({**given, **where}))
    config, seed = images.config, images.config.training.seed
    dataset, _ = open_images(images)  # without those that the configuration validates with
    batches = Batches(dataset, config.training.batch_size, seed, config.data.augment, **config.data.variants)
    torch.manual_seed(seed)
    network = UNet(config.network.image_channels, config.network.num_classes, options.width)
    make_folder(options.out_dir)
    train(network, batches, options)
    torch.save(network.state_dict(), options.out_dir / "network.pt")

    test = find_test(Path(config.data.data_dir), config.data.data_name, images.split.test)
    bare = [dataclasses.replace(case, mask=None) for case in test]
    cache = Path(config.data.cache_dir) if config.data.cache_dir else None
    form = {"num_classes": config.network.num_classes, "spec": config.spec, "skip_blank": config.data.skip_blank}
    shown = prepare(bare, config.network.image_size, cache, config.data.mask_resize, **form)
    once = SamplingConfig(sampler="ddim", steps=1, members=1, postprocess=True)
    segmenter = BatchSegmenter(
        Segmenting(network, config.network.image_size), DiffusionConfig(predict_xstart=True), once
    )
    source, out = options.out_dir / "network.pt", options.out_dir / "predictions"
    predict(segmenter, test, shown, out, str(source), weights=digest(source), kept=images.split.test)


class UNet(nn.Module):
    """Logits (N, K, S, S) of images (N, C, S, S)."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        widths = [min(width << level, _WIDEST) for level in range(_LEVELS)]
        self.down = nn.ModuleList(
            _block(below, own, 2 if level else 1) for level, (below, own) in enumerate(zip([channels, *widths], widths))
        )
        steps = list(zip(widths[:0:-1], widths[-2::-1]))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(deep, own, 2, 2) for deep, own in steps)
        self.up = nn.ModuleList(_block(2 * own, own) for _, own in steps)
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
        for rise, block, beside in zip(self.rise, self.up, kept[-2::-1]):
            x = block(torch.cat([rise(x), beside], dim=1))
        return self.head(x)


def _block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for below, step in ((channels, stride), (width, 1)):
        layers += [nn.Conv2d(below, width, 3, step, 1, bias=False), nn.InstanceNorm2d(width, affine=True)]
        layers += [nn.LeakyReLU(0.01, inplace=True)]
    return nn.Sequential(*layers)


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and soft Dice, over the batch, of the foreground classes; masks are (N, K - 1, S, S) of 0 and 1."""
    labels = torch.cat([1 - masks.sum(1, keepdim=True), masks], dim=1).argmax(1)
    shares, axes = logits.softmax(1)[:, 1:], (0, 2, 3)
    dice = (2 * (shares * masks).sum(axes) + 1) / (shares.sum(axes) + masks.sum(axes) + 1)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()


def train(network: UNet, batches: Batches, options: argparse.Namespace) -> None:
    """Train for the processor time, and write the losses into log.csv."""
    optimiser = torch.optim.AdamW(network.parameters(), options.lr, weight_decay=0.01)
    network.train()
    begun = time.process_time()
    steps = options.steps or _affordable(network, batches, options)
    with (options.out_dir / "log.csv").open("w", newline="", encoding="utf-8") as file:
        log = csv.writer(file)
        log.writerow(["step", "loss", "processor_seconds"])
        losses = []
        with Bar(steps, "training", "step") as bar:
            for step in range(steps):
                optimiser.param_groups[0]["lr"] = options.lr * (1 - step / steps)
                losses.append(_step(network, optimiser, batches, step, options.precision))
                if (step + 1) % _LOGGED == 0:
                    log.writerow([step + 1, f"{np.mean(losses):.5f}", f"{time.process_time() - begun:.1f}"])
                    file.flush()
                    losses = []
                bar.update()
    print(f"{steps} steps in {(time.process_time() - begun) / 60:.2f} minutes of processor time")


def _step(network: UNet, optimiser: torch.optim.Optimizer, batches: Batches, step: int, precision: str) -> float:
    batch = batches[step]
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        logits = network(torch.from_numpy(batch.images))
    loss = loss_of(logits.float(), torch.from_numpy(batch.masks))
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), 12)
    optimiser.step()
    return loss.item()


def _affordable(network: UNet, batches: Batches, options: argparse.Namespace) -> int:
    """How many steps the processor time is enough for; the weights trained while measuring are discarded."""
    kept = {name: value.clone() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), options.lr)
    begun = time.process_time()
    for step in range(_MEASURED):
        if step == _MEASURED // 4:
            begun_warm = time.process_time()
        _step(network, optimiser, batches, step, options.precision)
    each = (time.process_time() - begun_warm) / (_MEASURED - _MEASURED // 4)
    network.load_state_dict(kept)
    return max(1, int((60 * options.minutes - (time.process_time() - begun)) / each))


class Segmenting:
    """The network as a `Denoiser` that ignores the noise: one evaluation is a segmentation."""

    def __init__(self, network: UNet, size: int) -> None:
        self.network, self.backend = network.eval(), f"PyTorch {torch.__version__}"
        self.mask_shape = (network.head.out_channels - 1, size, size)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The probabilities (N, M, S, S)."""
        with torch.inference_mode():
            return self.network(torch.from_numpy(images)).softmax(1)[:, 1:].numpy()

    def gather(self, parts: Sequence[np.ndarray], rows: Sequence[int]) -> np.ndarray:
        """Rows of the parts, one after another."""
        return np.concatenate(list(parts))[list(rows)]

    def denoise(self, mask_t: np.ndarray, t: float, condition: np.ndarray) -> Output:
        """The probabilities."""
        return Output(condition, None, condition)


if __name__ == "__main__":
    main()
