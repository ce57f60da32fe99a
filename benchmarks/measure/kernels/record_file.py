"""A file of records that grows while points are measured, and is gone on with where it was left.

A record is written in one piece as soon as it is measured. A last line without an end is what a full disk or a lost machine
left of one: it is dropped. A line that is broken is named, and all others are used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from perfmodel.benchmarks.measure.kernels.points import Point, key_of
from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.errors import InputError, MachineError, PerfmodelError, write_failure
from perfmodel.evidence.steps.records import Record, record
from perfmodel.exchange.syntax.documents import read_text, whole_number

LARGEST_BYTES: Final = 100_000_000
MOST_NAMED: Final = 5  # broken lines
Take: TypeAlias = Callable[[Point], Timing]
Progress: TypeAlias = Callable[[int, int, Point], None]  # how many of how many are measured, and the one that comes next


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordLines:
    """The records of a file, and a sentence for what of it is none."""

    records: tuple[Record, ...]
    problems: tuple[str, ...]


def read_lines(path: Path) -> RecordLines:
    """All records of a file, whole lines alone; broken lines are named. Errors: InputError where no line is a record."""
    *lines, rest = read_text(path, largest_bytes=LARGEST_BYTES).split("\n")
    found, broken = [], []
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                found.append(record(json.loads(line, parse_int=whole_number)))
        except (PerfmodelError, ValueError, RecursionError) as error:
            reason = error if isinstance(error, PerfmodelError) else "not valid JSON"
            broken.append(f"{path}, line {number}: {reason}")
    if broken and not found:
        raise InputError(broken[0])
    problems = [f"{sentence}; the line is left out" for sentence in broken[:MOST_NAMED]]
    if len(broken) > MOST_NAMED:
        problems.append(f"{path}: {len(broken) - MOST_NAMED:,} more lines are no records, and left out")
    if rest.strip():
        problems.append(f"{path}: its last line has no end, as when a disk is full; it is left out")
    return RecordLines(records=tuple(found), problems=tuple(problems))


def read_records(path: Path) -> list[Record]:
    """All records of a file that are whole. Errors: InputError where no line is a record."""
    return list(read_lines(path).records)


class RecordFile:
    """Records of one device. Errors: InputError when the file holds those of another, or is no file of records."""

    def __init__(self, path: Path, gpu: str) -> None:
        self.path = path
        self.keys: set[str] = set()
        if not path.exists():
            return
        found = read_records(path)
        others = {each.provenance["gpu"] for each in found} - {gpu}
        if others:
            raise InputError(f"{path} holds records of {min(others)}; this is {gpu}: name another file")
        self.keys = {key_of(each) for each in found}
        self._drop_half_a_line()

    def _drop_half_a_line(self) -> None:
        content = self.path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self.path, whole)

    def append(self, entry: Record) -> None:
        """One line, in one piece, on the disk before this returns."""
        line = (json.dumps(entry.document()) + "\n").encode()
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise write_failure(f"{self.path} cannot be written", error) from None
        try:
            written = os.write(handle, line)
            os.fsync(handle)
        finally:
            os.close(handle)
        if written < len(line):
            raise MachineError(f"{self.path} cannot be written: the disk is full")
        self.keys.add(key_of(entry))


def measure(
    points: Sequence[Point],
    path: Path,
    take: Take,
    *,
    provenance: Mapping[str, str] | Callable[[], Mapping[str, str]],
    on_progress: Progress | None = None,
) -> int:
    """Measure the points that `path` does not hold yet; how many those were."""
    born = provenance if callable(provenance) else lambda: provenance
    file = RecordFile(path, born()["gpu"])
    missing = [point for point in points if point.key not in file.keys]
    done = len(points) - len(missing)
    for number, point in enumerate(missing):
        if on_progress:
            on_progress(done + number, len(points), point)
        file.append(point.record(take(point), born()))
    return len(missing)
