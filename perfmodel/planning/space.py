"""Which layouts a search looks at: every combination of degrees and sizes that can exist, as grids that broadcast.

A grid has two axes. Rows are what shapes the kernels of a GPU: tensor and context parallel, micro-batch, copies of hsdp's
shards. Columns are what deals the layers out: pipeline and virtual pipeline, and how many layers run again. Data parallel is
what the GPUs leave: gpus / (tensor * context * pipeline). So a kernel is timed once for each row, a stage is a sum, and only
what schedules and data parallelism add is worked out for every layout. Rows and columns in which no layout may exist are left
out, and long grids are cut into blocks that fit a cache.
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
from perfmodel.spec.layout import PIPELINE_SCHEDULES, RECOMPUTES, Layout
from perfmodel.spec.model import TransformerModel, divisors
from perfmodel.spec.refusals import may_exist
from perfmodel.spec.stack import SoftwareStack

ROW_AXES: Final = ("tensor_parallel", "context_parallel", "micro_batch_size", "data_parallel_replicas")
COLUMN_AXES: Final = ("pipeline_parallel", "virtual_pipeline", "recompute_layers")
CATEGORIES: Final = ("precision", "sharding", "pipeline_schedule", "recompute", "sequence_parallel")
CELLS_OF_A_BLOCK: Final = 1 << 17


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
    """Layouts of one choice of categories: rows by columns, of which `allowed` may exist."""

    workload: Workload
    categories: Mapping[str, Any]
    rows: Mapping[str, NDArray[np.int64]]  # each of shape (rows,)
    columns: Mapping[str, NDArray[np.int64]]  # each of shape (columns,)
    allowed: NDArray[np.bool_]  # (rows, columns)

    @property
    def layout(self) -> Layout:
        """All of them, rows on the first axis and columns on the second; cells that may not exist hold any numbers."""
        return _layout(self.workload, self.categories, self.rows, self.columns)

    def part(self, rows: NDArray[Any], columns: NDArray[Any]) -> Block:
        """The same of some rows and columns."""
        return Block(
            workload=self.workload,
            categories=self.categories,
            rows={name: values[rows] for name, values in self.rows.items()},
            columns={name: values[columns] for name, values in self.columns.items()},
            allowed=self.allowed[np.ix_(rows, columns)],
        )

    def values(self, row: int, column: int) -> dict[str, Any]:
        """The settings of one of them, as a layout's fields."""
        numbers = {name: int(each[row]) for name, each in self.rows.items()}
        numbers |= {name: int(each[column]) for name, each in self.columns.items()}
        work = self.workload
        shared = numbers["tensor_parallel"] * numbers["context_parallel"] * numbers["pipeline_parallel"]
        again = numbers.get("recompute_layers")
        if again is not None and again >= np.ceil(work.model.layers / numbers["pipeline_parallel"]):
            del numbers["recompute_layers"]  # all of them
        sizes = {"global_batch_size": work.global_batch_size, "sequence_length": work.sequence_length}
        return dict(self.categories) | numbers | {"data_parallel": work.gpus // shared} | sizes


def blocks(work: Workload, choices: Choices, *, cells: int = CELLS_OF_A_BLOCK) -> Iterator[Block]:
    """Every layout of `work.gpus` GPUs that may exist, once, in blocks of about `cells`.

    Blocks that differ in their sharding alone follow one another, and share their rows and columns.
    """
    for schedule, sequence, is_hsdp in product(choices.pipeline_schedule, choices.sequence_parallel, (False, True)):
        shardings = [name for name in choices.sharding if (name == "hsdp") == is_hsdp]
        if not shardings:
            continue
        categories = {"pipeline_schedule": schedule, "sequence_parallel": sequence, "sharding": shardings[0]}
        categories |= {"precision": choices.precision[0], "recompute": "none"}
        rows = _rows(work, choices, sequence_parallel=sequence, is_hsdp=is_hsdp)
        for columns in _columns(work, choices, schedule=schedule) if len(rows["tensor_parallel"]) else ():
            grid = _pruned(_grid(work, categories, rows, columns))
            for recompute, precision in product(choices.recompute, choices.precision):
                whole = _running_again(grid, choices) if recompute == "full" else grid
                changed = categories | {"recompute": recompute, "precision": precision}
                for part in _cut(whole, cells):
                    yield from (replace(part, categories=changed | {"sharding": name}) for name in shardings)


def _grid(
    work: Workload,
    categories: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.int64]],
    columns: Mapping[str, NDArray[np.int64]],
) -> Block:
    """Rows by columns, with which of them may exist."""
    layout = _layout(work, categories, rows, columns)
    shared = layout.tensor_parallel * layout.context_parallel * np.asarray(layout.pipeline_parallel)
    with np.errstate(all="ignore"):
        legal = may_exist(work.model, work.cluster, work.stack, layout)
    allowed = np.broadcast_to(np.asarray((work.gpus % shared == 0) & legal), np.shape(layout.data_parallel))
    return Block(workload=work, categories=categories, rows=rows, columns=columns, allowed=allowed)


def _pruned(grid: Block) -> Block:
    """Without rows and columns in which nothing may exist; rows that allow the same columns next to each other."""
    rows, columns = (np.flatnonzero(grid.allowed.any(axis=axis)) for axis in (1, 0))
    patterns = grid.allowed[np.ix_(rows, columns)]
    return grid.part(rows[np.lexsort(patterns.T)] if len(columns) else rows, columns)


def _running_again(grid: Block, choices: Choices) -> Block:
    """A column for each number of layers that may run again, from one to all of a stage."""
    layers = int(grid.workload.model.layers)
    wanted = choices.fixed.get("recompute_layers", tuple(range(1, layers + 1)))
    stages = grid.columns["pipeline_parallel"]
    again = [[number for number in wanted if number <= -(-layers // int(each))] for each in stages]
    places = np.repeat(np.arange(len(stages)), [len(each) for each in again])
    whole = grid.part(np.arange(len(grid.allowed)), places)
    numbers = np.asarray([number for each in again for number in each], dtype=np.int64)
    return replace(whole, columns=dict(whole.columns) | {"recompute_layers": numbers})


def _cut(grid: Block, cells: int) -> Iterator[Block]:
    """Blocks of rows, each without the columns that none of its rows allows."""
    number, width = grid.allowed.shape
    step = max(cells // max(width, 1), 1)
    for start in range(0, number, step):
        rows = np.arange(start, min(start + step, number))
        columns = np.flatnonzero(grid.allowed[rows].any(axis=0))
        if len(columns):
            yield grid.part(rows, columns)


def _layout(
    work: Workload,
    categories: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.int64]],
    columns: Mapping[str, NDArray[np.int64]],
) -> Layout:
    numbers: dict[str, Any] = {name: values[:, None] for name, values in rows.items()}
    numbers |= {name: values[None, :] for name, values in columns.items()}
    shared = numbers["tensor_parallel"] * numbers["context_parallel"] * numbers["pipeline_parallel"]
    return Layout(
        **categories,
        **numbers,
        data_parallel=np.maximum(work.gpus // shared, 1),
        global_batch_size=work.global_batch_size,
        sequence_length=work.sequence_length,
    )


def _rows(work: Workload, choices: Choices, *, sequence_parallel: bool, is_hsdp: bool) -> dict[str, NDArray[np.int64]]:
    """Tensor and context parallel, micro-batch and copies: what could be, before the rules; sorted by tensor parallel.

    With one tensor-parallel rank sequence parallelism is nothing: those layouts are counted without it.
    """
    gpus, fixed = work.gpus, choices.fixed
    tensor = _values(fixed, "tensor_parallel", _divisors_up_to(work.model.attention_heads, gpus))
    tensor = [ranks for ranks in tensor if ranks > 1 or not (sequence_parallel and False in choices.sequence_parallel)]
    context = [1, *(ranks for ranks in _divisors_up_to(work.sequence_length / 2, gpus) if ranks > 1)]
    context = _values(fixed, "context_parallel", context)
    micro = _values(fixed, "micro_batch_size", divisors(work.global_batch_size))
    copies = _values(fixed, "data_parallel_replicas", divisors(gpus)[1:]) if is_hsdp else [1]
    chosen = [
        (ranks, pieces, size, number)
        for ranks, pieces, size, number in product(tensor, context, micro, copies)
        if gpus % (ranks * pieces) == 0
    ]
    return _named(ROW_AXES, chosen)


def _columns(work: Workload, choices: Choices, *, schedule: str) -> Iterator[dict[str, NDArray[np.int64]]]:
    """Stages and pieces of each: first those without interleaving, then those with.

    Apart, because a stack may run messages beside the passes where it interleaves, and the equations then differ.
    """
    layers, fixed = int(work.model.layers), choices.fixed
    stages = _values(fixed, "pipeline_parallel", [ranks for ranks in divisors(work.gpus) if ranks <= layers + 2])
    pieces = _values(fixed, "virtual_pipeline", list(range(1, layers + 3)))
    pairs = [pair for pair in product(stages, pieces) if pair[0] * pair[1] <= layers + 2]
    for interleaved in (False, True) if schedule == PIPELINE_SCHEDULES[0] else (False,):
        some = [pair for pair in pairs if (pair[1] > 1) == interleaved]
        if some:
            yield _named(COLUMN_AXES[:2], some)


def _values(fixed: Mapping[str, tuple[int, ...]], name: str, every: list[int]) -> list[int]:
    return [value for value in fixed.get(name, tuple(every)) if name in fixed or value in every]


def _divisors_up_to(size: Any, most: int) -> list[int]:
    whole = int(np.asarray(size))
    return [each for each in divisors(whole) if each <= most]


def _named(names: tuple[str, ...], rows: Sequence[tuple[int, ...]]) -> dict[str, NDArray[np.int64]]:
    table = np.asarray(rows, dtype=np.int64).reshape(-1, len(names))
    return {name: table[:, index].copy() for index, name in enumerate(names)}
