"""A predicted iteration as trace events: a process a pipeline stage, a thread a stream, every operator with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.events.spans import COMPUTE, PASSES, TRACKS, OperatorRun, Span, from_one, quantities
from perfmodel.events.timeline import Timeline
from perfmodel.report.trace.format import THREADS, Event, complete, flow, in_order, nanoseconds, process, thread
from perfmodel.spec.fields import Numeric, plain

COLOURS: Final = {  # names that chrome://tracing knows; ui.perfetto.dev has colours of its own
    "forward": "thread_state_runnable",
    "backward": "good",
    "weight_gradients": "bad",
    "optimizer": "black",
    "folded": "grey",
    "layer": "white",
    "matmul": "thread_state_runnable",
    "attention": "rail_animation",
    "memory_bound": "yellow",
    "unlisted": "olive",
    "collective": "terrible",
    "message": "rail_load",
    "wait": "grey",
}
PLACES: Final = 12  # digits of a time in seconds: picoseconds
ROOM: Final = 50  # threads of a track that can lie beside each other


def timeline_events(timeline: Timeline, *, first_process: int = 1, prefix: str = "") -> list[Event]:
    """All events of one timeline; its processes have the numbers from `first_process` on."""
    threads = _Threads(timeline.spans, first_process)
    number = len(timeline.layers)
    events: list[Event] = []
    for stage, pieces in enumerate(timeline.layers):
        name = f"{prefix}pipeline stage {stage + 1} of {number} ({layers_text(pieces)})"
        events += process(first_process + stage, name, label=timeline.run.name)
    events += threads.names()
    events += threads.spans()
    for place, arrow in enumerate(timeline.arrows):
        points = [threads.at(point.stage, point.track, nanoseconds(point.at_s)) for point in arrow.points]
        events += flow(place + 1, arrow.name, points)
    return in_order(events)


def layers_text(pieces: Sequence[tuple[int, int]]) -> str:
    """The layers of a pipeline stage, counted from 1.

    >>> layers_text([(0, 2), (8, 1)])
    'layers 1-2, 9'
    """
    ranges = [str(first + 1) if number == 1 else f"{first + 1}-{first + number}" for first, number in pieces if number > 0]
    return f"layers {', '.join(ranges)}" if ranges else "no layers"


class _Threads:
    """Which thread each span lies on: the first of its track that is free."""

    def __init__(self, spans: Sequence[Span], first_process: int) -> None:
        self.first_process = first_process
        self.lanes: dict[tuple[int, str], list[int]] = {}  # the nanosecond from which each thread of a track is free
        self.starts: dict[tuple[int, str, int], int] = {}  # the lane of the span that begins then
        self.placed = [(span, self._lane(span)) for span in sorted(spans, key=_by_time)]

    def _lane(self, span: Span) -> int:
        key, start_ns, end_ns = (span.place.stage, span.track), nanoseconds(span.start_s), nanoseconds(span.end_s)
        free = self.lanes.setdefault(key, [0])
        if span.track in (PASSES, COMPUTE):  # one after the other, or operators in their layer
            return 0
        lane = next((lane for lane, free_ns in enumerate(free) if free_ns <= start_ns), len(free))
        free[lane : lane + 1] = [end_ns]
        self.starts[*key, start_ns] = lane
        return lane

    def names(self) -> Iterator[Event]:
        """Name events of every thread that has spans."""
        for (stage, track), free in sorted(self.lanes.items()):
            for lane in range(len(free)):
                pid, tid = self._numbers(stage, track, lane)
                yield from thread(pid, tid, track if lane == 0 else f"{track} ({lane + 1})")

    def spans(self) -> Iterator[Event]:
        """Every span as an event."""
        for span, lane in self.placed:
            at = self._numbers(span.place.stage, span.track, lane)
            ends_ns = nanoseconds(span.start_s), nanoseconds(span.end_s)
            yield complete(span.name, span.kind, at, ends_ns, arguments(span)) | {"cname": COLOURS[span.kind]}

    def at(self, stage: int, track: str, at_ns: int) -> tuple[int, int, int]:
        """Process and thread of the span that is on a track at a time."""
        return *self._numbers(stage, track, self.starts.get((stage, track, at_ns), 0)), at_ns

    def _numbers(self, stage: int, track: str, lane: int) -> tuple[int, int]:
        pid = self.first_process + stage
        return pid, pid * THREADS + 1 + TRACKS.index(track) * ROOM + lane


def _by_time(span: Span) -> tuple[int, int, bool]:
    return nanoseconds(span.start_s), -nanoseconds(span.end_s), span.kind != "layer"


def arguments(span: Span) -> dict[str, Any]:
    """What a click on a span shows; seconds, bytes and FLOPs are those of all executions in the pass."""
    place = {name: from_one(getattr(span.place, name)) for name in ("micro_batch", "chunk", "layer")}
    found: dict[str, Any] = {name: value for name, value in place.items() if value is not None}
    if span.ran is not None:
        found |= _of_operator(span.ran)
    found |= {part: round(seconds, PLACES) for part, seconds in span.parts.items()}
    return found | {name: round(value, PLACES) if isinstance(value, float) else value for name, value in span.details.items()}


def _of_operator(ran: OperatorRun) -> dict[str, Any]:
    times = {"alone_s": ran.alone_s, "exposed_s": ran.exposed_s, "slowdown_s": ran.slowdown_s}
    found: dict[str, Any] = {"phase": ran.operator.phase, "shape": shape_text(ran.operator)}
    found |= {name: number(value) for name, value in quantities(ran.operator).items()}
    found["repeats"] = number(ran.operator.repeats)
    found |= {name: round(seconds, PLACES) for name, seconds in times.items() if seconds}
    return found | {"confidence": ran.confidence}


def shape_text(operator: Operator) -> str:
    """The sizes of an operator, as people say them.

    >>> from perfmodel.spec.layout import ProcessGroup
    >>> shape_text(Matmul(name="fc1", rows=4096, columns=3072, inner=6144, precision="bf16"))
    '4096 x 3072 x 6144 (rows x columns x inner), bf16'
    >>> group = ProcessGroup(name="tensor_parallel", ranks=8, stride=1)
    >>> shape_text(Collective(name="gather", kind="all_gather", payload_bytes=1e6, group=group))
    'all_gather of 1000000 bytes over 8 ranks (tensor_parallel)'
    """
    match operator:
        case Matmul():
            batch = f"{plain(operator.batch)} of " if operator.batch != 1 else ""
            sizes = " x ".join(plain(size) for size in (operator.rows, operator.columns, operator.inner))
            return f"{batch}{sizes} (rows x columns x inner), {operator.precision}"
        case FusedAttention():
            mask = "causal" if operator.causal else "no mask"
            return (
                f"{plain(operator.sequences)} sequences x {plain(operator.heads)} heads ({plain(operator.kv_heads)} of keys) x "
                f"{plain(operator.head_size)}, {plain(operator.query_length)} queries, {plain(operator.key_length)} keys, "
                f"{mask}, {operator.precision}"
            )
        case MemoryBound():
            return f"{plain(operator.moved_bytes)} bytes in {plain(operator.kernels)} kernels"
        case Collective():
            group = operator.group
            return f"{operator.kind} of {plain(operator.payload_bytes)} bytes over {plain(group.ranks)} ranks ({group.name})"


def number(value: Numeric) -> float:
    """Counts without a decimal point."""
    found = float(value)
    return int(found) if found.is_integer() else round(found, 6)
