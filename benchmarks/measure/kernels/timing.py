"""How long does a piece of work take, again and again, and how far do its times spread?

Several buffers take turns, and what their bytes left in the caches is written over between the rounds; or one buffer is used
again and again, for the time of an operator whose inputs were written just before ("warm"). Results are kept while a round
lasts: a block of memory that was given back would be handed out again, and be in the cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias

import torch

from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes

Work: TypeAlias = Callable[[], object]  # what is timed
Prepare: TypeAlias = Callable[[], Work]  # makes a buffer of its own, and what works on it

FEWEST: Final = 5  # repeats
MOST: Final = 50
SECONDS: Final = 0.2  # of repeats, between those bounds
FEWEST_BUFFERS: Final = 2  # that take turns
MOST_BUFFERS: Final = 4
LARGE_ROUNDS: Final = 3  # of a warm-up: until all memory was touched that large buffers need, or a GPU has its clocks
AHEAD: Final = 2.0  # the GPU waits so many times what the host needs to launch, so that launches never wait for it
LONGEST_LAUNCH_S: Final = 5e-3  # beyond it something else held the host up
CYCLES_PER_S: Final = 2e9  # the clock of a GPU, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The median of the times, and the distance between their quartiles over it; what else was found of the work, by name."""

    seconds: float
    spread: float
    repeats: int
    found: Mapping[str, float] = field(default_factory=dict)


def summary(times: list[float]) -> Timing:
    """Median, spread and number of at least two times.

    >>> summary([1.0, 2.0, 3.0])
    Timing(seconds=2.0, spread=1.0, repeats=3, found={})
    """
    low, middle, high = statistics.quantiles(times, n=4)
    return Timing(seconds=middle, spread=(high - low) / middle, repeats=len(times))


def timed(
    prepare: Prepare,
    *,
    buffer_bytes: float,
    device: str,
    warm: bool = False,
    fresh: bool = False,
    seconds: float = SECONDS,
    smallest: bool = False,
) -> Timing:
    """Times what `prepare` returns. `buffer_bytes` is what one buffer and its result take.

    `fresh` work spends its buffer: it is prepared anew before each time that it runs.
    """
    cache = cache_bytes(device, smallest=smallest)
    number = 1 if warm else buffers_for(buffer_bytes, cache)
    scratch = None if warm or (number - 1) * buffer_bytes >= 2 * cache else _bytes(2 * cache, device)
    return summary(_times(_one_by_one(prepare, number, scratch, fresh=fresh, device=device), seconds))


def _bytes(number: int, device: str) -> torch.Tensor:
    return torch.zeros(number, dtype=torch.uint8, device=device)


def buffers_for(buffer_bytes: float, cache: float) -> int:
    """How many buffers reach beyond twice the cache; but some at least and not too many.

    >>> buffers_for(1e9, 32e6), buffers_for(21e6, 32e6), buffers_for(1e3, 32e6)
    (2, 4, 4)
    """
    return int(min(max(FEWEST_BUFFERS, 2 * cache // max(buffer_bytes, 1.0) + 1), MOST_BUFFERS))


def _times(measured: Iterator[float], seconds: float) -> list[float]:
    """As many as fit the time, but some at least and not too many."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < MOST and (len(times) < FEWEST or time.perf_counter() - start < seconds):
        times.append(next(measured))
    return times


def _one_by_one(prepare: Prepare, number: int, scratch: torch.Tensor | None, *, fresh: bool, device: str) -> Iterator[float]:
    """Times of single executions on prepared buffers in turn, without end, after rounds that are alike and warm up."""
    warm_up = LARGE_ROUNDS if number == FEWEST_BUFFERS or device == "cuda" else 1
    dropped = 0 if scratch is None else 1  # of each round: the scratch has driven code out of the caches too, not only data
    works: list[Work] = []
    ahead_s = AHEAD * LONGEST_LAUNCH_S
    for each_round in count():
        if fresh or not works:
            works = [prepare() for _ in range(number + dropped)]
        if scratch is not None:
            scratch.add_(1)
        kept = []
        for place, work in enumerate(works):
            one_s, result, launch_s = on_gpu(work, ahead_s=ahead_s) if device == "cuda" else on_cpu(work)
            ahead_s = min(ahead_s, AHEAD * launch_s)
            kept.append(result)
            if each_round >= warm_up and place >= dropped:
                yield one_s
        kept.clear()


def on_gpu(work: Work, *, ahead_s: float) -> tuple[float, object, float]:
    """Its time between two events on the stream, its result, and what the host needed to launch it.

    The GPU first waits for `ahead_s`, in which the host launches all of it: launches are the host's time, and counted apart.
    """
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    torch.cuda._sleep(int(ahead_s * CYCLES_PER_S))  # noqa: SLF001 - nothing public keeps a stream busy
    start = time.perf_counter()
    begin.record()
    result = work()
    end.record()
    launch_s = time.perf_counter() - start
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3, result, launch_s


def on_cpu(work: Work) -> tuple[float, object, float]:
    """Its time by the clock, and its result; nothing is launched."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result, 0.0
