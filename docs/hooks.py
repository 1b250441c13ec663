"""Pages of the site that are made from the program itself, so that they are never out of date."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import medsegdiff
from medsegdiff.app.cli import COMMANDS, main
from medsegdiff.app.data import ACTIONS
from medsegdiff.base.errors import InputError, flag


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the options, of the Python functions, and of all messages."""
    for name, text in {"options.md": _options(), "api.md": _functions(), "messages.md": _messages()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links that lead out of the documentation become their text: the site has nothing there."""
    out = re.escape("../" * (1 + page.file.src_uri.count("/")))
    return re.sub(rf"\[([^\]]+)\]\({out}[^)]*\)", r"\1", markdown)


def _options() -> str:
    """What `medsegdiff COMMAND --help` prints, for each command."""
    os.environ["COLUMNS"] = "80"  # as wide as a page of the site shows without scrolling
    commands = [name for name in COMMANDS if name not in ("data", "help")]
    calls = [(name,) for name in commands] + [("data", action) for action in ACTIONS]
    pages = [f"## medsegdiff {' '.join(call)}\n\n```text\n{_help(*call)}\n```\n" for call in sorted(calls)]
    return "\n".join(["# Options of every command\n", "As `medsegdiff help COMMAND` prints them.\n", *pages])


def _help(*call: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*call, "--help"])
    return printed.getvalue().strip()


def _functions() -> str:
    """A heading for each public name; mkdocstrings fills in its docstring."""
    names = sorted(medsegdiff.__all__, key=str.lower)
    places = {name: getattr(medsegdiff, name) for name in names}
    lines = [f"::: {found.__module__}.{found.__qualname__}\n" for found in places.values()]
    return "\n".join(["# Python functions\n", "How they are used: [from Python](python.md).\n", *lines])


def _messages() -> str:
    """Every line that refuses something, from where it is raised; each ends with what to do."""
    found = set()
    for path in Path(medsegdiff.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError" and node.args:
                text = re.sub(r"(\.\.\.[ :]*){2,}", "... ", _text(node.args[0]))
                found |= {text} if re.search(r"\w{4}", text) else set()
    lines = [
        f"* `` {InputError(text).spelled(flag)} ``" for text in sorted(found, key=lambda text: text.lstrip(".: `"))
    ]
    about = "Dots stand for a file, an option or a number. The common ones with more words: [error messages]"
    return "\n".join(["# Every message\n", f"{about}(troubleshooting.md).\n", *lines, ""])


def _text(node: ast.expr) -> str:
    """A string as far as the source says it, the rest as dots."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    return _text(node.left) + _text(node.right) if isinstance(node, ast.BinOp) else "..."
