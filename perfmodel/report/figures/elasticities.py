"""How much the iteration gains and loses when a number of the hardware or the software moves by a tenth: a tornado."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.sensitivity import Effect, Shift
from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.captions import source_text, stage_caption
from perfmodel.report.figures.drawing.lettering import shortened, text_width
from perfmodel.report.figures.drawing.palette import BLUE, INK, PAPER, VERMILION
from perfmodel.report.figures.drawing.style import SMALL, TEXT, Drawing, styled
from perfmodel.report.text.explanation import change_text, step_text

ROW_HEIGHT: Final = 30.0
THICK: Final = 0.4
ABOVE: Final = 0.42  # of a row: the middle of its label over that of its bar
LEAST: Final = 5e-5  # of the iteration: less prints as nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Swing:
    """One row: the change of the iteration [%] in the direction that helps, and in the other."""

    label: str
    helping: Shift
    hurting: Shift

    @property
    def width(self) -> float:
        """The larger of both changes of the iteration, without its sign."""
        return max(abs(self.helping.change), abs(self.hurting.change))


def swings(effects: Sequence[Effect]) -> list[Swing]:
    """What people ask for first, what matters most on top."""
    first = [each for each in effects if each.lever.headline]
    found = [Swing(label=each.lever.name, helping=each.helping, hurting=each.hurting) for each in first]
    return sorted((each for each in found if each.width >= LEAST), key=lambda each: -each.width)


@styled
def elasticities_figure(explained: Explanation) -> Drawing:
    """Bars to the left where it helps, to the right where it hurts; how far the number moved is written beside them."""
    rows = swings(explained.sensitivity.effects())
    told = [f"{each.label} {step_text(each.helping.step)}: {change_text(each.helping.change)}" for each in rows[:3]]
    drawing = Drawing(
        title="What 10 % more or less of each number does to an iteration",
        subtitle=stage_caption(explained.run, explained.place),
        plot_height=ROW_HEIGHT * max(len(rows), 1) + 40.0,
        description=f"Time of an iteration: {'; '.join(told)}" if told else "No number matters",
    )
    axes = drawing.subplots()
    for row, each in enumerate(rows):
        for shift in (each.helping, each.hurting):
            _bar(drawing, axes, each, shift, row)
    _axes(axes, rows, drawing.room)
    looks = [(BLUE, "faster"), (VERMILION, "slower")]
    drawing.key([(Rectangle((0, 0), 1, 1, facecolor=colour, linewidth=0), label) for colour, label in looks])
    drawing.source_line(source_text(explained.run), "each number alone, as far as it may go")
    return drawing


def _axes(axes: Axes, rows: Sequence[Swing], room: float) -> None:
    beside = max((text_width(_end(shift), SMALL) for each in rows for shift in (each.helping, each.hurting)), default=0.0) + 6.0
    changes = [100.0 * shift.change for each in rows for shift in (each.helping, each.hurting)] or [0.0]
    low, high = min(0.0, *changes), max(0.0, *changes)
    point = max(high - low, 1e-9) / max(room - 2.0 * beside, 1.0)
    axes.set_xlim(low - beside * point, high + beside * point)
    for row, each in enumerate(rows):
        label = shortened(each.label, room, TEXT)
        axes.text(0.0, row - ABOVE, label, transform=axes.get_yaxis_transform(), va="center", fontsize=TEXT)
    axes.set_yticks([])
    axes.set_ylim(max(len(rows), 1) - 0.6, -0.75)
    for row in range(len(rows)):
        axes.plot([0.0, 0.0], [row - THICK, row + THICK], color=INK, linewidth=0.8, zorder=3)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("change of the time of an iteration [%]")


def _end(shift: Shift) -> str:
    return f"{step_text(shift.step)}: {change_text(shift.change)}"


def _bar(drawing: Drawing, axes: Axes, swing: Swing, shift: Shift, row: int) -> None:
    """The bar of one direction; none where the number may not go there."""
    change = 100.0 * shift.change
    if not shift.step or not change:
        return
    colour, side = (BLUE, -1.0) if change < 0 else (VERMILION, 1.0)
    (patch,) = axes.barh(row, change, THICK, color=colour, edgecolor=PAPER, linewidth=0.4, zorder=2)
    drawing.hover(patch, f"{swing.label} {_end(shift)} of the time of an iteration")
    align = "left" if side > 0 else "right"
    axes.annotate(
        _end(shift), (change, row), (3.0 * side, 0), textcoords="offset points", ha=align, va="center", fontsize=SMALL
    )
