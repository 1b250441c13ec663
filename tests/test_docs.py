"""What the documentation names is there: files, headings, commands with their options, make targets."""

import contextlib
import functools
import io
import re
import shlex
from pathlib import Path

import pytest

from medsegdiff.app import published
from medsegdiff.app.cli import COMMANDS, OF_ALL, _parser, main
from medsegdiff.app.data import ACTIONS
from medsegdiff.base.errors import InputError, flag

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("examples/**/*.md")),
    *sorted(ROOT.glob("medsegdiff/models/*.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("logs/*/*.md")),
]
SCRIPTS = {"train": published.train, "sample": published.sample, "env": published.evaluate}
# Options of mpirun, Slurm, nvcc and Docker.
FOREIGN = {"--target", "--user", "--volume", "--bind-to", "--map-by", "--oversubscribe", "--signal", "--use_fast_math"}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def options_in(text):
    return set(re.findall(r"(?<![\w-])--[a-z0-9][\w-]*", text))


def helped(command, *words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        command([*words, "--help"])
    return options_in(out.getvalue()) | {"--help", *OF_ALL}


@functools.cache
def known(*command):
    """The options of `medsegdiff COMMAND` or, of ("scripts", NAME), of a published script."""
    if command[0] == "scripts":
        return helped(SCRIPTS[command[1]])
    return helped(main, *command)


@functools.cache
def every_option():
    benchmarks = [options_in(path.read_text()) for path in ROOT.glob("benchmarks/**/*.py")]
    actions = [known("data", action) for action in ACTIONS]
    return FOREIGN.union(*map(known, COMMANDS), *(known("scripts", name) for name in SCRIPTS), *actions, *benchmarks)


def code(text):
    """The lines of code blocks, continued ones joined, and the spans of code in the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [re.sub(r"\s#\s.*", "", line).strip() for line in [*lines, *(" ".join(span.split()) for span in spans)]]


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not re.match(r"https?://", target):
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            assert path.exists(), target
            assert not anchor or anchor in anchors(path), target


@each_page
def test_commands_and_their_options_exist(page):
    for line in code(page.read_text()):
        line = re.sub(r"^mpirun .*?(?=medsegdiff )", "", line)
        if line.startswith("medsegdiff ") and re.match(r"medsegdiff [a-z]", line):
            words = shlex.split(re.sub(r"[&;|>].*", "", line))[1:]
            words = words[1:] if words[0] == "help" else words
            command = words[:2] if words[:1] == ["data"] and words[1:] else words[:1]
            assert options_in(line) <= known(*command), line
            assert command[:1] == ["COMMAND"] or command[0] in COMMANDS, line
            assert command[:1] != ["data"] or command[1] in ACTIONS, line
            if "--" in line and command[0] in COMMANDS and "/shared/" not in line:  # else it is named, and not given
                with contextlib.suppress(SystemExit):
                    _parser(command[0]).parse_args([word for word in words if word not in OF_ALL][1:])
        script = re.match(r"python scripts/segmentation_(\w+)\.py(.*)", line)
        if script:
            assert options_in(script[2]) <= known("scripts", script[1]), line
        benchmark = re.match(r"python -m benchmarks\.(\w+)(.*)", line)
        if benchmark:
            source = ROOT / "benchmarks" / f"{benchmark[1]}.py"
            source = source if source.exists() else source.with_suffix("") / "__main__.py"
            text = source.read_text()
            shared = re.findall(r"^from benchmarks\.(\w+) import", text, re.MULTILINE)  # options may be declared there
            text += "".join((ROOT / "benchmarks" / f"{name}.py").read_text() for name in shared)
            assert all(f'"{option}"' in text for option in options_in(benchmark[2])), line


@each_page
def test_an_option_named_alone_is_one_of_ours(page):
    for span in code(page.read_text()):
        if span.startswith("--"):
            assert options_in(span) <= every_option(), span


@each_page
def test_make_targets_and_variables_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for line in code(page.read_text()):
        if re.match(r"make [a-z]", line):
            for word in shlex.split(line)[1:]:
                name, assigned, _ = word.partition("=")
                assert re.search(rf"\$\({name}\)" if assigned else rf"^{name}:", makefile, re.MULTILINE), line


def test_files_that_the_sources_name_exist():
    sources = [*ROOT.glob("medsegdiff/**/*.py"), *ROOT.glob("medsegdiff/**/*.yaml"), *ROOT.glob("benchmarks/**/*.py")]
    for source in sources:
        for name in re.findall(r"\b(?:docs|logs|tests|benchmarks)/[\w/.-]+\.(?:md|py|yaml|json)", source.read_text()):
            assert (ROOT / name).exists(), f"{source}: {name}"


def test_the_index_names_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in ROOT.glob("docs/*.md"):
        assert f"({page.name})" in index or page.name == "README.md", page.name


def test_modules_that_the_migration_table_names_exist():
    text = (ROOT / "docs" / "migration.md").read_text()
    named = re.findall(r"`(medsegdiff/[\w/]+)/?`: ([^|;]*)|`(medsegdiff/[\w/]+\.py)`", text)
    assert len(named) > 10
    for folder, files, single in named:
        for name in re.findall(r"`([\w/]+\.py)`", files):
            assert (ROOT / folder / name).is_file(), name
        assert not single or (ROOT / single).is_file(), single


def test_messages_in_the_troubleshooting_tables_are_ours():
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    sources = " ".join(path.read_text() for path in sorted(ROOT.glob("medsegdiff/**/*.py")))
    sources = re.sub(r"\{[^{}]*\}", "{}", re.sub(r'"\s*f?"', "", sources))  # strings that continue; what is put in
    sources = InputError(sources).spelled(flag)
    messages = [
        message for cells in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for message in cells.split("`")[1::2]
    ]
    assert len(messages) > 15
    for message in messages:
        for part in message.split("..."):
            assert part.strip(" ,;:") in sources, message
