"""Charts as SVG that takes its colours from the page: `.s0`, `.s1`, ... are the runs', `.axis` and text the page's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 380, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 40

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """A curve of a chart."""

    points: Points
    look: str = ""
    """CSS classes: that of the run, `run_look`; `faint`, `dashed`."""
    marked: bool = False
    """Whether each point has a dot, with its values shown under the pointer."""


def chart(
    lines: Sequence[Line],
    title: str,
    x_label: str,
    y_label: str,
    x_range: Optional[tuple[float, float]] = None,
    y_range: Optional[tuple[float, float]] = None,
    log: bool = False,
) -> Markup:
    """An SVG line chart.

    Args:
        lines: the curves; points that are not finite, or on a logarithmic axis not above 0, are left out
        title: what a screen reader says
        x_label, y_label: the axes'
        x_range, y_range: the axes' ends; None: what the points need
        log: whether the vertical axis is logarithmic
    """
    lines = [line._replace(points=[p for p in line.points if _drawable(p, log)]) for line in lines]
    points = [point for line in lines for point in line.points] or [(0, 1), (1, 1)]
    x_range = x_range or (min(x for x, _ in points), max(x for x, _ in points))
    y_range = y_range or (min(y for _, y in points), max(y for _, y in points))
    scale = _Scale(x_range, y_range, log)
    parts = [_axes(scale, x_label, y_label)]
    for line in lines:
        path = "M" + "L".join(f"{scale.x(x):.1f} {scale.y(y):.1f}" for x, y in line.points)
        if len(line.points) > 1:
            parts.append(f'<path class="line {line.look}" d="{path}"/>')
        if line.marked or len(line.points) == 1:
            parts += [
                f'<circle class="dot {line.look}" cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3">'
                f"<title>{x:g}: {y:.4g}</title></circle>"
                for x, y in line.points
            ]
    head = f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")


def run_look(number: int) -> str:
    """The CSS classes of a run's lines, from 0: six colours with dashes, then the same in thick lines."""
    return f"s{number % 6}{' thick' if number // 6 % 2 else ''}"


def steps(edges: Sequence[float], counts: Sequence[float]) -> Points:
    """A histogram's outline, from 0 up and back to 0; one edge more than counts."""
    sides = [(edges[0], 0.0)]
    for low, high, count in zip(edges, edges[1:], counts):
        sides += [(low, count), (high, count)]
    return [*sides, (edges[-1], 0.0)]


def running_mean(points: Points, window: int = 10) -> Points:
    """Each value's mean with up to `window` - 1 before it."""
    means = []
    for index, (x, _) in enumerate(points):
        values = [y for _, y in points[max(0, index - window + 1) : index + 1]]
        means.append((x, sum(values) / len(values)))
    return means


def _drawable(point: tuple[float, float], log: bool) -> bool:
    return all(map(math.isfinite, point)) and (point[1] > 0 or not log)


class _Scale:
    def __init__(self, x_range: tuple[float, float], y_range: tuple[float, float], log: bool) -> None:
        self.x_range, self.log = _apart(x_range), log
        self.x_ticks, self.y_ticks = _ticks(*self.x_range), _log_ticks(*y_range) if log else _ticks(*_apart(y_range))
        self.y_range = min(y_range[0], self.y_ticks[0]), max(y_range[1], self.y_ticks[-1])

    def x(self, value: float) -> float:
        low, high = self.x_range
        return _LEFT + (value - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (*self.y_range, value))
        return _HEIGHT - _BOTTOM - (value - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(scale: _Scale, x_label: str, y_label: str) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = []
    for value in scale.y_ticks:
        y = scale.y(value)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for value in scale.x_ticks:
        x = scale.x(value)
        anchor = "end" if x > right - 12 else "middle"
        parts.append(f'<path class="axis" d="M{x:.1f} {bottom}v4"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="{anchor}">{_short(value)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{right}"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>')
    return "".join(parts)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10000 else f"{value:g}"


def _apart(ends: tuple[float, float]) -> tuple[float, float]:
    low, high = ends
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers in the range, about five."""
    rough = (high - low) / 5
    size = 10 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * n, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, from below the range to above it; powers alone where it is wide."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 2, 5)
    ticks = [factor * 10.0**decade for decade in decades for factor in factors]
    first = max(index for index, tick in enumerate(ticks) if tick <= low * 1.0001)
    last = next((index for index, tick in enumerate(ticks) if tick >= high), len(ticks) - 1)
    return ticks[first : max(last, first + 1) + 1]
