"""What the embedding reads and writes, and how its table is grouped for data parallelism.

Symbols: T tokens of a micro-batch, h hidden_size, V padded vocabulary, t tensor_parallel, e bytes of an activation, g of a
gradient that is accumulated, m micro-batches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from tests.counted import bucketed, counted, moved_bytes
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

ROTARY, LEARNED = model_preset("llama-3.1-8b"), model_preset("gpt-3-175b")
STACK = stack_with(stack_preset("megatron-core"), {"states.gradient_bytes": 4, "states.overwrites_gradients": False})
OVERWRITING = stack_with(STACK, {"states.overwrites_gradients": True})
LAYOUT = replace(RAMP_STAGE, tensor_parallel=4, micro_batch_size=2, sequence_length=2048)
T = 2 * 2048
TABLE = 128_512 * 4096 / 4  # V * h / t of Llama: 128,256 rows padded to a multiple of 4 * 128


def work_of(stack: SoftwareStack = STACK, *, learned: bool = False, **changes: Any) -> Iteration:
    """An iteration of Llama, or of GPT-3, whose positions are learned."""
    return counted(LEARNED if learned else ROTARY, replace(LAYOUT, **changes), stack)


@pytest.mark.parametrize(("precision", "e"), [("bf16", 2), ("fp16", 2), ("fp8", 2), ("fp32", 4)])
@pytest.mark.parametrize("tensor_parallel", [1, 4])
def test_a_lookup_reads_and_writes_every_token_twice(precision: str, e: int, tensor_parallel: int) -> None:
    """4 * e * T * h: a row is read and written, then written again where another rank has it; on every rank, however many."""
    work = work_of(precision=precision, tensor_parallel=tensor_parallel)
    assert moved_bytes(work, "embedding.lookup") == 4 * e * T * 4096


def test_learned_positions_are_read_and_added() -> None:
    """2 * e * T * h more."""
    assert moved_bytes(work_of(learned=True), "embedding.lookup") == (4 + 2) * 2 * T * 12288


@pytest.mark.parametrize(("precision", "e"), [("bf16", 2), ("fp32", 4)])
@pytest.mark.parametrize("g", [2, 4])
def test_a_dense_gradient_of_the_table_is_written_read_and_added(precision: str, e: int, g: int) -> None:
    """(2 * e + 2 * g) * V * h / t, beside 3 * e * T * h of the gradients of the tokens; in fp32 all gradients have 4 bytes."""
    work = work_of(stack_with(STACK, {"states.gradient_bytes": g}), precision=precision)
    dense = TABLE * (2 * e + 2 * (4 if precision == "fp32" else g))
    assert moved_bytes(work, "embedding.lookup", DATA_GRADIENT) == 3 * e * T * 4096 + dense


@pytest.mark.parametrize("micro_batches", [1, 2, 8])
def test_the_first_micro_batch_may_overwrite_the_gradient_of_the_table(micro_batches: int) -> None:
    """It reads no accumulated gradient: g * V * h / t less, once in m micro-batches."""
    adding, overwriting = (
        moved_bytes(work_of(stack, global_batch_size=96 * 2 * micro_batches), "embedding.lookup", DATA_GRADIENT)
        for stack in (STACK, OVERWRITING)
    )
    assert adding - overwriting == pytest.approx(4 * TABLE / micro_batches)


def test_learned_positions_end_the_last_bucket_with_the_table() -> None:
    """(V / t + 2048 positions) * h of all parameters: no bucket cuts a tensor, and every rank has all positions."""
    found = bucketed(LEARNED, replace(LAYOUT, pipeline_parallel=8), STACK)
    first = 50_688 / 4 * 12288 + 2048 * 12288
    layers = 12 * (12 * 12288**2 / 4 + (3 + 4) * 12288 / 4 + 6 * 12288)  # 12 of 96: products, biases that are cut, others
    assert found.uncut_share == pytest.approx(first / (first + layers), rel=1e-12)
