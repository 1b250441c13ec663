"""`medsegdiff.training.trainer` in PyTorch: the same initial weights, timesteps, noise and dropout masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.torch_loss import TorchTrainingLoss
from benchmarks.torch_network import COUNTER
from benchmarks.torch_v2 import twin
from medsegdiff.base.files import replacing
from medsegdiff.base.randomness import generator
from medsegdiff.checkpoints.folder import Checkpoint
from medsegdiff.config.run import RunConfig
from medsegdiff.data.loader import Batch
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.diffusion.timesteps import UniformTimesteps
from medsegdiff.nn import weights
from medsegdiff.nn.layers import DropoutStreams
from medsegdiff.nn.versions import build_network
from medsegdiff.training.learning_rate import learning_rate


class StreamedDropout(nn.Module):
    """Dropout of values, or of whole feature maps, by the masks that our own layers draw."""

    def __init__(self, probability: float, streams: DropoutStreams, channels: bool) -> None:
        super().__init__()
        self.probability, self.streams, self.channels = probability, streams, channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), same shape out."""
        if not self.training or not self.probability:
            return x
        shape = (*x.shape[:2], 1, 1) if self.channels else tuple(x.shape)
        kept = self.streams.draw(shape) >= self.probability
        return x * torch.from_numpy(kept.astype(np.float32) / np.float32(1 - self.probability))


def _stream_dropout(module: nn.Module, streams: DropoutStreams) -> None:
    for name, child in module.named_children():
        if isinstance(child, (nn.Dropout, nn.Dropout2d)):
            setattr(module, name, StreamedDropout(child.p, streams, isinstance(child, nn.Dropout2d)))
        else:
            _stream_dropout(child, streams)


class TorchTrainer:
    """A network in training, for uniform timesteps, one process, float32 and the first of the averages."""

    def __init__(self, config: RunConfig) -> None:
        training = config.training
        self.config, self.step, self.streams = config, 0, DropoutStreams()
        self.network = twin(config.network)
        self._load(weights.to_arrays(weights.state(build_network(config.network).initialise(training.seed))))
        _stream_dropout(self.network, self.streams)
        self.network.train()
        self.diffusion = Diffusion(config.diffusion)
        anchor = (training.anchor_alpha, training.anchor_beta) if config.anchor_loss == "dice_ce" else None
        self.loss = TorchTrainingLoss(self.diffusion, anchor)
        self.timesteps = UniformTimesteps(len(self.diffusion))
        self.optimiser = torch.optim.AdamW(self.network.parameters(), training.lr, weight_decay=training.weight_decay)
        self.average = {name: value.detach().clone() for name, value in self._state().items()}

    def _load(self, arrays: dict[str, np.ndarray]) -> None:
        values = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.network.load_state_dict({**self.network.state_dict(), **values})

    def _state(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.network.state_dict().items() if not name.endswith(COUNTER)}

    def _draws(self, purpose: str, count: int) -> list[np.random.Generator]:
        return [generator(self.config.training.seed, purpose, self.step, sample) for sample in range(count)]

    def train_step(self, batch: Batch) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, float]]:
        """Descend once; returns the losses (N,) by name, the timesteps (N,), and both norms."""
        training, count = self.config.training, len(batch.masks)
        t, _ = self.timesteps.draw(self._draws("timestep", count))
        noise = np.stack([g.standard_normal(batch.masks.shape[1:], np.float32) for g in self._draws("noise", count)])
        self.streams.generators = self._draws("dropout", count)
        image, mask, noise = (torch.from_numpy(array) for array in (batch.images, batch.masks, noise))
        x_t = self.loss.noisy(mask, noise, t)
        losses = self.loss(self.network(image, x_t, self.loss.network_time(t, x_t)), mask, noise, x_t, t)
        self.optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
        norm = _norm(value.grad for value in self.network.parameters())
        if 0 < training.clip_grad < norm:
            for value in self.network.parameters():
                value.grad *= training.clip_grad / norm
        self.optimiser.param_groups[0]["lr"] = learning_rate(training, self.step)
        self.optimiser.step()
        self.step += 1
        self._average()
        named = {"loss": losses.diffusion, "loss_diff": losses.diff, "vb": losses.vb, "loss_cal": losses.cal}
        values = {name: value.detach().numpy() for name, value in named.items() if value is not None}
        return values, t, {"grad_norm": norm, "param_norm": _norm(self.network.parameters())}

    def _average(self) -> None:
        rate = float(self.config.training.ema_rates[0])
        if self.config.training.ema_warmup:
            rate = min(rate, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in self._state().items():
                self.average[name].lerp_(value, 1 - rate)

    def checkpoint(self) -> Checkpoint:
        """The weights and their average as `medsegdiff sample` reads them; training does not continue from it."""
        groups = {"model": self._state(), f"ema-{self.config.training.ema_rates[0]}": self.average}
        arrays = {
            group: {name: value.detach().numpy() for name, value in state.items()} for group, state in groups.items()
        }
        return Checkpoint(self.step, self.config, arrays, {})

    def save(self, path: Path, **more: Any) -> None:
        """Write all that `restore` needs, and what else (`more`) the caller will."""
        held = {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "average": self.average}
        with replacing(path) as beside:
            torch.save({"step": self.step, **held, **more}, beside)

    def restore(self, path: Path) -> dict[str, Any]:
        """Continue from `save`; returns all that was saved."""
        saved = torch.load(path, weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.average, self.step = saved["average"], saved["step"]
        return saved


def _norm(values: Any) -> float:
    return sum(value.detach().double().square().sum().item() for value in values) ** 0.5
