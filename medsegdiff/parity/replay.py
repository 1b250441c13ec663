"""Replaying a case of any kind but the training ones."""

from __future__ import annotations

from functools import partial
from typing import Callable

import numpy as np

from medsegdiff.diffusion import samplers
from medsegdiff.diffusion.process import Diffusion
from medsegdiff.diffusion.schedule import make_schedule, respace
from medsegdiff.inference.jittor_denoiser import JittorDenoiser
from medsegdiff.masks import fusion
from medsegdiff.masks.metrics import published_iou_dice
from medsegdiff.nn import versions, weights
from medsegdiff.nn.unet import MedSegDiff
from medsegdiff.parity.cases import Case, normal, parameter
from medsegdiff.parity.report import Row, absolute, mean_absolute, relative
from medsegdiff.runtime.backend import jt

# The published code asks the network at (t - 1/N) * 1000 whatever it was trained with.
PUBLISHED_TIME_SCALE = 1000.0


def build(case: Case) -> MedSegDiff:
    """The case's network with the weights of every case."""
    network = versions.build_network(case.network)
    values = {name: parameter(name, value.shape) for name, value in weights.state(network).items()}
    weights.load(network, values)
    return network


def forward(case: Case) -> list[Row]:
    """One call of the network in evaluation mode."""
    network = build(case)
    network.eval()
    rows = [_names(case, network)] if "names" in case.arrays else []
    label = case.meta.get("y")
    x_t = normal(f"{case.name}:x_t", case.mask_shape)
    with jt.no_grad():
        prediction = network(
            jt.array(case.image()),
            jt.array(x_t),
            jt.array(case.arrays["t"].astype(np.float32)),
            None if label is None else jt.array(np.array(label, np.int32)),
        )
        out = [prediction.target.numpy()]
        if prediction.variance is not None:
            out.append(prediction.variance.numpy())
        cal = prediction.cal.numpy()
    return [
        *rows,
        absolute(case.name, "output, max", np.concatenate(out, axis=1), case.arrays["out"], 2e-4),
        absolute(case.name, "cal, max", cal, case.arrays["cal"], 2e-4),
    ]


def _names(case: Case, network: MedSegDiff) -> Row:
    stored = {
        str(name): str(shape).replace(" ", "")
        for name, shape in zip(case.arrays["names"], case.arrays["shapes"])
        if not str(name).endswith("num_batches_tracked")
    }
    ours = {name: str(list(value.shape)).replace(" ", "") for name, value in weights.state(network).items()}
    # The published code draws this layer anew at every call, so its state dict lacks it.
    redrawn = {name for name in ours if name.startswith("hwm.bottleneck_proj.")} - stored.keys()
    differing = {name for name in ours.keys() | stored.keys() if ours.get(name) != stored.get(name)} - redrawn
    note = f"first: {min(differing)}" if differing else f"{len(stored)} names and shapes"
    return Row(case.name, "state dict", float(len(differing)), 0.0, note)


def sample(case: Case) -> list[Row]:
    """A whole sampling run."""
    kinds = {"ddpm": _ddpm, "ddim": _ddim, "dpm-solver++(2M)": _dpm_solver_pp}
    sampler = case.meta["sampler"]
    if sampler not in kinds:
        return [Row(case.name, f"sampler {sampler}", note="not supported")]
    denoiser = JittorDenoiser(build(case))
    condition = denoiser.encode(case.image())
    return kinds[sampler](case, partial(denoiser.denoise, condition=condition))


def _compare(case: Case, quantity: str, ours: np.ndarray, stored: str) -> list[Row]:
    theirs = case.arrays[stored]
    return [
        absolute(case.name, f"{quantity}, max", ours, theirs, 1e-2),
        mean_absolute(case.name, f"{quantity}, mean", ours, theirs, 1e-3),
    ]


def _published_diffusion(case: Case) -> Diffusion:
    return Diffusion(case.diffusion, case.respacing, clip_variance=False)


def _ddpm(case: Case, denoise: samplers.Denoise) -> list[Row]:
    last = samplers.final(samplers.ddpm(denoise, _published_diffusion(case), case.noise))
    rows = _compare(case, "sample", last.x, "sample")
    if "cal" in case.arrays:
        rows += _compare(case, "cal", last.cal, "cal")
    if "cal_out" in case.arrays:
        rows += _compare(case, "cal_out", fusion.published_blend(last.cal, last.x), "cal_out")
    return rows


def _ddim(case: Case, denoise: samplers.Denoise) -> list[Row]:
    diffusion = _published_diffusion(case)
    last = samplers.final(samplers.ddim(denoise, diffusion, case.noise, case.meta["eta"]))
    steps = np.abs(diffusion.schedule.timesteps - case.arrays["timestep_map"]).max()
    return [Row(case.name, "timestep map", float(steps), 0.0), *_compare(case, "sample", last.x, "sample")]


def _dpm_solver_pp(case: Case, denoise: samplers.Denoise) -> list[Row]:
    diffusion, steps = Diffusion(case.diffusion), case.meta["steps"]
    grid = samplers.SolverGrid(diffusion, steps)
    rows = [
        absolute(case.name, f"grid: {name}", getattr(grid, name), case.arrays[name], 1e-4)
        for name in ("times", "alpha", "sigma", "log_snr_half")
    ]
    states = list(samplers.dpm_solver_pp(denoise, diffusion, case.noise, steps, time_scale=PUBLISHED_TIME_SCALE))
    path = [case.noise(0), *(state.x for state in states)]
    return [
        *rows,
        *_compare(case, "starting point", path[0], "x_after_first_step"),
        *_compare(case, "middle", path[int(case.arrays["middle_index"])], "x_middle"),
        *_compare(case, "sample", path[-1], "sample"),
        *_compare(case, "cal", states[-1].cal, "cal"),
    ]


def schedule(case: Case) -> list[Row]:
    """Schedules and respacings."""
    rows = []
    for name, stored in case.arrays.items():
        head, _, rest = name.partition(":")
        if head == "respacing":
            steps, _, spec = rest.partition(":")
            ours = respace(int(steps), spec)
            same = ours.shape == stored.shape and (ours == stored).all()
            rows.append(Row(case.name, name, 0.0 if same else float("inf"), 0.0))
        else:
            kind, _, steps = head.rpartition("-")
            ours = getattr(make_schedule(kind, int(steps)), rest)
            rows.append(relative(case.name, name, ours, stored, 1e-12))
    return rows


def fusion_and_metrics(case: Case) -> list[Row]:
    """The published fusion rule and metrics."""
    pairs = zip(case.arrays["pred"], case.arrays["target"])
    scores = np.array([published_iou_dice(pred[0], target[0]) for pred, target in pairs])
    fused = fusion.published(case.arrays["ensemble"])
    return [
        absolute(case.name, "fused, max", fused.reshape(case.arrays["fused"].shape), case.arrays["fused"], 1e-6),
        absolute(case.name, "IoU and Dice, max", scores, case.arrays["iou_dice_per_image"], 1e-6),
    ]


KINDS: dict[str, Callable[[Case], list[Row]]] = {
    "forward": forward,
    "sample": sample,
    "schedule": schedule,
    "fusion-and-metrics": fusion_and_metrics,
}
