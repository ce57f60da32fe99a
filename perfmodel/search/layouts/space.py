"""What a search may choose, for what workload, and layouts as grids that broadcast.

A grid has four axes. Rows are what shapes the kernels of a GPU: tensor and context parallel, the degrees of experts, and the
micro-batch. Then come the ways to shard what is kept; columns, which deal the layers out: pipeline and virtual pipeline; and
how many layers run again. Data parallel is what the GPUs leave: gpus / (tensor * context * pipeline); experts take none of
them, as they are spread over the GPUs of a pipeline stage once more. A setting that does not change along its axis takes no
room on it, so a kernel is timed once for each row, a stage is a sum, and only what a schedule adds is worked out for every
layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import reduce
from operator import mul
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.search.layouts.places import at_places
from perfmodel.spec.axes import (
    FILLING,
    PIPELINE,
    REPLICA_AXES,
    WITHIN_LAYERS,
    axes_that_communicate,
)
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.layout import RECOMPUTES, Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

IN_ROWS: Final = axes_that_communicate(WITHIN_LAYERS)
ROW_AXES: Final = (*(axis.name for axis in IN_ROWS), "micro_batch_size")
COLUMN_AXES: Final = (PIPELINE.name, "virtual_pipeline")
DEGREES: Final = tuple(axis.name for axis in REPLICA_AXES)
NUMERIC_SETTINGS: Final = (*ROW_AXES, "data_parallel_replicas", *COLUMN_AXES, "recompute_layers")
CATEGORIES: Final = ("precision", "sharding", "pipeline_schedule", "recompute", "sequence_parallel")

GridAxis = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpace:
    """The values that a search may choose; `fixed` holds those of numeric settings that do not take every value.

    With `all_layers_again` a full recompute is one of all layers of a pipeline stage.
    """

    precision: tuple[str, ...]
    sharding: tuple[str, ...]
    pipeline_schedule: tuple[str, ...]
    recompute: tuple[str, ...] = RECOMPUTES
    sequence_parallel: tuple[bool, ...] = (True, False)
    fixed: Mapping[str, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    all_layers_again: bool = False


def offered_space(stack: SoftwareStack, *, precision: tuple[str, ...] = ("bf16",)) -> SearchSpace:
    """The search space of all that a software stack offers; along an axis that it does not offer the degree is 1."""
    return SearchSpace(precision=precision, sharding=stack.offers.shardings, pipeline_schedule=stack.offers.schedules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is trained on what: all that the layouts of one search have in common."""

    model: TransformerModel
    cluster: Cluster
    stack: SoftwareStack
    gpus: int
    global_batch_size: int
    sequence_length: int
    expert_load: float = 1.0

    def setup(self, layout: Layout) -> Setup:
        """What one layout, or arrays of them, are counted and timed for."""
        return Setup(model=self.model, cluster=self.cluster, stack=self.stack, layout=layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutGrid:
    """Layouts that share all categories but their sharding: combinations along four axes, of which `allowed` may exist."""

    workload: Workload
    categories: Mapping[str, Any]
    axes: tuple[GridAxis, GridAxis, GridAxis, GridAxis]  # along rows, shardings, columns, layers that run again
    allowed: NDArray[np.bool_]  # (rows, shardings, columns, layers)

    @property
    def layouts(self) -> list[Layout]:
        """For each sharding all layouts, as arrays of (rows, columns, layers); numbers mean nothing where none may exist."""
        rows, shardings, columns, layers = self.axes
        numbers = _along(rows, 0) | _along(columns, 1) | _along(layers, 2)
        kinds = [
            dict(zip(shardings, kind, strict=True)) for kind in zip(*(v.tolist() for v in shardings.values()), strict=True)
        ]
        first = _layout(self.workload, dict(self.categories) | kinds[0], numbers)
        return [first, *(with_numbers(first, kind) for kind in kinds[1:])]

    def part(self, *places: NDArray[np.intp]) -> LayoutGrid:
        """The grid of some places along each axis."""
        rows, shardings, columns, layers = (
            {name: values[some] for name, values in axis.items()} for axis, some in zip(self.axes, places, strict=True)
        )
        return replace(self, axes=(rows, shardings, columns, layers), allowed=at_places(self.allowed, places))

    def values(self, *place: int) -> dict[str, Any]:
        """The settings of the layout at one place, as the fields of a Layout."""
        chosen = {name: each[at].item() for axis, at in zip(self.axes, place, strict=True) for name, each in axis.items()}
        replicas = self.workload.gpus // _gpus_of_a_replica(chosen)
        again = chosen.get("recompute_layers")
        if again is not None and again >= np.ceil(self.workload.model.layers / chosen[PIPELINE.name]):
            del chosen["recompute_layers"]  # all of them
        return dict(self.categories) | chosen | {FILLING.name: replicas} | _sizes(self.workload)


def _along(axis: GridAxis, at: int) -> dict[str, Any]:
    """The settings along one of three axes, as floats; a setting that does not change takes a single place.

    Whole numbers are exact in both types, and arrays of one type are combined faster than those of two.
    """
    shape = [1, 1, 1]
    shape[at] = -1
    numbers = {name: each if (each != each[0]).any() else each[:1] for name, each in axis.items()}
    return {name: each.astype(np.float64).reshape(shape) for name, each in numbers.items()}


def _layout(work: Workload, categories: Mapping[str, Any], numbers: Mapping[str, Any]) -> Layout:
    replicas = np.maximum(work.gpus // _gpus_of_a_replica(numbers), 1)
    return Layout(**categories, **numbers, **{FILLING.name: replicas}, **_sizes(work))


def _gpus_of_a_replica(numbers: Mapping[str, Any]) -> Any:
    """The product of all degrees but data parallelism."""
    return reduce(mul, (numbers[name] for name in DEGREES))


def _sizes(work: Workload) -> dict[str, Any]:
    sizes = {"global_batch_size": work.global_batch_size, "sequence_length": work.sequence_length}
    return sizes if work.expert_load == 1.0 else sizes | {"expert_load": work.expert_load}
