"""Does the roofline place every operator where its FLOPs, bytes and seconds put it, under its roof?"""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from perfmodel.explanation.roofline import Roofline, roofline
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.roofline import LEAST, roofline_figure
from tests.report.reading import points
from tests.report.runs import CASES, case, figures


def drawing_of(name: str) -> Drawing:
    """The figure of the case's last stage."""
    return next(drawing for which, drawing in figures(name).items() if which.startswith("operators"))


def roofs_of(name: str) -> Roofline:
    """Its data."""
    found = case(name)
    return roofline(found.explained.predicted, cluster=found.run.cluster, stack=found.run.stack)


def markers(axes: Axes) -> list[tuple[float, float]]:
    """Where operators are."""
    return [(float(points(line)[0, 0]), float(points(line)[0, 1])) for line in axes.lines if _is_marker(line)]


def _is_marker(line: Line2D) -> bool:
    return line.get_marker() != "None"


@pytest.mark.parametrize("name", CASES)
def test_every_operator_has_a_place(name: str) -> None:
    """FLOP/byte against TFLOP/s on the left; what computes nothing by MB and GB/s on the right."""
    left, right = drawing_of(name).axes
    operators = roofs_of(name).operators
    computing = sorted((each.flop / each.bytes, each.flop / each.seconds / 1e12) for each in operators if each.flop)
    assert np.asarray(sorted(markers(left))) == pytest.approx(np.asarray(computing))
    moving = [(each.bytes / 1e6, each.bytes / each.seconds / 1e9) for each in operators if not each.flop]
    inside = sorted(place for place in moving if place[0] > LEAST[0])
    drawn = sorted(place for place in markers(right) if place[0] > LEAST[0])
    assert np.asarray(drawn) == pytest.approx(np.asarray(inside))
    assert len(markers(right)) == len(moving)


@pytest.mark.parametrize("name", CASES)
def test_roofs_are_those_of_the_gpu(name: str) -> None:
    """A ceiling at each precision's peak, and a slope that rises by the memory rate; no product lies above."""
    left, _ = drawing_of(name).axes
    roofs = roofs_of(name)
    lines = [points(line) for line in left.lines if not _is_marker(line)]
    ceilings = sorted(float(line[0, 1]) for line in lines if line[0, 1] == line[1, 1])
    assert ceilings == pytest.approx(sorted(peak / 1e12 for peak in roofs.peak_flop_per_s.values()))
    (slope,) = [line for line in lines if line[0, 1] != line[1, 1]]
    assert slope[:, 1] == pytest.approx(slope[:, 0] * roofs.memory_bytes_per_s / 1e12)
    assert all(each.flop_per_s <= each.attainable_flop_per_s for each in roofs.operators if each.attainable_flop_per_s)


def test_every_operator_tells_its_numbers() -> None:
    """Under the pointer, with how sure its time is."""
    told = drawing_of("ramp").hover_texts.values()
    assert len(told) == len(roofs_of("ramp").operators)
    (product,) = [text for text in told if text.startswith("mlp.fc1 wgrad")]
    assert "TFLOP/s" in product
    assert "interpolated" in product


def test_what_takes_longest_is_named() -> None:
    """By its name without the layer; those beside it on the same spot are counted."""
    left, right = drawing_of("ramp").axes
    names = [text.get_text() for axes in (left, right) for text in axes.texts]
    longest = max(roofs_of("ramp").operators, key=lambda each: each.total_s)
    assert f"{longest.name} + 1" in names  # gradients and parameters are as many bytes


def test_markers_grow_with_time() -> None:
    """Their area is in proportion to it, down to a size that can be seen."""
    left, _ = roofline_figure(case("ramp").explained).axes
    sizes = {tuple(points(line)[0].tolist()): line.get_markersize() ** 2 for line in left.lines if _is_marker(line)}
    operators = [each for each in roofs_of("ramp").operators if each.flop]
    long = [each for each in operators if each.total_s > 0.1 * max(other.total_s for other in operators)]
    ratios = [sizes[each.intensity, each.flop_per_s / 1e12] / each.total_s for each in long]
    assert max(ratios) == pytest.approx(min(ratios), rel=0.3)
