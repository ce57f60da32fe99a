"""The kernels of a profiled step beside the operators of a prediction, by kind: whoever wrote the software that ran.

A kernel belongs to the first kind whose pattern its name fits (data/trace_kernels.yaml), an operator to the first that has its
collective, its kernel, its role or its type. What belongs to none is listed by name. Times of kinds are those that kernels run,
each alone or not: as several run at once, and none at times,

    step = sum of kinds + unmatched + copies - overlapped + idle

Ignored: which launch of a kernel is which operator; kernels that two kinds share (torch.compile) count to the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.evidence.steps.profiled_step import SPAN, ProfiledEvent, ProfiledStep
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.trace_kinds import TraceKind

KERNEL: Final = "kernel"  # what a profile calls what ran on a GPU
COPIES: Final = ("gpu_memcpy", "gpu_memset")
LONGEST_NAME: Final = 80  # characters of a kernel's name
OF_TEMPLATES: Final = re.compile(r"^(void |static )|[<(].*$")
NANOSECOND: Final = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelRow:
    """The kernels of one kind in a step: seconds and launches of an average GPU; no prediction is made of some kinds."""

    name: str
    measured_s: float
    predicted_s: float | None
    launches: float

    @property
    def error(self) -> float | None:
        """predicted / measured - 1; None where either is nothing."""
        return self.predicted_s / self.measured_s - 1.0 if self.predicted_s and self.measured_s > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelComparison:
    """A profiled step by kinds of kernels; `unmatched` are kernels that no pattern knows, the longest first."""

    gpus: int
    step_s: float
    is_marked: bool  # whether the profiler marked steps; all of a trace without marks is taken for one
    kinds: tuple[KernelRow, ...]
    unmatched: tuple[KernelRow, ...]
    copies_s: float
    overlapped_s: float  # run while another kernel runs
    idle_s: float  # while no kernel runs

    @property
    def unmatched_s(self) -> float:
        """Seconds of all kernels that no pattern knows."""
        return sum(each.measured_s for each in self.unmatched)


def has_kernels(step: ProfiledStep) -> bool:
    """Whether something of a step ran on a GPU."""
    return any(event.phase == SPAN and event.kind == KERNEL for event in step.events)


def kernel_comparison(
    step: ProfiledStep, predicted: Iterable[tuple[Operator, Numeric]], kinds: Sequence[TraceKind]
) -> KernelComparison:
    """A profiled step that has kernels beside operators with what they take of an iteration."""
    kernels = [event for event in step.events if event.phase == SPAN and event.kind == KERNEL]
    copies = [event for event in step.events if event.phase == SPAN and event.kind in COPIES]
    gpus = len({_gpu(event) for event in kernels})
    known, unknown = _by_kind(kernels, kinds)
    seconds = _predicted(predicted, kinds)
    rows = [_row(kind.name, known.get(kind.name, []), seconds.get(kind.name), gpus) for kind in kinds]
    others = [_row(name, events, None, gpus) for name, events in unknown.items()]
    running_s = sum(map(_running_s, _by_gpu([*kernels, *copies]).values())) / gpus
    total_s = _seconds([*kernels, *copies]) / gpus
    return KernelComparison(
        gpus=gpus,
        step_s=step.duration_s,
        is_marked=step.is_marked,
        kinds=tuple(row for row in rows if row.launches or row.predicted_s),
        unmatched=tuple(sorted(others, key=lambda row: -row.measured_s)),
        copies_s=_seconds(copies) / gpus,
        overlapped_s=total_s - running_s,
        idle_s=max(step.duration_s - running_s, 0.0),
    )


def _by_kind(
    kernels: Iterable[ProfiledEvent], kinds: Sequence[TraceKind]
) -> tuple[Mapping[str, list[ProfiledEvent]], Mapping[str, list[ProfiledEvent]]]:
    """Kernels by kind, and those of none by a short form of their names."""
    patterns = [(kind.name, re.compile(kind.pattern)) for kind in kinds]
    named: dict[str, list[ProfiledEvent]] = {}
    for event in kernels:
        named.setdefault(event.name, []).append(event)
    known: dict[str, list[ProfiledEvent]] = {}
    unknown: dict[str, list[ProfiledEvent]] = {}
    for name, events in named.items():
        kind = next((each for each, pattern in patterns if pattern.search(name)), None)
        (unknown if kind is None else known).setdefault(kind or short_name(name), []).extend(events)
    return known, unknown


def short_name(name: str) -> str:
    """The name of a kernel without what its templates and arguments are.

    >>> short_name("void at::native::foo_kernel<4, at::native::Bar<float> >(int, float*)")
    'at::native::foo_kernel'
    """
    short = OF_TEMPLATES.sub("", OF_TEMPLATES.sub("", name.replace("(anonymous namespace)::", ""), count=1)).strip()
    return " ".join((short or name).split())[:LONGEST_NAME]


def _predicted(operators: Iterable[tuple[Operator, Numeric]], kinds: Sequence[TraceKind]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for operator, taken_s in operators:
        name = next((kind.name for kind in kinds if _has(kind, operator)), "")
        if name:
            seconds[name] = seconds.get(name, 0.0) + float(taken_s)
    return seconds


def _has(kind: TraceKind, operator: Operator) -> bool:
    match operator:
        case Collective():
            return operator.kind in kind.collectives
        case Matmul():
            return "matmul" in kind.types
        case FusedAttention():
            return "attention" in kind.types
        case MemoryBound():
            return operator.kernel in kind.kernels or operator.role.value in kind.roles
    return False


def _row(name: str, events: Sequence[ProfiledEvent], predicted_s: float | None, gpus: int) -> KernelRow:
    return KernelRow(name=name, measured_s=_seconds(events) / gpus, predicted_s=predicted_s, launches=len(events) / gpus)


def _gpu(event: ProfiledEvent) -> str:
    return str(event.args.get("device", event.thread.process))


def _by_gpu(events: Iterable[ProfiledEvent]) -> Mapping[str, list[ProfiledEvent]]:
    found: dict[str, list[ProfiledEvent]] = {}
    for event in events:
        found.setdefault(_gpu(event), []).append(event)
    return found


def _seconds(events: Iterable[ProfiledEvent]) -> float:
    return sum(event.end_ns - event.start_ns for event in events) * NANOSECOND


def _running_s(events: Sequence[ProfiledEvent]) -> float:
    """For how long at least one of them runs."""
    ends = np.asarray(sorted((event.start_ns, event.end_ns) for event in events), dtype=np.float64)
    latest = np.maximum.accumulate(ends[:, 1])
    begins = np.maximum(ends[:, 0], np.concatenate([[-np.inf], latest[:-1]]))
    return float(np.sum(np.maximum(ends[:, 1] - begins, 0.0))) * NANOSECOND
