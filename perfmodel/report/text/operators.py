"""What `predict --verbose` adds: where the uncertainty comes from, and every operator of a stage with how sure its time is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table

from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.text.interval import interval_table, uncertain_numbers_table
from perfmodel.report.text.measured.own_runs import own_runs_table
from perfmodel.report.text.terminal import Name, plain_table, titled
from perfmodel.spec.axes import DATA
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.timing.ledger import Entry, ledger, seconds_by_confidence
from perfmodel.timing.serving.served_operators import ServedEntry

PHASES: Final = {DATA_GRADIENT: "dgrad", WEIGHT_GRADIENT: "wgrad"}


def prediction_details(prediction: Prediction) -> Group:
    """The tables of the last stage: the one that most of a ramp is spent in."""
    last = prediction.stages[-1][1]
    rests_on = own_runs_table(last)
    return Group(interval_table(last), *rests_on, uncertain_numbers_table(prediction), _operator_table(prediction))


def _operator_table(prediction: Prediction) -> RenderableType:
    """Each operator alone; the last rows add up the time of each degree of confidence."""
    stage, predicted = prediction.stages[-1]
    run = prediction.run
    entries = list(ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack))
    table = timed_operators("operator", entries, name=lambda operator: operator.name)
    table.add_section()
    for word, total_s in seconds_by_confidence(entries).items():
        if total_s:
            table.add_row("all of them", "", "", "", f"{1e3 * total_s:.1f}", word)
    return titled(f"{operators_title(predicted)}, {DATA.short} {stage.data_parallel}", table)


def operators_title(predicted: StagePrediction) -> str:
    """Title of the operator table: one GPU, or one GPU of every pipeline stage."""
    where = "one GPU" if predicted.layout.pipeline_parallel == 1 else "one GPU of every pipeline stage"
    return f"Operators of {where}, each alone"


def timed_operators(heading: str, entries: Iterable[Entry | ServedEntry], *, name: Callable[[Any], str]) -> Table:
    """Operators under a `name`: their phase, how often they run, how long each takes, all of its runs, and how sure that is."""
    table = plain_table()
    table.add_column(heading, overflow="fold", ratio=1)
    table.add_column("phase", no_wrap=True)
    for each in ("runs", "us each", "ms"):
        table.add_column(each, justify="right", no_wrap=True)
    table.add_column("confidence", no_wrap=True)
    for entry in entries:
        times = (f"{float(entry.repeats):,.0f}", f"{1e6 * float(entry.seconds):,.1f}")
        whole = f"{1e3 * float(entry.repeats * entry.seconds):,.2f}"
        table.add_row(Name(name(entry.operator)), phase_text(entry.operator.phase), *times, whole, entry.confidence)
    return table


def phase_text(phase: str) -> str:
    """A phase as the field abbreviates it.

    >>> phase_text("forward"), phase_text("weight_gradient")
    ('forward', 'wgrad')
    """
    return PHASES.get(phase, phase)
