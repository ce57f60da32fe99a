"""Is every operator held against the right roof?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.exchange.presets import stack_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.explanation.roofline import (
    ATTENTION,
    COLLECTIVE,
    MATMUL,
    MEMORY,
    MEMORY_BOUND,
    RooflinePoint,
    roofline,
    served_roofline,
)
from perfmodel.prediction import predict_stage
from perfmodel.timing.ledger import ledger
from tests.search.layouts.layouts import CLUSTER, LAYOUTS, MODEL, predicted
from tests.setups import setup_of

STACK = stack_preset("megatron-core")


def placed(layout: str) -> tuple[RooflinePoint, ...]:
    """The operators of a layout."""
    return roofline(predicted(layout), cluster=CLUSTER, stack=STACK).operators


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_operator_is_left_out(layout: str) -> None:
    """The ledger has as many that take time and move anything, with the same seconds."""
    entries = ledger(predicted(layout).work, gpus=LAYOUTS[layout].gpus, cluster=CLUSTER, stack=STACK)
    named = [(each.operator.name, each.operator.phase, float(each.seconds)) for each in entries if float(each.seconds)]
    found = [(each.name, each.phase, each.seconds) for each in placed(layout)]
    assert set(found) <= set(named)
    assert len(found) >= 0.95 * len(named)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_computes_faster_than_it_could(layout: str) -> None:
    """Neither than the peak of its precision, nor than memory brings its operands."""
    for each in placed(layout):
        if each.attainable_flop_per_s is not None:
            assert 0.0 < each.flop_per_s <= each.attainable_flop_per_s
            assert each.attainable_flop_per_s <= float(CLUSTER.gpu.peak(each.precision))


def test_a_product_by_hand() -> None:
    """2 m n k FLOPs over both operands and the result, of 2 bytes each."""
    product = next(each for each in placed("one GPU") if each.name == "layer.mlp.fc1" and each.phase == "forward")
    rows, inner, columns = 4096, 6144, 24576
    assert product.kind == MATMUL
    assert product.flop == 2.0 * rows * inner * columns
    assert product.bytes == 2.0 * (rows * inner + inner * columns + rows * columns)


def test_what_only_moves_bytes_is_held_against_what_brings_them() -> None:
    """Norms against the memory, a collective against the slowest link that it crosses and its group's share of it."""
    operators = {(each.name, each.phase): each for each in placed("dense")}
    norm = operators["layer.mlp.norm", "forward"]
    assert (norm.kind, norm.link, norm.attainable_flop_per_s) == (MEMORY_BOUND, MEMORY, None)
    inside, across = operators["layer.mlp.fc1.gather", "forward"], operators["optimizer.reduce_gradients", "optimizer"]
    assert (inside.kind, inside.link) == (COLLECTIVE, CLUSTER.links.node.name)
    assert across.link == CLUSTER.links.network.name
    assert across.bytes_per_s_limit == float(CLUSTER.network_bytes_per_s_per_gpu)  # one GPU of each node is in its group
    assert 0.0 < across.efficiency < 1.0


def test_a_group_of_one_is_no_collective() -> None:
    """One GPU sends nothing."""
    assert not [each for each in placed("one GPU") if each.kind == COLLECTIVE]


@pytest.mark.parametrize("precision", ["tf32", "fp32"])
def test_attention_of_fp32_is_held_against_tensor_cores(precision: str) -> None:
    """Products against the peak of their own format; nothing computes faster than it could."""
    stack = stack_preset("generic")
    there = predict_stage(setup_of(MODEL, replace(LAYOUTS["dense"], precision=precision), stack, cluster=CLUSTER))
    points = roofline(there, cluster=CLUSTER, stack=stack)
    assert {each.precision for each in points.operators if each.kind == ATTENTION} == {"tf32"}
    assert {each.precision for each in points.operators if each.kind == MATMUL} == {precision}
    assert points.peak_flop_per_s == {each: float(CLUSTER.gpu.peak(each)) for each in {precision, "tf32"}}
    assert all(0.0 < each.efficiency <= 1.0 for each in points.operators if each.kind in (ATTENTION, MATMUL))


def test_decode_is_bound_by_memory_and_prefill_by_compute() -> None:
    """A row is one FLOP for each byte of 16-bit weights, so that few rows lie left of the ridge and many right of it."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    for tokens, bound in (
        (ForwardPass(sequences=8, context=1000), "memory"),
        (ForwardPass(prompts=1, prompt_tokens=4096), "compute"),
    ):
        roofs = served_roofline(setup, tokens)
        product = next(each for each in roofs.operators if each.name == "layer.mlp.fc2")
        rows, inner, columns = float(tokens.rows), 14336, 4096
        assert product.flop == 2.0 * rows * inner * columns
        assert product.bytes == 2.0 * (rows * inner + inner * columns + rows * columns)
        assert roofs.bound_of(product) == bound


def test_attention_over_a_cache_reads_what_the_cache_holds() -> None:
    """Two FLOPs a number of each key and value for each of the four queries that share it: 4 FLOPs a byte in 16 bits."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    roofs = served_roofline(setup, ForwardPass(sequences=8, context=1000))
    attention = next(each for each in roofs.operators if each.kind == ATTENTION)
    assert attention.bytes == 8 * 1000 * 2 * 8 * 128 * 2
    assert attention.intensity == 4.0
