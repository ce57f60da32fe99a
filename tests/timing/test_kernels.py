"""Do kernel times have the right limits, grow where they should, and come near published rates?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import DATA_GRADIENT, WEIGHT_GRADIENT, FusedAttention, Matmul, MemoryBound
from perfmodel.exchange.presets import cluster_preset, gpu_preset, stack_preset
from perfmodel.timing.kernels import (
    _compute_s,
    fused_attention_time_s,
    kernel_time_s,
    matmul_bytes,
    matmul_time_s,
    memory_bound_time_s,
    slowest_compute_scale,
)

H100 = gpu_preset("h100-sxm-80gb")
A100 = gpu_preset("a100-sxm-80gb")
KNOWN = H100.kernels.matmul["bf16"]
STACK = stack_preset("megatron-core")
SQUARE = Matmul(name="square", rows=8192, columns=8192, inner=8192, precision="bf16")
ATTENTION = FusedAttention(
    name="layer.attention.core", sequences=1, heads=32, head_size=128, sequence_length=8192, precision="bf16"
)


def rate(product: Matmul, gpu: str) -> float:
    """Achieved FLOP/s of a product at burst clocks."""
    return float(product.flop / matmul_time_s(product, gpu=gpu_preset(gpu), compute_scale=1.0))


def test_a_large_product_comes_near_the_measured_rate() -> None:
    """H100, 8192 cubed: 798 TFLOP/s (FACTS, section 3)."""
    assert rate(SQUARE, "h100-sxm-80gb") == pytest.approx(798e12, rel=0.05)


@pytest.mark.parametrize(("gpu", "largest"), [("h100-sxm-80gb", 794e12), ("a100-sxm-80gb", 271e12), ("b200", 1745e12)])
@given(shape=st.tuples(*[st.sampled_from([1024, 4096, 8192, 16384, 65536])] * 3))
def test_no_product_is_faster_than_anyone_ever_measured(gpu: str, largest: float, shape: tuple[int, int, int]) -> None:
    """The largest rates that anyone reports, with the error of the fit."""
    product = Matmul(name="any", rows=shape[0], columns=shape[1], inner=shape[2], precision="bf16")
    assert rate(product, gpu) < 1.05 * largest


def test_a_product_of_nothing_takes_the_time_of_one_kernel() -> None:
    """t0 remains."""
    tiny = replace(SQUARE, rows=1, columns=1, inner=1)
    fixed_s = H100.kernels.matmul["bf16"].fixed_s
    assert matmul_time_s(tiny, gpu=H100, compute_scale=1.0) == pytest.approx(fixed_s, rel=0.02)


def test_a_thin_product_is_bound_by_its_operands() -> None:
    """One row: the weights are read once at the rate of the memory, and what little is computed hides behind that."""
    thin = replace(SQUARE, rows=1, columns=65536, inner=65536)
    load_s = matmul_bytes(thin) / (KNOWN.memory_efficiency * H100.memory_bandwidth_bytes_per_s)
    assert matmul_time_s(thin, gpu=H100, compute_scale=1.0) == pytest.approx(load_s, rel=0.05)


@given(st.tuples(*[st.sampled_from([128, 512, 2048, 8192])] * 3))
def test_computing_and_loading_take_between_the_longer_and_their_sum(shape: tuple[int, int, int]) -> None:
    """A power mean of the two: neither is ever hidden more than whole."""
    product = replace(SQUARE, rows=shape[0], columns=shape[1], inner=shape[2])
    compute_s = _compute_s(product, KNOWN, gpu=H100, compute_scale=1.0)
    load_s = matmul_bytes(product) / (KNOWN.memory_efficiency * H100.memory_bandwidth_bytes_per_s)
    together_s = matmul_time_s(product, gpu=H100, compute_scale=1.0) - KNOWN.fixed_s
    assert max(compute_s, load_s) * (1 - 1e-9) <= together_s <= (compute_s + load_s) * (1 + 1e-9)


@given(st.integers(6, 16), st.sampled_from(["rows", "columns", "inner"]), st.sampled_from(["h100-sxm-80gb", "a100-sxm-80gb"]))
def test_a_product_twice_as_large_never_takes_less_time(power: int, side: str, gpu: str) -> None:
    """Along each of its three sides."""
    small = replace(SQUARE, **{side: 2**power})
    large = replace(SQUARE, **{side: 2 ** (power + 1)})
    assert rate(small, gpu) > 0
    assert small.flop / rate(small, gpu) <= large.flop / rate(large, gpu)


def test_adding_to_an_fp32_gradient_costs_its_factor() -> None:
    """About 5 %; a gradient in bf16 costs nothing more."""
    product = replace(SQUARE, phase=WEIGHT_GRADIENT, weight_gradient_bytes=4)
    plain = matmul_time_s(replace(product, weight_gradient_bytes=2), gpu=H100, compute_scale=1.0)
    assert matmul_time_s(product, gpu=H100, compute_scale=1.0) == pytest.approx(1.05 * plain, rel=1e-3)


def test_tiles_beyond_the_matrix_cost_their_weight() -> None:
    """One row over a tile of 128: nearly twice the tiles, of which the weighted share is computed for nothing."""
    product = Matmul(name="over", rows=129, columns=256 * 132, inner=8192, precision="bf16")
    weightless = replace(KNOWN, padding_weight=0.0)
    with_s, without_s = (_compute_s(product, known, gpu=H100, compute_scale=1.0) for known in (KNOWN, weightless))
    assert with_s == pytest.approx((1 + KNOWN.padding_weight * (256 / 129 - 1)) * without_s)


def test_a_slower_cluster_takes_longer_in_proportion() -> None:
    """The scalar divides all that the SMs compute."""
    slow, fast = (matmul_time_s(SQUARE, gpu=H100, compute_scale=scale) for scale in (0.5, 1.0))
    fixed_s = H100.kernels.matmul["bf16"].fixed_s
    assert slow - fixed_s == pytest.approx(2 * (fast - fixed_s), rel=1e-3)


def test_waves_cost_more_where_their_tail_is_idle() -> None:
    """A100, 108 SMs: 109 tiles take two waves."""
    full = Matmul(name="full", rows=128 * 108, columns=256, inner=4096, precision="bf16")
    more = replace(full, rows=128 * 109)
    per_row = [matmul_time_s(p, gpu=A100, compute_scale=1.0) / p.rows for p in (full, more)]
    assert per_row[1] > 1.2 * per_row[0]


@pytest.mark.parametrize(("length", "flash3"), [(2048, 0.50), (8192, 0.62), (16384, 0.65)])
def test_attention_on_h100_is_near_flash_attention_3(length: int, flash3: float) -> None:
    """Causal, head 128, forward, as a share of the peak; read off arXiv:2407.08608, figure 5, to some 10 %."""
    attention = replace(ATTENTION, sequence_length=length, sequences=16384 // length)
    seconds = fused_attention_time_s(attention, gpu=H100, compute_scale=1.0)
    assert attention.flop / 2 / seconds / 989.4e12 == pytest.approx(flash3, rel=0.2)


def test_backward_attention_does_five_products_where_forward_does_two() -> None:
    """So it takes over twice as long."""
    forward = fused_attention_time_s(ATTENTION, gpu=H100, compute_scale=1.0)
    backward = fused_attention_time_s(replace(ATTENTION, phase=DATA_GRADIENT), gpu=H100, compute_scale=1.0)
    assert 2.5 < backward / forward < 4


def test_a_memory_bound_operator_takes_its_bytes_over_the_rate_of_the_stack() -> None:
    """And the start of each kernel."""
    operator = MemoryBound(name="norm", moved_bytes=3.35e9, kernels=2)
    expected = 2 * H100.kernels.memory_bound_fixed_s + 1e-3 / STACK.memory_bound_efficiency
    assert memory_bound_time_s(operator, gpu=H100, stack=STACK) == pytest.approx(expected)


def test_casting_to_8_bits_has_a_rate_of_its_own() -> None:
    """Fitted together with the 8-bit products."""
    cast = MemoryBound(name="cast", moved_bytes=3.35e9, quantises=True)
    known = H100.kernels
    assert known.quantise_fixed_s is not None
    assert known.quantise_efficiency is not None
    expected = known.quantise_fixed_s + 1e-3 / known.quantise_efficiency
    assert kernel_time_s(cast, cluster=cluster_preset("dgx-h100"), stack=STACK) == pytest.approx(expected)


def test_the_slowest_of_more_gpus_is_slower() -> None:
    """One GPU is as fast as the cluster's scale; a thousand wait for the slowest, 3.2 deviations out."""
    cluster = replace(cluster_preset("dgx-h100"), compute_scale=1.0, gpu_speed_deviation=0.01)
    scales = slowest_compute_scale(cluster, np.array([1, 8, 64, 1000]))
    assert np.all(np.diff(np.asarray(scales)) < 0)
    np.testing.assert_allclose(np.asarray(scales)[[0, 3]], [1.0, 1 - 0.01 * 3.24], rtol=1e-3)


@pytest.mark.parametrize("number", [16, 64, 256, 1000])
def test_the_slowest_of_many_is_as_far_out_as_random_draws(number: int) -> None:
    """The closed form of the mean of the smallest of n normal draws, within 4 %."""
    farthest = np.random.default_rng(0).normal(size=(4000, number)).max(axis=1).mean()
    cluster = replace(cluster_preset("dgx-h100"), compute_scale=1.0, gpu_speed_deviation=0.01)
    assert (1.0 - slowest_compute_scale(cluster, number)) / 0.01 == pytest.approx(farthest, rel=0.04)
