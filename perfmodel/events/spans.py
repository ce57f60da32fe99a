"""What a timeline is made of: spans of time on the tracks of pipeline stages, and arrows from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final, NamedTuple

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import AXES, DATA, PIPELINE
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.attention import attention_bytes
from perfmodel.timing.kernels import matmul_bytes

PASSES: Final = "passes"
COMPUTE: Final = "compute"
(DATA_STREAM,) = DATA.streams
ACTIVATIONS, GRADIENTS = PIPELINE.streams
WAITING: Final = "waiting"
TRACKS: Final = (PASSES, COMPUTE, *(stream for axis in AXES for stream in axis.streams), WAITING)


class SpanPlace(NamedTuple):
    """What a span belongs to; stages, micro-batches, chunks of a stage and layers count from 0."""

    stage: int
    micro_batch: int | None = None
    chunk: int | None = None
    layer: int | None = None


class OperatorRun(NamedTuple):
    """An operator in one pass: what all its executions take alone, what kernels wait for it, what communication adds to it."""

    operator: Operator
    alone_s: float
    confidence: str
    exposed_s: float | None = None  # of a collective
    slowdown_s: float | None = None  # of a kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that lasts, on one track of one pipeline stage.

    `kind` is forward, backward, weight_gradients, optimizer, folded, layer, matmul, attention, memory_bound, unlisted,
    collective, message or wait. `parts` are the seconds of a breakdown that a pass, the optimizer step or a wait adds.
    """

    place: SpanPlace
    track: str
    name: str
    kind: str
    start_s: float
    end_s: float
    ran: OperatorRun | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length of the span [s]."""
        return self.end_s - self.start_s

    def row(self) -> dict[str, Any]:
        """As plain values, with stages, micro-batches, chunks and layers counted from 1."""
        ran = self.ran
        counts = {"flop": None, "bytes": None} if ran is None else quantities(ran.operator)
        return (
            {"pipeline_stage": self.place.stage + 1, "track": self.track, "name": self.name, "kind": self.kind}
            | {"phase": None if ran is None else ran.operator.phase}
            | {name: from_one(getattr(self.place, name)) for name in ("micro_batch", "chunk", "layer")}
            | {"start_s": self.start_s, "duration_s": self.duration_s}
            | {name: getattr(ran, name, None) for name in ("alone_s", "exposed_s", "slowdown_s", "confidence")}
            | counts
        )


def from_one(count: int | None) -> int | None:
    """A place as people count."""
    return None if count is None else count + 1


class ArrowPoint(NamedTuple):
    """A moment on a track of a pipeline stage."""

    stage: int
    track: str
    at_s: float


class Arrow(NamedTuple):
    """What one pass hands to another, by way of its message."""

    name: str
    points: tuple[ArrowPoint, ...]


def stream_of(group: ProcessGroup) -> str:
    """The track of a group's collectives; those of all GPUs follow what data parallelism reduces.

    Of the two ways between stages, it is that of gradients: collectives over them run once an iteration, after the last pass.
    """
    return DATA_STREAM if group.axis is None else group.axis.streams[-1]


def kind_of(operator: Operator) -> str:
    """matmul, attention, memory_bound or collective."""
    match operator:
        case Matmul():
            return "matmul"
        case FusedAttention():
            return "attention"
        case MemoryBound():
            return "memory_bound"
        case Collective():
            return "collective"


def quantities(operator: Operator) -> dict[str, float]:
    """Hardware FLOPs and bytes of all executions in one pass: what a kernel moves at least, what a rank sends."""
    match operator:
        case Matmul():
            flop, moved = operator.flop, matmul_bytes(operator)
        case FusedAttention():
            flop, moved = operator.flop, attention_bytes(operator)
        case MemoryBound():
            flop, moved = 0.0, operator.moved_bytes
        case Collective():
            flop, moved = 0.0, operator.wire_bytes
    return {"flop": float(operator.repeats * flop), "bytes": float(operator.repeats * moved)}
