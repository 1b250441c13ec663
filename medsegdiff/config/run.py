"""The configuration of a run: sections as dataclasses, written flat."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union, get_type_hints

from medsegdiff.base.errors import InputError, did_you_mean
from medsegdiff.config.data import DataConfig
from medsegdiff.config.files import read_config
from medsegdiff.config.network import NetworkConfig
from medsegdiff.config.training import TrainingConfig, ValidationConfig
from medsegdiff.data.scaling import EIGHT_BITS
from medsegdiff.data.spec import DataSpec
from medsegdiff.diffusion.process import DiffusionConfig
from medsegdiff.io.labels import format_labels, parse_labels


@dataclass(frozen=True)
class RunConfig:
    """Everything that a training run is made of."""

    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)

    def __post_init__(self) -> None:
        if self.validation.val_interval and self.validation.val_steps > self.diffusion.diffusion_steps:
            raise InputError(
                f"`val_steps` {self.validation.val_steps}: there are only `diffusion_steps` "
                f"{self.diffusion.diffusion_steps}; use at most those"
            )
        if self.training.anchor_loss == "dice_ce" and self.network.version != "v2":
            raise InputError("`anchor_loss` dice_ce: belongs to `version` v2; leave out one of them")
        for name in ("anchor_alpha", "anchor_beta"):
            value = getattr(self.training, name)
            if self.anchor_loss != "dice_ce" and value != getattr(TrainingConfig, name):
                raise InputError(f"`{name}` {value}: has an effect with `anchor_loss` dice_ce only")

    @property
    def anchor_loss(self) -> str:
        """What trains the conditioning network's mask: "dice_ce" or "mse"."""
        return self.training.anchor_loss or ("dice_ce" if self.network.version == "v2" else "mse")

    def flat(self) -> dict[str, Any]:
        """All options by name; no name occurs in two sections."""
        return {key: value for section in dataclasses.asdict(self).values() for key, value in section.items()}

    @property
    def spec(self) -> DataSpec:
        """How files are read; options from before there were any read 8-bit RGB."""
        data = self.data
        labels = parse_labels(data.labels)
        return DataSpec(self.network.image_channels, data.scaling or EIGHT_BITS, labels, data.colour, data.axis)

    @property
    def preparation(self) -> dict[str, Any]:
        """What `data.cache.prepare` makes of files for this network, by the names of its arguments."""
        network, data = self.network, self.data
        found = {"size": network.image_size, "num_classes": network.num_classes, "spec": self.spec}
        return {**found, "mask_resize": data.mask_resize, "skip_blank": data.skip_blank}

    def reading(self, spec: DataSpec, data_name: str) -> RunConfig:
        """This configuration for a dataset whose files are read so; its network has the channels and classes.

        Raises:
            InputError: it asks for other channels or classes.
        """
        network, plain = self.network, NetworkConfig()
        wanted: dict[str, Any] = {"image_channels": spec.channels}
        if spec.labels:
            wanted["num_classes"] = spec.num_classes
        for name, value in wanted.items():
            if getattr(network, name) not in (getattr(plain, name), value):
                raise InputError(f"`{name}` {getattr(network, name)}: the dataset has {value}; leave the option out")
        chosen: dict[str, Any] = {
            "data_name": data_name,
            "labels": format_labels(spec.labels),
            "scaling": "" if spec.scaling == EIGHT_BITS else spec.scaling,
            "colour": spec.colour,
        }
        data = dataclasses.replace(self.data, **chosen)
        if not spec.colour and (data.augment_hair or data.augment_stickers):
            raise InputError("`augment_hair`, `augment_stickers`: are drawn in colour, which the images are not; use 0")
        return dataclasses.replace(self, network=dataclasses.replace(network, **wanted), data=data)

    @classmethod
    def from_flat(cls, options: Mapping[str, Any]) -> RunConfig:
        """The configuration of `options`; names that are not options are ignored."""
        return cls(**{name: pick(section, options) for name, section in get_type_hints(cls).items()})


class Written(NamedTuple):
    """What a file of options says of a training."""

    config: RunConfig
    """All options: those that the file leaves out are as they are by default."""
    given: dict[str, Any]
    """Those that it gives."""


def read_run(name: Union[str, Path]) -> Written:
    """The options in the file that `name` means, see `find_config`, as `train --config` reads them.

    Raises:
        InputError: there is none, it cannot be read, or an option in it is unknown or makes no sense.
    """
    given = read_config(name)
    given.pop("dry_run", None)  # which `train --print-config` writes, too
    config = RunConfig.from_flat(given)
    known = config.flat()
    for option in given.keys() - known.keys():
        remedy = did_you_mean(option, known, "remove it")
        raise InputError(f"{name}: {option}: no such option of a training{remedy}")
    return Written(config, {option: known[option] for option in given})


def pick(section: type, options: Mapping[str, Any]) -> Any:
    """An instance of the dataclass `section` from those of `options` that are its fields."""
    names = {f.name for f in dataclasses.fields(section)}
    return section(**{name: value for name, value in options.items() if name in names})


def difference(ours: Any, theirs: Any) -> Optional[str]:
    """The first option in which two sections differ, as "`option` A, not B"; None if they agree."""
    for f in dataclasses.fields(ours):
        a, b = getattr(ours, f.name), getattr(theirs, f.name)
        if a != b:
            theirs_shown, ours_shown = (str(value) or '""' for value in (b, a))
            return f"`{f.name}` {theirs_shown}, not {ours_shown}"
    return None
