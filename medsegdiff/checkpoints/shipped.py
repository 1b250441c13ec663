"""The trained networks that come with the package."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "models"
DEFAULT = "isic"
"""What `sample` takes where no model is named: skin lesions in dermoscopic images."""


def names() -> list[str]:
    """The names of the networks that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def find_model(name: str | Path) -> Path:
    """The file of the network `name` that comes with the package; what is no such name is a path.

    So is a file or a training of such a name; a folder of images is none, as where `isic` is the dataset.
    """
    from medsegdiff.checkpoints.folder import list_checkpoints  # NumPy, which `sample --help` need not wait for
    from medsegdiff.checkpoints.state import STATE

    path = Path(name)
    own = path.is_file() or (path / STATE).is_file() or list_checkpoints(path)
    return FOLDER / f"{name}.safetensors" if str(name) in names() and not own else path
