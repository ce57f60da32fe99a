"""Does a fold over an iteration count what its executions add up to, on average over the pipeline stages?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator, executed_flop, hardware_flop
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.phases import FORWARD, RECOMPUTE
from tests.counted import counted
from tests.layouts import RAMP_STAGE

MODEL, STACK = model_preset("llama-3.1-8b"), stack_preset("megatron-core")
LAYOUT = replace(RAMP_STAGE, tensor_parallel=4, global_batch_size=96 * 8)


def traffic(operators: Sequence[Operator]) -> Numeric:
    """Bytes that memory-bound operators move, embedding, head and optimizer among them."""
    return sum((op.repeats * op.moved_bytes for op in operators if isinstance(op, MemoryBound)), 0.0)


def sent(operators: Sequence[Operator]) -> Numeric:
    """Bytes that collectives send, but those between pipeline stages, which no stage has alone."""
    return sum(
        (op.repeats * op.wire_bytes for op in operators if isinstance(op, Collective) and op.kind != "point_to_point"), 0.0
    )


@pytest.mark.parametrize("count", [hardware_flop, traffic, sent])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pipeline_parallel": 4, "virtual_pipeline": 2},
        {"pipeline_parallel": 3, "recompute": "full", "recompute_layers": 2},
        {"recompute": "selective"},
    ],
)
def test_a_fold_is_the_sum_of_all_executions_over_the_stages(
    count: Callable[[Sequence[Operator]], Numeric], changes: dict[str, Any]
) -> None:
    """Every operator as often as it runs; the optimizer step counts once, as all stages take theirs at the same time."""
    work = counted(MODEL, replace(LAYOUT, **changes), STACK)
    stages = changes.get("pipeline_parallel", 1)
    assert work.fold(count) == pytest.approx(float(count(work.operators)) / stages, rel=1e-12)


@pytest.mark.parametrize(("stages", "again"), [(1, 5), (3, 2), (3, 11), (4, 0), (4, 8), (32, 1)])
def test_every_layer_runs_once_forwards_and_as_many_as_it_says_run_again(stages: int, again: int) -> None:
    """32 layers in each micro-batch, on stages of equal or unequal length; of each stage at most all run again."""
    layout = replace(LAYOUT, pipeline_parallel=stages, recompute="full", recompute_layers=again)
    runs = [(op.phase, op.repeats) for op in counted(MODEL, layout, STACK).operators if op.name == "layer.mlp.fc2"]
    lengths = [32 // stages + (stage < 32 % stages) for stage in range(stages)]
    assert sum(float(repeats) for phase, repeats in runs if phase == FORWARD) == 8 * 32
    assert sum(float(repeats) for phase, repeats in runs if phase == RECOMPUTE) == 8 * sum(min(again, each) for each in lengths)


def test_what_runs_is_every_product_and_the_half_of_attention_that_a_causal_mask_leaves() -> None:
    """repeats * FLOPs: of a product all, of attention under a mask half (windows aside, the convention counts the square)."""
    core: dict[str, Any] = {"sequences": 1, "heads": 2, "kv_heads": 2, "head_size": 64, "query_length": 512, "key_length": 512}
    product = Matmul(name="product", rows=2, columns=3, inner=5, precision="bf16", repeats=7)
    attention = FusedAttention(name="core", precision="bf16", repeats=11, **core)
    assert executed_flop([product]) == hardware_flop([product]) == 7 * 2 * 2 * 3 * 5
    assert executed_flop([attention]) == hardware_flop([attention]) / 2 == 11 * (2 * 2 * 64) * 2 * 512 * 512 / 2
    assert executed_flop([product, attention]) == executed_flop([product]) + executed_flop([attention])


def test_pairs_that_the_convention_counts_twice_run_once() -> None:
    """A kernel without a mask whose convention takes the square of both halves; one with a mask runs half of what it counts."""
    core = FusedAttention(
        name="core", sequences=2, heads=3, kv_heads=3, head_size=16, query_length=8, key_length=4, causal=False, counted=2.0,
        precision="bf16",
    )  # fmt: skip
    pairs = 2 * 3 * 8 * 4
    assert (hardware_flop([core]), executed_flop([core])) == (2 * 2 * pairs * 32, 2 * pairs * 32)
    masked = replace(core, causal=True, counted=1.0)
    assert (hardware_flop([masked]), executed_flop([masked])) == (2 * pairs * 32, pairs * 32)
