"""How long does a piece of work take, again and again, and how far do its times spread?

Several buffers take turns, and what their bytes left in the caches is written over between the rounds. Or, for the time of an
operator whose inputs were written just before ("warm"), as in a step: all that the caches hold is written over, code too, then
a product writes those inputs, and the operator follows. Used again and again alone, its result and its code would still be in
the caches, and it would take half as long as in a step. Results are kept while a round lasts: a block of memory that was given
back would be handed out again, and be in the cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final, TypeAlias

import torch

from perfmodel.benchmarks.measure.kernels.tensors import cache_bytes

Work: TypeAlias = Callable[[], object]  # what is timed

FEWEST: Final = 5  # repeats
MOST: Final = 50
SECONDS: Final = 0.2  # of repeats, between those bounds
BEFORE: Final = 2.0  # so many times as long where each has to be prepared: that takes as long as the work, or longer
FEWEST_BUFFERS: Final = 2  # that take turns
MOST_BUFFERS: Final = 4
LARGE_ROUNDS: Final = 3  # of a warm-up: until all memory was touched that large buffers need, or a GPU has its clocks
AHEAD: Final = 2.0  # the GPU waits so many times what the host needs to launch, so that launches never wait for it
LONGEST_LAUNCH_S: Final = 5e-3  # beyond it something else held the host up
CYCLES_PER_S: Final = 2e9  # the clock of a GPU, about
INNER: Final = 256  # of products that write what an operator reads: as long as any, and soon done


@dataclass(frozen=True, slots=True)
class Prepared:
    """Work on a buffer of its own, and those of its inputs that the operator before it writes in a step."""

    run: Work
    written: Sequence[torch.Tensor] = ()


Prepare: TypeAlias = Callable[[], Prepared]


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
    if warm:
        each = _each_behind_a_product(prepare, _bytes(2 * cache, device), fresh=fresh, device=device)
        return summary(_times(each, BEFORE * seconds))
    number = buffers_for(buffer_bytes, cache)
    scratch = None if (number - 1) * buffer_bytes >= 2 * cache else _bytes(2 * cache, device)
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
    works: list[Prepared] = []
    clock = _Clock(device)
    for each_round in count():
        if fresh or not works:
            works = [prepare() for _ in range(number + dropped)]
        if scratch is not None:
            scratch.add_(1)
        kept = []
        for place, work in enumerate(works):
            one_s, result = clock.timed(work.run)
            kept.append(result)
            if each_round >= warm_up and place >= dropped:
                yield one_s
        kept.clear()


def _each_behind_a_product(prepare: Prepare, scratch: torch.Tensor, *, fresh: bool, device: str) -> Iterator[float]:
    """Times of single executions, each right behind the products that write its inputs, and those behind what fills the caches.

    Without end, after some that warm up. What a `fresh` buffer keeps for the work is made in the place of the products.
    """
    clock, work = _Clock(device), prepare()
    products = [_written_by_a_product(each) for each in work.written]
    for number in count():
        scratch.add_(1)
        if fresh:
            work = prepare()
        for write in products:
            write()
        one_s, _ = clock.timed(work.run)
        if number >= LARGE_ROUNDS:
            yield one_s


def _written_by_a_product(tensor: torch.Tensor) -> Work:
    """A product whose result is written into `tensor`, which autograd does not see."""
    result = tensor.detach().view(-1, tensor.shape[-1])
    left, right = (
        torch.rand(shape, device=tensor.device).to(tensor.dtype) for shape in ((len(result), INNER), (INNER, result.shape[-1]))
    )
    return lambda: torch.mm(left, right, out=result)


class _Clock:
    """Times single executions on a device; a GPU first waits as long as their launch has taken so far, or a little longer."""

    def __init__(self, device: str) -> None:
        self._device, self._ahead_s = device, AHEAD * LONGEST_LAUNCH_S

    def timed(self, work: Work) -> tuple[float, object]:
        """Seconds of one execution, and its result."""
        one_s, result, launch_s = on_gpu(work, ahead_s=self._ahead_s) if self._device == "cuda" else on_cpu(work)
        self._ahead_s = min(self._ahead_s, AHEAD * launch_s)
        return one_s, result


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
