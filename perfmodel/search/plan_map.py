"""The map of a search: for each tensor and pipeline parallel the fastest layout of all, whatever else it takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import TypeAlias

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import EvaluatedGrid, LayoutCandidate, evaluated_grid
from perfmodel.search.layouts.side_by_side import side_by_side
from perfmodel.search.layouts.space import LayoutGrid, SearchSpace, Workload
from perfmodel.spec.axes import PIPELINE, TENSOR

Degrees: TypeAlias = tuple[int, int]  # tensor and pipeline parallel


@dataclass(frozen=True, slots=True, kw_only=True)
class MapCell:
    """What can be with some degrees: the fastest layout that fits (None where none does), and the least memory of any."""

    fastest: LayoutCandidate | None
    least_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanMap:
    """A cell for all degrees with which a layout may exist."""

    cells: Mapping[Degrees, MapCell]

    @property
    def tensor_parallel(self) -> tuple[int, ...]:
        """Every degree that a cell has, the least first."""
        return tuple(sorted({tensor for tensor, _ in self.cells}))

    @property
    def pipeline_parallel(self) -> tuple[int, ...]:
        """The same of pipelines."""
        return tuple(sorted({pipeline for _, pipeline in self.cells}))


def plan_map(work: Workload, space: SearchSpace, *, workers: int | None = None) -> PlanMap:
    """The map of all layouts that a search looks at: as long as that search takes."""
    with closing(side_by_side(_cells, layout_grids(work, space), workers=workers)) as found:
        return PlanMap(cells=_best(cell for _, cells in found for cell in cells))


def _cells(grid: LayoutGrid) -> list[tuple[Degrees, MapCell]]:
    return [*_cells_of(evaluated_grid(grid))]


def _cells_of(grid: EvaluatedGrid) -> Iterator[tuple[Degrees, MapCell]]:
    """One for each degree along the rows and the columns of a grid."""
    rows, _, columns, _ = grid.layouts.axes
    flat = np.arange(grid.memory_bytes.size).reshape(grid.memory_bytes.shape)
    for tensor in np.unique(rows[TENSOR.name]):
        for pipeline in np.unique(columns[PIPELINE.name]):
            places = flat[rows[TENSOR.name] == tensor][:, :, columns[PIPELINE.name] == pipeline].ravel()
            seconds, needed = grid.iteration_time_s.ravel()[places], grid.memory_bytes.ravel()[places]
            first = np.lexsort((needed, seconds))[0]
            fastest = grid.candidate(int(places[first])) if np.isfinite(seconds[first]) else None
            if np.isfinite(needed.min()):
                yield (int(tensor), int(pipeline)), MapCell(fastest=fastest, least_bytes=float(needed.min()))


def _best(cells: Iterable[tuple[Degrees, MapCell]]) -> dict[Degrees, MapCell]:
    """One cell for all of the same degrees."""
    best: dict[Degrees, MapCell] = {}
    for degrees, cell in cells:
        known = best.get(degrees, MapCell(fastest=None, least_bytes=np.inf))
        both = [each for each in (known.fastest, cell.fastest) if each is not None]
        fastest = min(both, key=lambda one: one.figures, default=None)
        best[degrees] = MapCell(fastest=fastest, least_bytes=min(known.least_bytes, cell.least_bytes))
    return best
