import re
import xml.etree.ElementTree as ElementTree

import pytest

from medsegdiff.web.charts import Line, chart, run_look, running_mean, steps


def drawn(*lines, **options):
    """The root of the SVG; it must be well-formed."""
    return ElementTree.fromstring(chart(lines, "a < b", "x & y", "y", **options))


def ends(root, look="line"):
    path = next(node for node in root.iter("path") if node.get("class").startswith(look))
    return [tuple(map(float, pair.split())) for pair in re.split("[ML]", path.get("d"))[1:]]


def texts(root):
    return [node.text for node in root.iter("text")]


def test_points_lie_where_their_values_say():
    root = drawn(Line([(0, 0), (5, 0.5), (10, 1)], "s0"), x_range=(0, 10), y_range=(0, 1))
    (left, bottom), (middle, centre), (right, top) = ends(root)
    assert left < middle < right and top < centre < bottom
    assert middle == pytest.approx((left + right) / 2)
    assert {"0", "10", "0.2", "1", "x & y"} <= set(texts(root))
    assert root.get("aria-label") == "a < b"


def test_a_logarithmic_axis_gives_each_factor_the_same_height():
    points = [(0, 1), (1, 0.1), (2, 0.01)]
    heights = [y for _, y in ends(drawn(Line(points, "s0"), log=True))]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1])
    assert {"1", "0.1", "0.01"} <= set(texts(drawn(Line(points), log=True)))


def test_what_cannot_be_drawn_is_left_out():
    nan = float("nan")
    assert len(ends(drawn(Line([(0, 1), (1, nan), (2, 0), (3, 2)]), log=True))) == 2
    assert not list(drawn(Line([])).iter("circle"))  # an empty chart still has axes
    assert len(list(drawn(Line([(3, 3)])).iter("circle"))) == 1  # a single point has no line


@pytest.mark.parametrize("points", [[(0, 7), (1, 7)], [(5, 1), (5, 2)], [(0, 1e-9), (1, 2e9)], [(0, -3), (1e7, 4e6)]])
def test_any_range_has_ticks_and_stays_in_the_picture(points):
    root = drawn(Line(points))
    assert len(texts(root)) > 4
    assert all(0 <= x <= 380 and 0 <= y <= 250 for x, y in ends(root))


def test_a_histogram_goes_up_and_back_to_zero():
    assert steps([0, 1, 2], [3, 5]) == [(0, 0), (0, 3), (1, 3), (1, 5), (2, 5), (2, 0)]


def test_the_mean_is_over_what_was_before():
    assert running_mean([(0, 2), (1, 4), (2, 9)], window=2) == [(0, 2), (1, 3), (2, 6.5)]


def test_a_dozen_runs_can_be_told_apart():
    assert len({run_look(number) for number in range(12)}) == 12
