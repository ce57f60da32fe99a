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
from itertools import groupby, islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import iteration
from perfmodel.planning.space import CATEGORIES, Block
from perfmodel.prediction import stage_memory, stage_times_s
from perfmodel.spec.layout import Layout

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
    """What a search has seen so far; in whatever order blocks are added, the result is the same."""

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
        self.fitting += int(np.isfinite(seen.iteration_time_s).sum())
        slowest_s = self.fastest[-1].iteration_time_s if len(self.fastest) == KEPT else np.inf
        self.fastest = sorted([*self.fastest, *map(seen.candidate, seen.fastest_places(slowest_s))], key=_speed)[:KEPT]
        self.front = pareto_front([*self.front, *map(seen.candidate, seen.front_places(self.front))])
        for key, place in seen.best_places(seen.memory_bytes):
            known = self.by_setting.get(key, NOTHING)
            if known.smallest is None or seen.memory_bytes[place] <= known.smallest.memory_bytes:
                smallest = _least([known.smallest, seen.candidate(place)], _size)
                self.by_setting[key] = replace(known, smallest=smallest)
        for key, place in seen.best_places(seen.iteration_time_s):
            known, seconds = self.by_setting[key], seen.iteration_time_s[place]
            if np.isfinite(seconds) and (known.fastest is None or seconds <= known.fastest.iteration_time_s):
                self.by_setting[key] = replace(known, fastest=_least([known.fastest, seen.candidate(place)], _speed))


def search(
    blocks: Iterable[Block], *, workers: int | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> Found:
    """What there is in `blocks`; Ctrl-C ends it early, with `complete` false and what was found until then.

    `on_progress` is told how many layouts have been seen.
    """
    found, waiting = Found(), deque[Future[list[Seen]]]()
    threads = workers or os.cpu_count() or 1
    source = _siblings(blocks)
    pool = ThreadPoolExecutor(threads)
    try:
        waiting.extend(pool.submit(seen_in, siblings) for siblings in islice(source, threads * IN_FLIGHT))
        while waiting:
            for seen in waiting.popleft().result():
                found.add(seen)
            waiting.extend(pool.submit(seen_in, siblings) for siblings in islice(source, 1))
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
    memory_bytes: NDArray[np.float64]
    iteration_time_s: NDArray[np.float64]

    def candidate(self, place: tuple[int, int]) -> Candidate:
        """The layout at one place."""
        return Candidate(
            settings=self.block.values(*place),
            iteration_time_s=float(self.iteration_time_s[place]),
            memory_bytes=float(self.memory_bytes[place]),
        )

    def fastest_places(self, slowest_s: float) -> Iterator[tuple[int, int]]:
        """Of the fastest layouts, none slower than `slowest_s`."""
        seconds = self.iteration_time_s
        number = min(KEPT, seconds.size)
        for index in np.argpartition(seconds, number - 1, axis=None)[:number]:
            place = self._place(index)
            if np.isfinite(seconds[place]) and seconds[place] <= slowest_s:
                yield place

    def front_places(self, known: Sequence[Candidate]) -> Iterator[tuple[int, int]]:
        """Of layouts that need less memory than every faster one, here and among the `known` (the fastest first)."""
        seconds, needed = self.iteration_time_s.ravel(), self.memory_bytes.ravel()
        order = np.lexsort((needed, seconds))[: np.isfinite(seconds).sum()]
        least = np.concatenate([[np.inf], np.minimum.accumulate(needed[order])])[:-1]
        times = np.array([-np.inf, *(each.iteration_time_s for each in known)])
        sizes = np.array([np.inf, *(each.memory_bytes for each in known)])
        bound = sizes[np.searchsorted(times, seconds[order], side="right") - 1]
        yield from map(self._place, order[needed[order] < np.minimum(least, bound)])

    def best_places(self, score: NDArray[np.float64]) -> Iterator[tuple[tuple[str, Any], tuple[int, int]]]:
        """For each setting and value: where the least score is among the layouts that have it."""
        in_row, in_column = score.argmin(axis=1), score.argmin(axis=0)
        best = self._place(score.argmin())
        for name in CATEGORIES:
            yield (name, self.block.categories[name]), best
        across = score[np.arange(len(in_row)), in_row]
        for name, values in self.block.rows.items():
            for value, row in _first_of_each(values, across):
                yield (name, value), (row, int(in_row[row]))
        down = score[in_column, np.arange(len(in_column))]
        for name, values in self.block.columns.items():
            for value, column in _first_of_each(values, down):
                yield (name, value), (int(in_column[column]), column)

    def _place(self, index: Any) -> tuple[int, int]:
        row, column = divmod(int(index), self.memory_bytes.shape[1])
        return row, column


def seen_in(siblings: Sequence[Block]) -> list[Seen]:
    """Blocks that differ in sharding alone: memory of all, then times of the rows and columns in which something fits."""
    with np.errstate(all="ignore"):
        needed = [np.where(block.allowed, block_memory_bytes(block), np.inf) for block in siblings]
        fits = [each <= siblings[0].workload.cluster.gpu.memory_bytes for each in needed]
        somewhere = np.logical_or.reduce(fits)
        seconds = [np.full(each.shape, np.inf) for each in fits]
        rows, columns = (np.flatnonzero(somewhere.any(axis=axis)) for axis in (1, 0))
        if len(rows):
            part = np.ix_(rows, columns)
            times = block_times_s([block.part(rows, columns) for block in siblings])
            for whole, fitting, some in zip(seconds, fits, times, strict=True):
                whole[part] = np.where(fitting[part], some, np.inf)
    return [
        Seen(block=block, memory_bytes=each, iteration_time_s=times)
        for block, each, times in zip(siblings, needed, seconds, strict=True)
    ]


def block_memory_bytes(block: Block) -> NDArray[np.float64]:
    """Bytes of one GPU of every layout of a block."""
    work, layout = block.workload, block.layout
    operators = iteration(work.model, layout, work.stack)
    memory = stage_memory(work.model, work.cluster, work.stack, layout, operators)
    return np.broadcast_to(np.asarray(memory.total_bytes), block.allowed.shape)


def block_times_s(siblings: Sequence[Block]) -> list[NDArray[np.float64]]:
    """Iteration time of every layout of some blocks that differ in sharding alone."""
    work = siblings[0].workload
    layouts = [(layout, iteration(work.model, layout, work.stack)) for layout in (block.layout for block in siblings)]
    times = stage_times_s(work.model, work.cluster, work.stack, layouts, gpus=work.gpus)
    return [np.broadcast_to(np.asarray(seconds), siblings[0].allowed.shape) for seconds in times]


def _siblings(blocks: Iterable[Block]) -> Iterator[list[Block]]:
    """Blocks that follow one another and differ in sharding alone, together."""
    for _, together in groupby(
        blocks, key=lambda block: (id(block.rows), *(block.categories[name] for name in CATEGORIES if name != "sharding"))
    ):
        yield list(together)


def pareto_front(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Those that no other one beats in both time and memory, the fastest first."""
    front: list[Candidate] = []
    for each in sorted(candidates, key=lambda one: (one.iteration_time_s, one.memory_bytes)):
        if not front or each.memory_bytes < front[-1].memory_bytes:
            front.append(each)
    return front


def _first_of_each(values: NDArray[np.int64], score: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """(value, place of its least score) for each distinct value."""
    order = np.lexsort((score, values))
    distinct, first = np.unique(values[order], return_index=True)
    yield from zip(distinct.tolist(), order[first].tolist(), strict=True)


def _speed(one: Candidate) -> tuple[float, float]:
    return one.iteration_time_s, one.memory_bytes


def _size(one: Candidate) -> tuple[float, float]:
    return one.memory_bytes, one.iteration_time_s


def _least(candidates: Iterable[Candidate | None], key: Callable[[Candidate], Any]) -> Candidate | None:
    return min((each for each in candidates if each is not None), key=key, default=None)
