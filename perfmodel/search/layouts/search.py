"""The best layouts of a number of GPUs: the memory of every layout that may exist, and the time of those that fit.

Grids of layouts (space.py) go through the same equations as one prediction, on arrays, side by side on all cores.
Little is kept of a grid: its fastest layouts, its part of the front of time against memory, and the best of each value of each
setting. So a search takes the same memory however many layouts it looks at.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import field
from operator import attrgetter
from typing import Any, Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import Iteration, iteration, sharded_otherwise
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import stage_peaks_bytes, stage_times_s
from perfmodel.search.layouts.places import places_with
from perfmodel.search.layouts.side_by_side import side_by_side
from perfmodel.search.layouts.space import LayoutGrid, Workload
from perfmodel.spec.layout import Layout

GridIndex: TypeAlias = tuple[int, ...]  # of a layout in its grid: row, sharding, column, layers
KEPT_LAYOUTS: Final = 100  # how many of the fastest layouts a search keeps
WORTH_PROCESSES: Final = 1 << 17  # layouts, which take about a tenth of a second; to start processes takes half as long
FREED_AT_ONCE: Final = 4 * 10**6  # floats, just under the 32 MiB at which glibc stops learning


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutCandidate:
    """One layout with its time and memory, which are exactly those of its prediction."""

    settings: Mapping[str, Any]  # the fields of its layout
    iteration_time_s: float
    memory_bytes: float

    @property
    def layout(self) -> Layout:
        """The layout that the settings describe."""
        return Layout(**self.settings)

    @property
    def figures(self) -> tuple[float, float]:
        """Iteration time, then memory: the order of the fastest layouts; layouts with the same figures count as one."""
        return self.iteration_time_s, self.memory_bytes

    @property
    def gpus(self) -> int:
        """GPUs of the layout."""
        return int(self.layout.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extremes:
    """The fastest layout that fits (if any) and the smallest, among all layouts that share one value of one setting."""

    fastest: LayoutCandidate | None
    smallest: LayoutCandidate | None


T = TypeVar("T")
P = TypeVar("P", bound="LayoutCandidate | Place")
NO_EXTREMES: Final = Extremes(fastest=None, smallest=None)


@dataclass(slots=True, kw_only=True)
class SearchResult:
    """What a search has found so far; of layouts with the same time and memory, the first that was added."""

    layouts: int = 0
    fitting: int = 0
    fastest: list[LayoutCandidate] = field(default_factory=list)
    front: list[LayoutCandidate] = field(default_factory=list)  # no other is both faster and smaller
    by_setting: dict[tuple[str, Any], Extremes] = field(default_factory=dict)
    complete: bool = True

    @property
    def smallest(self) -> LayoutCandidate | None:
        """The layout that needs the least memory, whether it fits or not."""
        return _least([each.smallest for each in self.by_setting.values()], _size)

    def add(self, grid: LayoutGrid, found: GridFindings) -> None:
        """Add the best layouts of a grid."""
        self.layouts += found.layouts
        self.fitting += found.fitting
        made: dict[int, LayoutCandidate] = {}  # by place: the fastest layout is the best of most of its settings

        def candidate(each: LayoutCandidate | Place) -> LayoutCandidate:
            if isinstance(each, LayoutCandidate):
                return each
            if each.index not in made:
                made[each.index] = each.candidate_of(grid)
            return made[each.index]

        fastest: list[LayoutCandidate | Place] = [*self.fastest, *found.fastest]
        front: list[LayoutCandidate | Place] = [*self.front, *found.front]
        self.fastest = [candidate(each) for each in sorted(fastest, key=_speed)[:KEPT_LAYOUTS]]
        self.front = [candidate(each) for each in pareto_front(front)]
        for key, place in found.smallest_of.items():
            known = self.by_setting.get(key, NO_EXTREMES)
            if known.smallest is None or place.memory_bytes <= known.smallest.memory_bytes:
                smallest = _least([known.smallest, candidate(place)], _size)
                self.by_setting[key] = replace(known, smallest=smallest)
        for key, place in found.fastest_of.items():
            known = self.by_setting[key]
            if known.fastest is None or place.iteration_time_s <= known.fastest.iteration_time_s:
                self.by_setting[key] = replace(known, fastest=_least([known.fastest, candidate(place)], _speed))


def search(
    grids: Iterable[LayoutGrid], *, workers: int | None = None, on_progress: Callable[[int], None] = lambda _: None
) -> SearchResult:
    """The best layouts of `grids`; Ctrl-C ends the search early, with `complete` false and what was found until then.

    `on_progress` is called with the number of layouts that were looked at so far.
    """
    found = SearchResult()
    try:
        with closing(of_grids(grid_findings, grids, workers=workers)) as evaluated:
            for grid, findings in evaluated:
                found.add(grid, findings)
                on_progress(found.layouts)
    except KeyboardInterrupt:
        found.complete = False
    return found


def of_grids(
    task: Callable[[LayoutGrid], T], grids: Iterable[LayoutGrid], *, workers: int | None
) -> Generator[tuple[LayoutGrid, T], None, None]:
    """Each grid with what the task makes of it, side by side where that is worth starting processes."""
    _raise_trim_threshold()
    return side_by_side(task, grids, workers=workers, work=lambda grid: grid.allowed.size, worth=WORTH_PROCESSES)


def _raise_trim_threshold() -> None:
    """Have arrays of a megabyte reuse the memory of those before them.

    glibc gives back to the system what is freed beyond twice the largest block that was ever freed, and a page that comes from
    there again is cleared first: a quarter of the time of a search. Nothing is written to this block, so it costs nothing.
    """
    np.empty(FREED_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a layout is in its grid, as an index into flat arrays, with its time and memory."""

    index: int
    iteration_time_s: float
    memory_bytes: float

    def candidate_of(self, grid: LayoutGrid) -> LayoutCandidate:
        """The layout there."""
        settings = grid.values(*_coordinates(self.index, grid.allowed.shape))
        return LayoutCandidate(settings=settings, iteration_time_s=self.iteration_time_s, memory_bytes=self.memory_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class GridFindings:
    """The little that a search keeps of a grid: its fastest layouts and its front, and the best of each value of a setting."""

    layouts: int
    fitting: int
    fastest: tuple[Place, ...]
    front: tuple[Place, ...]
    smallest_of: Mapping[tuple[str, Any], Place]
    fastest_of: Mapping[tuple[str, Any], Place]  # where any layout fits


def grid_findings(grid: LayoutGrid) -> GridFindings:
    """What a search keeps of a grid."""
    return evaluated_grid(grid).findings()


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedGrid:
    """A grid of layouts with the memory of all that may exist and the time of those that fit; infinity for all others.

    A place is an index into the flat arrays.
    """

    layouts: LayoutGrid
    memory_bytes: NDArray[np.float64]  # of the shape of layouts.allowed
    iteration_time_s: NDArray[np.float64]

    def place(self, index: int) -> Place:
        """The layout at one place of the grid."""
        return Place(index, float(self.iteration_time_s.flat[index]), float(self.memory_bytes.flat[index]))

    def candidate(self, index: int) -> LayoutCandidate:
        """The layout at one place of the grid."""
        return self.place(index).candidate_of(self.layouts)

    def findings(self) -> GridFindings:
        """Its best layouts."""
        seconds, needed = self.iteration_time_s, self.memory_bytes
        return GridFindings(
            layouts=int(self.layouts.allowed.sum()),
            fitting=self._fitting_places().size,
            fastest=tuple(map(self.place, self.fastest_places())),
            front=tuple(map(self.place, self.front_places())),
            smallest_of={key: self.place(index) for key, index in self.best_places(needed, seconds)},
            fastest_of={key: self.place(index) for key, index in self.best_places(seconds, needed)},
        )

    def fastest_places(self) -> Iterator[int]:
        """Where the fastest layouts are; of equally fast ones the smaller, then the first."""
        seconds, needed, some = self.iteration_time_s.ravel(), self.memory_bytes.ravel(), self._fitting_places()
        if some.size > KEPT_LAYOUTS:
            some = some[seconds[some] <= np.partition(seconds[some], KEPT_LAYOUTS - 1)[KEPT_LAYOUTS - 1]]
        order = np.lexsort((needed[some], seconds[some]))[:KEPT_LAYOUTS]
        yield from some[order].tolist()

    def front_places(self) -> Iterator[int]:
        """Where layouts are that need less memory than every faster one."""
        seconds, needed, some = self.iteration_time_s.ravel(), self.memory_bytes.ravel(), self._fitting_places()
        some = some[np.argsort(seconds[some])]
        some = np.sort(some[needed[some] == np.minimum.accumulate(needed[some])])  # few; of equal times in any order
        some = some[np.lexsort((needed[some], seconds[some]))]
        least = np.concatenate([[np.inf], np.minimum.accumulate(needed[some])])[:-1]
        yield from some[needed[some] < least].tolist()

    def _fitting_places(self) -> NDArray[np.intp]:
        return np.flatnonzero(np.isfinite(self.iteration_time_s))

    def best_places(self, score: NDArray[np.float64], other: NDArray[np.float64]) -> Iterator[tuple[tuple[str, Any], int]]:
        """For each value of each setting, where a finite `score` is least; of equal ones that with the least `other`."""
        for at, axis in enumerate(self.layouts.axes):
            if not axis:
                continue
            lines, places = _least_in_lines(score, other, at)
            scores, others = score.flat[places], other.flat[places]
            if at == 0 and places.size:
                least = int(places[np.lexsort((others, scores))[0]])
                yield from (((name, value), least) for name, value in self.layouts.categories.items())
            for name, values in axis.items():
                for value, index in _first_of_each(values[lines], scores, others):
                    yield (name, value), int(places[index])


def _coordinates(place: int, shape: Sequence[int]) -> GridIndex:
    """np.unravel_index of one place, without its cost: a search asks for thousands."""
    found = []
    for length in reversed(shape):
        place, at = divmod(place, length)
        found.append(at)
    return tuple(reversed(found))


def evaluated_grid(grid: LayoutGrid) -> EvaluatedGrid:
    """The memory of every layout of a grid, then the time of those that fit."""
    with np.errstate(all="ignore"):
        needed = np.where(grid.allowed, grid_memory_bytes(grid), np.inf)
        fits = needed <= grid.workload.cluster.gpu.memory_bytes
        seconds = np.full(fits.shape, np.inf)
        places = places_with(fits)
        if len(places[0]):
            part = np.ix_(*places)
            seconds[part] = np.where(fits[part], grid_time_s(grid.part(*places)), np.inf)
    return EvaluatedGrid(layouts=grid, memory_bytes=needed, iteration_time_s=seconds)


def grid_memory_bytes(grid: LayoutGrid) -> NDArray[np.float64]:
    """Memory of one GPU [bytes] for every layout of a grid."""
    needed = np.empty(grid.allowed.shape)
    for place, total_bytes in enumerate(stage_peaks_bytes(list(_operators(grid.workload, grid.layouts)))):
        needed[:, place] = total_bytes
    return needed


def grid_time_s(grid: LayoutGrid) -> NDArray[np.float64]:
    """Iteration time [s] of every layout of a grid."""
    work, seconds = grid.workload, np.empty(grid.allowed.shape)
    times = stage_times_s(list(_operators(work, grid.layouts)), gpus=work.gpus)
    for place, each in enumerate(times):
        seconds[:, place] = each
    return seconds


def _operators(work: Workload, layouts: Sequence[Layout]) -> Iterator[Iteration]:
    """The operators of layouts that differ in their sharding alone: all but what an iteration does once is shared."""
    first = iteration(work.setup(layouts[0]))
    yield first
    for layout in layouts[1:]:
        yield sharded_otherwise(first, layout)


def pareto_front(candidates: Iterable[P]) -> list[P]:
    """The candidates that no other one beats in both time and memory, the fastest first."""
    front: list[P] = []
    for each in sorted(candidates, key=_speed):
        if not front or each.memory_bytes < front[-1].memory_bytes:
            front.append(each)
    return front


def _least_in_lines(
    score: NDArray[np.float64], other: NDArray[np.float64], at: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places along an axis beside which a score is finite, and where it is least there; of equal ones as in best_places."""
    least = score.min(axis=tuple(axis for axis in range(score.ndim) if axis != at), keepdims=True)
    tied = np.flatnonzero(score == np.where(least < np.inf, least, np.nan))
    lines = np.unravel_index(tied, score.shape)[at]
    order = np.lexsort((other.flat[tied], lines))
    distinct, first = np.unique(lines[order], return_index=True)
    return distinct, tied[order][first]


def _first_of_each(values: NDArray[Any], score: NDArray[np.float64], other: NDArray[np.float64]) -> Iterator[tuple[Any, int]]:
    """Each distinct value, and where it has its least score."""
    order = np.lexsort((other, score, values))
    distinct, first = np.unique(values[order], return_index=True)
    yield from zip(distinct.tolist(), order[first].tolist(), strict=True)


_speed: Final[Callable[[Any], Any]] = attrgetter("iteration_time_s", "memory_bytes")
_size: Final[Callable[[Any], Any]] = attrgetter("memory_bytes", "iteration_time_s")


def _least(candidates: Iterable[LayoutCandidate | None], key: Callable[[LayoutCandidate], Any]) -> LayoutCandidate | None:
    return min((each for each in candidates if each is not None), key=key, default=None)
