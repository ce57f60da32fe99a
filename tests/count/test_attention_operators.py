"""What attention launches and keeps, beside its products.

Symbols: T tokens of a micro-batch, q query columns, k key columns, t tensor_parallel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.operators import FusedAttention, MemoryBound
from perfmodel.exchange.presets import model_preset, stack_preset
from tests.counted import counted, named
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

MODEL, STACK = model_preset("llama-3.1-8b"), stack_preset("megatron-core")
LAYOUT = replace(RAMP_STAGE, tensor_parallel=4, global_batch_size=96 * 8)


def test_ranks_of_a_sequence_launch_kernels_to_join_what_they_found() -> None:
    """Three for each of several ranks; one alone launches none, in an array of both too."""
    layout = replace(LAYOUT, context_parallel=np.array([1, 2, 4]), sequence_length=8192)
    stack = stack_with(STACK, {"overlap.context_parallel_exchange": "ring"})
    join = named(counted(MODEL, layout, stack), "layer.attention.join", MemoryBound)
    assert join.kernels.tolist() == join.backward_kernels.tolist() == [0, 6, 12]  # type: ignore[union-attr]


@pytest.mark.parametrize(("precision", "output_bytes"), [("bf16", 0), ("fp16", 0), ("fp8", 2)])
def test_attention_between_8_bit_products_keeps_its_output(precision: str, output_bytes: int) -> None:
    """Elsewhere the projection keeps it, as its input. Queries, keys, values and a sum for each query and head are kept too."""
    core = named(counted(MODEL, replace(LAYOUT, precision=precision), STACK), "layer.attention.core", FusedAttention)
    tokens, query, keys, heads = 4096, 4096 / 4, 1024 / 4, 32 / 4
    assert core.saved_bytes == tokens * (2 * (query + 2 * keys) + 4 * heads + output_bytes * query)
