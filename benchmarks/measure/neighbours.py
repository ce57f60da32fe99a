"""Did others use the cores, or the GPU, that were measured? What the system says of all work, less one's own.

    others = (busy of all cores - CPU time of every rank) / time passed      [cores]

Busy is what Linux counts of the cores that this process may use; elsewhere nothing is known. It counts in hundredths of a
second, and a kernel that serves the network for a rank may count to nobody: FEW cores are no neighbour.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

STAT: Final = Path("/proc/stat")
WORKING: Final = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal, of the columns of a core in proc_stat(5)
OTHERS: Final = "others_cores"  # in the provenance of a record: how many others used
LEAST_S: Final = 0.5  # of a look: within less, a tick of 10 ms on each of some cores would be a neighbour
FEW: Final = 0.15  # cores: what ticks and the system's own services come to


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreTimes:
    """What the clock, the cores of a process and its CPU time show at a moment [s]; `busy_s` is None where nobody counts it."""

    cores: frozenset[int]
    at_s: float
    busy_s: float | None
    own_s: float

    @classmethod
    def now(cls) -> CoreTimes:
        """At this moment."""
        cores = own_cores()
        return cls(cores=cores, at_s=time.monotonic(), busy_s=busy_seconds(cores), own_s=time.process_time())


Moments: TypeAlias = tuple[CoreTimes, CoreTimes]  # the first and the last of a rank


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreUse:
    """What others used of some cores, on average over a time [cores]."""

    others: float = 0.0
    cores: int = 0

    @property
    def is_shared(self) -> bool:
        """Whether others used more than a few."""
        return self.others > FEW

    def text(self) -> str:
        """The sentence on it; "" for few of them.

        >>> CoreUse(others=0.01, cores=2).text()
        ''
        """
        if not self.is_shared:
            return ""
        measured = "the core" if self.cores == 1 else f"the {self.cores} cores"
        return (
            f"others used {self.others:.1f} of {measured} meanwhile: these are times of a machine that does something else "
            "too; measure again when it is quiet"
        )


def own_cores() -> frozenset[int]:
    """The cores that this process may use."""
    return frozenset(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def busy_seconds(cores: frozenset[int]) -> float | None:
    """How long some cores have worked since the machine started; None where nothing says."""
    try:
        return busy_ticks(STAT.read_text(encoding="ascii"), cores) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError):
        return None


def busy_ticks(stat: str, cores: Collection[int]) -> int:
    r"""The ticks in which some cores worked, from the text of /proc/stat.

    >>> busy_ticks("cpu  9 9 9 9\ncpu0 10 1 5 800 20 2 3 4 0 0\ncpu1 7 0 0 900 0 0 0 0 0 0\nintr 1\n", {0})
    25
    """
    rows = [line.split() for line in stat.splitlines() if line.startswith("cpu") and line[3:4].isdigit()]
    of_cores = [[int(value) for value in row[1:]] for row in rows if int(row[0][3:]) in cores]
    return sum(row[place] for row in of_cores for place in WORKING if place < len(row))


def core_use(ranks: Sequence[Moments]) -> CoreUse:
    """What others used between two moments of every rank; ranks have a core each, or share all of them.

    >>> begin, end = (CoreTimes(cores=frozenset({0}), at_s=at, busy_s=at, own_s=at / 2) for at in (0.0, 10.0))
    >>> core_use([(begin, end)])
    CoreUse(others=0.5, cores=1)
    """
    busy_s = {begin.cores: (begin.busy_s, end.busy_s) for begin, end in ranks}
    passed_s = max(end.at_s - begin.at_s for begin, end in ranks)
    cores = len(frozenset[int]().union(*busy_s))
    if passed_s <= 0 or any(None in both for both in busy_s.values()):
        return CoreUse(cores=cores)
    worked_s = sum((last or 0.0) - (first or 0.0) for first, last in busy_s.values())
    own_s = sum(end.own_s - begin.own_s for begin, end in ranks)
    return CoreUse(others=max(worked_s - own_s, 0.0) / passed_s, cores=cores)


class NeighbourMeter:
    """Marks records with the cores that others used since the one before, and says so of all of them in the end.

    Of several ranks `everywhere` brings together what each of them has to say, and all of them mark together.
    """

    def __init__(self, everywhere: Callable[[Moments], Sequence[Moments]] = lambda own: [own]) -> None:
        self.everywhere = everywhere
        self.last = CoreTimes.now()
        self.use = CoreUse()
        self.passed_s, self.used_s = 0.0, 0.0

    def mark(self) -> dict[str, str]:
        """What a record says of its neighbours, nothing where there were none; of short records several share one look."""
        now = CoreTimes.now()
        ranks = self.everywhere((self.last, now))
        passed_s = max(end.at_s - begin.at_s for begin, end in ranks)
        if passed_s >= LEAST_S:
            self.last, self.use = now, core_use(ranks)
            self.passed_s, self.used_s = self.passed_s + passed_s, self.used_s + self.use.others * passed_s
        return {OTHERS: f"{self.use.others:.2f}"} if self.use.is_shared else {}

    def sentences(self, device: str, computing: Sequence[int]) -> list[str]:
        """Who else used what was measured, from the beginning until the last mark."""
        if device == "cuda":
            return others_on_gpus(computing, 1)
        sentence = CoreUse(others=self.used_s / self.passed_s if self.passed_s else 0.0, cores=self.use.cores).text()
        return [sentence] if sentence else []


def others_on_gpus(computing: Sequence[int], ranks: int) -> list[str]:
    """A sentence for each GPU of some ranks, one on each, on which more processes compute than that one.

    `computing` are their numbers by GPU (machine.Nvml.computing): numbers, as a process in a container has another id outside.

    >>> others_on_gpus([1, 3, 2], 2)
    ['2 other processes computed on GPU 1 too: it was not measured alone']
    """
    sentences = []
    for number, processes in enumerate(computing[:ranks]):
        if processes > 1:
            named = "another process" if processes == 2 else f"{processes - 1} other processes"
            sentences.append(f"{named} computed on GPU {number} too: it was not measured alone")
    return sentences
