"""The layouts next to a run's, as a map of the MFU: tensor against data parallel."""

from __future__ import annotations

from typing import Final

from perfmodel.errors import InputError
from perfmodel.explanation.explanation import Explanation
from perfmodel.report.figures.drawing.captions import source_text, stage_caption
from perfmodel.report.figures.drawing.cells import Cell, CellGrid, draw_grid, meanings
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.report.words import SETTINGS
from perfmodel.spec.axes import DATA, PIPELINE, TENSOR
from perfmodel.units import gibibytes_text, gpus_text, seconds_text
from perfmodel.variation.layout_map import LayoutMap, Neighbour, layout_map

PERCENT: Final = 100.0


def map_grid(layouts: LayoutMap) -> CellGrid:
    """A cell for each layout that can be."""
    rows, columns = layouts.tensor_parallel, layouts.data_parallel
    return CellGrid(
        row_name=SETTINGS[TENSOR.name].caption,
        rows=tuple(map(str, rows)),
        column_name=SETTINGS[DATA.name].caption,
        columns=tuple(map(str, columns)),
        cells=tuple(
            _cell(each, layouts, rows.index(each.tensor_parallel), columns.index(each.data_parallel))
            for each in layouts.neighbours
        ),
    )


def _cell(neighbour: Neighbour, layouts: LayoutMap, row: int, column: int) -> Cell:
    numbers, at = neighbour.numbers, (neighbour.tensor_parallel, neighbour.data_parallel)
    mfu, stages, gpus = PERCENT * float(numbers["mfu"]), int(numbers[PIPELINE.name]), int(numbers["gpus"])
    fits = "" if numbers["fits"] else ", does not fit"
    return Cell(
        row=row,
        column=column,
        mfu=mfu,
        fits=bool(numbers["fits"]),
        lines=(f"{mfu:.1f}", f"{PIPELINE.short} {stages}" if layouts.gpus is not None else gpus_text(gpus)),
        hover=f"{TENSOR.short} {at[0]}, {DATA.short} {at[1]}, {PIPELINE.short} {stages}: MFU {mfu:.1f} %, "
        f"{seconds_text(float(numbers['iteration_time_s']))} an iteration, "
        f"{gibibytes_text(float(numbers['memory_bytes']))}{fits}",
        is_here=at == layouts.here,
    )


@styled
def map_figure(explained: Explanation) -> Drawing:
    """The map around the stage that is explained. Errors: InputError where nothing else can be, and not even itself."""
    layouts = layout_map(explained.run, explained.place)
    if not layouts.neighbours:
        raise InputError("no layout next to this one can be: there is nothing to draw")
    grid = map_grid(layouts)
    drawing = Drawing(
        title=_title(layouts),
        subtitle=stage_caption(explained.run, explained.place),
        plot_height=grid.plot_height,
        description=_description(layouts),
    )
    draw_grid(drawing, drawing.subplots(), grid)
    drawing.key(meanings(grid, is_whole=len(grid.cells) == len(grid.rows) * len(grid.columns)))
    drawing.source_line(source_text(explained.run))
    return drawing


def _title(layouts: LayoutMap) -> str:
    if layouts.gpus is None:
        return "MFU [%] of other layouts, on as many GPUs as they take"
    return f"MFU [%] of other layouts of {layouts.gpus:,} GPUs, {PIPELINE.label} filling the rest"


def _description(layouts: LayoutMap) -> str:
    fitting = [each for each in layouts.neighbours if each.numbers["fits"]]
    if not fitting:
        return "None of these layouts fits in memory"
    best = max(fitting, key=lambda each: float(each.numbers["mfu"]))
    degrees = f"{TENSOR.label} {best.tensor_parallel}, {DATA.label} {best.data_parallel:,}"
    return f"Of those that fit {degrees} has the highest MFU, {PERCENT * float(best.numbers['mfu']):.1f} %"
