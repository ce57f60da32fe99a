"""All figures of a run, under the names of the questions that they answer, in reading order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from perfmodel.economics.outlook import Outlook
from perfmodel.explanation.explanation import Explanation
from perfmodel.prediction import Prediction
from perfmodel.report.figures.breakdown import breakdown_figure
from perfmodel.report.figures.calendar import calendar_figure
from perfmodel.report.figures.confidence import confidence_figure
from perfmodel.report.figures.drawing.captions import source_text
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.elasticities import elasticities_figure
from perfmodel.report.figures.layout_map import map_figure
from perfmodel.report.figures.memory import memory_figure
from perfmodel.report.figures.ramp import ramp_figure
from perfmodel.report.figures.roofline import roofline_figure
from perfmodel.report.figures.sweep import sweep_figure
from perfmodel.report.figures.waterfall import waterfall_figure
from perfmodel.variation.strong_scaling import strong_scaling

OF_A_STAGE: Final[dict[str, Callable[[Explanation], Drawing]]] = {
    "peak": waterfall_figure,
    "operators": roofline_figure,
    "layouts": map_figure,
    "levers": elasticities_figure,
}
OF_MANY: Final = ("peak", "levers")  # that each of many stages, or of many columns of a comparison, has
MOST_IN_FULL: Final = 3  # stages that have every figure


def run_figures(prediction: Prediction, explained: Sequence[Explanation], outlook: Outlook) -> dict[str, Drawing]:
    """Every figure of a run: of the whole run under its own name, of each explained stage with its number behind (peak-2).

    Memory comes first where the run does not fit.
    """
    return {name: draw() for name, draw in run_drawings(prediction, explained, outlook).items()}


def run_drawings(
    prediction: Prediction, explained: Sequence[Explanation], outlook: Outlook, *, chosen: int = -1
) -> dict[str, Callable[[], Drawing]]:
    """How to draw each of them; `chosen` is the place among the explained stages of the one that has every figure.

    Of many stages the others have only those that differ most and take least time.
    """
    one = explained[chosen]
    whole: dict[str, Callable[[], Drawing] | None] = {
        "ramp": partial(ramp_figure, prediction),
        "peak": None,
        "iteration": partial(breakdown_figure, prediction),
        "memory": partial(memory_figure, prediction),
        "operators": None,
        "scaling": partial(scaling_figure, one),
        "layouts": None,
        "levers": None,
        "cost": partial(calendar_figure, prediction, outlook),
        "provenance": partial(confidence_figure, one),
    }
    order = [*whole] if prediction.may_fit else ["memory", *(name for name in whole if name != "memory")]
    found: dict[str, Callable[[], Drawing]] = {}
    for name in order:
        draw = whole[name]
        if draw is not None:
            found[name] = draw
        else:
            drawn = explained if name in OF_MANY or len(explained) <= MOST_IN_FULL else [one]
            found |= {f"{name}-{each.place + 1}": partial(OF_A_STAGE[name], each) for each in drawn}
    return found


def scaling_figure(explained: Explanation) -> Drawing:
    """Strong scaling of the stage that is explained, the run itself marked."""
    swept = strong_scaling(explained.run, explained.place)
    return sweep_figure(swept, source=source_text(explained.run), here=int(explained.predicted.layout.gpus))
