"""What measured steps and passes have in common beside their predictions: operators, values, kinds of messages, settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Never, TypeAlias

import numpy as np

from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.errors import InputError, shown
from perfmodel.evidence.steps.step_records import CollectiveCount, OperatorTime
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Spec, plain

BETWEEN: Final = "between operators"
OVERHEAD: Final = "marks of the profile"
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
    """The seconds that all executions of one operator in one phase take in an iteration.

    Of a collective, `waiting_s` is the part of `measured` that ranks wait for the last of them, and `predicted_waiting_s` that
    of `predicted`, where the machine is one of which it is known (timing/waiting.py).
    """

    name: str
    phase: str
    kind: str  # matmul | attention | memory_bound | collective | "" for time outside operators
    runs: float
    confidence: str
    waiting_s: float = 0.0
    predicted_waiting_s: float = 0.0
    measured_interval_s: tuple[float, float] | None = None  # 90 %, of the measurement alone

    @property
    def is_within(self) -> bool | None:
        """Whether the prediction lies in the interval of the measurement; None where the record does not say one."""
        if self.measured_interval_s is None:
            return None
        low_s, high_s = self.measured_interval_s
        return low_s <= self.predicted <= high_s

    def row(self) -> dict[str, Any]:
        """Its names and seconds; the error is None where nothing was measured."""
        named = {"name": self.name, "phase": self.phase, "kind": self.kind, "runs": self.runs, "confidence": self.confidence}
        interval = None if self.measured_interval_s is None else list(self.measured_interval_s)
        seconds = {"predicted_s": self.predicted, "measured_s": self.measured, "error": self.error}
        return named | seconds | {"measured_interval_s": interval, "within": self.is_within}


class GroupOfRanks(NamedTuple):
    """Whose collectives are counted together: those of a kind over so many ranks, of one pipeline stage, counted from 1."""

    kind: str
    ranks: int
    pipeline_stage: int = 1


CountedCall: TypeAlias = tuple[GroupOfRanks, float, float]  # how often it runs, and the payload of each run [bytes]


def kind_of(operator: object) -> str:
    """The kind of an operator, as comparisons name it."""
    match operator:
        case Collective():
            return "collective"
        case Matmul():
            return "matmul"
        case FusedAttention() | CachedAttention() | KeyChoice() | SparseAttention():
            return "attention"
    return "memory_bound"


def compared_calls(
    predicted: Iterable[CountedCall], counted: Iterable[CollectiveCount]
) -> tuple[dict[GroupOfRanks, ComparedValue], dict[GroupOfRanks, ComparedValue]]:
    """Calls and payload of each kind of collective, predicted and counted by torch."""
    ours: dict[GroupOfRanks, tuple[float, float]] = {}
    for key, repeats, payload_bytes in predicted:
        calls, total_bytes = ours.get(key, (0.0, 0.0))
        ours[key] = calls + repeats, total_bytes + repeats * payload_bytes
    theirs = {GroupOfRanks(each.kind, each.ranks, each.pipeline_stage): (each.calls, each.payload_bytes) for each in counted}
    both, none = dict.fromkeys([*ours, *theirs]), (0.0, 0.0)
    calls_of, bytes_of = (
        {key: ComparedValue(predicted=ours.get(key, none)[place], measured=float(theirs.get(key, none)[place])) for key in both}
        for place in (0, 1)
    )
    return calls_of, bytes_of


def longest(operators: Iterable[ComparedOperator], enough_s: float) -> tuple[ComparedOperator, ...]:
    """The operators that took longest, as many as together took so many seconds."""
    chosen: list[ComparedOperator] = []
    total_s = 0.0
    for pair in sorted((pair for pair in operators if pair.kind), key=lambda pair: -pair.measured):
        if total_s >= enough_s:
            break
        chosen.append(pair)
        total_s += pair.measured
    return tuple(chosen)


def differ(different: Sequence[Sequence[tuple[str, str, str]]]) -> Never:
    """Raise InputError for what a run has unlike a record, of several alternatives that which differs least."""
    key, ours, theirs = min(different, key=len)[0]
    raise InputError(f"the run has {ours}, the record was measured with {theirs}; use --set {key}={theirs}", key=key)


def differences(parts: Iterable[tuple[str, Spec, Sequence[str]]], settings: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Every setting in which a run and a record differ: its key, the value of the run, the value of the record."""
    found = []
    for part, spec, names in parts:
        theirs = settings.get(part, {})
        if not isinstance(theirs, Mapping):
            raise InputError(f"{shown(theirs)} where the settings of a {part} are needed", key=f"settings.{part}")
        for name in names:
            ours = getattr(spec, name)
            if name in theirs and _text(ours) != _text(theirs[name]):
                found.append((f"{part}.{name}" if part == "model" else name, _text(ours), _text(theirs[name])))
    return found


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return plain(float(value)) if isinstance(value, int | float | np.number) else str(value)


def interval_of(found: OperatorTime) -> tuple[float, float] | None:
    """The 90 % interval that a record says of an operator; None where it says none."""
    return (found.interval_s[0], found.interval_s[1]) if found.interval_s else None
