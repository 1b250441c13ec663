"""Pages of the site that are made from the program itself, so that they are never out of date."""

from __future__ import annotations

import contextlib
import io
import os
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import medsegdiff
from medsegdiff.app.cli import COMMANDS, main
from medsegdiff.app.data import ACTIONS


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the options and of the Python functions."""
    for name, text in {"options.md": _options(), "api.md": _functions()}.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Links that lead out of the documentation become their text: the site has nothing there."""
    out = re.escape("../" * (1 + page.file.src_uri.count("/")))
    return re.sub(rf"\[([^\]]+)\]\({out}[^)]*\)", r"\1", markdown)


def _options() -> str:
    """What `medsegdiff COMMAND --help` prints, for each command."""
    os.environ["COLUMNS"] = "100"
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
