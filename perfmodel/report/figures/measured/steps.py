"""The operators of one measured step, each beside its prediction (needs the extra `report`)."""

from __future__ import annotations

from typing import Final

from matplotlib.patches import Rectangle

from perfmodel import __version__
from perfmodel.evidence.steps.compared import ComparedOperator
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.report.figures.drawing.captions import NAME
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import BLUE, VERMILION
from perfmodel.report.figures.drawing.style import TEXT, Drawing, grid, picture, styled
from perfmodel.report.text.operators import phase_text
from perfmodel.units import seconds_text

__all__ = ["operators_figure", "picture"]

DRAWN: Final = 0.95  # of the step: the operators that are drawn
MOST_BARS: Final = 24
ROW_HEIGHT: Final = 25.0
LABEL_ROOM: Final = 150.0
PREDICTED, MEASURED = BLUE, VERMILION


@styled
def operators_figure(comparison: StepComparison) -> Drawing:
    """The operators that make up most of a step, the longest on top: predicted and measured bars side by side."""
    pairs, step = comparison.largest(DRAWN)[:MOST_BARS], comparison.step
    name = shortened(comparison.record.name, NAME, TEXT)
    times = f"{seconds_text(step.predicted)} predicted, {seconds_text(step.measured)} measured"
    drawing = Drawing(
        title="The operators of a step, predicted and measured",
        subtitle=f"{name}: step of {times} ({100.0 * (step.error or 0.0):+.1f} %)",
        plot_height=ROW_HEIGHT * max(len(pairs), 1) + 40.0,
        description="; ".join(_told(pair) for pair in pairs[:3]),
    )
    axes = drawing.subplots()
    for row, pair in enumerate(pairs):
        for shift, seconds, colour, word in (
            (-0.2, pair.predicted, PREDICTED, "predicted"),
            (0.2, pair.measured, MEASURED, "measured"),
        ):
            (patch,) = axes.barh(row + shift, 1e3 * seconds, 0.38, color=colour, linewidth=0, zorder=2)
            drawing.hover(patch, f"{_label(pair)}: {seconds_text(seconds)} {word}")
        longest = 1e3 * max(pair.predicted, pair.measured)
        error = f"{100 * (pair.error or 0.0):+.0f} %"
        axes.annotate(error, (longest, row), (4, 0), textcoords="offset points", va="center", fontsize=TEXT)
    axes.set_yticks(range(len(pairs)), [shortened(_label(pair), LABEL_ROOM, TEXT) for pair in pairs])
    axes.set_ylim(max(len(pairs), 1) - 0.4, -0.6)
    axes.set_xlim(0.0, 1.12 * axes.get_xlim()[1])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    grid(axes, "x")
    axes.set_xlabel("time of an iteration [ms]")
    looks = ((PREDICTED, "predicted"), (MEASURED, "measured"))
    drawing.key([(Rectangle((0, 0), 1, 1, facecolor=colour, linewidth=0), label) for colour, label in looks])
    share = f"operators that make up {100 * DRAWN:.0f} % of the step" if len(pairs) < MOST_BARS else f"the {MOST_BARS} longest"
    drawing.source_line(f"perfmodel {__version__}", f"{share}, each with the error of its prediction")
    return drawing


def _label(pair: ComparedOperator) -> str:
    """layer.mlp.fc1 (wgrad)"""
    return f"{pair.name} ({phase_text(pair.phase)})"


def _told(pair: ComparedOperator) -> str:
    return f"{_label(pair)} {seconds_text(pair.predicted)} predicted, {seconds_text(pair.measured)} measured"
