"""The package as it is released."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import medsegdiff

pytestmark = pytest.mark.extended

ROOT = Path(__file__).parents[1]
LINKS = re.compile(r"\]\((?!https?://)")


@pytest.fixture(scope="module")
def described():
    spec = importlib.util.spec_from_file_location("setup_of_medsegdiff", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.described


def listed(*words):
    """Files that git knows."""
    words = ["git", "ls-files", *words]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("repository", ["", "https://host/name/blob/v1", "https://host/name/blob/v1/"])
def test_no_link_of_the_description_is_relative(described, repository):
    readme = (ROOT / "README.md").read_text()
    assert LINKS.search(readme)
    found = described(readme, repository)
    assert not LINKS.search(found) and "[installation]" in found if repository else "installation" in found
    assert ("https://host/name/raw/v1/docs/overview.png" in found) == bool(repository)
    assert ("![" in found) == bool(repository)


def test_every_file_says_the_same_version():
    version = re.escape(medsegdiff.__version__)
    assert re.search(rf"^version: {version}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first[1] == medsegdiff.__version__


def test_wheel_and_sdist_are_what_package_indexes_take(tmp_path):
    for tool in ("build", "twine", "setuptools"):
        pytest.importorskip(tool, reason=f"{tool} is not installed")
    # The wheel is made of the sdist. Without a network: by the setuptools that is here, new enough or not.
    copy, dist = tmp_path / "copy", tmp_path / "dist"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    for name in listed("--modified"):
        (copy / name).write_bytes((ROOT / name).read_bytes())
    words = ["build", "--no-isolation", "--skip-dependency-check", "--outdir", str(dist), str(copy)]
    built = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (sdist, wheel) = files = sorted(dist.iterdir())
    assert sdist.name.endswith(f"-{medsegdiff.__version__}.tar.gz") and wheel.suffix == ".whl"
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *map(str, files)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout
    with tarfile.open(sdist) as archive:
        assert {"CHANGELOG.md", "CITATION.cff"} <= {Path(name).name for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        assert set(listed("medsegdiff")) <= set(archive.namelist())
