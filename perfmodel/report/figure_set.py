"""All figures of a run, under the names of the questions that they answer, in reading order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from perfmodel.economics.outlook import Outlook
from perfmodel.planning.explanation import Explanation
from perfmodel.planning.growth import strong_scaling
from perfmodel.prediction import Prediction
from perfmodel.report.breakdown_figure import breakdown_figure
from perfmodel.report.calendar_figure import calendar_figure
from perfmodel.report.captions import source_text
from perfmodel.report.confidence_figure import confidence_figure
from perfmodel.report.elasticities_figure import elasticities_figure
from perfmodel.report.map_figure import map_figure
from perfmodel.report.memory_figure import memory_figure
from perfmodel.report.ramp_figure import ramp_figure
from perfmodel.report.roofline_figure import roofline_figure
from perfmodel.report.style import Drawing
from perfmodel.report.sweep_figure import sweep_figure
from perfmodel.report.waterfall_figure import waterfall_figure

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
    order = [*whole] if prediction.fits else ["memory", *(name for name in whole if name != "memory")]
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
