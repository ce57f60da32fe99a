"""The map of a plan: how fast the best layout with each tensor and pipeline parallel is, against the fastest of all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.captions import SHOWN
from perfmodel.report.figures.drawing.cells import Cell, CellGrid, draw_grid, meanings
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.report.figures.plans.plan_front import plan_caption, plan_source
from perfmodel.report.text.prediction import layout_words
from perfmodel.report.words import SETTINGS
from perfmodel.search.plan import Plan
from perfmodel.search.plan_map import MapCell, PlanMap
from perfmodel.spec.axes import PIPELINE, TENSOR
from perfmodel.units import GIBIBYTE, gibibytes_text, seconds_text

WIDE: Final = 8  # columns up to which the time stands in a cell too


@styled
def plan_map_figure(plan: Plan, found: PlanMap) -> Drawing:
    """Rows of tensor, columns of pipeline parallel, of the last ramp stage. Errors: InputError where nothing fits."""
    fitting = [cell.fastest for cell in found.cells.values() if cell.fastest is not None]
    if not fitting:
        raise InputError("no layout fits: there is nothing to draw")
    best = min(fitting, key=lambda each: each.figures)
    grid = map_grid(found, best.iteration_time_s)
    drawing = Drawing(
        title="Speed of the best layout of each kind, % of the fastest",
        subtitle=plan_caption(plan),
        plot_height=grid.plot_height,
        description=f"Fastest: {', '.join(layout_words(best.layout, SHOWN))}",
    )
    draw_grid(drawing, drawing.subplots(), grid, scale_name="speed [%]")
    is_whole = len(grid.cells) == len(grid.rows) * len(grid.columns)
    drawing.key(meanings(grid, is_whole=is_whole, here="the fastest"))
    drawing.source_line(plan_source(plan), "all else chosen anew for each")
    return drawing


def map_grid(found: PlanMap, best_s: float) -> CellGrid:
    """A cell for each pair of degrees with which a layout may exist."""
    rows, columns = found.tensor_parallel, found.pipeline_parallel
    return CellGrid(
        row_name=SETTINGS[TENSOR.name].caption,
        rows=tuple(map(str, rows)),
        column_name=SETTINGS[PIPELINE.name].caption,
        columns=tuple(map(str, columns)),
        cells=tuple(_grid_cells(found, best_s)),
    )


def _grid_cells(found: PlanMap, best_s: float) -> Iterator[Cell]:
    speeds = [100.0 * best_s / cell.fastest.iteration_time_s for cell in found.cells.values() if cell.fastest is not None]
    for (tensor, pipeline), cell in found.cells.items():
        fastest = cell.fastest
        speed = min(speeds) if fastest is None else 100.0 * best_s / fastest.iteration_time_s
        yield Cell(
            row=found.tensor_parallel.index(tensor),
            column=found.pipeline_parallel.index(pipeline),
            mfu=speed,
            fits=fastest is not None,
            lines=_lines(cell, speed, is_wide=len(found.pipeline_parallel) <= WIDE),
            hover=f"{TENSOR.short} {tensor}, {PIPELINE.short} {pipeline}: {_told(cell, speed)}",
            is_here=fastest is not None and fastest.iteration_time_s == best_s,
        )


def _lines(cell: MapCell, speed: float, *, is_wide: bool) -> tuple[str, ...]:
    if cell.fastest is None:
        return (f"{cell.least_bytes / GIBIBYTE:,.0f} GiB",) if is_wide else ()
    return (f"{speed:.0f}", *([seconds_text(cell.fastest.iteration_time_s)] if is_wide else []))


def _told(cell: MapCell, speed: float) -> str:
    if cell.fastest is None:
        return f"does not fit, needs {gibibytes_text(cell.least_bytes)} at least"
    words = ", ".join(layout_words(cell.fastest.layout, SHOWN))
    figures = f"{seconds_text(cell.fastest.iteration_time_s)} an iteration, {gibibytes_text(cell.fastest.memory_bytes)}"
    return f"{figures}, {speed:.0f} % of the fastest: {words}"
