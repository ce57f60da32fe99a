"""Maps of two axes: a cell for each combination, coloured by MFU, hatched where it does not fit, blank where it cannot be."""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize, to_hex
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.lettering import shortened, text_width
from perfmodel.report.figures.drawing.palette import GRID, INK, MUTED, PAPER, text_on
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing

COLOURS: Final[Colormap] = colormaps["viridis"]  # even steps for any colour vision
HATCH: Final = "////"
MOST_TOLD: Final = 400  # cells: more have neither a number nor a text of their own
HIGH, WIDE = 26.0, 64.0  # points of a cell, where there is room
HIGHEST: Final = 640.0  # points of all rows
LABEL_ROOM: Final = 110.0
LINE: Final = 9.0
INSET: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What stands at a row and a column; `lines` are written in it, `hover` is told of it, `is_here` marks the run itself."""

    row: int
    column: int
    mfu: float
    fits: bool
    lines: tuple[str, ...]
    hover: str
    is_here: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CellGrid:
    """The cells that can be, with the labels of all rows and columns; the size of one is in points."""

    row_name: str
    rows: tuple[str, ...]
    column_name: str
    columns: tuple[str, ...]
    cells: tuple[Cell, ...]

    @property
    def beside(self) -> float:
        """The width of the labels of the rows."""
        return max(text_width(shortened(label, LABEL_ROOM, TEXT), TEXT) for label in self.rows) + 34.0

    def cell_size(self, room: float) -> tuple[float, float]:
        """The width and height of a cell in so much room."""
        return min(WIDE, (room - self.beside) / len(self.columns)), min(HIGH, HIGHEST / len(self.rows))

    @property
    def plot_height(self) -> float:
        """Height of the plot [points]."""
        return self.cell_size(0.0)[1] * len(self.rows) + 44.0


def draw_grid(drawing: Drawing, axes: Axes, grid: CellGrid, *, scale_name: str = "MFU [%]") -> None:
    """The map; where there are few columns, the rest of the width stays blank. `scale_name` is what the colours mean."""
    width, height = grid.cell_size(drawing.room)
    scale = Normalize(min(cell.mfu for cell in grid.cells), max(cell.mfu for cell in grid.cells))
    if len(grid.cells) > MOST_TOLD:
        _draw_many(drawing, axes, grid, scale, scale_name)
    else:
        for cell in grid.cells:
            _draw(drawing, axes, cell, to_hex(COLOURS(scale(cell.mfu))), (width, height))
    across = [shortened(label, max(width - 4.0, 3.0 * TEXT), TEXT) for label in grid.columns]
    every = ceil((max(text_width(label, TEXT) for label in across) + 4.0) / width)
    axes.set_xticks(np.arange(len(across))[::every] + 0.5, across[::every])
    down = [shortened(label, LABEL_ROOM, TEXT) for label in grid.rows]
    every = ceil(1.2 * TEXT / height)
    axes.set_yticks(np.arange(len(down))[::every] + 0.5, down[::every])
    axes.set_xlim(0, (drawing.room - grid.beside) / width)
    axes.set_ylim(len(grid.rows), 0)
    axes.set_xlabel(grid.column_name, loc="left")
    axes.set_ylabel(grid.row_name)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _draw(drawing: Drawing, axes: Axes, cell: Cell, colour: str, size: tuple[float, float]) -> None:
    """One cell: its text where there is room for it, hatched where it does not fit."""
    corner, ink = (cell.column, cell.row), text_on(colour)
    patch = axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.0))
    drawing.hover(patch, cell.hover)
    if not cell.fits:
        axes.add_patch(Rectangle(corner, 1, 1, facecolor="none", edgecolor=ink, linewidth=0.0, hatch=HATCH, gid="hatched"))
    width, height = size
    if cell.is_here:
        across, up = INSET / width, INSET / height
        inner = (cell.column + across, cell.row + up)
        axes.add_patch(Rectangle(inner, 1 - 2 * across, 1 - 2 * up, facecolor="none", edgecolor=ink, linewidth=1.6))
    lines = [line for line in cell.lines if text_width(line, SMALL) <= width - 1.5][: int((height - 4.0) // LINE)]
    behind = None if cell.fits else {"facecolor": colour, "edgecolor": "none", "pad": 1.0}
    for place, line in enumerate(lines):
        middle = cell.row + 0.5 + (place - (len(lines) - 1) / 2.0) * LINE / height
        text = axes.text(cell.column + 0.5, middle, line, ha="center", va="center", fontsize=SMALL, color=ink, zorder=4)
        text.set_bbox(behind)


def _draw_many(drawing: Drawing, axes: Axes, grid: CellGrid, scale: Normalize, scale_name: str) -> None:
    """Colours alone, with a scale for them, and one hatch over all that does not fit."""
    values = np.full((len(grid.rows), len(grid.columns)), np.nan)
    for cell in grid.cells:
        values[cell.row, cell.column] = cell.mfu
    axes.pcolormesh(values, cmap=COLOURS, norm=scale, rasterized=True)
    square = np.asarray(Path.unit_rectangle().vertices)
    corners = [(cell.column, cell.row) for cell in grid.cells if not cell.fits]
    if corners:
        whole = Path.make_compound_path(*(Path(square + np.asarray(corner), closed=True) for corner in corners))
        axes.add_patch(PathPatch(whole, facecolor="none", edgecolor=MUTED, linewidth=0.0, hatch=HATCH, gid="hatched"))
    bar = drawing.colorbar(ScalarMappable(scale, COLOURS), ax=axes, label=scale_name)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)


def meanings(grid: CellGrid, *, is_whole: bool, here: str = "this run") -> list[tuple[Artist, str]]:
    """The entries of a key: the looks of cells that are there; `is_whole` says that every combination can be.

    `here` is what the framed cell is.
    """
    looks: list[tuple[Artist, str]] = []
    if any(cell.is_here for cell in grid.cells):
        looks.append((Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=INK, linewidth=1.6), here))
    if not all(cell.fits for cell in grid.cells):
        hatched = Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=INK, linewidth=0.6, hatch=3 * HATCH)
        looks.append((hatched, "does not fit"))
    if not is_whole:
        looks.append((Rectangle((0, 0), 1, 1, facecolor="none", edgecolor=GRID, linewidth=0.8), "blank: cannot be"))
    return looks
