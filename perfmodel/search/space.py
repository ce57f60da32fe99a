"""Which layouts a search looks at: every combination of degrees and sizes that can exist, as grids that broadcast.

A grid has four axes. Rows are what shapes the kernels of a GPU: tensor and context parallel, and the micro-batch. Then come the
ways to shard what is kept; columns, which deal the layers out: pipeline and virtual pipeline; and how many layers run again.
Data parallel is what the GPUs leave: gpus / (tensor * context * pipeline). A setting that does not change along its axis takes
no room on it, so a kernel is timed once for each row, a stage is a sum, and only what a schedule adds is worked out for every
layout. Rows and columns in which no layout may exist are left out, and long grids are cut into blocks that fit a cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.spec.hardware import Cluster
from perfmodel.spec.layout import RECOMPUTES, Layout
from perfmodel.spec.model import TransformerModel, divisors
from perfmodel.spec.refusals import may_exist
from perfmodel.spec.stack import SoftwareStack

ROW_AXES: Final = ("tensor_parallel", "context_parallel", "micro_batch_size")
COLUMN_AXES: Final = ("pipeline_parallel", "virtual_pipeline")
NUMERIC_SETTINGS: Final = (*ROW_AXES, "data_parallel_replicas", *COLUMN_AXES, "recompute_layers")
CATEGORIES: Final = ("precision", "sharding", "pipeline_schedule", "recompute", "sequence_parallel")
CELLS_OF_A_BLOCK: Final = 1 << 18
LONG: Final = 1 << 14  # layouts, from which on an axis of their own costs less than columns

Axis = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What a search may choose from; `fixed` holds the values of any numeric axis that are to be taken instead of all."""

    precision: tuple[str, ...]
    sharding: tuple[str, ...]
    pipeline_schedule: tuple[str, ...]
    recompute: tuple[str, ...] = RECOMPUTES
    sequence_parallel: tuple[bool, ...] = (True, False)
    fixed: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))


def offered_choices(stack: SoftwareStack, *, precision: tuple[str, ...] = ("bf16",)) -> Choices:
    """All that a stack offers."""
    return Choices(precision=precision, sharding=stack.offered_shardings, pipeline_schedule=stack.offered_schedules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every layout of a search has in common."""

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    gpus: int
    global_batch_size: int
    sequence_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Layouts of one choice of categories, but of all shardings: combinations along four axes, of which `allowed` may exist."""

    workload: Workload
    categories: Mapping[str, Any]
    axes: tuple[Axis, Axis, Axis, Axis]  # rows, shardings, columns, layers that run again: settings along each
    allowed: NDArray[np.bool_]  # (rows, shardings, columns, layers)

    @property
    def layouts(self) -> list[Layout]:
        """Of each sharding, all layouts: arrays of (rows, columns, layers), with any numbers where nothing may exist."""
        rows, shardings, columns, layers = self.axes
        numbers = _along(rows, 0) | _along(columns, 1) | _along(layers, 2)
        kinds = zip(*(values.tolist() for values in shardings.values()), strict=True)
        return [
            _layout(self.workload, dict(self.categories) | dict(zip(shardings, kind, strict=True)), numbers) for kind in kinds
        ]

    def part(self, *places: NDArray[np.intp]) -> Block:
        """The same of some places along each axis."""
        rows, shardings, columns, layers = (
            {name: values[some] for name, values in axis.items()} for axis, some in zip(self.axes, places, strict=True)
        )
        return replace(self, axes=(rows, shardings, columns, layers), allowed=self.allowed[np.ix_(*places)])

    def values(self, *place: int) -> dict[str, Any]:
        """The settings of one of them, as a layout's fields."""
        chosen = {name: each[at].item() for axis, at in zip(self.axes, place, strict=True) for name, each in axis.items()}
        shared = chosen["tensor_parallel"] * chosen["context_parallel"] * chosen["pipeline_parallel"]
        again = chosen.get("recompute_layers")
        if again is not None and again >= np.ceil(self.workload.model.layers / chosen["pipeline_parallel"]):
            del chosen["recompute_layers"]  # all of them
        return dict(self.categories) | chosen | {"data_parallel": self.workload.gpus // shared} | _sizes(self.workload)


def blocks(work: Workload, choices: Choices, *, cells: int = CELLS_OF_A_BLOCK) -> Iterator[Block]:
    """Every layout of `work.gpus` GPUs that may exist, once, in blocks of about `cells`."""
    shardings = _shardings(work, choices)
    for schedule, sequence in product(choices.pipeline_schedule, choices.sequence_parallel):
        categories = {"pipeline_schedule": schedule, "sequence_parallel": sequence}
        rows = _rows(work, choices, sequence_parallel=sequence)
        if not (len(rows["tensor_parallel"]) and len(shardings["sharding"])):
            continue
        for columns in _columns(work, choices, schedule=schedule):
            grid = _sorted(_dense(_grid(work, categories, rows, shardings, columns)))
            if not grid.allowed.size:
                continue
            for recompute, precision in product(choices.recompute, choices.precision):
                changed = categories | {"recompute": recompute, "precision": precision}
                for whole in _running_again(grid, choices) if recompute == "full" else (grid,):
                    yield from (replace(block, categories=changed) for block in _cut(whole, cells))


def places_with(truths: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Along each axis, the places at which anything is true."""
    axes = range(truths.ndim)
    return [np.flatnonzero(truths.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]


def _grid(work: Workload, categories: Mapping[str, Any], rows: Axis, shardings: Axis, columns: Axis) -> Block:
    """All combinations, with which may exist: no rule depends on the precision, nor on whether whole layers run again."""
    size = len(rows["tensor_parallel"]), len(columns["pipeline_parallel"]), 1
    allowed = np.empty((size[0], len(shardings["sharding"]), *size[1:]), dtype=bool)
    any_of = {"recompute": "none", "precision": "bf16"}
    grid = Block(workload=work, categories=dict(categories) | any_of, axes=(rows, shardings, columns, {}), allowed=allowed)
    for place, layout in enumerate(grid.layouts):
        shared = layout.tensor_parallel * layout.context_parallel * np.asarray(layout.pipeline_parallel)
        with np.errstate(all="ignore"):
            legal = may_exist(work.model, work.cluster, work.stack, layout)
        allowed[:, place] = (work.gpus % shared == 0) & legal
    return grid


def _dense(grid: Block) -> Block:
    """Without places along any axis at which nothing may exist."""
    return grid.part(*places_with(grid.allowed))


def _sorted(grid: Block) -> Block:
    """Rows that allow the same next to each other."""
    number, *others = grid.allowed.shape
    patterns = grid.allowed.reshape(number, int(np.prod(others)))
    return grid.part(np.lexsort(patterns.T), *map(np.arange, others)) if patterns.size else grid


def _running_again(grid: Block, choices: Choices) -> Iterator[Block]:
    """With how many layers of a stage run again, from one to all of them: along an axis of its own where that is long.

    Each number of stages has its own numbers, so that axis is one of a single number of stages; where it would be short, the
    numbers are columns like any other.
    """
    layers = int(grid.workload.model.layers)
    wanted = choices.fixed.get("recompute_layers", tuple(range(1, layers + 1)))
    stages = grid.axes[2]["pipeline_parallel"]
    again = {int(number): [each for each in wanted if each <= -(-layers // int(number))] for number in np.unique(stages)}
    every = [np.arange(size) for size in grid.allowed.shape]
    short = []
    for number, layers_again in again.items():
        columns = np.flatnonzero(stages == number)
        if grid.allowed[:, :, columns].sum() * len(layers_again) < LONG:
            short += [(column, each) for column in columns for each in layers_again]
            continue
        some = grid.part(*every[:2], columns, np.zeros(len(layers_again), dtype=np.intp))
        yield replace(some, axes=(*some.axes[:3], {"recompute_layers": np.asarray(layers_again)}))
    if short:
        places, numbers = (np.asarray(each, dtype=np.int64) for each in zip(*short, strict=True))
        some = grid.part(*every[:2], places, every[3])
        yield replace(some, axes=(*some.axes[:2], dict(some.axes[2]) | {"recompute_layers": numbers}, {}))


def _cut(grid: Block, cells: int) -> Iterator[Block]:
    """Blocks of rows, each without what none of its rows allows."""
    grid = _dense(grid)
    number, *others = grid.allowed.shape
    step = max(cells // int(np.prod(others)), 1)
    for start in range(0, number, step):
        yield _dense(grid.part(np.arange(start, min(start + step, number)), *map(np.arange, others)))


def _along(axis: Axis, at: int) -> dict[str, Any]:
    """The settings along one of three axes; one that does not change takes a single place."""
    shape = [1, 1, 1]
    shape[at] = -1
    return {name: (each if (each != each[0]).any() else each[:1]).reshape(shape) for name, each in axis.items()}


def _layout(work: Workload, categories: Mapping[str, Any], numbers: Mapping[str, Any]) -> Layout:
    shared = numbers["tensor_parallel"] * numbers["context_parallel"] * numbers["pipeline_parallel"]
    return Layout(**categories, **numbers, data_parallel=np.maximum(work.gpus // shared, 1), **_sizes(work))


def _sizes(work: Workload) -> dict[str, Any]:
    return {"global_batch_size": work.global_batch_size, "sequence_length": work.sequence_length}


def _shardings(work: Workload, choices: Choices) -> Axis:
    """Each way to shard; of hsdp, with each number of copies."""
    copies = _values(choices.fixed, "data_parallel_replicas", divisors(work.gpus)[1:])
    kinds = [(name, number) for name in choices.sharding for number in (copies if name == "hsdp" else [1])]
    names, numbers = zip(*kinds, strict=True) if kinds else ((), ())
    return {"sharding": np.asarray(names), "data_parallel_replicas": np.asarray(numbers, dtype=np.int64)}


def _rows(work: Workload, choices: Choices, *, sequence_parallel: bool) -> Axis:
    """Tensor and context parallel and micro-batch: what could be, before the rules.

    With one tensor-parallel rank sequence parallelism is nothing: those layouts are counted without it.
    """
    gpus, fixed = work.gpus, choices.fixed
    tensor = _values(fixed, "tensor_parallel", _divisors_up_to(work.model.attention_heads, gpus))
    tensor = [ranks for ranks in tensor if ranks > 1 or not (sequence_parallel and False in choices.sequence_parallel)]
    context = [1, *(ranks for ranks in _divisors_up_to(work.sequence_length / 2, gpus) if ranks > 1)]
    context = _values(fixed, "context_parallel", context)
    micro = _values(fixed, "micro_batch_size", divisors(work.global_batch_size))
    chosen = [(ranks, pieces, size) for ranks, pieces, size in product(tensor, context, micro) if gpus % (ranks * pieces) == 0]
    return _named(ROW_AXES, chosen)


def _columns(work: Workload, choices: Choices, *, schedule: str) -> Iterator[Axis]:
    """Stages and pieces of each: first those without interleaving, then those with.

    Apart, because a stack may run messages beside the passes where it interleaves, and the equations then differ.
    """
    layers, fixed = int(work.model.layers), choices.fixed
    stages = _values(fixed, "pipeline_parallel", [ranks for ranks in divisors(work.gpus) if ranks <= layers + 2])
    pieces = _values(fixed, "virtual_pipeline", list(range(1, layers + 3)))
    pairs = [pair for pair in product(stages, pieces) if pair[0] * pair[1] <= layers + 2]
    if not pairs:
        return
    columns = _named(COLUMN_AXES, pairs)
    possible = _possible(work, columns, schedule)
    for interleaved in (False, True):
        some = possible & ((columns["virtual_pipeline"] > 1) == interleaved)
        if some.any():
            yield {name: values[some] for name, values in columns.items()}


def _possible(work: Workload, columns: Axis, schedule: str) -> NDArray[np.bool_]:
    """Which columns some row could have: those that may exist without any other parallelism, with a micro-batch a stage."""
    alone = Layout(
        precision="bf16",
        tensor_parallel=1,
        data_parallel=1,
        pipeline_schedule=schedule,
        sequence_parallel=False,
        sharding="none",
        recompute="none",
        micro_batch_size=1,
        global_batch_size=columns["pipeline_parallel"],
        sequence_length=work.sequence_length,
        **columns,
    )
    return np.broadcast_to(may_exist(work.model, work.cluster, work.stack, alone), len(columns["pipeline_parallel"]))


def _values(fixed: Mapping[str, tuple[int, ...]], name: str, every: list[int]) -> list[int]:
    return [value for value in fixed.get(name, tuple(every)) if name in fixed or value in every]


def _divisors_up_to(size: Any, most: int) -> list[int]:
    whole = int(np.asarray(size))
    return [each for each in divisors(whole) if each <= most]


def _named(names: tuple[str, ...], rows: Sequence[tuple[int, ...]]) -> Axis:
    table = np.asarray(rows, dtype=np.int64).reshape(-1, len(names))
    return {name: table[:, index].copy() for index, name in enumerate(names)}
