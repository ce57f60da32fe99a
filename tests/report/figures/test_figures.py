"""Do the pictures of predicted beside measured show every run, by group, with its band, and every operator of a step?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.interval_scores import Reliability
from perfmodel.evidence.time_scores import TimeComparison, time_reliability
from perfmodel.report.figures.drawing.palette import LINES
from perfmodel.report.figures.measured.steps import BAND, accuracy_figure, picture
from perfmodel.report.figures.reliability import reliability_figure
from tests.comparisons import compared
from tests.report.reading import colour, key_texts


def test_each_stack_has_its_colour_and_rows() -> None:
    """The key counts them, and every row is a point where it was measured and predicted."""
    drawing = accuracy_figure(compared())
    stacks = Counter(c.measured.labels["stack"] for c in compared() if c.predicted_s is not None)
    assert set(key_texts(drawing)) == {*(f"{name} ({rows})" for name, rows in stacks.items()), "within 10 %"}
    points = drawing.axes[0].lines[1:]  # the first is the diagonal
    assert Counter(colour(point.get_color()) for point in points) == {
        each.lower(): sum(rows for _, rows in _most_first(stacks)[place :: len(LINES)]) for place, each in enumerate(LINES)
    }
    drawn = {(float(x), float(y)) for point in points for x, y in [np.ravel(point.get_xydata())]}
    assert drawn == {(c.measured.iteration_time_s, c.predicted_s) for c in compared() if c.predicted_s is not None}


def _most_first(stacks: Counter[str]) -> list[tuple[str, int]]:
    return sorted(stacks.items(), key=lambda stack: -stack[1])


def test_the_band_is_10_percent_to_either_side() -> None:
    """Of the measured time, over the whole axis."""
    (axes,) = accuracy_figure(compared()).axes
    low, high = axes.get_xlim()
    assert axes.get_ylim() == (low, high)
    x, y = np.asarray(axes.collections[0].get_paths()[0].vertices, dtype=float).T
    assert set(np.round(y / x, 6)) == {1 - BAND, 1 + BAND}
    assert set(x) == {low, high}


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_rows_give_the_same_picture(kind: str) -> None:
    """Byte for byte: no date, no random names."""
    some = compared()[::20]
    assert picture(accuracy_figure(some), kind) == picture(accuracy_figure(some), kind)


def test_reliability_is_drawn_over_what_is_stated() -> None:
    """A point for each level, by rows and by sources, with its number beside it, and the diagonal."""
    found = Reliability(rows={0.5: 0.62, 0.9: 0.97}, by_source={0.5: 0.41, 0.9: 0.83})
    drawing = reliability_figure(found, what="9 measured runs")
    (axes,) = drawing.axes
    diagonal, *curves = axes.lines
    assert np.array_equal(*np.asarray(diagonal.get_xydata()).T)
    drawn = [np.asarray(each.get_xydata()).tolist() for each in curves]
    assert drawn == [[[50.0, 62.0], [90.0, 97.0]], [[50.0, 41.0], [90.0, 83.0]]]
    assert [text.get_text() for text in axes.texts] == ["62", "97", "41", "83"]
    assert set(key_texts(drawing)) == {"each row weighing one", "each source weighing one"}


def test_there_is_no_picture_of_nothing() -> None:
    """A row that is not covered is no point."""
    uncovered = [TimeComparison(measured=c.measured) for c in compared()[:3]]
    with pytest.raises(InputError, match="nothing to draw"):
        accuracy_figure(uncovered)
    with pytest.raises(InputError, match="nothing to draw"):
        reliability_figure(time_reliability(uncovered), what="no run")
