"""Which layouts there are: every combination of degrees and sizes that may exist, in grids (space.py).

Rows and columns in which no layout may exist are left out, and large grids are cut into grids that fit a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import replace
from perfmodel.search.layouts.places import places_with
from perfmodel.search.layouts.recompute_choices import rerun_choices
from perfmodel.search.layouts.space import COLUMN_AXES, IN_ROWS, ROW_AXES, GridAxis, LayoutGrid, SearchSpace, Workload
from perfmodel.spec.axes import (
    AXES,
    CONTEXT,
    EXPERT,
    EXPERT_TENSOR,
    FILLING,
    OF_EXPERTS,
    PIPELINE,
    REPLICA_AXES,
    TENSOR,
)
from perfmodel.spec.axes import Axis as ParallelAxis
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import divisors
from perfmodel.spec.precision import RECIPES
from perfmodel.spec.refusals import may_exist

CELLS_OF_A_GRID: Final = 1 << 18
SMALL_GRID: Final = 1 << 16  # layouts; below, what two grids cost beside their layouts is more than two equations for all do
LONG_AXIS: Final = 1 << 14  # layouts; from so many on, an axis of their own costs less than columns


def layout_grids(work: Workload, space: SearchSpace, *, cells: int = CELLS_OF_A_GRID) -> Iterator[LayoutGrid]:
    """Every layout of `work.gpus` GPUs that may exist, once, in grids of about `cells` layouts."""
    for alike in spaces_under_the_same_rules(work, space):
        for grid in plain_grids(work, alike):
            yield from rerun_grids(grid, alike, cells=cells)


def spaces_under_the_same_rules(work: Workload, space: SearchSpace) -> list[SearchSpace]:
    """The space cut into precisions of which the same layouts may exist: those whose attention is fused, and the others."""
    fuses = {each: work.stack.fusion.fuses_attention(RECIPES[each]) for each in space.precision}
    kinds = [tuple(each for each in space.precision if fuses[each] is kind) for kind in dict.fromkeys(fuses.values())]
    return [replace(space, precision=kind) for kind in kinds]


def plain_grids(work: Workload, space: SearchSpace) -> Iterator[LayoutGrid]:
    """The layouts of the first precision without passes that run again; those of others under the same rules are alike."""
    shardings, sequences = _shardings(work, space), _sequence_parallel(work, space)
    for schedule, sequence in product(space.pipeline_schedule, sequences):
        of_all = {"recompute": "none", "precision": space.precision[0]}
        categories = {"pipeline_schedule": schedule, "sequence_parallel": sequence} | of_all
        rows = _rows(work, space, shares_sequences=sequence and False in sequences)
        columns = _columns(work, space, schedule=schedule)
        if not (_length(rows) and _length(shardings) and _length(columns)):
            continue
        mixed = _length(rows) * _length(shardings) * _length(columns) < SMALL_GRID
        for some in (columns,) if mixed else _by_interleaving(columns):
            grid = _sorted(_dense(_grid(work, categories, rows, shardings, some)))
            if grid.allowed.size:
                yield grid


def rerun_grids(grid: LayoutGrid, space: SearchSpace, *, cells: int = CELLS_OF_A_GRID) -> Iterator[LayoutGrid]:
    """The layouts of a plain grid in each way to run passes again and each precision, in grids of about `cells` layouts."""
    reruns = _reruns(grid.workload, space)
    plain, full = list(cut(grid, cells)), list[LayoutGrid]()
    if any(rerun["recompute"] == "full" for rerun in reruns):
        full = [part for whole in _running_again(grid, space) for part in cut(whole, cells)]
    for rerun, precision in product(reruns, space.precision):
        changed = dict(grid.categories) | rerun | {"precision": precision}
        parts = full if rerun["recompute"] == "full" else plain
        yield from (replace(part, categories=changed) for part in parts)


def _sequence_parallel(work: Workload, space: SearchSpace) -> tuple[bool, ...]:
    """With sequence parallelism, and without. Mixtures of experts need it wherever it changes anything."""
    return (True,) if work.model.mixture is not None and True in space.sequence_parallel else space.sequence_parallel


def _reruns(work: Workload, space: SearchSpace) -> list[dict[str, Any]]:
    one_gpu = work.setup(_unshared(work, space.pipeline_schedule[0], {}))
    return rerun_choices(one_gpu, space.recompute)


def _grid(work: Workload, categories: Mapping[str, Any], rows: GridAxis, shardings: GridAxis, columns: GridAxis) -> LayoutGrid:
    """The grid of all combinations, with those that may exist.

    No rule depends on full recompute; one precision of the space stands for the others, which are under the same rules.
    """
    allowed = np.empty((_length(rows), _length(shardings), _length(columns), 1), dtype=bool)
    grid = LayoutGrid(workload=work, categories=dict(categories), axes=(rows, shardings, columns, {}), allowed=allowed)
    for place, layout in enumerate(grid.layouts):
        shared = np.asarray(layout.ranks_of(REPLICA_AXES))
        with np.errstate(all="ignore"):
            legal = may_exist(work.setup(layout))
        replicas = work.gpus == shared if FILLING.name not in work.stack.offers.degrees else work.gpus % shared == 0
        allowed[:, place] = replicas & legal
    return grid


def _dense(grid: LayoutGrid) -> LayoutGrid:
    """The grid without places along any axis at which no layout may exist."""
    return grid.part(*places_with(grid.allowed))


def _sorted(grid: LayoutGrid) -> LayoutGrid:
    """The grid with rows that allow the same layouts next to each other."""
    number, *others = grid.allowed.shape
    patterns = grid.allowed.reshape(number, int(np.prod(others)))
    return grid.part(np.lexsort(patterns.T), *map(np.arange, others)) if patterns.size else grid


def _running_again(grid: LayoutGrid, space: SearchSpace) -> Iterator[LayoutGrid]:
    """Grids with full recompute of one to all layers of a pipeline stage: along an axis of its own where that is long.

    Each number of pipeline stages has its own numbers of layers, so such an axis belongs to a single number of stages; where it
    would be short, the numbers are columns like any other.
    """
    layers = int(grid.workload.model.layers)
    wanted = space.fixed.get("recompute_layers", tuple(range(1, layers + 1)))
    stages = grid.axes[2][PIPELINE.name]
    held = {int(number): -(-layers // int(number)) for number in np.unique(stages)}
    again = {number: [each for each in wanted if each <= all_of_it] for number, all_of_it in held.items()}
    if space.all_layers_again:
        again = {number: [all_of_it] for number, all_of_it in held.items()}
    every = [np.arange(size) for size in grid.allowed.shape]
    short = []
    for number, layers_again in again.items():
        columns = np.flatnonzero(stages == number)
        if grid.allowed[:, :, columns].sum() * len(layers_again) < LONG_AXIS:
            short += [(column, each) for column in columns for each in layers_again]
            continue
        some = grid.part(*every[:2], columns, np.zeros(len(layers_again), dtype=np.intp))
        yield replace(some, axes=(*some.axes[:3], {"recompute_layers": np.asarray(layers_again)}))
    if short:
        places, numbers = (np.asarray(each, dtype=np.int64) for each in zip(*short, strict=True))
        some = grid.part(*every[:2], places, every[3])
        yield replace(some, axes=(*some.axes[:2], dict(some.axes[2]) | {"recompute_layers": numbers}, {}))


def cut(grid: LayoutGrid, cells: int = CELLS_OF_A_GRID) -> Iterator[LayoutGrid]:
    """Grids of some rows each, without places at which none of these rows has a layout."""
    grid = _dense(grid)
    number, *others = grid.allowed.shape
    step = max(cells // int(np.prod(others)), 1)
    for start in range(0, number, step):
        yield _dense(grid.part(np.arange(start, min(start + step, number)), *map(np.arange, others)))


def _length(axis: GridAxis) -> int:
    """How many places an axis of a grid has."""
    return len(next(iter(axis.values())))


def _shardings(work: Workload, space: SearchSpace) -> GridAxis:
    """Each way to shard; hsdp with each number of copies."""
    copies = _values(space.fixed, "data_parallel_replicas", divisors(work.gpus)[1:])
    kinds = [(name, number) for name in space.sharding for number in (copies if name == "hsdp" else [1])]
    names, numbers = zip(*kinds, strict=True) if kinds else ((), ())
    return {"sharding": np.asarray(names), "data_parallel_replicas": np.asarray(numbers, dtype=np.int64)}


def _rows(work: Workload, space: SearchSpace, *, shares_sequences: bool) -> GridAxis:
    """Combinations of the degrees that shape kernels and the micro-batch, before the rules say which may exist.

    With one tensor-parallel rank sequence parallelism changes nothing: where it `shares_sequences`, those are left out, as they
    are counted without it.
    """
    of_tokens = [axis for axis in IN_ROWS if axis not in OF_EXPERTS]
    micro = _values(space.fixed, "micro_batch_size", divisors(work.global_batch_size))
    chosen = []
    for ranks in product(*(_degrees(work, space, axis) for axis in of_tokens)):
        degrees = dict(zip((axis.name for axis in of_tokens), ranks, strict=True))
        if work.gpus % prod(ranks) or (shares_sequences and degrees[TENSOR.name] == 1):
            continue
        for meshed in _expert_degrees(work, space, degrees[TENSOR.name]):
            every = degrees | meshed
            row = [every[axis.name] for axis in IN_ROWS]
            chosen += [(*row, size) for size in micro]
    return _named(ROW_AXES, chosen)


def _expert_degrees(work: Workload, space: SearchSpace, tensor: int) -> Iterator[dict[str, int]]:
    """The ways to spread experts over the GPUs of a pipeline stage: whole ones, and over ranks that share each of them.

    No more ranks share an expert than share a head (unless a person says how many do): experts are narrower than what heads are
    cut from, and none of 223 measured runs does so.
    """
    shared = _degrees(work, space, EXPERT_TENSOR)
    few = shared if EXPERT_TENSOR.name in space.fixed else [ranks for ranks in shared if tensor % ranks == 0]
    for ranks, whole in product(few, _degrees(work, space, EXPERT)):
        if work.gpus % (ranks * whole) == 0:
            yield {EXPERT_TENSOR.name: ranks, EXPERT.name: whole}


def _degrees(work: Workload, space: SearchSpace, axis: ParallelAxis) -> list[int]:
    """The degrees of an axis that are looked at: those asked for, else all that could be; 1 where the software has none."""
    possible = _possible_degrees(work, axis) if axis.name in work.stack.offers.degrees else [1]
    return _values(space.fixed, axis.name, possible)


def _possible_degrees(work: Workload, axis: ParallelAxis) -> list[int]:
    """Divisors of what an axis divides: heads, half of a sequence, experts or their columns, layers with embedding and head."""
    mixture = work.model.mixture
    if axis == TENSOR:
        return _divisors_up_to(work.model.attention_heads, work.gpus)
    if axis == CONTEXT:
        return [1, *(ranks for ranks in _divisors_up_to(work.sequence_length / 2, work.gpus) if ranks > 1)]
    if axis in OF_EXPERTS:
        divided = 1 if mixture is None else mixture.experts if axis == EXPERT else mixture.ffn_hidden_size
        return _divisors_up_to(divided, work.gpus)
    return [ranks for ranks in divisors(work.gpus) if ranks <= work.model.layers + 2]


def _columns(work: Workload, space: SearchSpace, *, schedule: str) -> GridAxis:
    """Combinations of pipeline and virtual pipeline that may exist."""
    layers, fixed = int(work.model.layers), space.fixed
    stages = _degrees(work, space, PIPELINE)
    pieces = _values(fixed, "virtual_pipeline", list(range(1, layers + 3)))
    columns = _named(COLUMN_AXES, [pair for pair in product(stages, pieces) if pair[0] * pair[1] <= layers + 2])
    if not _length(columns):
        return columns
    possible = _possible(work, columns, schedule)
    return {name: values[possible] for name, values in columns.items()}


def _by_interleaving(columns: GridAxis) -> Iterator[GridAxis]:
    """Columns without interleaving, then those with it, where a stack may overlap messages: other equations hold there."""
    interleaved = columns["virtual_pipeline"] > 1
    for some in (~interleaved, interleaved):
        if some.any():
            yield {name: values[some] for name, values in columns.items()}


def _possible(work: Workload, columns: GridAxis, schedule: str) -> NDArray[np.bool_]:
    """Which columns some row could have: those that may exist alone, with one micro-batch for each pipeline stage."""
    alone = replace(_unshared(work, schedule, columns), global_batch_size=columns[PIPELINE.name])
    return np.broadcast_to(may_exist(work.setup(alone)), _length(columns))


def _unshared(work: Workload, schedule: str, columns: GridAxis) -> Layout:
    """One micro-batch on one GPU, or on what `columns` say instead."""
    single: dict[str, Any] = dict.fromkeys((axis.name for axis in AXES), 1)
    return Layout(
        precision="bf16",
        pipeline_schedule=schedule,
        sequence_parallel=False,
        sharding="none",
        recompute="none",
        micro_batch_size=1,
        global_batch_size=1,
        sequence_length=work.sequence_length,
        **(single | dict(columns)),
    )


def _values(fixed: Mapping[str, tuple[int, ...]], name: str, every: list[int]) -> list[int]:
    return [value for value in fixed.get(name, tuple(every)) if name in fixed or value in every]


def _divisors_up_to(size: Any, most: int) -> list[int]:
    whole = int(np.asarray(size))
    return [each for each in divisors(whole) if each <= most]


def _named(names: tuple[str, ...], rows: Sequence[tuple[int, ...]]) -> GridAxis:
    table = np.asarray(rows, dtype=np.int64).reshape(-1, len(names))
    return {name: table[:, index].copy() for index, name in enumerate(names)}
