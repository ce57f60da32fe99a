"""Do the figures of a plan show each layout, each rival and each number of GPUs where the plan has it, readably?"""

from __future__ import annotations

import re
from functools import cache
from itertools import combinations
from xml.etree import ElementTree as ET

import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.style import LEAST_LETTERS, NARROW, POINTS, Drawing, svg_text
from perfmodel.report.figures.plans.plan_front import plan_front_figure
from perfmodel.report.figures.plans.plan_map import map_grid, plan_map_figure
from perfmodel.report.figures.plans.plan_options import cost_of, plan_options_figure, time_of
from perfmodel.report.figures.plans.rivals import rejections_figure, rivals_figure
from perfmodel.report.text.plans.plan import rejections
from perfmodel.search.plan import Plan
from perfmodel.search.plan_map import PlanMap, plan_map
from tests.report.reading import bars, drawn_texts, points, row_of, widths

pytestmark = pytest.mark.slow

NAMES = ("map", "rivals", "rejected", "front", "options")
SVG = "{http://www.w3.org/2000/svg}"
TOUCHING = 1.2  # points that two texts may share


@cache
def planned() -> Plan:
    """A model that does not fit everywhere, on three numbers of GPUs."""
    return pm.plan("llama-3.1-70b", cluster="dgx-h100", gpus="64,128,256", tokens="1T", price=2.5)


@cache
def mapped() -> PlanMap:
    """Its map."""
    best = planned().best
    assert best is not None
    return plan_map(best.workloads[-1], planned().question.space)


@cache
def figure(name: str) -> Drawing:
    """One of them."""
    if name == "map":
        return plan_map_figure(planned(), mapped())
    draw = {"rivals": rivals_figure, "rejected": rejections_figure, "front": plan_front_figure, "options": plan_options_figure}
    return draw[name](planned())


@pytest.mark.parametrize("name", NAMES)
def test_letters_can_be_read_on_a_telephone(name: str) -> None:
    """None smaller than LEAST_LETTERS where the figure is NARROW."""
    root = ET.fromstring(svg_text(figure(name)))  # noqa: S314 - our own
    sizes = [float(size) for text in root.iter(f"{SVG}text") for size in re.findall(r"([\d.]+)px", text.get("style", ""))]
    assert min(sizes) * NARROW / (POINTS * figure(name).get_size_inches()[0]) >= LEAST_LETTERS


@pytest.mark.parametrize("name", NAMES)
def test_no_text_leaves_the_canvas_or_hides_another(name: str) -> None:
    """By the boxes of the renderer."""
    texts = drawn_texts(figure(name))
    assert not [text for text, box in texts if min(box.x0, box.y0) < 0 or max(box.x1, box.y1) > 1]
    wide, high = (POINTS * side for side in figure(name).get_size_inches())
    for (one, box), (other, second) in combinations(texts, 2):
        across = wide * (min(box.x1, second.x1) - max(box.x0, second.x0))
        up = high * (min(box.y1, second.y1) - max(box.y0, second.y0))
        assert min(across, up) <= TOUCHING, (one, other)


def test_each_cell_of_the_map_is_its_speed() -> None:
    """Against the fastest of all, which is framed; hatched where nothing fits."""
    best = min(cell.fastest.iteration_time_s for cell in mapped().cells.values() if cell.fastest is not None)
    grid = map_grid(mapped(), best)
    assert len(grid.cells) == len(mapped().cells)
    at = {(int(grid.rows[cell.row]), int(grid.columns[cell.column])): cell for cell in grid.cells}
    for degrees, cell in mapped().cells.items():
        assert at[degrees].fits is (cell.fastest is not None)
        if cell.fastest is not None:
            assert at[degrees].mfu == pytest.approx(100.0 * best / cell.fastest.iteration_time_s)
    assert max(cell.mfu for cell in grid.cells) == pytest.approx(100.0)
    assert sum(cell.is_here for cell in grid.cells) >= 1


def test_bars_of_rivals_end_at_their_times() -> None:
    """The best on top, in ms or in s."""
    stage = planned().stages[-1]
    (axes,) = figure("rivals").axes
    ends = {row_of(bar): bar.get_x() + bar.get_width() for bar in bars(axes)}
    times = [each.iteration_time_s for each in (stage.best, *stage.rivals[: len(ends) - 1])]
    scale = ends[0] / times[0]
    assert scale in (pytest.approx(1.0), pytest.approx(1e3))
    assert [ends[row] / scale for row in range(len(ends))] == pytest.approx(times)


def test_bars_of_rejected_choices_are_as_long_as_they_are_slower() -> None:
    """In percent; what does not fit has none to speak of."""
    rows = rejections(planned().stages[-1])
    (axes,) = figure("rejected").axes
    for each, width in zip(rows, widths(axes), strict=True):
        if each.slower_by is not None and each.slower_by > 0.01:
            assert width == pytest.approx(100.0 * each.slower_by)
    assert any("because" not in text and "%" in text for text, _ in drawn_texts(figure("rejected")))


def test_every_number_of_gpus_stands_at_its_time_and_cost() -> None:
    """Calendar days over dollars."""
    plan = planned()
    (axes,) = figure("options").axes
    dots = {tuple(points(line)[0]) for line in axes.lines if len(points(line)) == 1}
    assert dots == {(cost_of(plan, each), time_of(each)) for each in plan.options}


def test_there_is_no_picture_of_nothing() -> None:
    """Of a plan that found nothing, of one number of GPUs, of a map in which nothing fits."""
    none = pm.plan("llama-3.1-405b", cluster="dgx-a100", gpus="8", choose={"sharding": "none"})
    for draw in (rivals_figure, rejections_figure, plan_front_figure, plan_options_figure):
        with pytest.raises(InputError, match="nothing to"):
            draw(none)
    with pytest.raises(InputError, match="nothing to"):
        plan_map_figure(none, PlanMap(cells={}))
