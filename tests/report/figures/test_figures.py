"""Do the pictures of predicted beside measured show the error of every run with its interval, by group?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from matplotlib.lines import Line2D

from perfmodel.errors import InputError
from perfmodel.evidence.interval_scores import Reliability
from perfmodel.evidence.time_scores import TimeComparison, time_reliability, time_scoreboard
from perfmodel.report.figures.drawing.palette import BLUE, VERMILION
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.measured.accuracy import BAND, accuracy_figure, picture
from perfmodel.report.figures.reliability import reliability_figure
from tests.comparisons import compared
from tests.report.reading import colour, drawn_texts, key_texts, points


def _predicted() -> list[TimeComparison]:
    return [each for each in compared() if each.predicted_s is not None and each.measured.scored]


def _dots(drawing: Drawing) -> list[Line2D]:
    return [line for line in drawing.axes[0].lines if len(points(line)) == 1]


def test_each_run_is_a_dot_at_its_signed_error() -> None:
    """In percent, too slow to the right; what is beyond the axis stands at its end, with an arrow."""
    drawing = accuracy_figure(compared())
    low, high = drawing.axes[0].get_xlim()
    wanted = sorted(100.0 * (each.relative_error or 0.0) for each in _predicted())
    assert sorted(points(dot)[0, 0] for dot in _dots(drawing)) == pytest.approx(np.clip(wanted, low, high))
    arrows = [dot for dot in _dots(drawing) if dot.get_marker() != "o"]
    assert len(arrows) == sum(not low <= error <= high for error in wanted)
    assert (-low, low % 10.0) == (high, 0.0)


def test_each_run_has_its_interval_on_its_row() -> None:
    """From one end to the other, over 0 where the measurement lies inside: that is what its colour says."""
    some = _predicted()[::40]
    drawing = accuracy_figure(some)
    low, high = drawing.axes[0].get_xlim()
    rows = {points(line)[0, 1]: line for line in drawing.axes[0].lines if len({*points(line)[:, 1]}) == 1 < len(points(line))}
    assert len(rows) == len(some)
    lines = {points(dot)[0, 0]: (rows[points(dot)[0, 1]], dot) for dot in _dots(drawing)}
    for each in some:
        line, dot = lines[float(np.clip(100.0 * (each.relative_error or 0.0), low, high))]
        ends = [100.0 * (end / each.measured.iteration_time_s - 1.0) for end in each.interval_s or ()]
        assert points(line)[:, 0] == pytest.approx(np.clip(ends, low, high))
        assert colour(dot.get_color()) == (BLUE if ends[0] <= 0.0 <= ends[1] else VERMILION).lower()


def test_groups_go_from_the_largest_to_the_smallest() -> None:
    """Each with its number of runs and its scores; the runs of one from too fast to too slow."""
    drawing = accuracy_figure(compared())
    stacks = Counter(each.measured.labels["stack"] for each in _predicted())
    told = [text.get_text() for text in drawing.axes[0].texts]
    most_first = sorted(stacks.items(), key=lambda stack: (-stack[1], stack[0]))
    assert [text.partition(":")[0] for text in told] == [f"{name} ({rows})" for name, rows in most_first]
    first = sorted((points(dot)[0, 1], points(dot)[0, 0]) for dot in _dots(drawing))[: most_first[0][1]]
    assert [error for _, error in first] == sorted(error for _, error in first)


def test_scores_of_a_group_are_those_of_the_table() -> None:
    """The median of the errors without their sign, and how many measurements lie inside."""
    scores = time_scoreboard(compared()).overall
    assert scores is not None
    said = f"median {100 * scores.median_abs_error:.1f} %, {100 * scores.interval_coverage:.0f} % inside"
    assert any(said in text for text, _ in drawn_texts(accuracy_figure(compared())))


def test_the_key_says_what_is_there() -> None:
    """The band, what lies inside and outside, and how many are beyond the axis."""
    inside, outside, band, beyond = key_texts_sorted(accuracy_figure(compared()))
    assert (inside, outside, band) == ("measured inside the 90 % interval", "outside", f"within {BAND:.0f} %")
    assert beyond.startswith("beyond ")


def key_texts_sorted(drawing: Drawing) -> list[str]:
    """What the key says, in the order in which it is read."""
    order = ("measured", "outside", "within", "beyond")
    return sorted(key_texts(drawing), key=lambda text: order.index(text.split()[0]))


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
