"""A measured training step beside its prediction: operator by operator, memory part by part, call by call.

The times of both sides add up to their steps: what stands in no operator is named. A collective counts with what its ranks
waited for the last of them: `waiting_s` says how much that was.
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
from perfmodel.spec.fields import plain
from perfmodel.spec.run import Run
from perfmodel.timing.ledger import Entry, ledger

BETWEEN: Final = "between operators"
OVERHEAD: Final = "marks of the profile"
COMPARED: Final = (
    "precision",
    "tensor_parallel",
    "data_parallel",
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
MEMORY: Final = {  # of a record: the parts of the forecast that torch's allocator sees
    "parameters_bytes": ("parameters_bytes",),
    "gradients_bytes": ("gradients_bytes",),
    "optimizer_bytes": ("optimizer_bytes",),
    "activations_bytes": ("activations_bytes",),
    "loss_bytes": ("loss_bytes", "scratch_bytes"),
    "peak_bytes": ("parameters_bytes", "gradients_bytes", "optimizer_bytes", *OF_PASSES),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One thing that was both predicted and measured."""

    predicted: float
    measured: float

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where nothing was measured."""
        return self.predicted / self.measured - 1.0 if self.measured > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPair(Pair):
    """One operator in one phase: seconds of an iteration, all executions together."""

    name: str
    phase: str
    kind: str  # matmul | attention | memory_bound | collective | "" for what is no operator
    runs: float
    confidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepComparison:
    """A prediction and a record of the same step."""

    record: StepRecord
    predicted: StagePrediction
    operators: tuple[OperatorPair, ...]  # those of the list, in its order, then what is no operator
    memory: Mapping[str, Pair]
    calls: Mapping[tuple[str, int], Pair]  # by kind and ranks of the group
    payload_bytes: Mapping[tuple[str, int], Pair]

    @property
    def step(self) -> Pair:
        """The iteration: steps without marks."""
        return Pair(predicted=float(self.predicted.iteration_time_s), measured=self.record.iteration_time_s)

    @property
    def waiting_s(self) -> float:
        """What ranks waited for the last of them, in all collectives of an iteration."""
        names = {(pair.name, pair.phase) for pair in self.operators if pair.kind == "collective"}
        return sum(each.seconds - each.fastest_s for each in self.record.operators if (each.name, each.phase) in names)

    def largest(self, share: float) -> tuple[OperatorPair, ...]:
        """The operators that together make up `share` of the measured step, the longest first."""
        chosen: list[OperatorPair] = []
        total_s = 0.0
        for pair in sorted((pair for pair in self.operators if pair.kind), key=lambda pair: -pair.measured):
            if total_s >= share * self.record.profiled_iteration_time_s:
                break
            chosen.append(pair)
            total_s += pair.measured
        return tuple(chosen)


def compare_step(prediction: Prediction, record: StepRecord) -> StepComparison:
    """The stage that was measured beside its record. Errors: InputError when run and record are not of the same step."""
    run = prediction.run
    stage = _stage(prediction, record)
    entries = list(ledger(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack))
    calls, payload = _communication(entries, record.collectives)
    return StepComparison(
        record=record,
        predicted=stage,
        operators=(*_operators(entries, record), *_rest(entries, stage, record)),
        memory={name: _memory(name, parts, stage, record) for name, parts in MEMORY.items()},
        calls=calls,
        payload_bytes=payload,
    )


def _stage(prediction: Prediction, record: StepRecord) -> StagePrediction:
    """The stage whose layout the record has."""
    differences = []
    for _, stage in prediction.stages:
        differs = _differs(prediction.run, stage, record.settings)
        if not differs:
            return stage
        differences.append(differs)
    nearest = min(differences, key=len)
    key, ours, theirs = nearest[0]
    raise InputError(
        f"the run has {ours}, but the record was measured with {theirs}; --set {key}={theirs} compares like with like", key=key
    )


def _differs(run: Run, stage: StagePrediction, settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Key, value of the run and value of the record, of all that makes them different steps."""
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


def _operators(entries: list[Entry], record: StepRecord) -> Iterator[OperatorPair]:
    """Every operator of either side; executions of the same name and phase are one row."""
    measured = {(each.name, each.phase): each for each in record.operators}
    predicted: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        predicted.setdefault((entry.operator.name, entry.operator.phase), []).append(entry)
    for (name, phase), of_name in predicted.items():
        kind = _kind(of_name[0])
        found = measured.pop((name, phase), None)
        yield OperatorPair(
            name=name,
            phase=phase,
            kind=kind,
            runs=float(sum(entry.repeats for entry in of_name)),
            predicted=float(sum(entry.repeats * entry.seconds for entry in of_name)),
            measured=0.0 if found is None else found.seconds,
            confidence=of_name[0].confidence,
        )
    for (name, phase), found in measured.items():
        yield OperatorPair(
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


def _rest(entries: list[Entry], stage: StagePrediction, record: StepRecord) -> Iterator[OperatorPair]:
    """What both sides spend in no operator, and what the marks cost the profiled step."""
    alone_s = float(sum(entry.repeats * entry.seconds for entry in entries))
    marks_s = record.profiled_iteration_time_s - record.iteration_time_s
    rows = {
        BETWEEN: (float(stage.iteration_time_s) - alone_s, record.between_s),
        OVERHEAD: (0.0, -marks_s),
    }
    for name, (predicted, measured) in rows.items():
        yield OperatorPair(name=name, phase="", kind="", runs=0.0, predicted=predicted, measured=measured, confidence="")


def _memory(name: str, parts: tuple[str, ...], stage: StagePrediction, record: StepRecord) -> Pair:
    predicted = sum(float(getattr(stage.memory, part)) for part in parts)
    return Pair(predicted=predicted, measured=float(getattr(record.memory, name)))


def _communication(
    entries: list[Entry], counted: tuple[CollectiveCount, ...] | Any
) -> tuple[dict[tuple[str, int], Pair], dict[tuple[str, int], Pair]]:
    """Calls and payload of every kind and group, predicted and seen by torch."""
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
        {key: Pair(predicted=ours.get(key, none)[place], measured=float(theirs.get(key, none)[place])) for key in both}
        for place in (0, 1)
    ]
    return pairs[0], pairs[1]
