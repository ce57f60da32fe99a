"""How long do ranks wait for the last of them, when they work and meet, work and meet, as in a step?

Each rank times every meeting, an all-reduce, after work of its own: products, and a walk through more memory than the caches
hold. The rank that comes last waits for nobody; what the others take longer than it is waiting. It comes from work that takes
one rank longer than the other, and from meetings that one rank leaves later. Several lengths of work say how it grows.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import Any, Final

import torch
import torch.distributed as dist

from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes, random
from perfmodel.benchmarks.measure.kernels.timing import Timing, Work, on_cpu, summary
from perfmodel.model.groups import Group
from perfmodel.spec.phases import FORWARD

KIND: Final = "rank_times"
PRECISION: Final = "fp32"
ROUNDS: Final = (1, 4, 16)  # of the work
REPEATS: Final = {1: 160, 4: 60, 16: 30}
WARM_UP: Final = 3
SIZE: Final = 512  # of a square product: a few milliseconds of a core
SMALLEST: Final = 64
NUMBERS: Final = 2**18  # that are added up when the ranks meet: 1 MiB, as hidden states of a small model


def rank_time_points(ranks: int) -> list[Point]:
    """The points of all ranks of one machine."""
    labels = {"precision": PRECISION}
    return [Point(kind=KIND, sizes={"rounds": rounds, "ranks": ranks}, labels=labels) for rounds in ROUNDS]


def take_rank_times(point: Point, group: Group, *, smallest: bool = False) -> Timing:
    """What a rank waits at a meeting, on average over ranks and repeats; from one to the next it is `period_s`."""
    rounds = int(point.sizes["rounds"])
    repeats = 5 if smallest else REPEATS[rounds]
    work, message = _work(rounds, smallest=smallest), torch.zeros(NUMBERS)
    own = []
    for _ in range(WARM_UP + repeats):
        work_s, _, _ = on_cpu(work)
        meeting_s, _, _ = on_cpu(lambda: group.all_reduce(message, KIND, FORWARD))
        own.append((meeting_s, work_s + meeting_s))
    everywhere: list[Any] = [None] * group.ranks
    dist.all_gather_object(everywhere, own[WARM_UP:], group=group.process_group)
    waits, periods = [], []
    for ranks in zip(*everywhere, strict=True):
        meetings = [meeting_s for meeting_s, _ in ranks]
        waits.append(statistics.fmean(meetings) - min(meetings))
        periods.append(statistics.fmean(period_s for _, period_s in ranks))
    found = {"period_s": statistics.fmean(periods)}
    return replace(summary(waits), seconds=statistics.fmean(waits), found=found)


def _work(rounds: int, *, smallest: bool) -> Work:
    """Products of one size, and between them a walk through memory."""
    size = SMALLEST if smallest else SIZE
    one, other = (random(size * size, precision=PRECISION, device="cpu").view(size, size) for _ in range(2))
    memory = torch.zeros(cache_bytes("cpu", smallest=smallest) // 16)

    def work() -> None:
        for _ in range(rounds):
            torch.mm(one, other)
            memory.add_(1)

    return work
