"""How the output of nccl-tests is read (all_reduce_perf, all_gather_perf, ...): a row for each size, and its ranks.

Either the text that it prints, or the JSON that `-J` writes. A text may hold several tests. Times are those out of place. The
printed size is the full tensor of an all-gather and of a reduce-scatter too; the printed count is not: it is that of one rank's
share.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass

PROGRAMS: Final = {  # what nccl-tests call it -> what an operator does
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "sendrecv": "point_to_point",
}
PROGRAM: Final = re.compile(rf"\b({'|'.join(PROGRAMS)})(?:_perf)?(?![A-Za-z])")
RANK: Final = re.compile(
    r"#\s+Rank\s+(?P<rank>\d{1,9})\s+(?:Group\s+(?P<group>\d{1,9})\s+)?Pid\s+\d+\s+on\s+(?P<host>\S+)\s+device\s+\d+\s+"
    r"(?:\[[^\]]*\]\s*)?(?P<gpu>.*)"
)
VERSION: Final = re.compile(r"# nccl-tests version (?P<tests>\S{1,80}).{0,300}?nccl-library=(?P<library>\d{1,9})\b")
BEGINS: Final = re.compile(r"# (?:nccl-tests version|Collective test starting|nThread)")
ITERATIONS: Final = re.compile(r"\biters: (\d{1,9}) agg|\biters: (\d{1,9}) validation")
HEADER: Final = re.compile(r"#\s{1,80}size\s{1,80}count\s{1,80}(?:\(elements\)\s{1,80})?type\b.{0,300}\balgbw\b")
LAUNCHER: Final = re.compile(r"^\s*(?:\[\d+,\d+\]<std(?:out|err)>:|\d+:)\s?")  # of mpirun --tag-output, of srun -l
ONE_WAY: Final = 4  # columns of either way: time, algbw, busbw, #wrong
MOST: Final = {"size": 1e14, "time": 1e4, "busbw": 1e14}  # bytes, seconds, bytes per second: far above what there is
AGREEMENT: Final = 2.0  # of an algbw and what size and time make, which nccl-tests computes it from
LEAST_RATE: Final = 1e8  # from which the two decimals of a printed rate tell enough
MOST_GPUS: Final = 1024  # of one process
BEFORE: Final = 3  # columns at least before those: size, count, type; as its version has it, redop and root


@dataclass(frozen=True, slots=True, kw_only=True)
class NcclRow:
    """One size of one test; `hosts` has the host of every rank, and is empty where the text does not say."""

    operator: str  # of PROGRAMS; empty where nothing says
    payload_bytes: float
    number_type: str
    seconds: float
    bus_ratio: float  # bus bandwidth / algorithm bandwidth: 2(p-1)/p of an all-reduce
    bus_bytes_per_s: float
    hosts: tuple[str, ...]
    gpu: str
    library: str
    repeats: int

    def __post_init__(self) -> None:
        numbers = {"size": self.payload_bytes, "time": self.seconds, "busbw": self.bus_bytes_per_s}
        for name, value in numbers.items():
            if not 0.0 <= value <= MOST[name]:
                raise InputError(f"a {name} of {value:.4g} is none of nccl-tests")
        rate, algorithm = self.payload_bytes / self.seconds, self.bus_bytes_per_s / self.bus_ratio if self.bus_ratio else 0.0
        if algorithm > LEAST_RATE and rate > LEAST_RATE and not 1 / AGREEMENT < rate / algorithm < AGREEMENT:
            printed = f"algbw is {algorithm / 1e9:.4g} GB/s"
            raise InputError(f"{self.payload_bytes:.4g} bytes in {self.seconds:.4g} s are {rate / 1e9:.4g} GB/s, and {printed}")


class Reader:
    """One text, line by line; `operator` is the test where nothing in it says."""

    def __init__(self, place: str, *, operator: str = "") -> None:
        self.place, self.default = place, operator
        self.found: list[NcclRow] = []
        self.gpu, self.library, self.repeats = "unknown", "NCCL", 1
        self._begin()

    def _begin(self) -> None:
        self.operator = ""
        self.columns: list[str] = []  # as the head of the table has them; versions and options add some
        self.hosts: dict[int, str] = {}
        self.rows: list[tuple[float, str, float, float, float]] = []  # bytes, type, seconds, algorithm and bus bandwidth

    def read(self, text: str) -> list[NcclRow]:
        """Its rows. Errors: InputError with the number of the line."""
        number = 0
        try:
            for number, line in enumerate(text.splitlines(), start=1):  # noqa: B007 - the line of an error
                self._line(LAUNCHER.sub("", line).strip())
            self._end()
        except InputError as error:
            raise InputError(f"{self.place}, line {number}: {error}") from None
        if not self.found:
            raise InputError(f"{self.place}: no row of nccl-tests is in it")
        return self.found

    def _line(self, line: str) -> None:
        if BEGINS.match(line) and self.rows:
            self._end()
        words = line.split()
        if len(words) > 1 and words[0].isdecimal() and words[1].isdecimal():
            self._row(words)
        elif HEADER.match(line):
            self.columns = words[1:]
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
            first = self.columns.index("algbw") - 1 if len(words) >= len(self.columns) > 0 else -2 * ONE_WAY
            size, (microseconds, algorithm, bus) = float(words[0]), map(float, words[first : first + 3])
        except ValueError:
            size = microseconds = algorithm = bus = math.nan
        if len(words) < BEFORE + 2 * ONE_WAY or not (
            microseconds >= 0 and all(map(math.isfinite, (size, microseconds, algorithm, bus)))
        ):
            raise InputError("not a row of nccl-tests: size count type redop root, and twice time algbw busbw #wrong")
        if size > 0 and microseconds > 0:  # the smallest sizes of a reduce-scatter are nothing
            self.rows.append((size, words[2], microseconds / 1e6, algorithm * 1e9, bus * 1e9))

    def _end(self) -> None:
        """The rows so far are one test."""
        for size, kind, seconds, algorithm, bus in self.rows:
            self.found.append(
                NcclRow(
                    operator=self.operator or self.default,
                    payload_bytes=size,
                    number_type=kind,
                    seconds=seconds,
                    bus_ratio=bus / algorithm if algorithm else 0.0,
                    bus_bytes_per_s=bus,
                    hosts=tuple(self.hosts.values()),
                    gpu=self.gpu,
                    library=self.library,
                    repeats=self.repeats,
                )
            )
        self._begin()


def rows_in(text: str, place: str, *, operator: str = "") -> list[NcclRow]:
    """The rows of a text, or of the JSON of -J; `operator` is the test where nothing in it says. Errors: InputError."""
    if not text.lstrip().startswith("{"):
        return Reader(place, operator=operator).read(text)
    try:
        rows = list(_json_rows(json.loads(text), operator))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(f"{place} is not the JSON of nccl-tests -J: {' '.join(str(error).split())[:80]}") from None
    if not rows:
        raise InputError(f"{place}: no row of nccl-tests is in it")
    return rows


def is_nccl_tests(text: str) -> bool:
    """Whether a text is the output of nccl-tests."""
    return bool(HEADER.search(text)) or (text.lstrip().startswith("{") and '"out_of_place"' in text and '"bus_bw"' in text)


def _json_rows(document: Mapping[str, Any], operator: str) -> Iterator[NcclRow]:
    """A row for each size. Of a process with several GPUs its first one alone is listed (JSON_FILE_VERSION 3)."""
    config = document["config"]
    each = int(config["nthreads"]) * int(config["ngpus"])
    if not 0 < each <= MOST_GPUS:
        raise ValueError(f"a process of {each:.3g} GPUs")
    devices = [device for device in config["devices"] if not int(device["group"])]
    for result in document["results"]:
        body = result.get("out_of_place") or result.get("in_place")
        microseconds = float(body["time"]) if body and "time" in body else 0.0
        if float(result["size"]) > 0 and microseconds > 0:
            algorithm, bus = float(body["alg_bw"]), float(body["bus_bw"])
            if not all(map(math.isfinite, (float(result["size"]), microseconds, algorithm, bus))):
                raise ValueError("a number that is not finite")
            yield NcclRow(
                operator=program_named(PurePath(str([*document["args"], ""][0])).name) or operator,
                payload_bytes=float(result["size"]),
                number_type=str(result["type"]),
                seconds=microseconds / 1e6,
                bus_ratio=bus / algorithm if algorithm else 0.0,
                bus_bytes_per_s=bus * 1e9,
                hosts=tuple(str(device["hostname"]) for device in devices for _ in range(each)),
                gpu=str(devices[0]["device_info"]) if devices else "unknown",
                library=f"NCCL {_version(int(document['nccl_version']))}" if "nccl_version" in document else "NCCL",
                repeats=int(result.get("actual_iterations") or config["iterations"]),
            )


def _version(number: int) -> str:
    """NCCL's own number as people write it.

    >>> _version(22304)
    '2.23.4'
    """
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def program_named(name: str) -> str:
    """The operator that the name of a file or a program speaks of; empty where it speaks of none.

    >>> program_named("all_reduce-17.txt"), program_named("log.txt")
    ('all_reduce', '')
    """
    named = PROGRAM.search(name)
    return PROGRAMS[named[1]] if named else ""
