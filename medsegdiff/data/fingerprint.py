"""Measures some of a dataset's files, and derives how all are read.

After nnU-Net (Isensee et al., Nature Methods 2021): CT numbers are cut to a window found over all foreground voxels,
other volumes are normalised one by one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Callable, Optional

import numpy as np

from medsegdiff.base.errors import InputError
from medsegdiff.base.screen import note, track
from medsegdiff.data.cases import Case
from medsegdiff.data.scaling import EIGHT_BITS, Z_SCORE, window
from medsegdiff.data.spec import DataSpec
from medsegdiff.io.dicom.series import Source
from medsegdiff.io.labels import format_labels
from medsegdiff.io.pictures import BIT_DEPTHS, look, read_grey
from medsegdiff.io.volumes import is_volume, read_label_volume, read_volume

_MOST = 24  # volumes whose intensities are measured
_PER_VOLUME = 20_000  # voxels
_MOST_LABELS, _SHOWN = 255, 20
_AIR = -500  # CT numbers of what is around a patient are lower


@dataclass(frozen=True)
class Fingerprint:
    """A dataset in numbers."""

    cases: int
    patients: int
    kind: str
    """"pictures" or "volumes"."""
    channels: int
    colour: bool
    shape: tuple[int, ...]
    """The median, of volumes along X, Y and Z in voxels, of pictures height and width in pixels."""
    spacing: Optional[tuple[float, ...]]
    """The median along X, Y and Z in millimetres."""
    intensities: list[dict[str, float]]
    """Of each channel: min, max, mean, std and the percentiles 0.5 and 99.5, of the foreground where masks tell it."""
    values: Mapping[int, float]
    """The share of each value of the masks but 0, in all voxels of all masks; empty of pictures."""
    deep: bool = False
    """Whether all pictures are wider than 8 bits, and alike; of several kinds each is read by its own range."""
    alone: bool = False
    """Whether no mask of a volume holds several values besides 0."""

    def spec(self, *, is_ct: bool = False, labels: Optional[Mapping[int, int]] = None) -> DataSpec:
        """How these files are read. Without `labels` each value of the masks is a class, in order.

        Raises:
            InputError: that are too many.
        """
        if labels is None:
            if len(self.values) > _MOST_LABELS:
                what = f"the masks hold {len(self.values)} values besides 0, and at most {_MOST_LABELS} can be classes"
                raise InputError(f"{what}; give those that are as `labels`, or check that these are the masks")
            labels = {value: place for place, value in enumerate(sorted(self.values), 1)}
            if len(labels) == 2 and self.alone:
                one, other = labels
                said = f"each mask has one value besides 0, here {one}, there {other}, and these are two classes"
                note(f"note: {said}; if both mean one, give `labels` {format_labels({one: 1, other: 1})}")
        return DataSpec(self.channels, self._scaling(is_ct), dict(labels), self.colour)

    def with_labels(self) -> Fingerprint:
        """The same of a dataset whose labels are given: nothing is to be said of its values."""
        return dataclasses.replace(self, alone=False)

    def _scaling(self, is_ct: bool) -> str:
        lows, highs = ([one[key] for one in self.intensities] for key in ("min", "max"))
        if self.colour:
            return EIGHT_BITS
        if self.kind == "pictures":
            if not self.deep:
                return EIGHT_BITS
            full = (1 << next((bits for bits in BIT_DEPTHS if max(highs) < 1 << bits), 16)) - 1
            return window(0, 1 if max(highs) <= 1 else full)
        if is_ct or (self.channels == 1 and lows[0] < _AIR):
            low, high = min(one["0.5 %"] for one in self.intensities), max(one["99.5 %"] for one in self.intensities)
            return window(round(low), round(high) + 1)
        return Z_SCORE

    def lines(self) -> list[str]:
        """In words."""
        several = "" if self.patients == self.cases else f" of {self.patients} patients"
        sides = f", median {' x '.join(f'{side:g}' for side in self.shape)}" if self.shape else ""
        spacing = f", {' x '.join(f'{side:.3g}' for side in self.spacing)} mm" if self.spacing else ""
        found = [f"{self.cases} {self.kind}{several}, {self.channels} channels{sides}{spacing}"]
        for place, one in enumerate(self.intensities):
            found.append(
                f"channel {place}: {one['min']:g} to {one['max']:g}, mean {one['mean']:.4g}, "
                f"standard deviation {one['std']:.4g}"
            )
        if self.values:
            shares = [f"{value} ({share:.2%})" for value, share in sorted(self.values.items())]
            more = f" and {len(shares) - _SHOWN} more" if len(shares) > _SHOWN else ""
            found.append(f"labels: {', '.join(shares[:_SHOWN])}{more} of the voxels")
        return found

    def plain(self) -> dict[str, object]:
        """Ready for JSON."""
        return {**dataclasses.asdict(self), "values": {str(value): share for value, share in self.values.items()}}


Measure = Callable[[], Fingerprint]


def measure(cases: Sequence[Case], progress: bool = True) -> Fingerprint:
    """Measure the masks of all volumes, and the intensities of some volumes, or of all pictures wider than 8 bits.

    Raises:
        InputError: a file cannot be read, or volumes have several numbers of channels.
    """
    bar = track(cases, len(cases), "measuring", "case", shown=progress)
    return (_of_volumes if is_volume(cases[0].image) else _of_pictures)(cases, bar)


def _of_volumes(cases: Sequence[Case], bar: Iterable[Case]) -> Fingerprint:
    rng = np.random.default_rng(0)
    chosen = {int(place) for place in np.linspace(0, len(cases) - 1, min(_MOST, len(cases)))}
    shapes, spacings, samples = [], [], []
    counts: dict[int, int] = {}
    voxels, channels, colour, several = 0, 0, False, False
    for place, case in enumerate(bar):
        mask = None
        if case.mask is not None:
            mask = read_label_volume(case.mask, case.image).values
            found = np.unique(mask, return_counts=True)
            several |= np.count_nonzero(found[0]) > 1
            for value, count in zip(*found):
                counts[int(value)] = counts.get(int(value), 0) + int(count)
            voxels += mask.size
        if place in chosen:
            volumes = [read_volume(path) for path in case.channels]
            shapes.append(volumes[0].geometry.shape)
            spacings.append(volumes[0].geometry.spacing)
            layers = np.concatenate([volume.values.reshape(np.prod(shapes[-1]), -1) for volume in volumes], axis=1)
            channels = channels or layers.shape[1]
            if layers.shape[1] != channels:
                found = f"has {layers.shape[1]} channels, {cases[0].image} {channels}"
                raise InputError(f"{case.image}: {found}; all images of a dataset have the same")
            colour = volumes[0].values.shape[3:] == (3,) and isinstance(volumes[0].geometry.header, Source)
            inside = np.flatnonzero(mask) if mask is not None and mask.size == len(layers) else np.array([], int)
            inside = inside if inside.size else np.flatnonzero((layers != 0).any(axis=1))
            taken = rng.permutation(inside)[:_PER_VOLUME]
            samples.append((layers[taken].astype(np.float32), np.nanmin(layers, 0), np.nanmax(layers, 0)))
    shares = {value: count / voxels for value, count in counts.items() if value}
    return Fingerprint(
        len(cases),
        len({case.group for case in cases}),
        "volumes",
        channels,
        colour,
        tuple(np.median(shapes, axis=0).tolist()),
        tuple(np.median(spacings, axis=0).tolist()),
        [_intensity([(some[:, c], low[c], high[c]) for some, low, high in samples]) for c in range(channels)],
        shares,
        alone=not several,
    )


def _of_pictures(cases: Sequence[Case], bar: Iterable[Case]) -> Fingerprint:
    seen = [look(case.image) for case in cases]
    colour = len(cases[0].channels) == 1 and any(in_colour for in_colour, _ in seen)
    samples, kinds = [], set()
    for case in () if colour else bar:
        layers = [read_grey(path) for path in case.channels]
        kinds.update("8-bit" if layer.dtype == np.uint8 else layer.dtype.kind for layer in layers)
        samples.append([(layer.ravel()[:: max(1, layer.size // 1000)], layer.min(), layer.max()) for layer in layers])
    channels = 3 if colour else len(cases[0].channels)
    intensities = [_intensity([layers[c] for layers in samples]) for c in range(channels if samples else 0)]
    shape = tuple(np.median([size for _, size in seen], axis=0).tolist())
    people = len({case.group for case in cases})
    deep = len(kinds) == 1 and "8-bit" not in kinds
    return Fingerprint(len(cases), people, "pictures", channels, colour, shape, None, intensities, {}, deep)


def _intensity(samples: Sequence[tuple[np.ndarray, float, float]]) -> dict[str, float]:
    """Of one channel: from values, lowest and highest of each image."""
    values = np.concatenate([some.ravel() for some, _, _ in samples]).astype(np.float64)
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, (0.5, 99.5)) if values.size else (0.0, 0.0)
    return {
        "min": float(min(low for _, low, _ in samples)),
        "max": float(max(high for _, _, high in samples)),
        "mean": float(values.mean()) if values.size else 0.0,
        "std": float(values.std()) if values.size else 0.0,
        "0.5 %": float(low),
        "99.5 %": float(high),
    }
