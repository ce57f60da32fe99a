"""Reads what nccl-tests print (all_reduce_perf, all_gather_perf, ...) into records of collectives.

    python -m perfmodel.benchmarks.measure.kernels.nccl_tests all_reduce.txt all_gather.txt --output records.jsonl

A text may hold several tests. Times are those out of place. The printed size is the full tensor of an all-gather and of a
reduce-scatter too, as in a record; the printed count is not: it is that of one rank's share.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.records import Record
from perfmodel.exchange.output import write_text

PROGRAMS: Final = {  # what nccl-tests call it -> what a record does
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "sendrecv": "point_to_point",
}
PROGRAM: Final = re.compile(rf"\b({'|'.join(PROGRAMS)})(?:_perf)?(?![A-Za-z])")
RANK: Final = re.compile(
    r"#\s+Rank\s+(?P<rank>\d+)\s+(?:Group\s+(?P<group>\d+)\s+)?Pid\s+\d+\s+on\s+(?P<host>\S+)\s+device\s+\d+\s+"
    r"(?:\[[^\]]*\]\s*)?(?P<gpu>.*)"
)
VERSION: Final = re.compile(r"# nccl-tests version (?P<tests>\S+).*?nccl-library=(?P<library>\d+)")
BEGINS: Final = re.compile(r"# (?:nccl-tests version|Collective test starting|nThread)")
ITERATIONS: Final = re.compile(r"\biters: (\d+) agg|\biters: (\d+) validation")
PRECISIONS: Final = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
ONE_WAY: Final = 4  # columns of either way: time, algbw, busbw, #wrong
BEFORE: Final = 3  # columns at least before those: size, count, type; as its version has it, redop and root


class Reader:
    """One text, line by line; `operator` is the test where nothing in it says."""

    def __init__(self, place: str, *, operator: str = "") -> None:
        self.place, self.default = place, operator
        self.records: list[Record] = []
        self.gpu, self.library, self.repeats = "unknown", "NCCL", 1
        self._begin()

    def _begin(self) -> None:
        self.operator = ""
        self.hosts: dict[int, str] = {}
        self.rows: list[tuple[float, str, float]] = []  # bytes, type, seconds

    def read(self, text: str) -> list[Record]:
        """Its records. Errors: InputError with the number of the line."""
        for number, line in enumerate(text.splitlines(), start=1):
            try:
                self._line(line.strip())
            except InputError as error:
                raise InputError(f"{self.place}, line {number}: {error}") from None
        self._end()
        if not self.records:
            raise InputError(f"{self.place}: no row of nccl-tests is in it")
        return self.records

    def _line(self, line: str) -> None:
        if BEGINS.match(line) and self.rows:
            self._end()
        if line[:1].isdigit():
            self._row(line.split())
        elif found := RANK.match(line):
            self._rank(found)
        elif found := VERSION.match(line):
            self.library = f"NCCL {_version(int(found['library']))}, nccl-tests {found['tests']}"
        elif found := ITERATIONS.search(line):
            self.repeats = int(found[1] or found[2])
        elif not self.operator and (found := PROGRAM.search(line)):  # "Collective test starting", or the command itself
            self.operator = PROGRAMS[found[1]]

    def _rank(self, found: re.Match[str]) -> None:
        if int(found["group"] or 0):
            return  # another group that runs the same test at the same time
        rank = int(found["rank"])
        if rank in self.hosts:
            raise InputError(f"rank {rank} a second time: each process ran alone; nccl-tests must be compiled with MPI=1")
        self.hosts[rank], self.gpu = found["host"], found["gpu"].strip()

    def _row(self, words: list[str]) -> None:
        try:
            size, microseconds = float(words[0]), float(words[-2 * ONE_WAY])
        except (ValueError, IndexError):
            size = microseconds = math.nan
        if len(words) < BEFORE + 2 * ONE_WAY or not microseconds >= 0:
            raise InputError("not a row of nccl-tests: size count type redop root, and twice time algbw busbw #wrong")
        if size > 0 and microseconds > 0:  # the smallest sizes of a reduce-scatter are nothing
            self.rows.append((size, words[2], microseconds / 1e6))

    def _end(self) -> None:
        """The rows so far are one test."""
        if self.rows and not self.hosts:
            raise InputError(f"{self.place}: no '# Rank' line says how many ranks there were")
        if self.rows and not (self.operator or self.default):
            raise InputError(f"{self.place}: nothing says which test it was; --operator all_reduce would")
        self.records += [self._record(*row) for row in self.rows]
        self._begin()

    def _record(self, size: float, kind: str, seconds: float) -> Record:
        precision = {"precision": PRECISIONS[kind]} if kind in PRECISIONS else {}
        return Record(
            kind="collective",
            sizes={"payload_bytes": size, "ranks": len(self.hosts), "nodes": len(set(self.hosts.values()))},
            labels={"operator": self.operator or self.default, "backend": "nccl"} | precision,
            seconds=seconds,
            spread=0.0,  # a mean is printed, and not how far its parts were from it
            repeats=self.repeats,
            provenance={
                "gpu": self.gpu,
                "software": self.library,
                "date": datetime.now(UTC).date().isoformat(),
                "command": f"python -m perfmodel.benchmarks.measure.kernels.nccl_tests {self.place}",
            },
        )


def _version(number: int) -> str:
    """NCCL's own number as people write it.

    >>> _version(22304)
    '2.23.4'
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def read_nccl_tests(path: Path, *, operator: str = "") -> list[Record]:
    """The records of the text at `path`. Where it does not say which test it is of, `operator` does, or its name."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or 'it is no file').lower()}") from None
    named = PROGRAM.search(path.name)
    return Reader(str(path), operator=operator or (PROGRAMS[named[1]] if named else "")).read(text)


def main() -> None:
    """Convert; one sentence when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path, nargs="+", metavar="FILE")
    parser.add_argument(
        "--operator", choices=sorted(PROGRAMS.values()), default="", help="where nothing says which test it was"
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    chosen = parser.parse_args()
    try:
        records = [record for path in chosen.texts for record in read_nccl_tests(path, operator=chosen.operator)]
        write_text(chosen.output, "".join(json.dumps(each.document()) + "\n" for each in records))
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(f"wrote {len(records)} records to {chosen.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
