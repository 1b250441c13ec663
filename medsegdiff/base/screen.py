"""What a command says: progress and notes on standard error, results on standard output, or there as JSON."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from medsegdiff.base.errors import flag, spelled

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

_BLINK, _LINE = 0.1, 20.0  # seconds between two looks of a bar, and two lines where there is no terminal
_quiet = False
_spell: Callable[[str], str] = str  # as Python names options
_facts: dict[str, Any] = {}


@contextlib.contextmanager
def speaking(quiet: bool = False, as_json: bool = False) -> Iterator[None]:
    """Run a command; `quiet`: of what it says errors alone, `as_json`: what it told as one JSON object at its end.

    As JSON all that it prints otherwise goes to standard error, or nowhere.
    """
    _facts.clear()
    with contextlib.ExitStack() as stack:
        stack.callback(_speak, _quiet, _spell)
        _speak(_quiet or quiet, flag)
        if quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123 (a name, not a file)
        if quiet or as_json:
            stack.enter_context(contextlib.redirect_stdout(nowhere if quiet else sys.stderr))
        yield
    if as_json:
        print(json.dumps(_facts, ensure_ascii=False, indent=1, default=str))


def _speak(quiet: bool, spell: Callable[[str], str]) -> None:
    global _quiet, _spell
    _quiet, _spell = quiet, spell


def tell(text: str, **facts: Any) -> None:
    """Print a result, and keep it as `facts` for JSON."""
    _facts.update(facts)
    print(text, flush=True)


def note(text: str) -> None:
    """Print to standard error, above a bar if there is one.

    An option is named by its field, in backquotes, as in an `errors.InputError`.
    """
    if not _quiet:
        print(spelled(text, _spell), file=sys.stderr, flush=True)


class Bar:
    """Progress of work, a context manager: a bar where standard error is a terminal, else a line now and then.

    It has no thread of its own, so processes may fork beside it.
    """

    def __init__(
        self, total: float, what: str, unit: str, done: float = 0, after: float = 0.0, weights: Sequence[float] = ()
    ) -> None:
        """Begin with `done` of `total` units; work that is over within `after` seconds is not shown.

        `weights` says how much work each unit is, in their order, where they differ.
        """
        self.total, self.what, self.n, self._weights = total, what, done, weights
        self.unit = unit if unit.isupper() else f"{unit}s"
        self.words: dict[str, str] = {}
        """What else to show, by name."""
        self._first, self._begun = done, time.monotonic()
        self._shown, self._after = self._begun, after
        self._progress: Optional[Progress] = None

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *error: Any) -> None:
        if time.monotonic() - self._begun >= self._after:
            self._show()
        if self._progress is not None:
            self._progress.stop()

    def update(self, count: float = 1) -> None:
        """Count `count` more units."""
        self.n += count
        now = time.monotonic()
        if now - self._begun >= self._after and now - self._shown >= (_BLINK if sys.stderr.isatty() else _LINE):
            self._show()

    def _show(self) -> None:
        if _quiet:
            return
        self._shown = time.monotonic()
        words = ", ".join(f"{name} {value}" for name, value in self.words.items())
        if not sys.stderr.isatty():
            left = f", {_clock(self._left)} left" if self._left else ""
            print(
                f"{self.what}: {self.n:.0f} of {self.total:.0f} {self.unit} in {_clock(self._taken)}{left}"
                f"{', ' if words else ''}{words}",
                file=sys.stderr,
                flush=True,
            )
            return
        if self._progress is None:
            self._progress = _bar()
            self._progress.add_task(self.what, state="", words="")
            self._progress.start()
        clock = f", {_clock(self._left)} left" if self._left else f" in {_clock(self._taken)}"
        state = f"{self.n:.0f}/{self.total:.0f} {self.unit}{clock}"
        task = self._progress.task_ids[0]
        self._progress.update(task, completed=self.n, total=self.total, state=state, words=words, refresh=True)

    @property
    def _taken(self) -> float:
        return time.monotonic() - self._begun

    @property
    def _left(self) -> float:
        """Seconds left at this speed; 0 if unknown."""
        done = self._work(self._first, self.n)
        return self._work(self.n, self.total) * self._taken / done if done > 0 else 0.0

    def _work(self, start: float, end: float) -> float:
        return sum(self._weights[int(start) : int(end)]) if self._weights else end - start


def track(
    items: Iterable[T], total: int, what: str, unit: str, shown: bool = True, weights: Sequence[float] = ()
) -> Iterator[T]:
    """The `items`, with a bar once it takes longer than three seconds; none where it is not to be `shown`."""
    if not shown:
        yield from items
        return
    with Bar(total, what, unit, after=3, weights=weights) as bar:
        for item in items:
            yield item
            bar.update()


def _bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    bar = BarColumn(None, complete_style="cyan", finished_style="green")  # rich's own is red
    columns = TextColumn("{task.description}"), bar, TextColumn("{task.fields[state]}")
    console = Console(stderr=True, highlight=False)
    more = TextColumn("{task.fields[words]}")
    return Progress(*columns, more, console=console, auto_refresh=False, expand=True)


def counted(count: object, what: str) -> str:
    """The number of things, as 1 image and 2 images."""
    return f"{count} {what}{'s' * (count != 1)}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
