"""A predicted iteration, a measured step and a profiled one in one trace: each in processes of its own, all from time 0."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from perfmodel.count.operators import Collective, Operator
from perfmodel.events.spans import COMPUTE, PASSES, TRACKS, WAITING, from_one, kind_of, stream_of
from perfmodel.events.stage_spans import PASS_KINDS
from perfmodel.events.timeline import Timeline, timeline
from perfmodel.evidence.steps.profiled_step import ProfiledStep
from perfmodel.evidence.steps.step_comparison import StepComparison
from perfmodel.evidence.steps.step_spans import Execution, MeasuredStep, measured_step
from perfmodel.prediction import Prediction
from perfmodel.report.trace.facts import timeline_facts
from perfmodel.report.trace.format import (
    THREADS,
    Event,
    complete,
    in_order,
    nanoseconds,
    process,
    thread,
    trace_text,
)
from perfmodel.report.trace.profile import profiled_events
from perfmodel.report.trace.timeline import COLOURS, PLACES, shape_text, timeline_events


def comparison_trace(prediction: Prediction, comparison: StepComparison, profiled: ProfiledStep | None) -> str:
    """The file of a comparison: the predicted iteration, the record, and where there is one a profiled step."""
    place = next(place for place, (_, stage) in enumerate(prediction.stages) if stage is comparison.predicted)
    return compared_trace(timeline(prediction.run, comparison.predicted, stage=place), comparison, profiled)


def compared_trace(drawn: Timeline, comparison: StepComparison | None = None, profiled: ProfiledStep | None = None) -> str:
    """The file: the forecast first."""
    events, pid = timeline_events(drawn, prefix="predicted: "), len(drawn.layers) + 1
    facts = timeline_facts(drawn)
    if comparison is not None:
        record = comparison.record
        events += measured_events(measured_step(comparison), pid)
        pid += 1
        times = {name: getattr(record, name) for name in ("iteration_time_s", "profiled_iteration_time_s", "repeats")}
        facts["measured"] = {"name": record.name} | times | {"provenance": dict(record.provenance)}
    if profiled is not None:
        events += profiled_events(profiled, pid)
        facts["profiled_step_s"] = profiled.duration_s
    return trace_text(in_order(events), facts)


def measured_events(measured: MeasuredStep, pid: int) -> list[Event]:
    """One process: passes, and each operator on the stream that the forecast has it on."""
    events = process(pid, "measured: the average of all executions of each operator")
    tracks = [track for track in TRACKS if track in {PASSES, WAITING, *(_track(each.operator) for each in measured.executions)}]
    for track in tracks:
        events += thread(pid, _tid(pid, track), track)
    for (direction, batch), of_pass in groupby(measured.executions, lambda each: (each.direction, each.micro_batch)):
        events.append(_pass(list(of_pass), pid, direction, batch))
    events += (_execution(each, pid) for each in measured.executions)
    for name, start_s, end_s in measured.others:
        ends_ns = nanoseconds(start_s), nanoseconds(end_s)
        events.append(complete(name, "wait", (pid, _tid(pid, WAITING)), ends_ns, {}) | {"cname": COLOURS["wait"]})
    return events


def _track(operator: Operator) -> str:
    return stream_of(operator.group) if isinstance(operator, Collective) else COMPUTE


def _tid(pid: int, track: str) -> int:
    return pid * THREADS + 1 + TRACKS.index(track)


def _pass(executions: Sequence[Execution], pid: int, direction: str, batch: int | None) -> Event:
    name, kind = direction if batch is None else f"{direction} {batch + 1}", PASS_KINDS.get(direction, direction)
    ends_ns = nanoseconds(executions[0].start_s), nanoseconds(executions[-1].end_s)
    predicted_s = sum(each.predicted_s for each in executions)
    args = {"predicted_alone_s": round(predicted_s, PLACES)} | ({} if batch is None else {"micro_batch": batch + 1})
    return complete(name, kind, (pid, _tid(pid, PASSES)), ends_ns, args) | {"cname": COLOURS[kind]}


def _execution(each: Execution, pid: int) -> Event:
    places = {"micro_batch": from_one(each.micro_batch), "layer": from_one(each.layer)}
    args: dict[str, Any] = {name: value for name, value in places.items() if value is not None}
    args |= {"phase": each.operator.phase, "shape": shape_text(each.operator)}
    args |= {"measured_s": round(each.end_s - each.start_s, PLACES), "predicted_alone_s": round(each.predicted_s, PLACES)}
    if each.pair.error is not None:
        args["error"] = round(each.pair.error, 4)
    ends_ns, kind = (nanoseconds(each.start_s), nanoseconds(each.end_s)), kind_of(each.operator)
    at = pid, _tid(pid, _track(each.operator))
    return complete(each.operator.name, kind, at, ends_ns, args) | {"cname": COLOURS[kind]}
