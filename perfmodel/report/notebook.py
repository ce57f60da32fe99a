"""How results look in a notebook: what the command line prints as HTML, and the figures under the names that `.plot` takes.

`perfmodel/frames.py` finds this module by its name. A result without an entry here is shown as a plain table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial, singledispatch
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.console import Group, RenderableType

from perfmodel.economics.outlook import outlook
from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.events.timeline import Timeline
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.evidence.time_scores import TimeScores, time_reliability
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.questions.measured_logs import LogComparison
from perfmodel.exchange.questions.profiled_runs import ProfileComparison
from perfmodel.exchange.run_files import TYPICAL
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.measured.diagnosis import Diagnosis
from perfmodel.explanation.measured.next_measurements import next_measurements
from perfmodel.frames import Tabular
from perfmodel.prediction import Prediction
from perfmodel.report.html.blocks import as_html
from perfmodel.report.text.explanation import explanation_report
from perfmodel.report.text.measured.diagnosis import diagnosis_report
from perfmodel.report.text.measured.kernels import profile_report
from perfmodel.report.text.measured.log_comparison import log_comparison_report
from perfmodel.report.text.measured.scores import validation_report
from perfmodel.report.text.measured.step import comparison_report
from perfmodel.report.text.plans.hardware import hardware_report
from perfmodel.report.text.plans.plan import plan_report
from perfmodel.report.text.prediction import prediction_report
from perfmodel.report.text.scenarios import whatif_report
from perfmodel.report.text.serving import serving_report
from perfmodel.report.text.sweep import sweep_report
from perfmodel.report.text.terminal import plain_table
from perfmodel.report.text.timeline import timeline_report
from perfmodel.search.hardware import HardwarePlans
from perfmodel.search.plan import Plan
from perfmodel.serving.forecast import ServingForecast
from perfmodel.variation.scenarios import WhatIf
from perfmodel.variation.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from perfmodel.report.figures.drawing.style import Drawing

Figures: TypeAlias = Mapping[str, Callable[[], "Drawing"]]
MOST_ROWS = 60  # of a plain table


def as_page_part(result: Tabular) -> str:
    """A result as a part of a page: what the command line prints of it."""
    return f"<div>\n{as_html(report_of(result))}\n</div>"


def drawn(result: Tabular, kind: str = "") -> Axes:
    """One of the figures of a result, as the first of its axes. pyplot knows the figure, so that notebooks show it.

    Errors: InputError for an unknown figure, for a result that has none, and without matplotlib.
    """
    name = type(result).__name__
    try:
        figures = figures_of(result)
    except ImportError:
        raise InputError("plot needs matplotlib; pip install 'perfmodel[report]' brings it") from None
    if not figures:
        raise InputError(f"a {name} has no figure")
    if kind and kind not in figures:
        raise InputError(f"{shown(kind)} is no figure of a {name}; {did_you_mean(kind, figures)}")
    drawing = figures[kind or next(iter(figures))]()
    from matplotlib import pyplot as plt

    with suppress(ValueError):  # before 3.11, pyplot takes no figure that it has not made
        plt.figure(drawing)
    axes: Axes = drawing.axes[0]
    return axes


@singledispatch
def report_of(result: Any) -> RenderableType:
    """What the command line prints of a result; of one that no command prints, its rows."""
    rows = result.rows()
    table = plain_table()
    for name in rows[0] if rows else ():
        table.add_column(name)
    for row in rows[:MOST_ROWS]:
        table.add_row(*(_cell(value) for value in row.values()))
    return Group(table, *([f"{len(rows) - MOST_ROWS:,} more rows: to_pandas() has them."] if len(rows) > MOST_ROWS else []))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@singledispatch
def figures_of(result: Any) -> Figures:  # noqa: ARG001 - the type decides
    """The figures of a result by name, the first the one that is drawn where none is named."""
    return {}


@report_of.register(Prediction)
def _(result: Prediction) -> RenderableType:
    return prediction_report(result, assumptions=())


@figures_of.register(Prediction)
def _(result: Prediction) -> Figures:
    from perfmodel.report.figures.breakdown import breakdown_figure
    from perfmodel.report.figures.calendar import calendar_figure
    from perfmodel.report.figures.memory import memory_figure
    from perfmodel.report.figures.ramp import ramp_figure

    terms = result.run.economics or economics_preset(TYPICAL)
    return {
        "iteration": partial(breakdown_figure, result),
        "memory": partial(memory_figure, result),
        "ramp": partial(ramp_figure, result),
        "cost": lambda: calendar_figure(result, outlook(result, terms)),
    }


@report_of.register(Explanation)
def _(result: Explanation) -> RenderableType:
    return explanation_report(result)


@figures_of.register(Explanation)
def _(result: Explanation) -> Figures:
    from perfmodel.report.figures.confidence import confidence_figure
    from perfmodel.report.figures.figure_set import OF_A_STAGE, scaling_figure

    drawings = {**OF_A_STAGE, "scaling": scaling_figure, "provenance": confidence_figure}
    return {name: partial(draw, result) for name, draw in drawings.items()}


@report_of.register(WhatIf)
def _(result: WhatIf) -> RenderableType:
    return whatif_report(result)


@figures_of.register(WhatIf)
def _(result: WhatIf) -> Figures:
    from perfmodel.report.figures.measured.comparison import iterations_figure, memories_figure

    every = (result.before, *result.scenarios)
    labels, stages = [each.name for each in every], [each.stage(result.place) for each in every]
    capacities = [float(each.prediction.run.cluster.gpu.memory_bytes) for each in every]
    subtitle = result.before.prediction.run.name
    return {
        "iteration": partial(iterations_figure, labels, stages, subtitle=subtitle),
        "memory": partial(memories_figure, labels, stages, capacities, subtitle=subtitle),
    }


@report_of.register(Sweep)
def _(result: Sweep) -> RenderableType:
    return sweep_report(result)


@figures_of.register(Sweep)
def _(result: Sweep) -> Figures:
    from perfmodel.report.figures.sweep import sweep_figure

    return {"sweep": partial(sweep_figure, result)}


@report_of.register(Plan)
def _(result: Plan) -> RenderableType:
    return plan_report(result)


@figures_of.register(Plan)
def _(result: Plan) -> Figures:
    from perfmodel.report.figures.plans.plan_front import plan_front_figure
    from perfmodel.report.figures.plans.plan_options import plan_options_figure
    from perfmodel.report.figures.plans.rivals import rejections_figure, rivals_figure

    of_one = {"front": plan_front_figure, "rivals": rivals_figure, "rejected": rejections_figure}
    of_several = {"options": plan_options_figure} if len(result.options) > 1 else {}
    return {name: partial(draw, result) for name, draw in (of_one | of_several).items()}


@report_of.register(HardwarePlans)
def _(result: HardwarePlans) -> RenderableType:
    return hardware_report(result)


@figures_of.register(HardwarePlans)
def _(result: HardwarePlans) -> Figures:
    from perfmodel.report.figures.measured.comparison import iterations_figure, memories_figure

    if not result.answers:
        return {}
    stages = [option.predictions[-1] for option in result.answers.values()]
    capacities = [float(option.question.cluster.gpu.memory_bytes) for option in result.answers.values()]
    labels, model = [*result.answers], next(iter(result.answers.values())).question.model.name
    return {
        "iteration": partial(iterations_figure, labels, stages, subtitle=model),
        "memory": partial(memories_figure, labels, stages, capacities, subtitle=model),
    }


@report_of.register(Diagnosis)
def _(result: Diagnosis) -> RenderableType:
    return diagnosis_report(result, next_measurements(result))


@report_of.register(Timeline)
def _(result: Timeline) -> RenderableType:
    return timeline_report(result)


@report_of.register(ServingForecast)
def _(result: ServingForecast) -> RenderableType:
    return serving_report([result])


@report_of.register(TimeScores)
def _(result: TimeScores) -> RenderableType:
    return validation_report(result, full=False)


@figures_of.register(TimeScores)
def _(result: TimeScores) -> Figures:
    from perfmodel.report.figures.measured.accuracy import accuracy_figure
    from perfmodel.report.figures.reliability import reliability_figure

    rows = 0 if result.overall is None else result.overall.rows
    return {
        "accuracy": lambda: accuracy_figure(result.comparisons),
        "reliability": lambda: reliability_figure(time_reliability(result.comparisons), what=f"{rows} measured runs"),
    }


@report_of.register(StepComparison)
def _(result: StepComparison) -> RenderableType:
    return comparison_report(result)


@figures_of.register(StepComparison)
def _(result: StepComparison) -> Figures:
    from perfmodel.report.figures.measured.steps import operators_figure

    return {"operators": partial(operators_figure, result)}


@report_of.register(LogComparison)
def _(result: LogComparison) -> RenderableType:
    return log_comparison_report(result)


@figures_of.register(LogComparison)
def _(result: LogComparison) -> Figures:
    from perfmodel.report.figures.measured.log_steps import log_steps_figure

    return {"steps": partial(log_steps_figure, result)}


@report_of.register(ProfileComparison)
def _(result: ProfileComparison) -> RenderableType:
    return profile_report(result)
