"""The two sides that benchmarks compare, each in a process of its own that is asleep while the other works.

A side does the same work on the same shapes: a forward pass without gradients, in evaluation mode, or a training
step (forward, backward, AdamW, running average of the weights).
"""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Mapping
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

if TYPE_CHECKING:  # which a machine may lack until it is set up
    import numpy as np

Run = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One variant of the work."""

    name: str
    framework: str
    """"torch", "medsegdiff", or "medsegdiff, graphs": on a GPU, convolutions by cuDNN's graph interface."""
    precision: str
    """"fp32" or "bf16"."""
    channels_last: bool = False
    """The layout of PyTorch's tensors."""
    version: str = "new"
    """Of the network."""
    compiled: bool = False
    """Whether PyTorch compiles the network, by `torch.compile`."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What is done."""

    task: str
    """"forward" or "step"."""
    size: int
    batch: int
    width: int

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Images (N, 3, S, S), masks and noise (N, 1, S, S), timesteps (N,), the same for everyone."""
        import numpy as np

        rng = np.random.default_rng(0)
        shape = (self.batch, 1, self.size, self.size)
        images = rng.random((self.batch, 3, self.size, self.size), np.float32)
        masks = (rng.random(shape) > 0.5).astype(np.float32)
        return images, masks, rng.standard_normal(shape, np.float32), rng.integers(0, 1000, self.batch)


class Worker:
    """A process that has one framework loaded and does what it is told, or sleeps on a pipe."""

    def __init__(
        self,
        framework: str,
        threads: int,
        environment: Optional[Mapping[str, str]] = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Start it, with `environment` beside what it inherits; `clock` tells the seconds in it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = theirs, framework, threads, dict(environment or {}), clock
        self._process = context.Process(target=_serve, args=given)
        self._process.start()
        theirs.close()

    def seconds(self, variant: Variant, work: Work) -> float:
        """Do `work` once, and say how long it took."""
        return self._ask("seconds", variant, work)

    def peak(self) -> int:
        """The most memory (bytes) that the process has held so far: resident or, on a GPU, there."""
        return self._ask("peak")

    def forget(self) -> None:
        """Drop what was built for the last work."""
        self._ask("forget")

    def _ask(self, *request: Any) -> Any:
        self._pipe.send(request)
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stop(self) -> None:
        """Halt the process with all its threads, which may be spinning instead of sleeping."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Undo `stop`."""
        os.kill(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the process."""
        self.go_on()
        self._pipe.close()
        self._process.join()


def _serve(
    pipe: Connection, framework: str, threads: int, environment: Mapping[str, str], clock: Callable[[], float]
) -> None:
    os.environ.update(environment)  # libraries read it when they are loaded, below
    multiprocessing.set_start_method("fork", force=True)  # Jittor's compile processes cannot be spawned
    side = make_side(framework, threads)
    built: dict[tuple[Variant, Work], Run] = {}

    def answer(kind: str, *given: Any) -> Any:
        if kind == "peak":
            return side.peak()
        if kind == "forget":
            built.clear()
            side.forget()
            return None
        if given not in built:
            built[given] = side.build(*given)
        begun = clock()
        built[given]()
        side.finish()
        return clock() - begun

    while True:
        try:
            request = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(answer(*request))
        except Exception as error:  # told to the parent, which ends the run
            pipe.send(RuntimeError(f"{framework}: {error}"))


class Side(NamedTuple):
    """A framework, loaded."""

    build: Callable[[Variant, Work], Run]
    finish: Callable[[], object]
    """Waits for what was started."""
    peak: Callable[[], int]
    """The most bytes held so far."""
    forget: Callable[[], object]
    """Gives back the memory of what was built."""


def make_side(framework: str, threads: int) -> Side:
    """Load a framework into this process."""
    if framework == "torch":
        return _torch_side(threads)
    if framework == "medsegdiff, graphs":
        _by_graphs()
    return _our_side()


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _torch_side(threads: int) -> Side:
    import torch

    from benchmarks.torch_loss import TorchTrainingLoss
    from benchmarks.torch_v2 import twin
    from medsegdiff.config.network import NetworkConfig
    from medsegdiff.diffusion.process import Diffusion, DiffusionConfig

    torch.set_num_threads(threads)
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"

    def build(variant: Variant, work: Work) -> Run:
        layout = torch.channels_last if variant.channels_last else torch.contiguous_format
        network = twin(NetworkConfig(image_size=work.size, num_channels=work.width, version=variant.version))
        network = network.to(device, memory_format=layout).train(work.task == "step")
        parameters = list(network.parameters())
        if variant.compiled:
            network = torch.compile(network)
        images, masks, noise, t = (torch.from_numpy(array) for array in work.arrays())
        images, masks, noise = (value.to(device, memory_format=layout) for value in (images, masks, noise))

        def cast() -> Any:
            return torch.autocast(device, dtype=torch.bfloat16) if variant.precision == "bf16" else nullcontext()

        if work.task == "forward":

            def forward() -> None:
                with torch.inference_mode(), cast():
                    network(images, noise, t.float().to(device))

            return forward
        averages = [value.detach().clone() for value in parameters]
        optimiser = torch.optim.AdamW(parameters, 1e-4, weight_decay=0.0, fused=True)
        loss = TorchTrainingLoss(Diffusion(DiffusionConfig()), (5, 10.0) if variant.version == "v2" else None)

        def step() -> None:
            x_t = loss.noisy(masks, noise, t.numpy())
            with cast():
                prediction = network(images, x_t, loss.network_time(t.numpy(), x_t))
            prediction = type(prediction)(*(value.float() for value in prediction))
            total = loss(prediction, masks, noise, x_t, t.numpy()).total()
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.get_total_norm([value.grad for value in parameters]).item()
            optimiser.step()
            with torch.no_grad():
                torch._foreach_lerp_(averages, parameters, 1e-4)

        return step

    def forget() -> None:
        gc.collect()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    if on_gpu:
        return Side(build, torch.cuda.synchronize, torch.cuda.max_memory_reserved, forget)
    return Side(build, lambda: None, _resident, forget)


def _by_graphs() -> None:
    """Put cuDNN's graph interface in place of the one that the convolutions of a GPU call."""
    from medsegdiff.kernels.cuda import convolution, sources

    graphs = Path(__file__).with_name("gpu") / "cudnn_graph.cuh"
    convolution._HEADER = convolution._HEADER.replace(sources.text("cudnn"), graphs.read_text(encoding="utf-8"))


def _our_side() -> Side:
    from medsegdiff.config.network import NetworkConfig
    from medsegdiff.config.run import RunConfig
    from medsegdiff.config.training import TrainingConfig
    from medsegdiff.data.loader import Batch
    from medsegdiff.kernels import precision
    from medsegdiff.nn.versions import build_network
    from medsegdiff.runtime.backend import jt
    from medsegdiff.training.dry_run import peak_gib
    from medsegdiff.training.trainer import Trainer

    def build(variant: Variant, work: Work) -> Run:
        config = NetworkConfig(image_size=work.size, num_channels=work.width, version=variant.version)
        images, masks, noise, t = work.arrays()
        if work.task == "forward":
            with precision.using(variant.precision):
                network = build_network(config).initialise().only_segment()
            network.eval()

            def forward() -> None:
                with precision.using(variant.precision), jt.no_grad():
                    prediction = network(jt.array(images), jt.array(noise), jt.array(t.astype("float32")))
                    jt.sync(list(prediction))

            return forward
        trainer = Trainer(RunConfig(network=config, training=TrainingConfig(precision=variant.precision)))
        batch = Batch(images, masks)

        def step() -> None:
            trainer.train_step(batch)

        return step

    def forget() -> None:
        gc.collect()
        jt.gc()

    return Side(build, lambda: jt.sync_all(True), lambda: int(peak_gib() * 2**30), forget)
