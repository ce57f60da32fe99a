"""A measured training step beside its prediction: each operator, each part of memory, each kind of collective.

The times on both sides add up to the step: time outside operators has rows of its own. The time of a collective includes what
its ranks wait for the last of them: `waiting_s` says how much that is. In a pipeline, times are those of a GPU on average over
the stages, and what stages wait for each other is a row of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from perfmodel.count.memory.needed import stage_memory_bytes
from perfmodel.count.operators import Collective, Operator
from perfmodel.evidence.steps.compared import (
    BETWEEN,
    MODEL_SIZES,
    OVERHEAD,
    ComparedOperator,
    ComparedValue,
    CountedCall,
    GroupOfRanks,
    compared_calls,
    differ,
    differences,
    interval_of,
    kind_of,
    longest,
)
from perfmodel.evidence.steps.step_records import OperatorTime, StepRecord
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.axes import AXES, PIPELINE
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.run import Run
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.ledger import Entry, ledger
from perfmodel.timing.schedule import mean_waiting_s
from perfmodel.timing.waiting import meeting_waits_s
from perfmodel.units import seconds_text

BUBBLE: Final = "pipeline bubble"
COMPARED: Final = (
    "precision",
    *(axis.name for axis in AXES),
    "virtual_pipeline",
    "pipeline_layout",
    "pipeline_schedule",
    "sequence_parallel",
    "sharding",
    "recompute",
    "recompute_layers",
    "micro_batch_size",
    "global_batch_size",
    "sequence_length",
)
OF_PASSES: Final = ("activations_bytes", "loss_bytes", "scratch_bytes")
MEMORY_PARTS: Final = {  # part of a record: the parts of a prediction that torch's allocator counts in it
    "parameters_bytes": ("parameters_bytes",),
    "gradients_bytes": ("gradients_bytes",),
    "optimizer_bytes": ("optimizer_bytes",),
    "activations_bytes": ("activations_bytes",),
    "loss_bytes": ("loss_bytes", "scratch_bytes"),
    "peak_bytes": ("parameters_bytes", "gradients_bytes", "optimizer_bytes", *OF_PASSES),
}


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StepComparison(Tabular):
    """A prediction and a measured record of the same training step."""

    record: StepRecord
    predicted: StagePrediction
    operators: tuple[ComparedOperator, ...]  # in the order of the operator list, then time outside operators
    memory: Mapping[str, ComparedValue]
    calls: Mapping[GroupOfRanks, ComparedValue]
    payload_bytes: Mapping[GroupOfRanks, ComparedValue]

    @property
    def summary(self) -> str:
        """Predicted beside measured time of the step."""
        pair = self.step
        return f"{self.record.name}: {seconds_text(pair.predicted)} predicted, {seconds_text(pair.measured)} measured"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each operator in each phase: seconds of an iteration, the error None where nothing was measured."""
        return [pair.row() for pair in self.operators]

    @property
    def step(self) -> ComparedValue:
        """The iteration time, measured in steps without the marks of the profile."""
        return ComparedValue(predicted=float(self.predicted.iteration_time_s), measured=self.record.iteration_time_s)

    @property
    def waiting_s(self) -> float:
        """Seconds of an iteration that ranks of one pipeline stage wait in collectives for the last of them."""
        return sum(pair.waiting_s for pair in self.operators)

    @property
    def predicted_waiting_s(self) -> float:
        """The same as predicted; 0 where nobody measured how far apart ranks of this machine arrive."""
        return sum(pair.predicted_waiting_s for pair in self.operators)

    def largest(self, share: float) -> tuple[ComparedOperator, ...]:
        """The operators that together make up `share` of the measured step, the longest first."""
        return longest(self.operators, share * self.record.profiled_iteration_time_s)


def compare_step(prediction: Prediction, record: StepRecord) -> StepComparison:
    """A record beside the ramp stage that it measured. Errors: InputError where no stage has the settings of the record."""
    run = prediction.run
    stage = _stage(prediction, record)
    entries = [
        _on_average(entry, stage) for entry in ledger(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack)
    ]
    calls, payload = compared_calls(_collectives(stage), record.collectives)
    return StepComparison(
        record=record,
        predicted=stage,
        operators=(*_operators(entries, record, stage), *_rest(entries, run, stage, record)),
        memory=_memory(stage, record),
        calls=calls,
        payload_bytes=payload,
    )


def _stage(prediction: Prediction, record: StepRecord) -> StagePrediction:
    """The stage of the run that has the settings of the record."""
    different = []
    for _, stage in prediction.stages:
        parts = (("model", prediction.run.model, MODEL_SIZES), ("layout", stage.layout, COMPARED))
        found = differences(parts, record.settings)
        if not found:
            return stage
        different.append(found)
    return differ(different)


def _on_average(entry: Entry, stage: StagePrediction) -> Entry:
    """An operator as often as a GPU runs it on average over the pipeline stages, which all step their optimizers."""
    stages = 1 if entry.operator.phase == OPTIMIZER else stage.layout.pipeline_parallel
    return replace(entry, repeats=entry.repeats / stages)


def _crosses_stages(operator: Operator, stage: StagePrediction) -> bool:
    """Whether stages of a pipeline wait for each other in it: messages between them, and collectives of all ranks."""
    if not isinstance(operator, Collective):
        return False
    return bool(stage.layout.pipeline_parallel > 1 and operator.group.axis in (PIPELINE, None))


def _operators(entries: list[Entry], record: StepRecord, stage: StagePrediction) -> Iterator[ComparedOperator]:
    """A row for each name and phase that was predicted or measured."""
    measured = {(each.name, each.phase): each for each in record.operators}
    waits_s = _waits_s(entries, stage)
    predicted: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        predicted.setdefault((entry.operator.name, entry.operator.phase), []).append(entry)
    for (name, phase), of_name in predicted.items():
        kind, across = kind_of(of_name[0].operator), _crosses_stages(of_name[0].operator, stage)
        found = measured.pop((name, phase), OperatorTime(name=name, phase=phase, seconds=0.0, fastest_s=0.0))
        yield ComparedOperator(
            name=name,
            phase=phase,
            kind=kind,
            runs=float(sum(entry.repeats for entry in of_name)),
            predicted=float(sum(entry.repeats * entry.seconds for entry in of_name)) + waits_s.get((name, phase), 0.0),
            predicted_waiting_s=waits_s.get((name, phase), 0.0),
            measured=found.fastest_s if across else found.seconds,
            measured_interval_s=None if across else interval_of(found),
            confidence=of_name[0].confidence,
            waiting_s=found.seconds - found.fastest_s if kind == "collective" and not across else 0.0,
        )
    for (name, phase), found in measured.items():
        yield ComparedOperator(
            name=name, phase=phase, kind="memory_bound", runs=0.0, predicted=0.0, measured=found.seconds, confidence=""
        )


def _waits_s(entries: Iterable[Entry], stage: StagePrediction) -> dict[tuple[str, str], float]:
    """What ranks are predicted to wait in each collective of an iteration; at the optimizer step in the first along each axis.

    They add up to the part of the breakdown that it is.
    """
    total_s = float(stage.breakdown.rank_waiting_s)
    if not total_s:
        return {}
    found: dict[tuple[str, str], float] = {}
    weights, met = meeting_waits_s(stage.work, 1.0, dispersion_s=1.0), set[str]()
    for entry in entries:
        operator = entry.operator
        name = operator.group.axis.meets if isinstance(operator, Collective) and operator.group.axis is not None else ""
        in_step = operator.phase == OPTIMIZER
        if name not in weights or (in_step and name in met):
            continue
        times = 1.0 if in_step else float(entry.repeats)
        met |= {name} if in_step else set()
        key = (operator.name, operator.phase)
        found[key] = found.get(key, 0.0) + times * float(weights[name])
    share_s = total_s / sum(found.values())
    return {key: weight * share_s for key, weight in found.items()}


def _rest(entries: list[Entry], run: Run, stage: StagePrediction, record: StepRecord) -> Iterator[ComparedOperator]:
    """Rows for the time outside operators, what stages of a pipeline wait for each other, and what marks add to the step."""
    alone_s = float(sum(entry.repeats * entry.seconds for entry in entries))
    marks_s = record.profiled_iteration_time_s - record.iteration_time_s
    bubble_s, rows, waiting_s = 0.0, {}, float(stage.breakdown.rank_waiting_s)
    if stage.layout.pipeline_parallel > 1:
        cluster = at_cluster_load(run.cluster, stage.layout.gpus)
        bubble_s = float(mean_waiting_s(stage.work, cluster=cluster, stack=run.stack))
        across = {(e.operator.name, e.operator.phase) for e in entries if _crosses_stages(e.operator, stage)}
        waited = (each.seconds - each.fastest_s for each in record.operators if (each.name, each.phase) in across)
        rows = {BUBBLE: (bubble_s, sum(waited))}
    rows |= {
        BETWEEN: (float(stage.iteration_time_s) - alone_s - bubble_s - waiting_s, record.between_s),
        OVERHEAD: (0.0, -marks_s),
    }
    for name, (predicted, measured) in rows.items():
        yield ComparedOperator(name=name, phase="", kind="", runs=0.0, predicted=predicted, measured=measured, confidence="")


def _memory(stage: StagePrediction, record: StepRecord) -> dict[str, ComparedValue]:
    """Part by part, of the pipeline stage that needed most."""
    predicted, work = stage.memory, stage.work
    if stage.layout.pipeline_parallel > 1:
        held = work.every_stage[record.memory.pipeline_stage - 1]
        predicted = stage_memory_bytes(work, held, scratch=work.setup.cluster.links.node.collectives.scratch)
    return {
        name: ComparedValue(
            predicted=sum(float(getattr(predicted, part)) for part in parts), measured=float(getattr(record.memory, name))
        )
        for name, parts in MEMORY_PARTS.items()
    }


def _collectives(stage: StagePrediction) -> Iterator[CountedCall]:
    """Every collective that a GPU of each pipeline stage takes part in."""
    for place, held in enumerate(stage.work.every_stage, start=1):
        for operator, repeats in stage.work.stage_executions(held):
            if isinstance(operator, Collective) and operator.group.ranks > 1 and repeats > 0:
                yield (
                    GroupOfRanks(operator.kind, int(operator.group.ranks), place),
                    float(repeats),
                    float(operator.payload_bytes),
                )
