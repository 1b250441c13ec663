import ast
import importlib.util
import shutil
from pathlib import Path

import pytest

from medsegdiff.base.errors import InputError
from medsegdiff.runtime.cuda import edits

INSTALLED = Path(next(iter(importlib.util.find_spec("jittor").submodule_search_locations)))


@pytest.fixture
def package(tmp_path):
    """The files of the installed Jittor that are changed."""
    for edit in edits.EDITS:
        (tmp_path / edit.file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(INSTALLED / edit.file, tmp_path / edit.file)
    return tmp_path


def contents(package):
    return {path: path.read_bytes() for path in package.rglob("*") if path.is_file()}


def test_all_are_made_in_the_installed_release(package):
    before = contents(package)
    edits.apply(package, edits.JITTOR_VERSION)
    after = contents(package)
    assert before.keys() == after.keys()
    assert all(before[path] != after[path] for path in before)
    for path in package.rglob("*.py"):
        ast.parse(path.read_text())
    for edit in edits.EDITS:
        assert (package / edit.file).read_text().count(edit.after) == 1, edit


@pytest.mark.parametrize("file", sorted({edit.file for edit in edits.EDITS if edit.file.endswith((".cc", ".h"))}))
def test_conditions_and_braces_stay_in_pairs(package, file):
    edits.apply(package, edits.JITTOR_VERSION)
    before, after = (INSTALLED / file).read_text(), (package / file).read_text()
    for opening, closing in (("{", "}"), ("(", ")"), ("#if", "#endif")):
        grown = after.count(opening) - before.count(opening)
        assert grown == after.count(closing) - before.count(closing), (opening, closing)


def test_the_generated_softmax_has_single_braces(package):
    """The source of the kernel is a Python f-string, in which braces are doubled."""
    edits.apply(package, edits.JITTOR_VERSION)
    (text,) = (edit.after for edit in edits.EDITS if edit.file.endswith("code_softmax.py"))
    assert text.format() == ".Reduce(v1, [](float a, float b) { return a < b ? b : a; });"
    (kernel,) = (
        node
        for node in ast.walk(ast.parse((package / "other/code_softmax.py").read_text()))
        if isinstance(node, ast.JoinedStr) and "Reduce(v1" in ast.unparse(node) and "v1 = -1e30" in ast.unparse(node)
    )
    assert any("return a < b ? b : a; }" in part.value for part in kernel.values if isinstance(part, ast.Constant))


@pytest.mark.parametrize("version", ["1.3.10.0", "1.3.12", "12"])
def test_another_release_is_refused(package, version):
    before = contents(package)
    with pytest.raises(InputError, match=rf"Jittor {version}: .*pip install jittor==1\.3\.11\.0"):
        edits.apply(package, version)
    assert contents(package) == before


@pytest.mark.parametrize("number", [0, len(edits.EDITS) - 1])
@pytest.mark.parametrize("change", [lambda text: "", lambda text: text + text])
def test_a_text_that_is_not_there_exactly_once_is_refused_and_nothing_changed(package, number, change):
    edit = edits.EDITS[number]
    path = package / edit.file
    path.write_text(path.read_text().replace(edit.before, change(edit.before)))
    before = contents(package)
    with pytest.raises(InputError, match=rf"{path}: is not as Jittor"):
        edits.apply(package, edits.JITTOR_VERSION)
    assert contents(package) == before


def test_a_file_that_is_not_there_is_refused(package):
    (package / edits.EDITS[-1].file).unlink()
    with pytest.raises(InputError, match="is not as Jittor"):
        edits.apply(package, edits.JITTOR_VERSION)


def test_each_has_a_reason():
    for edit in edits.EDITS:
        assert edit.before != edit.after
        assert edit.reason.endswith(".")


def test_another_set_has_another_name(monkeypatch):
    name = edits.digest()
    assert name == edits.digest()
    monkeypatch.setattr(edits, "EDITS", edits.EDITS[:-1])
    assert edits.digest() != name
