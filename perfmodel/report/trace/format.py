"""The Trace Event Format, which ui.perfetto.dev and chrome://tracing read: events, and the rules that both hold them to.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (Google). Times are microseconds with three
places: nanoseconds. Spans of one thread follow or hold each other, they never overlap; threads have numbers that no other
process has, and no process is 0, which means the idle one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

Event: TypeAlias = dict[str, Any]

THREADS: Final = 1000  # numbers of threads that each process has for itself


def nanoseconds(seconds: float) -> int:
    """Seconds as whole nanoseconds, the unit of a trace."""
    return round(seconds * 1e9)


def microseconds(whole_nanoseconds: int) -> float:
    """The number that stands for so many nanoseconds: readers that cut off what follows the third place get the same.

    >>> microseconds(1_234_567), int(microseconds(1_001) * 1000)
    (1234.567, 1001)
    """
    found = whole_nanoseconds / 1000.0
    return found if int(found * 1000.0) >= whole_nanoseconds else math.nextafter(found, math.inf)


def complete(name: str, kind: str, at: tuple[int, int], ends_ns: tuple[int, int], args: Mapping[str, Any]) -> Event:
    """A span of (process, thread), from and until when."""
    start_ns, end_ns = ends_ns
    times = {"ts": microseconds(start_ns), "dur": microseconds(end_ns - start_ns)}
    return {"name": name, "cat": kind, "ph": "X", "pid": at[0], "tid": at[1], **times, "args": dict(args)}


def process(pid: int, name: str, *, label: str = "") -> list[Event]:
    """What a process is called, and where it stands."""
    facts = {"process_name": {"name": name}, "process_sort_index": {"sort_index": pid}}
    if label:
        facts["process_labels"] = {"labels": label}
    return [{"name": fact, "ph": "M", "pid": pid, "tid": pid * THREADS, "args": args} for fact, args in facts.items()]


def thread(pid: int, tid: int, name: str) -> list[Event]:
    """Name and order of a thread."""
    facts = {"thread_name": {"name": name}, "thread_sort_index": {"sort_index": tid}}
    return [{"name": fact, "ph": "M", "pid": pid, "tid": tid, "args": args} for fact, args in facts.items()]


def flow(number: int, name: str, points: Sequence[tuple[int, int, int]]) -> list[Event]:
    """An arrow through spans: (process, thread, nanosecond) of each."""
    phases = ["s", *["t"] * (len(points) - 2), "f"]
    events: list[Event] = []
    for phase, (pid, tid, at_ns) in zip(phases, points, strict=True):
        event: Event = {
            "name": name,
            "cat": "flow",
            "ph": phase,
            "id": number,
            "pid": pid,
            "tid": tid,
            "ts": microseconds(at_ns),
        }
        events.append(event | {"bp": "e"} if phase == "f" else event)
    return events


def in_order(events: Iterable[Event]) -> list[Event]:
    """By time; what holds others comes before them, and an arrow after the spans it leads to."""
    ranks = {"M": 0, "X": 1}
    return sorted(events, key=lambda event: (event.get("ts", 0.0), ranks.get(event["ph"], 2), -event.get("dur", 0.0)))


def trace_text(events: Sequence[Event], facts: Mapping[str, Any]) -> str:
    """The file, an event a line; `facts` stand beside the events."""
    lines = ",\n".join(_json(event) for event in events)
    return f'{{"displayTimeUnit":"ms","otherData":{_json(facts)},"traceEvents":[\n{lines}\n]}}\n'


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
