"""A profiled step as trace events: its own processes and threads, laid out so that every viewer draws them right.

Annotations of a thread have a track of their own. torch lets a range begin inside an operator and end after it; what so
overlaps another span lies on a further track.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from perfmodel.evidence.steps.profiled_step import FLOWS, ProfiledEvent, ProfiledStep, Thread
from perfmodel.report.trace.format import THREADS, Event, complete, microseconds, process, thread

FLOWS_FROM: Final = 1_000_000_000  # numbers of a profile's arrows, beyond those of a forecast
ANNOTATIONS: Final = ("user_annotation", "gpu_user_annotation")


class Track(NamedTuple):
    """Where spans of a thread lie: annotations, or all else; and which of those beside each other."""

    thread: Thread
    annotations: bool
    lane: int


def profiled_events(profiled: ProfiledStep, first_process: int) -> list[Event]:
    """All events; processes have the numbers from `first_process` on, threads some that no process before has."""
    pids = {name: first_process + place for place, name in enumerate(profiled.processes)}
    spans, starts = _laid(profiled)
    tracks = sorted({track for _, track in spans})
    tids = {track: (first_process + len(pids)) * THREADS + place for place, track in enumerate(tracks)}
    events: list[Event] = []
    for name, called in profiled.processes.items():
        events += process(pids[name], f"profiled: {called}")
    for track in tracks:
        events += thread(pids[track.thread.process], tids[track], _name(track, profiled.threads[track.thread]))
    for event, track in spans:
        at = pids[track.thread.process], tids[track]
        events.append(complete(event.name, event.kind, at, (event.start_ns, event.end_ns), dict(_plain(event.args))))
    for event, track in _arrows(profiled, starts):
        events.append(_arrow(event, pids[track.thread.process], tids[track]))
    return events


def _laid(profiled: ProfiledStep) -> tuple[list[tuple[ProfiledEvent, Track]], dict[tuple[Thread, int], Track]]:
    """Each span on the first track where it follows what is there or lies inside it; and these tracks by thread and start."""
    open_until: dict[Track, list[int]] = {}  # the ends of the spans that hold others, on each track
    found: list[tuple[ProfiledEvent, Track]] = []
    starts: dict[tuple[Thread, int], Track] = {}
    for event in sorted(profiled.events, key=lambda event: (event.start_ns, -event.end_ns)):
        if event.phase in FLOWS:
            continue
        track = Track(event.thread, event.kind in ANNOTATIONS, 0)
        while True:
            ends = open_until.setdefault(track, [])
            while ends and ends[-1] <= event.start_ns:
                ends.pop()
            if not ends or event.end_ns <= ends[-1]:
                break
            track = track._replace(lane=track.lane + 1)
        ends.append(event.end_ns)
        found.append((event, track))
        if not track.annotations and event.end_ns > event.start_ns:
            starts[event.thread, event.start_ns] = track
    return found, starts


def _arrows(profiled: ProfiledStep, starts: Mapping[tuple[Thread, int], Track]) -> Iterator[tuple[ProfiledEvent, Track]]:
    """Both ends of each arrow between the starts of two spans; where an end is at no span, viewers could not draw it."""
    ends = [event for event in profiled.events if event.phase in FLOWS]
    placed = [(event, starts[event.thread, event.start_ns]) for event in ends if (event.thread, event.start_ns) in starts]
    whole = [{_key(event) for event, _ in placed if event.phase == phase} for phase in ("s", "f")]
    yield from (each for each in placed if _key(each[0]) in whole[0] & whole[1])


def _key(event: ProfiledEvent) -> tuple[str, str, int | None]:
    return event.kind, event.name, event.number


def _arrow(event: ProfiledEvent, pid: int, tid: int) -> Event:
    at = {"pid": pid, "tid": tid, "ts": microseconds(event.start_ns)} | ({"bp": "e"} if event.phase == "f" else {})
    return {"name": event.name, "cat": event.kind, "ph": event.phase, "id": FLOWS_FROM + (event.number or 0)} | at


def _name(track: Track, thread_name: str) -> str:
    what = f"{thread_name}: annotations" if track.annotations else thread_name
    return what if track.lane == 0 else f"{what} ({track.lane + 1})"


def _plain(args: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What JSON has: numbers that are none become words."""
    for name, value in args.items():
        is_number = not isinstance(value, float) or math.isfinite(value)
        yield name, value if is_number and isinstance(value, str | int | float | bool) else str(value)
