"""Which part of the package may import which: those above it in this table, and no others."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import medsegdiff

PACKAGE = Path(medsegdiff.__file__).parent
MAY_IMPORT = {
    "base": set(),
    "masks": {"base"},
    "io": {"base", "masks"},
    "plots": {"base", "masks"},
    "data": {"base", "io"},
    "diffusion": {"base"},
    "config": {"base", "masks", "io", "data", "diffusion"},
    "checkpoints": {"base", "config"},
    "evaluation": {"base", "masks", "io", "plots"},
    "runtime": {"base"},
    "kernels": {"base", "runtime"},
    "nn": {"base", "config", "runtime", "kernels"},
}
NEVER = {
    "inference": {"evaluation"},
    "training": {"evaluation"},
    "parity": {"evaluation"},
    "doctor": {"evaluation", "parity"},
    "web": {"runtime", "kernels", "nn", "parity", "doctor"},
    "app": set(),
}
for _layer, _never in NEVER.items():  # these may import all that are above them but some
    MAY_IMPORT[_layer] = set(MAY_IMPORT) - _never
WITHOUT_JITTOR = [name for name, below in MAY_IMPORT.items() if "runtime" not in below | {name}]
JITTOR = ("jittor", "jittor_utils", "medsegdiff.runtime.backend")
SOURCES = sorted(PACKAGE.rglob("*.py"))


def name_of(path):
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def imported(source, module, is_package):
    """Absolute names of everything that `source` imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{base}.{alias.name}" for alias in node.names}
    return found


def offences(source, module, is_package=False):
    """What `source` imports and must not."""
    names = imported(source, module, is_package)
    bad = {name for name in names if name.split(".")[0] in ("torch", "torchvision")}
    layer = module.split(".")[1] if "." in module else ""
    if layer in MAY_IMPORT:
        others = {name for name in names if name.startswith("medsegdiff.") and name.split(".")[1] in MAY_IMPORT}
        bad |= {name for name in others if name.split(".")[1] not in MAY_IMPORT[layer] | {layer}}
    if layer in WITHOUT_JITTOR:
        bad |= {name for name in names if any(name == jt or name.startswith(f"{jt}.") for jt in JITTOR)}
    return sorted(bad)


def test_no_module_is_long():
    modules = [path for suffix in ("py", "h", "cuh") for path in PACKAGE.rglob(f"*.{suffix}")]
    assert [path.name for path in modules if len(path.read_text(encoding="utf-8").splitlines()) > 260] == []


def test_every_folder_of_the_package_is_a_known_layer():
    folders = {path.relative_to(PACKAGE).parts[0] for path in SOURCES if path.parent != PACKAGE}
    assert folders == set(MAY_IMPORT)


def test_no_layer_imports_one_below_it():
    layers = list(MAY_IMPORT)
    for index, layer in enumerate(layers):
        assert MAY_IMPORT[layer] <= set(layers[:index])


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path):
    assert offences(path.read_text(encoding="utf-8"), name_of(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("medsegdiff.base.files", "from medsegdiff.config import network"),
        ("medsegdiff.kernels.operations", "import medsegdiff.nn.layers"),
        ("medsegdiff.nn.unet", "def f():\n    from medsegdiff.diffusion import process"),
        ("medsegdiff.diffusion.process", "from ..nn.unet import MedSegDiff"),
        ("medsegdiff.diffusion.process", "from medsegdiff.runtime.backend import jt"),
        ("medsegdiff.masks.fusion", "from .. import data"),
        ("medsegdiff.training.loop", "from medsegdiff.app import cli"),
        ("medsegdiff.data.loader", "import jittor as jt"),
        ("medsegdiff.data.loader", "from medsegdiff.runtime.backend import jt"),
        ("medsegdiff.masks.fusion", "from medsegdiff.runtime import backend"),
        ("medsegdiff.app.cli", "try:\n    import torch.nn\nexcept ImportError:\n    pass"),
    ],
)
def test_the_rule_notices(module, source):
    assert offences(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("medsegdiff.nn.unet", "from medsegdiff.kernels.operations import attention\nfrom . import layers"),
        ("medsegdiff.data.loader", "from medsegdiff.base.randomness import generator\nimport numpy"),
        ("medsegdiff.app.cli", "from medsegdiff import __version__\nfrom medsegdiff import training"),
    ],
)
def test_the_rule_allows(module, source):
    assert offences(source, module) == []


def test_layers_that_need_no_jittor_and_the_command_line_load_without_it_and_torch():
    layers = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in WITHOUT_JITTOR]
    if importlib.util.find_spec("gradio") is None:
        layers.remove(PACKAGE / "web" / "page.py")  # needs the extra
    modules = [
        *map(name_of, layers),
        "medsegdiff.api",
        "medsegdiff.app.train",
        "medsegdiff.training.images",
        "medsegdiff.app.cli",
    ]
    assert len(modules) > 10
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "print([name for name in ('jittor', 'jittor_utils', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


COMMANDS = ("medsegdiff ", "run sample with ", "pip install ")


def flags_in_messages(source):
    """Options of commands in the texts of `source`, but for whole commands."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
    sentences = [text for text in texts if isinstance(text, str) and " " in text.strip()]
    return [text for text in sentences if FLAG.search(text) and not any(command in text for command in COMMANDS)]


FLAG = re.compile(r"(^|[\s(])--([a-z][a-z-]+(?![a-z=-])|$)")
WITHOUT_FLAGS = [path for path in SOURCES if path.relative_to(PACKAGE).parts[0] in set(MAY_IMPORT) - {"app"}]


@pytest.mark.parametrize("path", WITHOUT_FLAGS, ids=name_of)
def test_messages_below_the_commands_name_fields(path):
    """In backquotes, see `base.errors.InputError`: Python has no flags."""
    assert flags_in_messages(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name != "base"], ids=name_of)
def test_notes_go_through_the_screen_which_knows_of_quiet(path):
    assert "file=sys.stderr" not in path.read_text(encoding="utf-8")


def test_flags_in_messages_are_noticed():
    assert flags_in_messages('raise InputError(f"{x}: give another --out-dir")')
    assert flags_in_messages("raise InputError('--steps 5: too many')")
    assert flags_in_messages('note(f"continuing with --{option}")')
    assert not flags_in_messages('"run medsegdiff doctor --warm first"')
    assert not flags_in_messages('def f():\n    """The option --steps."""')
