"""The best layouts of a number of GPUs: every legal one is asked for its memory, those that fit for their time.

Blocks of layouts (planning/space.py) go through the same equations as one prediction, on arrays, on several threads: NumPy
lets go of the interpreter while it computes. What is kept of a block is little: its fastest layouts, its part of the front of
time against memory, and the best of each value of each setting. So a search takes the same memory however many layouts it sees.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import Iteration, iteration, sharded_otherwise
from perfmodel.prediction import stage_memory, stage_times_s
from perfmodel.search.space import Block, Workload, places_with
from perfmodel.spec.layout import Layout

Place: TypeAlias = tuple[int, ...]  # in a block: row, sharding, column, layers
MOST: Final = np.finfo(np.float64).max
KEPT: Final = 100  # of the fastest layouts, over the whole search
IN_FLIGHT: Final = 4  # blocks a thread: enough that none waits, few enough that memory stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One layout with its figures, exactly those of its prediction."""

    settings: Mapping[str, Any]  # the fields of its layout
    iteration_time_s: float
    memory_bytes: float

    @property
    def layout(self) -> Layout:
        """The layout itself."""
        return Layout(**self.settings)

    @property
    def figures(self) -> tuple[float, float]:
        """Time and memory: what layouts are told apart by, and in which order the fastest come."""
        return self.iteration_time_s, self.memory_bytes

    @property
    def gpus(self) -> int:
        """All of them."""
        return int(self.layout.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """Of all layouts that share one value of one setting: the fastest that fits (if any does), and the one that needs least."""

    fastest: Candidate | None
    smallest: Candidate | None


NOTHING: Final = Extremes(fastest=None, smallest=None)


@dataclass(slots=True, kw_only=True)
class Found:
    """What a search has seen so far; of layouts with the same figures, the first that were added."""

    layouts: int = 0
    fitting: int = 0
    fastest: list[Candidate] = field(default_factory=list)
    front: list[Candidate] = field(default_factory=list)  # no other is both faster and smaller
    by_setting: dict[tuple[str, Any], Extremes] = field(default_factory=dict)
    complete: bool = True

    @property
    def smallest(self) -> Candidate | None:
        """The layout that needs the least memory, whether it fits or not."""
        return _least([each.smallest for each in self.by_setting.values()], _size)

    def add(self, seen: Seen) -> None:
        """Take in what a block holds."""
        self.layouts += int(seen.block.allowed.sum())
        fitting = int(np.isfinite(seen.iteration_time_s).sum())
        self.fitting += fitting
        slowest_s = self.fastest[-1].iteration_time_s if len(self.fastest) == KEPT else np.inf
        self.fastest = sorted([*self.fastest, *map(seen.candidate, seen.fastest_places(slowest_s))], key=_speed)[:KEPT]
        self.front = pareto_front([*self.front, *map(seen.candidate, seen.front_places(self.front))])
        for key, place in seen.best_places(seen.memory_bytes, seen.iteration_time_s):
            known = self.by_setting.get(key, NOTHING)
            if known.smallest is None or seen.memory_bytes[place] <= known.smallest.memory_bytes:
                smallest = _least([known.smallest, seen.candidate(place)], _size)
                self.by_setting[key] = replace(known, smallest=smallest)
        for key, place in seen.best_places(seen.iteration_time_s, seen.memory_bytes) if fitting else ():
            known, seconds = self.by_setting[key], seen.iteration_time_s[place]
            if np.isfinite(seconds) and (known.fastest is None or seconds <= known.fastest.iteration_time_s):
                self.by_setting[key] = replace(known, fastest=_least([known.fastest, seen.candidate(place)], _speed))


def search(
    blocks: Iterable[Block], *, workers: int | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> Found:
    """What there is in `blocks`; Ctrl-C ends it early, with `complete` false and what was found until then.

    `on_progress` is told how many layouts have been seen.
    """
    found, waiting = Found(), deque[Future[Seen]]()
    threads = workers or os.cpu_count() or 1
    source = iter(blocks)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting.extend(pool.submit(seen_in, block) for block in islice(source, threads * IN_FLIGHT))
        while waiting:
            found.add(waiting.popleft().result())
            waiting.extend(pool.submit(seen_in, block) for block in islice(source, 1))
            on_progress(found.layouts)
    except KeyboardInterrupt:
        found.complete = False
    finally:
        pool.shutdown(cancel_futures=True)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A block with its figures: memory of all that may exist, time of those that fit; infinity for all others."""

    block: Block
    memory_bytes: NDArray[np.float64]  # of the shape of block.allowed
    iteration_time_s: NDArray[np.float64]

    def candidate(self, place: Place) -> Candidate:
        """The layout at one place."""
        return Candidate(
            settings=self.block.values(*place),
            iteration_time_s=float(self.iteration_time_s[place]),
            memory_bytes=float(self.memory_bytes[place]),
        )

    def fastest_places(self, slowest_s: float) -> Iterator[Place]:
        """Of the fastest layouts, none slower than `slowest_s`; of equal ones the smaller, then the first."""
        seconds, needed = self.iteration_time_s.ravel(), self.memory_bytes.ravel()
        if seconds.size > KEPT:
            slowest_s = min(slowest_s, np.partition(seconds, KEPT - 1)[KEPT - 1])
        some = np.flatnonzero((seconds <= slowest_s) & np.isfinite(seconds))
        order = np.lexsort((needed[some], seconds[some]))[:KEPT]
        yield from map(self._place, some[order])

    def front_places(self, known: Sequence[Candidate]) -> Iterator[Place]:
        """Of layouts that need less memory than every faster one, here and among the `known` (the fastest first)."""
        seconds, needed = self.iteration_time_s.ravel(), self.memory_bytes.ravel()
        some = np.flatnonzero(np.isfinite(seconds))
        times = np.array([-np.inf, *(each.iteration_time_s for each in known)])
        sizes = np.array([np.inf, *(each.memory_bytes for each in known)])
        some = some[needed[some] < sizes[np.searchsorted(times, seconds[some], side="right") - 1]]
        some = some[np.lexsort((needed[some], seconds[some]))]
        least = np.concatenate([[np.inf], np.minimum.accumulate(needed[some])])[:-1]
        yield from map(self._place, some[needed[some] < least])

    def best_places(self, score: NDArray[np.float64], other: NDArray[np.float64]) -> Iterator[tuple[tuple[str, Any], Place]]:
        """For each setting and value: where the least score of the layouts that have it is, of equal ones the least other."""
        other = np.minimum(other, MOST)
        (least,) = _first_least(score.reshape(1, -1), other.reshape(1, -1))
        yield from (((name, value), self._place(least)) for name, value in self.block.categories.items())
        for at, axis in enumerate(self.block.axes):
            lines = [np.moveaxis(each, at, 0).reshape(score.shape[at], -1) for each in (score, other)]
            places = _first_least(*lines)
            best = [np.take_along_axis(each, places[:, None], axis=1)[:, 0] for each in lines]
            for name, values in axis.items():
                for value, index in _first_of_each(values, *best):
                    yield (name, value), self._place_on(at, index, places[index])

    def _place_on(self, at: int, index: int, place: Any) -> Place:
        """The place of which one coordinate is known, and of the others their place among themselves."""
        shape = self.memory_bytes.shape
        others = [int(each) for each in np.unravel_index(place, (*shape[:at], *shape[at + 1 :]))]
        return (*others[:at], index, *others[at:])

    def _place(self, index: Any) -> Place:
        return tuple(int(each) for each in np.unravel_index(index, self.memory_bytes.shape))


def seen_in(block: Block) -> Seen:
    """One block: memory of all, then times of where something fits."""
    with np.errstate(all="ignore"):
        needed = np.where(block.allowed, block_memory_bytes(block), np.inf)
        fits = needed <= block.workload.cluster.gpu.memory_bytes
        seconds = np.full(fits.shape, np.inf)
        places = places_with(fits)
        if len(places[0]):
            part = np.ix_(*places)
            seconds[part] = np.where(fits[part], block_time_s(block.part(*places)), np.inf)
    return Seen(block=block, memory_bytes=needed, iteration_time_s=seconds)


def block_memory_bytes(block: Block) -> NDArray[np.float64]:
    """Bytes of one GPU of every layout of a block."""
    work, layouts = block.workload, block.layouts
    needed = np.empty(block.allowed.shape)
    for place, (layout, operators) in enumerate(_operators(work, layouts)):
        memory = stage_memory(work.model, work.cluster, work.stack, layout, operators)
        needed[:, place] = memory.total_bytes
    return needed


def block_time_s(block: Block) -> NDArray[np.float64]:
    """Iteration time of every layout of a block."""
    work, seconds = block.workload, np.empty(block.allowed.shape)
    times = stage_times_s(work.model, work.cluster, work.stack, list(_operators(work, block.layouts)), gpus=work.gpus)
    for place, each in enumerate(times):
        seconds[:, place] = each
    return seconds


def _operators(work: Workload, layouts: Sequence[Layout]) -> Iterator[tuple[Layout, Iteration]]:
    """Of layouts that differ in their sharding alone, which share all but what an iteration does once."""
    first = iteration(work.model, layouts[0], work.stack)
    yield layouts[0], first
    for layout in layouts[1:]:
        yield layout, sharded_otherwise(first, work.model, layout, work.stack)


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other one beats in both time and memory, the fastest first."""
    front: list[Candidate] = []
    for each in sorted(candidates, key=_speed):
        if not front or each.memory_bytes < front[-1].memory_bytes:
            front.append(each)
    return front


def _first_least(score: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where the least score of each line is; of equal ones the least other, which is finite, and of those the first."""
    least = score.min(axis=1, keepdims=True)
    places: NDArray[np.intp] = np.where(score == least, other, np.inf).argmin(axis=1)
    return places


def _first_of_each(values: NDArray[Any], score: NDArray[np.float64], other: NDArray[np.float64]) -> Iterator[tuple[Any, int]]:
    """(value, place of its least score) for each distinct value."""
    order = np.lexsort((other, score, values))
    distinct, first = np.unique(values[order], return_index=True)
    yield from zip(distinct.tolist(), order[first].tolist(), strict=True)


def _speed(one: Candidate) -> tuple[float, float]:
    return one.figures


def _size(one: Candidate) -> tuple[float, float]:
    return one.memory_bytes, one.iteration_time_s


def _least(candidates: Iterable[Candidate | None], key: Callable[[Candidate], Any]) -> Candidate | None:
    return min((each for each in candidates if each is not None), key=key, default=None)
