"""Draw the three versions of the network: what the conditioning network passes to the denoiser, and where.

python -m benchmarks.versions_figure [--out docs/versions.svg]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BLUE, ORANGE, INK = "#4477aa", "#cc6633", "#222222"
HEIGHTS = (2.0, 1.5, 1.0, 1.5, 2.0)
"""Of the bars of a U-Net: its maps' size."""
STEP, WIDTH = 0.62, 0.34
TOP, BOTTOM = 4.9, 1.4
"""Where the middles of both networks are."""


def main(argv: Sequence[str] | None = None) -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/versions.svg"))
    out = parser.parse_args(argv).out
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text; and the same drawing is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "versions", "font.size": 9}):
        figure = Figure(figsize=(12.5, 4.6), layout="constrained")
        panels = zip(figure.subplots(1, 3), ("new", "v1", "v2"), (new, v1, v2))
        for axes, title, links in panels:
            axes.set(xlim=(-1.25, 4.45), ylim=(-0.45, 6.7), aspect="equal")
            axes.axis("off")
            axes.set_title(title, fontsize=13, weight="bold")
            networks(axes)
            links(axes)
        figure.savefig(out, metadata={"Date": None})


def x(bar: int) -> float:
    """The middle of a bar."""
    return bar * STEP + WIDTH / 2


def networks(axes: Any) -> None:
    """Both U-Nets with what goes in and comes out."""
    from matplotlib.patches import Rectangle

    for middle, colour in ((TOP, BLUE), (BOTTOM, ORANGE)):
        for bar, height in enumerate(HEIGHTS):
            axes.add_patch(Rectangle((bar * STEP, middle - height / 2), WIDTH, height, color=colour))
            if bar:
                arrow(axes, (x(bar) - STEP + WIDTH / 2, middle), (x(bar) - WIDTH / 2, middle), INK)
    last = x(4) + WIDTH / 2
    for middle, before, after in ((TOP, "image", "its own\nmask"), (BOTTOM, "image,\nnoisy mask", "noise,\nvariance")):
        arrow(axes, (-0.42, middle), (0, middle), INK)
        arrow(axes, (last, middle), (last + 0.42, middle), INK)
        axes.text(-0.47, middle, before, ha="right", va="center", color=INK)
        axes.text(last + 0.47, middle, after, ha="left", va="center", color=INK)
    axes.text(x(2), TOP + 1.15, "conditioning network", ha="center", color=BLUE)
    axes.text(x(2), BOTTOM - 1.45, "denoiser", ha="center", color=ORANGE)


def arrow(axes: Any, start: tuple[float, float], end: tuple[float, float], colour: str, bend: float = 0.0) -> None:
    """An arrow, curved by `bend`."""
    from matplotlib.patches import FancyArrowPatch

    style = f"arc3,rad={bend}"
    axes.add_patch(
        FancyArrowPatch(
            start, end, connectionstyle=style, arrowstyle="-|>", mutation_scale=9, color=colour, shrinkA=0, shrinkB=0
        )
    )


def box(axes: Any, place: tuple[float, float], text: str) -> None:
    """A named operation."""
    frame = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": INK}
    axes.text(*place, text, ha="center", va="center", color=INK, bbox=frame)


def new(axes: Any) -> None:
    """The last maps but one are added to the denoiser's first."""
    box(axes, (x(1) - 0.1, 3.15), "resized, added;\nno gradient")
    arrow(axes, (x(3), TOP - HEIGHTS[3] / 2), (x(1) + 0.75, 3.3), BLUE, -0.15)
    arrow(axes, (x(1) - 0.45, 2.78), (x(0), BOTTOM + HEIGHTS[0] / 2), BLUE)


def v1(axes: Any) -> None:
    """The denoiser's maps go through the FF-Parser into the conditioning network, whose bottleneck comes back."""
    box(axes, (x(0) + 0.1, 3.15), "FF-Parser")
    for bar in (0, 1):
        arrow(axes, (x(bar), BOTTOM + HEIGHTS[bar] / 2), (x(bar), 2.92), ORANGE)
        arrow(axes, (x(bar), 3.4), (x(bar), TOP - HEIGHTS[bar] / 2), ORANGE)
    box(axes, (x(3), 3.15), "1 x 1,\nadded")
    arrow(axes, (x(2), TOP - HEIGHTS[2] / 2), (x(3) - 0.15, 3.5), BLUE)
    arrow(axes, (x(3) - 0.15, 2.8), (x(2), BOTTOM + HEIGHTS[2] / 2), BLUE)


def v2(axes: Any) -> None:
    """The last map becomes a gate; both bottlenecks meet in the transformer."""
    box(axes, (x(0) - 0.2, 3.15), "U-SA:\ngate")
    arrow(axes, (x(4), TOP - HEIGHTS[4] / 2), (x(0) + 0.27, 3.35), BLUE, -0.12)
    arrow(axes, (x(0), 2.78), (x(0), BOTTOM + HEIGHTS[0] / 2), BLUE)
    box(axes, (x(3) - 0.05, 2.75), "SS-Former")
    arrow(axes, (x(2), TOP - HEIGHTS[2] / 2), (x(2) + 0.2, 3.0), BLUE)
    arrow(axes, (x(2) - 0.1, BOTTOM + HEIGHTS[2] / 2), (x(2) - 0.02, 2.5), ORANGE)
    arrow(axes, (x(2) + 0.42, 2.5), (x(2) + 0.12, BOTTOM + HEIGHTS[2] / 2), INK)
    axes.text(x(4) + 0.55, 2.75, "time", ha="left", va="center", color=INK)
    arrow(axes, (x(4) + 0.5, 2.75), (x(3) + 0.55, 2.75), INK)


if __name__ == "__main__":
    main()
