"""A strict reader of the Trace Event Format: what viewers make of a file, or why they would drop or misplace something.

As the JSON importer of Perfetto's trace processor does it (src/trace_processor/importers/json of google/perfetto): times become
whole nanoseconds by cutting off, spans of a thread are put on a stack, an arrow belongs to the span on top of its thread's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]
NAMES = {"process_name": "name", "process_labels": "labels", "thread_name": "name"}
ORDER = {"process_sort_index", "thread_sort_index"}


@dataclass(slots=True, kw_only=True)
class Slice:
    """A span on its thread."""

    name: str
    kind: str
    pid: int
    tid: int
    start_ns: int
    end_ns: int
    depth: int
    args: Mapping[str, Any]

    @property
    def duration_ns(self) -> int:
        """How long it lasts."""
        return self.end_ns - self.start_ns


@dataclass(slots=True, kw_only=True)
class Trace:
    """What was read."""

    facts: Mapping[str, Any]
    slices: list[Slice] = field(default_factory=list)
    processes: dict[int, str] = field(default_factory=dict)
    threads: dict[int, str] = field(default_factory=dict)
    arrows: list[list[Slice]] = field(default_factory=list)

    @property
    def span_ns(self) -> int:
        """From the first start to the last end."""
        return max(each.end_ns for each in self.slices) - min(each.start_ns for each in self.slices)

    def of_thread(self, pid: int, name: str) -> list[Slice]:
        """The spans of a thread that is told by its name."""
        return [each for each in self.slices if each.pid == pid and self.threads[each.tid] == name]


def read(text: str) -> Trace:
    """The trace in a file; an assertion fails where a viewer would drop or misplace something."""
    document = json.loads(text, parse_constant=_no_number)
    assert set(document) >= {"traceEvents"}
    assert document.get("displayTimeUnit", "ms") in {"ms", "ns"}
    trace = Trace(facts=document.get("otherData", {}))
    owners: dict[int, int] = {}
    stacks: dict[int, list[Slice]] = {}
    open_arrows: dict[tuple[str, str, int], list[Slice]] = {}
    last_ns = 0
    for event in document["traceEvents"]:
        _check(event)
        assert owners.setdefault(event["tid"], event["pid"]) == event["pid"], "a thread of two processes"
        if event["ph"] == "M":
            _named(event, trace)
            continue
        at_ns = _nanoseconds(event["ts"])
        assert at_ns >= last_ns, "not in the order of time"
        last_ns = at_ns
        stack = stacks.setdefault(event["tid"], [])
        if event["ph"] == "X":
            _put(event, at_ns, stack, trace)
        else:
            _point(event, at_ns, stack, open_arrows, trace)
    assert not open_arrows, "an arrow without an end"
    assert {each.pid for each in trace.slices} <= set(trace.processes), "a process without a name"
    assert {each.tid for each in trace.slices} <= set(trace.threads), "a thread without a name"
    return trace


def _no_number(word: str) -> None:
    raise AssertionError(word)


def _check(event: Event) -> None:
    """Required fields and their types; 0 is the idle process."""
    assert isinstance(event["name"], str)
    assert event["ph"] in {"X", "M", "s", "t", "f"}
    for number in ("pid", "tid"):
        assert type(event[number]) is int
        assert event[number] > 0
    assert isinstance(event.get("args", {}), dict)
    if event["ph"] != "M":
        assert isinstance(event["cat"], str)
        assert event["cat"]
        for time in ("ts", "dur") if event["ph"] == "X" else ("ts",):
            assert isinstance(event[time], int | float)
            assert math.isfinite(event[time])
            assert event[time] >= 0


def _nanoseconds(microseconds: float) -> int:
    """As C++ casts it; written so that rounding gives the same."""
    found = int(microseconds * 1000.0)
    assert found == round(microseconds * 1000.0)
    return found


def _named(event: Event, trace: Trace) -> None:
    assert event["name"] in {*NAMES, *ORDER}
    if event["name"] in ORDER:
        assert type(event["args"]["sort_index"]) is int
        return
    called = event["args"][NAMES[event["name"]]]
    assert isinstance(called, str)
    assert called
    if event["name"] == "process_name":
        assert event["pid"] not in trace.processes
        trace.processes[event["pid"]] = called
    elif event["name"] == "thread_name":
        assert event["tid"] not in trace.threads
        trace.threads[event["tid"]] = called


def _put(event: Event, at_ns: int, stack: list[Slice], trace: Trace) -> None:
    """On the stack of its thread: it follows what is over, or lies wholly inside what is not."""
    while stack and stack[-1].end_ns <= at_ns:
        stack.pop()
    end_ns = at_ns + _nanoseconds(event["dur"])
    assert not stack or end_ns <= stack[-1].end_ns, f"{event['name']} overlaps {stack[-1].name}"
    names = {"name": event["name"], "kind": event["cat"], "pid": event["pid"], "tid": event["tid"]}
    stack.append(Slice(**names, start_ns=at_ns, end_ns=end_ns, depth=len(stack), args=event.get("args", {})))
    trace.slices.append(stack[-1])


def _point(
    event: Event, at_ns: int, stack: list[Slice], open_arrows: dict[tuple[str, str, int], list[Slice]], trace: Trace
) -> None:
    """One end of an arrow, on the span that holds it."""
    held = [each for each in stack if each.start_ns <= at_ns < each.end_ns]
    assert held, "an end of an arrow outside of every span"
    assert type(event["id"]) is int
    key = event["cat"], event["name"], event["id"]
    if event["ph"] == "s":
        assert key not in open_arrows, "an arrow that begins twice"
        open_arrows[key] = [held[-1]]
        return
    assert key in open_arrows, "an arrow that ends before it begins"
    open_arrows[key].append(held[-1])
    if event["ph"] == "f":
        assert event["bp"] == "e"
        trace.arrows.append(open_arrows.pop(key))
