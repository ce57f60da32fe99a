"""The last step in a trace of torch.profiler (Kineto): its events, from the moment at which the step begins.

A trace with several steps (ProfilerStep#1, ..) gives the last of them; what a GPU still does of it after the CPU went on
counts to it, where the profiler marked the step on the GPU too. A trace without such marks is one step. Events without a time
are left out, as long as others have one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from perfmodel.errors import InputError, shown
from perfmodel.light_dataclass import dataclass

STEP: Final = "ProfilerStep#"
ON_GPU: Final = ("kernel", "gpu_memcpy", "gpu_memset", "gpu_user_annotation")
OLDER_KINDS: Final = {"Kernel": "kernel", "Memcpy": "gpu_memcpy", "Memset": "gpu_memset"}  # of PyTorch before 1.12
OF_THE_PROFILER: Final = "Trace"  # the category of events about the profiler itself
SPAN, FLOWS, FACT = "X", ("s", "t", "f"), "M"
LONGEST_US: Final = 1e12  # a fortnight
LATEST_US: Final = 1e17  # 3,000 years from when the clock began
NANOSECONDS: Final = 1000.0  # in a microsecond, the unit of the format


class Thread(NamedTuple):
    """A thread of a profiled process, or a stream of a GPU."""

    process: str
    thread: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledEvent:
    """A span of one thread, or one end of an arrow; times are nanoseconds from the start of the step."""

    phase: str
    thread: Thread
    name: str
    kind: str
    start_ns: int
    end_ns: int
    number: int | None  # identifies the arrow of which this is an end
    args: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledStep:
    """The events of one step, and the names of processes and threads."""

    events: Sequence[ProfiledEvent]
    processes: Mapping[str, str]
    threads: Mapping[Thread, str]
    is_marked: bool = True  # whether the profiler marked where steps begin
    ranks: int | None = None  # of the run that was profiled, where the trace says so
    gpu: str = ""  # what the driver calls it, where the trace says so

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the step to the end of its last event."""
        return max(event.end_ns for event in self.events) / 1e9


def profiled_step(document: Any) -> ProfiledStep:
    """The last step in a trace. Errors: InputError for a document that is not a trace, or has no spans."""
    listed = document.get("traceEvents") if isinstance(document, Mapping) else document
    if not isinstance(listed, list) or not all(isinstance(event, Mapping) for event in listed):
        raise InputError("this is not a trace of torch.profiler: it has no list of traceEvents")
    listed_spans = [event for event in listed if event.get("ph") == SPAN and event.get("cat") != OF_THE_PROFILER]
    spans = list(_timed(listed_spans)) or [_TraceEvent.of(event) for event in listed_spans]
    if not spans:
        raise InputError("this trace has no spans; write one with torch.profiler.profile(..).export_chrome_trace(..)")
    window = _window(spans)
    if window.end_us <= window.start_us:
        raise InputError("the last step of this trace takes no time")
    inside = [event for event in spans if window.holds(event)]
    arrows = [event for event in _timed(each for each in listed if each.get("ph") in FLOWS) if window.holds(event)]
    both = {each.number for each in arrows if each.phase == "s"} & {each.number for each in arrows if each.phase == "f"}
    kept = [*inside, *(each for each in arrows if each.number in both)]
    used = {each.thread for each in inside}
    processes, threads = _names(listed)
    return ProfiledStep(
        events=[each.event(window.start_us) for each in kept if each.thread in used],
        processes={name: processes.get(name, name) for name in dict.fromkeys(each.process for each in used)},
        threads={each: threads.get(each, each.thread) for each in sorted(used)},
        is_marked=any(span.name.startswith(STEP) for span in spans),
        ranks=_ranks(document),
        gpu=_gpu(document),
    )


def _ranks(document: Any) -> int | None:
    """How many ranks a trace says the run had."""
    found = document.get("distributedInfo") if isinstance(document, Mapping) else None
    ranks = found.get("world_size") if isinstance(found, Mapping) else None
    return ranks if isinstance(ranks, int) and not isinstance(ranks, bool) and ranks > 0 else None


def _gpu(document: Any) -> str:
    """What the GPUs of a trace are called; empty where it does not say."""
    found = document.get("deviceProperties") if isinstance(document, Mapping) else None
    first = found[0] if isinstance(found, list) and found else None
    return str(first.get("name", "")) if isinstance(first, Mapping) else ""


def _timed(events: Iterable[Mapping[str, Any]]) -> Iterator[_TraceEvent]:
    """The events that have a time."""
    for event in events:
        with suppress(InputError):
            yield _TraceEvent.of(event)


class _TraceEvent(NamedTuple):
    """One event of a trace file, in microseconds."""

    phase: str
    thread: Thread
    name: str
    kind: str
    start_us: float
    end_us: float
    number: int | None
    args: Mapping[str, Any]

    @staticmethod
    def of(event: Mapping[str, Any]) -> _TraceEvent:
        start_us = _number(event, "ts")
        long_us = _number(event, "dur") if event["ph"] == SPAN else 0.0
        if not 0.0 <= long_us <= LONGEST_US:
            raise InputError(f"{long_us:g} us cannot be how long {shown(str(event.get('name', 'an event')))} takes", key="dur")
        number, args = event.get("id"), event.get("args")
        return _TraceEvent(
            phase=event["ph"],
            thread=_thread(event),
            name=str(event.get("name", "")),
            kind=OLDER_KINDS.get(kind := str(event.get("cat", "")), kind),
            start_us=start_us,
            end_us=start_us + long_us,
            number=number if isinstance(number, int) else None,
            args=args if isinstance(args, Mapping) else {},
        )

    def event(self, origin_us: float) -> ProfiledEvent:
        start_ns, end_ns = (round((each - origin_us) * NANOSECONDS) for each in (self.start_us, self.end_us))
        return ProfiledEvent(
            phase=self.phase,
            thread=self.thread,
            name=self.name,
            kind=self.kind,
            start_ns=start_ns,
            end_ns=end_ns,
            number=self.number,
            args=self.args,
        )


class _StepWindow(NamedTuple):
    """When a step begins and ends, on the CPU and on GPUs."""

    start_us: float
    end_us: float
    gpu_start_us: float
    gpu_end_us: float

    def holds(self, event: _TraceEvent) -> bool:
        if event.kind in ON_GPU:
            return self.gpu_start_us <= event.start_us <= self.gpu_end_us
        return self.start_us <= event.start_us <= self.end_us


def _window(spans: Sequence[_TraceEvent]) -> _StepWindow:
    """The window of the last step that is marked; of all spans where no step is."""
    marked = [span for span in spans if span.name.startswith(STEP)]
    if not marked:
        first, last = min(span.start_us for span in spans), max(span.end_us for span in spans)
        return _StepWindow(first, last, first, last)
    last_name = max((span for span in marked if span.kind not in ON_GPU), default=marked[-1], key=_start).name
    of_step = [span for span in marked if span.name == last_name]
    on_cpu = min(of_step, key=_start)
    on_gpu = max(of_step, key=_start)  # begins later; the same mark where there is no other
    return _StepWindow(on_cpu.start_us, on_cpu.end_us, min(on_gpu.start_us, on_cpu.start_us), max(on_gpu.end_us, on_cpu.end_us))


def _start(span: _TraceEvent) -> float:
    return span.start_us


def _names(listed: Iterable[Mapping[str, Any]]) -> tuple[dict[str, str], dict[Thread, str]]:
    """The names that the trace gives its processes (with their labels) and threads."""
    processes: dict[str, str] = {}
    labels: dict[str, str] = {}
    threads: dict[Thread, str] = {}
    for event in (each for each in listed if each.get("ph") == FACT):
        args = event.get("args")
        said = args if isinstance(args, Mapping) else {}
        thread = _thread(event)
        if event.get("name") == "process_name" and said.get("name"):
            processes[thread.process] = str(said["name"])
        elif event.get("name") == "process_labels" and said.get("labels"):
            labels[thread.process] = str(said["labels"])
        elif event.get("name") == "thread_name" and said.get("name"):
            threads[thread] = str(said["name"])
    called = {name: " ".join(filter(None, (processes.get(name), labels.get(name)))) for name in {**processes, **labels}}
    return called, threads


def _thread(event: Mapping[str, Any]) -> Thread:
    return Thread(str(event.get("pid", "")), str(event.get("tid", "")))


def _number(event: Mapping[str, Any], name: str) -> float:
    value = event.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LATEST_US:
        raise InputError(f"{shown(value)} where {shown(str(event.get('name', 'an event')))} needs a time", key=name)
    return float(value)
