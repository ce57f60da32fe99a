"""What a figure shows, read from its artists: bars, texts, and where they are."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from perfmodel.report.figures.drawing.style import Drawing, picture


def colour(value: object) -> str:
    """As #rrggbb."""
    return to_hex(value)  # type: ignore[arg-type]


def key_texts(drawing: Drawing) -> list[str]:
    """What the key says."""
    return [text.get_text() for legend in drawing.legends for text in legend.get_texts()]


def bars(axes: Axes) -> list[Rectangle]:
    """The bars of a panel, in the order in which they were drawn."""
    return [bar for container in axes.containers for bar in container if isinstance(bar, Rectangle)]


def widths(axes: Axes) -> list[float]:
    """What they measure, with their sign."""
    return [bar.get_width() for bar in bars(axes)]


def spans(axes: Axes) -> list[tuple[float, float]]:
    """Where they begin and end."""
    return [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars(axes)]


def points(line: Line2D) -> NDArray[np.float64]:
    """Its points: x and y of each."""
    return np.asarray(line.get_xydata(), dtype=np.float64)


def row_of(bar: Rectangle) -> int:
    """The row that a bar lies in, from the top."""
    return round(bar.get_y() + bar.get_height() / 2)


def row_labels(axes: Axes) -> list[str]:
    """What stands beside the rows."""
    return [label.get_text() for label in axes.get_yticklabels()]


def drawn_texts(drawing: Drawing) -> list[tuple[str, Bbox]]:
    """Every text that a file of it would show, with the box that it covers, in shares of the width and height of the figure.

    All is drawn as `picture` does it, but for the dots.
    """
    seen: dict[int, tuple[str, Bbox]] = {}
    draw = Text.draw

    def noted(self: Text, renderer: Any) -> None:
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            box = self.get_window_extent(renderer).transformed(drawing.transFigure.inverted())
            seen[id(self)] = (self.get_text(), box)

    with patch.object(Text, "draw", noted), patch.object(FigureCanvasAgg, "print_png", _without_dots):
        picture(drawing, "png")
    return list(seen.values())


def _without_dots(canvas: FigureCanvasAgg, *_: object, **__: object) -> None:
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    with renderer._draw_disabled():
        canvas.figure.draw(renderer)
