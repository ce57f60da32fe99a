"""What casts to 8 bits read and write, linear by linear.

Symbols: T tokens of a micro-batch, h hidden_size, S GPUs that share the tokens between linears, t tensor_parallel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from tests.counted import counted, moved_bytes
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

STACK = stack_with(stack_preset("megatron-core"), {"low_precision.products": "layer", "fusion.separate_projections": False})
T, H, RANKS = 2 * 4096, 4096, 4
LAYOUT = replace(RAMP_STAGE, precision="fp8", tensor_parallel=RANKS, micro_batch_size=2)
COLUMNS = {"layer.attention.qkv": (4096 + 2 * 1024) / RANKS, "layer.mlp.fc1": 2 * 14336 / RANKS}
INNER = {"layer.attention.projection": 4096 / RANKS, "layer.mlp.fc2": 14336 / RANKS}
BOTH_SCALINGS = pytest.mark.parametrize(("scaling", "search"), [("delayed", 0), ("current", 2)])
BOTH_SHARINGS = pytest.mark.parametrize(("sequence_parallel", "sharing"), [(True, RANKS), (False, 1)])


def work_of(mechanisms: Mapping[str, Any], *, sequence_parallel: bool = True) -> Iteration:
    """An iteration of Llama in 8 bits, on a stack with other mechanisms."""
    layout = replace(LAYOUT, sequence_parallel=sequence_parallel)
    return counted(model_preset("llama-3.1-8b"), layout, stack_with(STACK, mechanisms))


def cast_bytes(work: Iteration, linear: str, phase: str) -> float:
    """What the casts of one linear move in one pass."""
    return float(moved_bytes(work, f"{linear}.quantise", phase))


@BOTH_SCALINGS
@BOTH_SHARINGS
@pytest.mark.parametrize("linear", COLUMNS)
def test_the_input_of_a_column_parallel_linear_is_cast_before_it_is_gathered(
    linear: str, scaling: str, search: int, sharing: int, *, sequence_parallel: bool
) -> None:
    """2 bytes read, 1 written, of T * h / S numbers; 2 more where a pass first looks for the largest."""
    work = work_of({"low_precision.scaling": scaling}, sequence_parallel=sequence_parallel)
    assert cast_bytes(work, linear, FORWARD) == (2 + 1 + search) * T * H / sharing


@BOTH_SCALINGS
@BOTH_SHARINGS
@pytest.mark.parametrize("linear", COLUMNS)
def test_backwards_a_column_parallel_linear_casts_its_gradient_and_transposes_its_input(
    linear: str, scaling: str, search: int, sharing: int, *, sequence_parallel: bool
) -> None:
    """2 read, 1 written and 1 for the transpose of T * columns numbers; 1 read and 1 written of its whole input."""
    work = work_of({"low_precision.scaling": scaling}, sequence_parallel=sequence_parallel)
    assert cast_bytes(work, linear, DATA_GRADIENT) == (2 + 1 + 1 + search) * T * COLUMNS[linear] + (1 + 1) * T * H


@BOTH_SCALINGS
@BOTH_SHARINGS
@pytest.mark.parametrize("linear", INNER)
def test_a_row_parallel_linear_casts_the_input_that_it_has_whole(
    linear: str, scaling: str, search: int, sharing: int, *, sequence_parallel: bool
) -> None:
    """2 read, 1 written and 1 for the transpose of T * inner numbers."""
    work = work_of({"low_precision.scaling": scaling}, sequence_parallel=sequence_parallel)
    assert cast_bytes(work, linear, FORWARD) == (2 + 1 + 1 + search) * T * INNER[linear]


@BOTH_SCALINGS
@BOTH_SHARINGS
@pytest.mark.parametrize("linear", INNER)
def test_backwards_a_row_parallel_linear_casts_its_shard_and_transposes_the_gathered_gradient(
    linear: str, scaling: str, search: int, sharing: int, *, sequence_parallel: bool
) -> None:
    """2 read and 1 written of T * h / S numbers; 1 read and 1 written of all T * h."""
    work = work_of({"low_precision.scaling": scaling}, sequence_parallel=sequence_parallel)
    assert cast_bytes(work, linear, DATA_GRADIENT) == (2 + 1 + search) * T * H / sharing + (1 + 1) * T * H


@BOTH_SCALINGS
def test_linears_apart_share_the_cast_and_the_transpose_of_their_input(scaling: str, search: int) -> None:
    """Queries have both, keys and values cast their own gradients and nothing else."""
    work = work_of({"low_precision.scaling": scaling, "fusion.separate_projections": True})
    own = {"layer.attention.query": 4096, "layer.attention.key": 1024, "layer.attention.value": 1024}
    for linear, width in own.items():
        transpose = 2 * T * H if linear == "layer.attention.query" else 0
        assert cast_bytes(work, linear, DATA_GRADIENT) == (4 + search) * T * width / RANKS + transpose
