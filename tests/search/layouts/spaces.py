"""Small spaces of layouts, and every layout of them by brute force: nested loops over all degrees and sizes, one check each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from itertools import product
from typing import Any

import numpy as np

from perfmodel.errors import InputError
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.search.layouts.space import LayoutGrid, SearchSpace, Workload
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup
from tests.setups import setup_of

TOY = TransformerModel(
    name="Toy",
    layers=8,
    hidden_size=768,
    attention_heads=12,
    kv_heads=4,
    head_size=64,
    ffn_hidden_size=3072,
    activation="gelu",
    norm="layernorm",
    vocab_size=32000,
)


def workload(
    model: str = "", *, gpus: int, batch: int, stack: str = "megatron-core", cluster: str = "dgx-h100", length: int = 2048
) -> Workload:
    """Of the toy model, or of a preset."""
    return Workload(
        model=model_preset(model) if model else TOY,
        cluster=cluster_preset(cluster),
        stack=stack_preset(stack),
        gpus=gpus,
        global_batch_size=batch,
        sequence_length=length,
    )


def space_of(**changes: Any) -> SearchSpace:
    """One value of each category unless the test says otherwise."""
    usual: dict[str, Any] = {"precision": ("bf16",), "sharding": ("zero1",), "pipeline_schedule": ("1f1b",)}
    return SearchSpace(**{**usual, "recompute": ("none",), **changes})


def every_layout(work: Workload, some: SearchSpace) -> Iterator[Layout]:
    """All that can exist: whatever is tried and not refused; what is the same layout twice is left out once.

    Sequence parallelism of one rank is none, and as many layers again as a stage has are all of them.
    """
    for numbers in _numbers(work, some):
        most = -(-int(work.model.layers) // numbers["pipeline_parallel"])
        for words in _categories(some):
            if words["sequence_parallel"] and numbers["tensor_parallel"] == 1 and False in some.sequence_parallel:
                continue
            for copies in _tried(some, "data_parallel_replicas", work.gpus) if words["sharding"] == "hsdp" else (1,):
                again = _tried(some, "recompute_layers", int(work.model.layers)) if words["recompute"] == "full" else (None,)
                for layers in again:
                    layout = Layout(
                        **words,
                        **numbers,
                        data_parallel_replicas=copies,
                        recompute_layers=None if layers == most else layers,
                        global_batch_size=work.global_batch_size,
                        sequence_length=work.sequence_length,
                    )
                    if _exists(work, layout):
                        yield layout


def _numbers(work: Workload, some: SearchSpace) -> Iterator[dict[str, Any]]:
    for tensor, context, stages in product(
        *(_tried(some, name, work.gpus) for name in ("tensor_parallel", "context_parallel", "pipeline_parallel"))
    ):
        if work.gpus % (tensor * context * stages):
            continue
        for pieces in _tried(some, "virtual_pipeline", int(work.model.layers) + 3):
            for micro in _tried(some, "micro_batch_size", work.global_batch_size):
                if work.global_batch_size % (micro * (work.gpus // (tensor * context * stages))):
                    continue
                yield {
                    "tensor_parallel": tensor,
                    "context_parallel": context,
                    "pipeline_parallel": stages,
                    "virtual_pipeline": pieces,
                    "micro_batch_size": micro,
                    "data_parallel": work.gpus // (tensor * context * stages),
                }


def _categories(some: SearchSpace) -> Iterator[dict[str, Any]]:
    names = ("precision", "sharding", "pipeline_schedule", "recompute", "sequence_parallel")
    for values in product(*(getattr(some, name) for name in names)):
        yield dict(zip(names, values, strict=True))


def _tried(some: SearchSpace, name: str, most: int) -> tuple[int, ...]:
    return some.fixed.get(name, tuple(range(1, most + 1)))


def _exists(work: Workload, layout: Layout) -> bool:
    try:
        check_setup(setup_of(work.model, layout, work.stack, cluster=work.cluster))
    except InputError:
        return False
    return True


def identity(layout: Layout) -> tuple[Any, ...]:
    """All fields of a single layout: what makes it that one."""
    return tuple(getattr(layout, entry.name) for entry in fields(layout))


def places(grid: LayoutGrid) -> Iterator[tuple[int, ...]]:
    """Where a grid has a layout."""
    for place in np.argwhere(grid.allowed):
        yield tuple(int(each) for each in place)


def layouts(grid: LayoutGrid) -> Iterator[Layout]:
    """The layouts of a grid one by one."""
    for place in places(grid):
        yield Layout(**grid.values(*place))
