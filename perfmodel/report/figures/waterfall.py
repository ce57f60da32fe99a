"""Where the peak goes: from the model FLOPs at the peak rate down to the MFU, a bar for each step."""

from __future__ import annotations

from typing import Final

from matplotlib.axes import Axes

from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.waterfall import Waterfall
from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.captions import source_text, stage_caption
from perfmodel.report.figures.drawing.palette import INK, MUTED, PAPER, STEPS
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, styled
from perfmodel.report.text.explanation import LEAST_SHOWN, STEP_LABELS
from perfmodel.units import seconds_text

ROW_HEIGHT: Final = 17.0
THICK: Final = 0.7
ENDS: Final = {"peak": "model FLOPs at the peak rate", "predicted": "predicted MFU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterfallBar:
    """One bar: from `start` to `end`, in percent of the peak; a step that saves time goes up."""

    name: str
    start: float
    end: float
    seconds: float

    @property
    def label(self) -> str:
        """Label of the step beside its bar."""
        return ENDS.get(self.name) or STEP_LABELS[self.name]


def falls(fall: Waterfall) -> list[WaterfallBar]:
    """The peak, every step that is to be seen, from what is left before it to what is left after it, and the MFU."""
    bars, left = [WaterfallBar(name="peak", start=0.0, end=100.0, seconds=fall.ideal_s)], 1.0
    for step in fall.steps:
        after = left + step.mfu_change
        if abs(step.mfu_change) >= LEAST_SHOWN:
            bars.append(WaterfallBar(name=step.name, start=100.0 * left, end=100.0 * after, seconds=step.seconds))
        left = after
    return [*bars, WaterfallBar(name="predicted", start=0.0, end=100.0 * fall.mfu, seconds=fall.iteration_time_s)]


@styled
def waterfall_figure(explained: Explanation) -> Drawing:
    """Horizontal bars from the top down, each in the colour of the part of the iteration that it is cut from."""
    fall, bars = explained.waterfall, falls(explained.waterfall)
    lost = ", ".join(f"{bar.label} {bar.end - bar.start:+.1f}" for bar in bars[1:-1])
    drawing = Drawing(
        title=f"Where the peak goes: MFU {100.0 * fall.mfu:.1f} %",
        subtitle=stage_caption(explained.run, explained.place),
        plot_height=ROW_HEIGHT * len(bars) + 40.0,
        description=f"Points of MFU: {lost}; left: {100.0 * fall.mfu:.1f} %",
    )
    axes = drawing.subplots()
    for row, bar in enumerate(bars):
        _bar(drawing, axes, bar, row)
        if row:
            seam = [row - 1 + THICK / 2.0, row - THICK / 2.0]
            axes.plot([bars[row - 1].end] * 2, seam, color=INK, linewidth=0.6, zorder=1)
    furthest = max(max(bar.start, bar.end) for bar in bars)
    axes.set_xlim(0.0, 1.18 * furthest)
    axes.set_yticks(range(len(bars)), [bar.label for bar in bars])
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    grid(axes, "x")
    axes.set_xlabel("MFU: model FLOPs against the peak rate [%]")
    drawing.source_line(source_text(explained.run))
    return drawing


def _bar(drawing: Drawing, axes: Axes, bar: WaterfallBar, row: int) -> None:
    """The bar and its number: points of MFU for a step, MFU for both ends."""
    change, is_end = bar.end - bar.start, bar.name in ENDS
    colour = MUTED if is_end else STEPS[bar.name]
    (patch,) = axes.barh(row, change, THICK, bar.start, color=colour, edgecolor=PAPER, linewidth=0.4, zorder=2)
    number = f"{bar.end:.1f}" if is_end else f"{change:+.1f}"
    drawing.hover(patch, f"{bar.label}: {number} {'%' if is_end else 'points of MFU'}, {seconds_text(bar.seconds)}")
    right, weight = max(bar.start, bar.end), "bold" if is_end else "normal"
    axes.annotate(
        number, (right, row), (4, 0), textcoords="offset points", va="center", fontsize=TEXT, fontweight=weight, zorder=3
    )
