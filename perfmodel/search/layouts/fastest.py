"""The fastest layout that fits, and nothing else: most layouts are ruled out by what they take without passes that run again.

Running passes again frees memory and takes time, so no layout is faster than the same one without. That bound is one number for
all ways to run passes again, of which there are tens of times as many layouts. Bounds are worked out first; then the layouts
whose bound is lowest, then those somewhat above it, until no bound is below the fastest layout that was found.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.search.layouts.grids import cut, plain_grids, rerun_grids, spaces_under_the_same_rules
from perfmodel.search.layouts.places import places_with
from perfmodel.search.layouts.search import LayoutCandidate, SearchResult, grid_findings, grid_time_s, of_grids
from perfmodel.search.layouts.space import LayoutGrid, SearchSpace, Workload

ROUNDS: Final = (1.25, 2.0, np.inf)  # times the lowest bound: up to where layouts are timed before the others are
ROUNDING: Final = 1e-9  # by which sums in another order may undercut a bound


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundedGrid:
    """Layouts of one precision, and the least that each takes in any way to run passes again."""

    space: SearchSpace  # with that precision alone
    layouts: LayoutGrid  # without passes that run again
    bound_s: NDArray[np.float64]  # infinity where no layout may exist

    def between(self, above_s: float, up_to_s: float) -> Iterator[LayoutGrid]:
        """Every way to run passes again of the layouts whose bound is above the one time, and not above the other."""
        some = (self.bound_s > above_s) & (self.bound_s <= up_to_s) & self.layouts.allowed
        if some.any():
            yield from rerun_grids(replace(self.layouts, allowed=some).part(*places_with(some)), self.space)


def fastest_layout(work: Workload, space: SearchSpace, *, workers: int | None = None) -> LayoutCandidate | None:
    """The layout that `search` finds to be the fastest, in a fraction of its time; None where nothing fits."""
    grids = _bounded_grids(work, space, workers)
    lowest_s = min((float(grid.bound_s.min()) for grid in grids), default=np.inf)
    found, timed_s = SearchResult(), 0.0
    for wider in ROUNDS:
        up_to_s = wider * lowest_s
        if found.fastest:
            up_to_s = min(up_to_s, found.fastest[0].iteration_time_s * (1.0 + ROUNDING))
        if up_to_s > timed_s:
            some = (part for grid in grids for part in grid.between(timed_s, up_to_s))
            for grid, findings in of_grids(grid_findings, some, workers=workers):
                found.add(grid, findings)
            timed_s = up_to_s
    return found.fastest[0] if found.fastest else None


def _bounded_grids(work: Workload, space: SearchSpace, workers: int | None) -> list[BoundedGrid]:
    alone = [replace(each, precision=(name,)) for each in spaces_under_the_same_rules(work, space) for name in each.precision]
    parts = [(each, part) for each in alone for grid in plain_grids(work, each) for part in cut(grid)]
    bounds = of_grids(_bound_s, [part for _, part in parts], workers=workers)
    return [
        BoundedGrid(space=each, layouts=part, bound_s=bound_s) for (each, _), (part, bound_s) in zip(parts, bounds, strict=True)
    ]


def _bound_s(grid: LayoutGrid) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):
        return np.where(grid.allowed, grid_time_s(grid), np.inf)
