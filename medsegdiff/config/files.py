"""Files of options: the user's own, and those that come with the package."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medsegdiff.base.errors import InputError, did_you_mean
from medsegdiff.base.reading import read_yaml

_FOLDER = Path(__file__).parents[1] / "configs"


def names() -> list[str]:
    """The names of the configurations that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def find_config(name: str | Path) -> Path:
    """The file of options that `name` means.

    A file is itself. Else `isic-small`, which may also be written `isic-small.yaml` or `configs/isic-small.yaml`, is
    the one of that name that comes with the package.

    Raises:
        InputError: there is none.
    """
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (Path's raises for an unknown user)
    there = os.path.lexists(path)  # false, too, of a name that the system refuses
    if there and not path.is_dir():
        return path
    if path.suffix in ("", ".yaml") and path.parent in (Path(), Path("configs")) and path.stem in names():
        return _FOLDER / f"{path.stem}.yaml"
    if there:
        return path  # a folder: reading it complains
    otherwise = f"give a YAML file, or one of {', '.join(names())}"
    raise InputError(f"{name}: no such file of options{did_you_mean(path.stem, names(), otherwise)}")


def read_config(name: str | Path) -> dict[str, Any]:
    """The options in the file that `name` means, see `find_config`, by their fields: - and _ in names are alike.

    Raises:
        InputError: there is none, it cannot be read, or it holds something else, or an option twice.
    """
    found = read_yaml(find_config(name))
    if not isinstance(found, dict):
        raise InputError(f"{name}: holds no options; write lines such as `image_size: 256`")
    options: dict[str, Any] = {}
    for key, value in found.items():
        option = str(key).replace("-", "_")
        if option in options:
            raise InputError(f"{name}: {option} is given twice, as {key} and with the other dash; remove one")
        options[option] = value
    return options
