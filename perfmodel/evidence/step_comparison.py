"""A measured training step beside its prediction: each operator, each part of memory, each kind of collective.

The times on both sides add up to the step: time outside operators has rows of its own. The time of a collective includes what
its ranks wait for the last of them: `waiting_s` says how much that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from perfmodel.count.operators import Collective, FusedAttention, Matmul
from perfmodel.errors import InputError
from perfmodel.evidence.step_records import CollectiveCount, StepRecord
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.axes import AXES
from perfmodel.spec.fields import plain
from perfmodel.spec.run import Run
from perfmodel.timing.ledger import Entry, ledger

BETWEEN: Final = "between operators"
OVERHEAD: Final = "marks of the profile"
COMPARED: Final = (
    "precision",
    *(axis.name for axis in AXES),
    "sequence_parallel",
    "sharding",
    "recompute",
    "recompute_layers",
    "micro_batch_size",
    "global_batch_size",
    "sequence_length",
)
MODEL_SIZES: Final = (
    "layers",
    "hidden_size",
    "attention_heads",
    "kv_heads",
    "ffn_hidden_size",
    "vocab_size",
    "activation",
    "norm",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedValue:
    """A quantity that was both predicted and measured."""

    predicted: float
    measured: float

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where the measurement is 0."""
        return self.predicted / self.measured - 1.0 if self.measured > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedOperator(ComparedValue):
    """The seconds that all executions of one operator in one phase take in an iteration."""

    name: str
    phase: str
    kind: str  # matmul | attention | memory_bound | collective | "" for time outside operators
    runs: float
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepComparison:
    """A prediction and a measured record of the same training step."""

    record: StepRecord
    predicted: StagePrediction
    operators: tuple[ComparedOperator, ...]  # in the order of the operator list, then time outside operators
    memory: Mapping[str, ComparedValue]
    calls: Mapping[tuple[str, int], ComparedValue]  # by kind and ranks of the group
    payload_bytes: Mapping[tuple[str, int], ComparedValue]

    @property
    def step(self) -> ComparedValue:
        """The iteration time, measured in steps without the marks of the profile."""
        return ComparedValue(predicted=float(self.predicted.iteration_time_s), measured=self.record.iteration_time_s)

    @property
    def waiting_s(self) -> float:
        """Seconds of an iteration that ranks wait in collectives for the last of them."""
        names = {(pair.name, pair.phase) for pair in self.operators if pair.kind == "collective"}
        return sum(each.seconds - each.fastest_s for each in self.record.operators if (each.name, each.phase) in names)

    def largest(self, share: float) -> tuple[ComparedOperator, ...]:
        """The operators that together make up `share` of the measured step, the longest first."""
        chosen: list[ComparedOperator] = []
        total_s = 0.0
        for pair in sorted((pair for pair in self.operators if pair.kind), key=lambda pair: -pair.measured):
            if total_s >= share * self.record.profiled_iteration_time_s:
                break
            chosen.append(pair)
            total_s += pair.measured
        return tuple(chosen)


def compare_step(prediction: Prediction, record: StepRecord) -> StepComparison:
    """A record beside the ramp stage that it measured. Errors: InputError where no stage has the settings of the record."""
    run = prediction.run
    stage = _stage(prediction, record)
    entries = list(ledger(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack))
    calls, payload = _communication(entries, record.collectives)
    return StepComparison(
        record=record,
        predicted=stage,
        operators=(*_operators(entries, record), *_rest(entries, stage, record)),
        memory={name: _memory(name, parts, stage, record) for name, parts in MEMORY_PARTS.items()},
        calls=calls,
        payload_bytes=payload,
    )


def _stage(prediction: Prediction, record: StepRecord) -> StagePrediction:
    """The stage of the run that has the settings of the record."""
    differences = []
    for _, stage in prediction.stages:
        differs = _differs(prediction.run, stage, record.settings)
        if not differs:
            return stage
        differences.append(differs)
    nearest = min(differences, key=len)
    key, ours, theirs = nearest[0]
    raise InputError(f"the run has {ours}, the record was measured with {theirs}; use --set {key}={theirs}", key=key)


def _differs(run: Run, stage: StagePrediction, settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every setting in which a run and a record differ: its key, the value of the run, the value of the record."""
    found = []
    for part, spec, names in (("model", run.model, MODEL_SIZES), ("layout", stage.layout, COMPARED)):
        theirs = settings.get(part, {})
        for name in names:
            ours = getattr(spec, name)
            if name in theirs and _text(ours) != _text(theirs[name]):
                found.append((f"{part}.{name}" if part == "model" else name, _text(ours), _text(theirs[name])))
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return plain(float(value)) if isinstance(value, int | float | np.number) else str(value)


def _operators(entries: list[Entry], record: StepRecord) -> Iterator[ComparedOperator]:
    """A row for each name and phase that was predicted or measured."""
    measured = {(each.name, each.phase): each for each in record.operators}
    predicted: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        predicted.setdefault((entry.operator.name, entry.operator.phase), []).append(entry)
    for (name, phase), of_name in predicted.items():
        kind = _kind(of_name[0])
        found = measured.pop((name, phase), None)
        yield ComparedOperator(
            name=name,
            phase=phase,
            kind=kind,
            runs=float(sum(entry.repeats for entry in of_name)),
            predicted=float(sum(entry.repeats * entry.seconds for entry in of_name)),
            measured=0.0 if found is None else found.seconds,
            confidence=of_name[0].confidence,
        )
    for (name, phase), found in measured.items():
        yield ComparedOperator(
            name=name, phase=phase, kind="memory_bound", runs=0.0, predicted=0.0, measured=found.seconds, confidence=""
        )


def _kind(entry: Entry) -> str:
    match entry.operator:
        case Collective():
            return "collective"
        case Matmul():
            return "matmul"
        case FusedAttention():
            return "attention"
    return "memory_bound"


def _rest(entries: list[Entry], stage: StagePrediction, record: StepRecord) -> Iterator[ComparedOperator]:
    """Rows for the time outside operators, and for the time that the marks add to the profiled step."""
    alone_s = float(sum(entry.repeats * entry.seconds for entry in entries))
    marks_s = record.profiled_iteration_time_s - record.iteration_time_s
    rows = {
        BETWEEN: (float(stage.iteration_time_s) - alone_s, record.between_s),
        OVERHEAD: (0.0, -marks_s),
    }
    for name, (predicted, measured) in rows.items():
        yield ComparedOperator(name=name, phase="", kind="", runs=0.0, predicted=predicted, measured=measured, confidence="")


def _memory(name: str, parts: tuple[str, ...], stage: StagePrediction, record: StepRecord) -> ComparedValue:
    predicted = sum(float(getattr(stage.memory, part)) for part in parts)
    return ComparedValue(predicted=predicted, measured=float(getattr(record.memory, name)))


def _communication(
    entries: list[Entry], counted: tuple[CollectiveCount, ...] | Any
) -> tuple[dict[tuple[str, int], ComparedValue], dict[tuple[str, int], ComparedValue]]:
    """Calls and payload of each kind of collective and size of group, predicted and counted by torch."""
    ours: dict[tuple[str, int], list[float]] = {}
    for entry in entries:
        if isinstance(entry.operator, Collective):
            total = ours.setdefault((entry.operator.kind, int(entry.operator.group.ranks)), [0.0, 0.0])
            total[0] += float(entry.repeats)
            total[1] += float(entry.repeats * entry.operator.payload_bytes)
    theirs = {(each.kind, each.ranks): (each.calls, each.payload_bytes) for each in counted}
    both = [*ours, *(key for key in theirs if key not in ours)]
    none = (0.0, 0.0)
    pairs = [
        {key: ComparedValue(predicted=ours.get(key, none)[place], measured=float(theirs.get(key, none)[place])) for key in both}
        for place in (0, 1)
    ]
    return pairs[0], pairs[1]
