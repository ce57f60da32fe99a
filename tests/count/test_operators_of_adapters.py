"""Every operator beside the frozen linears of a fine-tuning, in tables by hand: what it moves, keeps and launches.

Llama 3.1 8B on one GPU: T = 2048 tokens, h = 4096, keys and values of v = 1024, MLPs of f = 14336; adapters of rank 16.
"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.blocks import Block
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Matmul
from perfmodel.spec.phases import WEIGHT_GRADIENT
from tests.count.operator_rows import products, traffic
from tests.tunings import tuned_setup

T, H, V, F, R = 2048, 4096, 1024, 14336, 16
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
SOFTWARE: dict[str, Any] = {
    "recompute": "none",
    "stack__tuning__adapter_passes": 7.0,
    "stack__tuning__adapter_kernels": 3,
    "stack__tuning__adapter_bytes": 4.0,
    "stack__tuning__adapter_input_bytes": 0.0,
}


def layer(**settings: Any) -> Block:
    """The layer of such a run."""
    (blocks,) = iteration(tuned_setup(**(SOFTWARE | settings))).layers.values()
    plain: Block = blocks.plain
    return plain


def adapters(block: Block) -> dict[str, tuple[float, ...]]:
    """The products of adapters."""
    return {name: row for name, row in products(block, "layer.").items() if "adapter" in name}


def test_adapters_of_one_input_keep_it_once_and_each_its_narrow_result() -> None:
    """x A of each, which run as often as there are, and (x A) B of those that are as wide."""
    found = adapters(layer(adapter_targets="query key value projection"))
    assert found == {
        "attention.query.adapter_in": (1, T, H, R, 1, 2 * T * H),
        "attention.query.adapter_out": (1, T, R, H, 1, 2 * T * R),
        "attention.key.adapter_out": (1, T, R, V, 1, 2 * 2 * T * R),
        "attention.projection.adapter_in": (1, T, H, R, 1, 2 * T * H),
        "attention.projection.adapter_out": (1, T, R, H, 1, 2 * T * R),
    }
    gradients = [op for op in layer(adapter_targets="fc2").backward if isinstance(op, Matmul) and op.phase == WEIGHT_GRADIENT]
    assert [(op.accumulates, float(op.weight_gradient_bytes)) for op in gradients] == [(False, 4.0)] * 2
    times = {op.name: float(op.repeats) for op in layer(adapter_targets="query key value").forward if "adapter" in op.name}
    assert times["layer.attention.query.adapter_in"] == 3
    assert times["layer.attention.key.adapter_out"] == 2


@pytest.mark.parametrize(
    ("units", "training", "apart"),
    [("all", "qlora", 10), ("unquantised", "qlora", 0), ("unquantised", "lora", 10), ("none", "lora", 0)],
)
def test_fsdp_gathers_each_matrix_of_an_adapter_by_itself(units: str, training: str, apart: int) -> None:
    """Ten of five linears, which run as often forwards; none where ranks hold all of them."""
    asked: dict[str, Any] = {"training": training, "adapter_targets": "query key value projection fc2", "gpus": 2}
    for sharding, expected in (("zero3", apart), ("none", 0)):
        block = layer(**asked, sharding=sharding, stack__tuning__adapter_units=units)
        forward, backward = (
            sum(float(op.repeats) for op in side if isinstance(op, Matmul) and op.apart and op.phase != WEIGHT_GRADIENT)
            for side in (block.forward, block.backward)
        )
        assert (forward, backward) == (expected, expected)


def test_software_may_keep_a_copy_of_its_own_for_each_adapter() -> None:
    """4 bytes more of each number of the input of three, beside the 2 that they share."""
    kept = adapters(layer(adapter_targets="query key value", stack__tuning__adapter_input_bytes=4.0))
    assert kept["attention.query.adapter_in"][-1] == (2 + 3 * 4) * T * H


def test_inputs_that_products_keep_anyway_are_not_kept_for_adapters() -> None:
    """bitsandbytes keeps them beside quantised weights."""
    quantised: dict[str, Any] = {"training": "qlora", "adapter_targets": "fc2"}
    keeps, drops = (products(layer(**quantised, stack__tuning__keeps_inputs=each)) for each in (True, False))
    assert (keeps["layer.mlp.fc2"][-1], keeps["layer.mlp.fc2.adapter_in"][-1]) == (2 * T * F, 0)
    assert (drops["layer.mlp.fc2"][-1], drops["layer.mlp.fc2.adapter_in"][-1]) == (0, 2 * T * F)


def test_results_of_adapters_are_added_in_passes_over_them() -> None:
    """7 of fp32 results and a cast of each input; backwards one fewer, the casts, and three passes over input gradients."""
    found = traffic(layer(adapter_targets="gate fc1"), "layer.mlp.")
    results, inputs = 2 * T * F, 2 * T * H
    casts = (2 + 4) * inputs
    assert found["gate.adapter_sum"] == (
        7 * 4 * results + casts, 2 * 3, 6 * 4 * results + 3 * 2 * inputs + casts, 2 * 3, 0,
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{"stack__tuning__adapter_bytes": 2.0}, {"training": "qlora"}])
def test_adapters_as_wide_as_activations_cast_nothing(settings: dict[str, Any]) -> None:
    """Nor do those beside quantised weights, which run under autocast."""
    found = traffic(layer(adapter_targets="fc2", **settings), "layer.mlp.")
    assert found["fc2.adapter_sum"] == (7 * 2 * T * H, 3, 6 * 2 * T * H + 3 * 2 * T * F, 3, 0)


def test_magnitudes_form_each_weight_anew_and_scale_its_result() -> None:
    """A B as a product, five passes over the weight for its norms, which get no gradient; results kept for their magnitudes."""
    block = layer(training="dora", adapter_targets="fc2")
    assert adapters(block)["mlp.fc2.adapter_weight"] == (1, F, R, H, 1, 0)
    found = {op.name: op for op in block.forward}
    norm = found["layer.mlp.fc2.adapter_norm"]
    assert float(getattr(norm, "moved_bytes")) == 5 * 2 * F * H  # noqa: B009 - of the operators with such a number
    assert not [op for op in block.backward if op.name in ("layer.mlp.fc2.adapter_norm", "layer.mlp.fc2.adapter_weight")]
    assert traffic_of_magnitudes(block) == {"fc2.adapter_magnitude": (2 * 2 * T * H, 1, 4 * 2 * T * H, 1, 2 * T * H)}
    assert "layer.mlp.fc2.adapter_norm" not in {op.name for op in layer(adapter_targets="fc2").forward}


def traffic_of_magnitudes(block: Block) -> dict[str, tuple[float, ...]]:
    """The operators that scale results, which alone have a backward pass."""
    scaled = [op for op in block.forward if op.name.endswith("adapter_magnitude")]
    names = {op.name for op in scaled}
    return traffic(Block(forward=tuple(scaled), backward=tuple(op for op in block.backward if op.name in names)), "layer.mlp.")


def test_quantised_weights_are_widened_for_each_product() -> None:
    """Their bytes and 2 more, and what software moves beside them, of each number; in a kernel for each matrix."""
    found = traffic(layer(training="qlora", adapter_targets="query", stack__tuning__dequantised_bytes=3.0), "layer.")
    each = NF4 + 2 + 3
    attention, into = each * H * (H + 2 * V), each * 2 * H * F
    assert found["attention.query.dequantise"] == pytest.approx((attention, 3, attention, 3, 0), rel=1e-12)
    assert found["mlp.gate.dequantise"] == pytest.approx((into, 2, into, 2, 0), rel=1e-12)
    assert found["mlp.fc2.dequantise"] == pytest.approx((each * F * H, 1, each * F * H, 1, 0), rel=1e-12)
    assert not [name for name in traffic(layer()) if "dequantise" in name]


def test_a_stream_in_fp32_is_cast_for_each_product_that_reads_it() -> None:
    """4 bytes read and 2 written: thrice for queries, keys and values, twice for gate and fc1, never for what ends a part."""
    found = traffic(layer(training="qlora", stack="hf-peft", stack__tuning__upcasts_stream=True), "layer.")
    casts = {name: row for name, row in found.items() if "autocast" in name}
    assert casts == {
        "attention.query.autocast": (3 * 6 * T * H, 3, 3 * 6 * T * H, 3, 0),
        "mlp.gate.autocast": (2 * 6 * T * H, 2, 2 * 6 * T * H, 2, 0),
    }


def test_the_host_calls_each_widening_and_cast_on_its_own() -> None:
    """As many times as there are kernels."""
    block = layer(training="qlora", stack="hf-peft", stack__tuning__upcasts_stream=True)
    calls = {op.name: getattr(op, "calls", 0) for op in block.forward}
    assert calls["layer.attention.query.dequantise"] == calls["layer.attention.query.autocast"] == 3
    assert calls["layer.mlp.gate.adapter_sum"] == 2


def test_weights_of_experts_are_widened_one_by_one() -> None:
    """All eight of Mixtral's on one GPU: kernels of each, and 4 * 8 * 2 * 4096 * 14336 numbers of both halves."""
    found = traffic(layer(model="mixtral-8x7b", training="qlora", adapter_targets="query"), "layer.mlp.")
    each = (NF4 + 2) * 8
    assert found["fc1.dequantise"] == pytest.approx((each * H * 2 * F, 8, each * H * 2 * F, 8, 0), rel=1e-12)
    assert found["fc2.dequantise"] == pytest.approx((each * F * H, 8, each * F * H, 8, 0), rel=1e-12)
