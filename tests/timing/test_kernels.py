"""Do kernel times have the right limits, grow where they should, and come near published rates?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import FusedAttention, Matmul, MemoryBound, Operator, gradients
from perfmodel.exchange.presets import cluster_preset, gpu_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.coefficients import MatmulCoefficients, Tile
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.timing.kernels import (
    _compute_s,
    kernel_time_s,
    matmul_bytes,
    matmul_time_s,
    memory_bound_time_s,
    plain_matmul_time_s,
    slowest_compute_scale,
)
from tests.stacks import stack_with

H100 = gpu_preset("h100-sxm-80gb")
A100 = gpu_preset("a100-sxm-80gb")
CLUSTER = cluster_preset("dgx-h100")
KNOWN = H100.kernels.matmul["bf16"]
ONE_TILE = replace(KNOWN, tiles=(Tile(rows=128, columns=256, rate=1.0),))
STACK = stack_with(
    stack_preset("megatron-core"),
    {"host.clock_scale": 1.0, "low_precision.clock_scale": 1.0, "fusion.attention_library": "fastest"},
)
SQUARE = Matmul(name="square", rows=8192, columns=8192, inner=8192, precision="bf16")
ATTENTION = FusedAttention(
    name="core", sequences=1, heads=32, kv_heads=8, head_size=128, query_length=4096, key_length=4096, precision="bf16"
)


def rate(product: Matmul, gpu: str) -> float:
    """Achieved FLOP/s of a product at burst clocks."""
    return float(product.flop / matmul_time_s(product, gpu=gpu_preset(gpu), compute_scale=1.0))


def computing_s(known: MatmulCoefficients, *, gpu: Gpu = H100, **changes: Any) -> Numeric:
    """The computing part of the square product, changed."""
    return _compute_s(replace(SQUARE, **changes), known, gpu=gpu, compute_scale=1.0, sustained=False)


def alone_s(operator: Operator, changes: Mapping[str, Any] | None = None) -> Numeric:
    """The time of a kernel on the cluster, under a changed stack."""
    assert isinstance(operator, Matmul | FusedAttention | MemoryBound)
    return kernel_time_s(operator, cluster=CLUSTER, stack=stack_with(STACK, changes or {}))


def test_a_large_product_comes_near_the_measured_rate() -> None:
    """H100, 8192 cubed: 798 TFLOP/s (FACTS, section 3)."""
    assert rate(SQUARE, "h100-sxm-80gb") == pytest.approx(798e12, rel=0.1)


@pytest.mark.parametrize(("gpu", "largest"), [("h100-sxm-80gb", 794e12), ("a100-sxm-80gb", 271e12), ("b200", 1745e12)])
@given(shape=st.tuples(*[st.sampled_from([1024, 4096, 8192, 16384, 65536])] * 3))
def test_no_product_is_faster_than_anyone_ever_measured(gpu: str, largest: float, shape: tuple[int, int, int]) -> None:
    """The largest rates that anyone reports, with the error of the fit."""
    product = Matmul(name="any", rows=shape[0], columns=shape[1], inner=shape[2], precision="bf16")
    assert rate(product, gpu) < 1.05 * largest


@given(
    gpu=st.sampled_from(["h100-sxm-80gb", "a100-sxm-80gb", "b200"]),
    shape=st.tuples(*[st.integers(1, 70000)] * 3),
    batch=st.sampled_from([1, 3, 64]),
)
def test_no_product_is_faster_than_its_best_tile(gpu: str, shape: tuple[int, int, int], batch: int) -> None:
    """P * e * rate: tiles, splits and waves only ever cost."""
    spec = gpu_preset(gpu)
    known = spec.matmul("bf16")
    product = Matmul(name="any", rows=shape[0], columns=shape[1], inner=shape[2], batch=batch, precision="bf16")
    fastest = spec.peak("bf16") * known.efficiency * max(float(tile.rate) for tile in known.tiles)
    assert rate(product, gpu) <= fastest * (1 + 1e-12)


def test_a_product_of_nothing_takes_the_time_of_one_kernel() -> None:
    """t0 remains."""
    tiny = replace(SQUARE, rows=1, columns=1, inner=1)
    assert matmul_time_s(tiny, gpu=H100, compute_scale=1.0) == pytest.approx(KNOWN.fixed_s, rel=0.06)


def test_a_thin_product_is_bound_by_its_operands() -> None:
    """One row: the weights are read once at the rate of the memory, and what little is computed hides behind that."""
    thin = replace(SQUARE, rows=1, columns=65536, inner=65536)
    load_s = matmul_bytes(thin) / (KNOWN.memory_efficiency * H100.memory_bandwidth_bytes_per_s)
    assert matmul_time_s(thin, gpu=H100, compute_scale=1.0) == pytest.approx(load_s, rel=0.05)


@given(st.tuples(*[st.sampled_from([128, 512, 2048, 8192])] * 3))
def test_computing_and_loading_take_between_the_longer_and_their_sum(shape: tuple[int, int, int]) -> None:
    """A power mean of the two: neither is ever hidden more than whole."""
    product = replace(SQUARE, rows=shape[0], columns=shape[1], inner=shape[2])
    known = replace(KNOWN, cached_share=0.0)
    compute_s = _compute_s(product, known, gpu=H100, compute_scale=1.0, sustained=False)
    load_s = matmul_bytes(product) / (KNOWN.memory_efficiency * H100.memory_bandwidth_bytes_per_s)
    together_s = plain_matmul_time_s(product, known, gpu=H100, compute_scale=1.0) - KNOWN.fixed_s
    assert max(compute_s, load_s) * (1 - 1e-9) <= together_s <= (compute_s + load_s) * (1 + 1e-9)


@pytest.mark.parametrize(("rows", "inner"), [(8192, 8192), (128, 65536), (300, 20000)])
def test_twice_as_many_products_take_as_long_on_twice_the_gpu(rows: int, inner: int) -> None:
    """Split or not: twice the multiprocessors, rate and bandwidth for a batch of two."""
    twice = replace(
        H100,
        streaming_multiprocessors=2 * H100.streaming_multiprocessors,
        memory_bandwidth_bytes_per_s=2 * H100.memory_bandwidth_bytes_per_s,
        peak_flop_per_s={name: 2 * peak for name, peak in H100.peak_flop_per_s.items()},
    )
    sizes: dict[str, Any] = {"rows": rows, "columns": rows, "inner": inner}
    assert computing_s(KNOWN, gpu=twice, batch=2, **sizes) == pytest.approx(computing_s(KNOWN, **sizes), rel=1e-12)


@pytest.mark.parametrize(("megabytes", "saved"), [(0.01, 1.0), (70.0, 0.5), (140.0, 1 / 17), (7000.0, 0.0)])
def test_a_left_operand_that_fits_the_cache_is_not_loaded(megabytes: float, saved: float) -> None:
    """Its share when it is small, half of that at 0.7 of the cache, 1/(1 + 2^4) at twice as much, nothing far beyond."""
    product = replace(SQUARE, rows=4, inner=megabytes * 1e6 / 2 / 4)  # bound by its operands
    gpu = replace(H100, cache_bytes=100e6)
    known = replace(KNOWN, cached_share=0.8, fixed_s=0.0, overlap_power=50)
    with_s, without_s = (
        plain_matmul_time_s(product, each, gpu=gpu, compute_scale=1e9) for each in (known, replace(known, cached_share=0.0))
    )
    left_s = megabytes * 1e6 / (H100.memory_bandwidth_bytes_per_s * KNOWN.memory_efficiency)
    assert without_s - with_s == pytest.approx(0.8 * saved * left_s, rel=1e-3, abs=1e-6 * float(left_s))


@given(
    st.integers(6, 16),
    st.sampled_from(["rows", "columns", "inner"]),
    st.sampled_from([("h100-sxm-80gb", "bf16"), ("h100-sxm-80gb", "fp8"), ("a100-sxm-80gb", "bf16"), ("b200", "fp8")]),
)
def test_a_product_twice_as_large_never_takes_less_time(power: int, side: str, known: tuple[str, str]) -> None:
    """Along each of its three sides."""
    small, large = (replace(SQUARE, precision=known[1], **{side: 2**each}) for each in (power, power + 1))
    assert small.flop / rate(small, known[0]) <= large.flop / rate(large, known[0])


def test_a_large_product_without_its_losses_runs_at_its_efficiency() -> None:
    """P * e, once nothing is idle, padded, split or slowed down and the prologue is long past: F / (P * e)."""
    plain = replace(ONE_TILE, slowdown=0.0, k_half=0.0)
    filled: dict[str, Any] = {"rows": 128 * H100.streaming_multiprocessors, "columns": 256}
    assert computing_s(plain, **filled) == pytest.approx(
        replace(SQUARE, **filled).flop / (H100.peak("bf16") * plain.efficiency)
    )


def test_a_product_as_deep_as_its_prologue_takes_twice_its_time() -> None:
    """1 + k0/k: 2 at k = k0."""
    plain = replace(ONE_TILE, slowdown=0.0, k_half=512.0)
    filled: dict[str, Any] = {"rows": 128 * H100.streaming_multiprocessors, "columns": 256, "inner": 512}
    assert computing_s(plain, **filled) == pytest.approx(2 * computing_s(replace(plain, k_half=0.0), **filled))


def test_the_library_chooses_the_fastest_of_its_tiles() -> None:
    """The time with all tiles and splits is the least of the times with each alone."""
    for rows, inner in ((129, 8192), (8192, 512), (1000, 65536)):
        apart = [computing_s(replace(KNOWN, tiles=(tile,)), rows=rows, inner=inner) for tile in KNOWN.tiles]
        assert computing_s(KNOWN, rows=rows, inner=inner) == min(apart)


def test_a_tile_may_lie_on_its_side() -> None:
    """Rows and columns of the result are exchanged without a change: 129 rows take one tile 256 high, not two of 128."""
    upright, lying = (computing_s(ONE_TILE, rows=r, columns=c) for r, c in ((129, 256 * 132), (256 * 132, 129)))
    assert upright == lying


def test_splits_do_not_help_full_waves() -> None:
    """Every multiprocessor has a tile: partial sums would only cost."""
    full: dict[str, Any] = {"rows": 128 * H100.streaming_multiprocessors, "columns": 256, "inner": 65536}
    assert computing_s(replace(ONE_TILE, most_splits=6), **full) == computing_s(replace(ONE_TILE, most_splits=1), **full)


def test_two_partial_sums_fill_a_half_empty_gpu() -> None:
    """Half a wave: cut in two it runs twice as fast, less a second prologue, and 8 bytes of a number written and read."""
    half: dict[str, Any] = {"rows": 128 * H100.streaming_multiprocessors // 2, "columns": 256, "inner": 65536}
    known = replace(ONE_TILE, fill_weight=1.0, k_half=100.0, split_traffic=2.0, slowdown=0.0)
    whole_s, cut_s = (computing_s(replace(known, most_splits=most), **half) for most in (1, 2))
    sums_s = 2.0 * 8 * half["rows"] * 256 / H100.memory_bandwidth_bytes_per_s
    assert cut_s == pytest.approx(whole_s / 2 * (1 + 200 / 65536) / (1 + 100 / 65536) + sums_s)


def test_short_products_are_not_split() -> None:
    """Writing and reading partial sums costs more than idle multiprocessors."""
    short: dict[str, Any] = {"rows": 128 * H100.streaming_multiprocessors // 2, "columns": 256, "inner": 64}
    known = replace(ONE_TILE, split_traffic=1.0)
    assert computing_s(known, **short) == computing_s(replace(known, most_splits=1), **short)


@given(st.tuples(*[st.integers(1, 20000)] * 3))
def test_more_choice_never_costs(shape: tuple[int, int, int]) -> None:
    """More splits and more tiles only ever lower the least."""
    sizes: dict[str, Any] = dict(zip(("rows", "columns", "inner"), shape, strict=True))
    none, splits, both = (
        computing_s(known, **sizes) for known in (replace(ONE_TILE, most_splits=1), ONE_TILE, replace(KNOWN, most_splits=8))
    )
    assert none >= splits >= both


def test_the_power_limit_slows_long_kernels_down() -> None:
    """Nothing is lost of a short kernel, half of g by one of t_g, 2^4/(1 + 2^4) by one of 2 t_g, all of g in the limit."""
    free = replace(KNOWN, slowdown=0.0)
    free_s = computing_s(free)
    for limit_s, expected in ((1e3 * free_s, 1.0), (free_s, 1.1), (free_s / 2, 1 + 0.2 * 16 / 17), (1e-3 * free_s, 1.2)):
        slow_s = computing_s(replace(KNOWN, slowdown=0.2, slowdown_s=limit_s))
        assert slow_s / free_s == pytest.approx(expected)


def test_a_product_by_itself_ends_before_the_power_limit_takes_hold() -> None:
    """Unless a load is said to be sustained, one far shorter than t_g loses nothing."""
    free, slow = replace(KNOWN, slowdown=0.0), replace(KNOWN, slowdown=0.2, slowdown_s=1e3)
    free_s, slow_s = (plain_matmul_time_s(SQUARE, each, gpu=H100, compute_scale=1.0) for each in (free, slow))
    assert slow_s == pytest.approx(free_s, rel=1e-12)
    assert plain_matmul_time_s(SQUARE, slow, gpu=H100, compute_scale=1.0, sustained=True) > 1.1 * free_s


def test_tiles_beyond_the_matrix_cost_their_weight() -> None:
    """One row over a tile of 128: nearly twice the tiles, of which the weighted share is computed for nothing."""
    sizes: dict[str, Any] = {"rows": 129, "columns": 256 * H100.streaming_multiprocessors}
    one = replace(ONE_TILE, most_splits=1, slowdown=0.0)
    with_s, without_s = (computing_s(each, **sizes) for each in (one, replace(one, padding_weight=0.0)))
    assert with_s == pytest.approx((1 + KNOWN.padding_weight * (256 / 129 - 1)) * without_s)


def test_waves_cost_more_where_their_tail_is_idle() -> None:
    """A100, 108 SMs: 109 tiles take two waves."""
    full = Matmul(name="full", rows=128 * 108, columns=256, inner=4096, precision="bf16")
    more = replace(full, rows=128 * 109)
    per_row = [matmul_time_s(p, gpu=A100, compute_scale=1.0) / p.rows for p in (full, more)]
    assert per_row[1] > 1.2 * per_row[0]


def test_idle_multiprocessors_cost_their_weight_and_another_in_the_first_wave() -> None:
    """1.5 waves leave a third of two idle, w * (2/1.5 - 1); half a wave leaves half of one, v * (1/0.5 - 1)."""
    known = replace(ONE_TILE, most_splits=1, wave_weight=0.4, fill_weight=0.9, slowdown=0.0)
    half = 128 * H100.streaming_multiprocessors // 2
    full_s, more_s, half_s = (computing_s(known, rows=rows, columns=256) for rows in (2 * half, 3 * half, half))
    assert more_s / full_s == pytest.approx(1.5 * (1 + 0.4 / 3))
    assert half_s / full_s == pytest.approx(0.5 * (1 + 0.9))


def test_a_slower_cluster_takes_longer_in_proportion() -> None:
    """The scalar divides all that the SMs compute."""
    free = replace(KNOWN, slowdown=0.0)
    slow_s, fast_s = (_compute_s(SQUARE, free, gpu=H100, compute_scale=scale, sustained=False) for scale in (0.5, 1.0))
    assert slow_s == pytest.approx(2 * fast_s)


def test_both_16_bit_precisions_run_on_the_same_circuits() -> None:
    """Products in fp16 take what those in bf16 take, on GPUs whose peaks are the same."""
    half = matmul_time_s(replace(SQUARE, precision="fp16"), gpu=H100, compute_scale=1.0)
    assert half == matmul_time_s(SQUARE, gpu=H100, compute_scale=1.0)


def test_arrays_of_sizes_and_coefficients_give_what_a_loop_gives() -> None:
    """Shapes of their own, under coefficients of their own, bit for bit."""
    rows, inner = np.array([1, 129, 8192, 20000]), np.array([8192, 512, 4096, 77])
    factors = np.array([1.0, 0.9, 1.1])
    names = ("efficiency", "k_half", "fill_weight", "padding_weight", "split_traffic", "slowdown", "slowdown_s", "cached_share")
    known = replace(KNOWN, fill_weight=0.8, padding_weight=0.3)
    many = replace(known, **{name: getattr(known, name) * factors[:, None] for name in names})
    together = plain_matmul_time_s(replace(SQUARE, rows=rows, inner=inner), many, gpu=H100, compute_scale=0.9)
    assert np.shape(together) == (3, 4)
    for index, value in np.ndenumerate(np.asarray(together)):
        one = replace(known, **{name: getattr(known, name) * factors[index[0]] for name in names})
        product = replace(SQUARE, rows=int(rows[index[1]]), inner=int(inner[index[1]]))
        assert value == plain_matmul_time_s(product, one, gpu=H100, compute_scale=0.9)


def test_adding_to_an_fp32_gradient_costs_its_factor() -> None:
    """Some percent; a gradient in bf16 costs nothing more."""
    product = replace(SQUARE, phase=WEIGHT_GRADIENT, weight_gradient_bytes=4)
    plain = matmul_time_s(replace(product, weight_gradient_bytes=2), gpu=H100, compute_scale=1.0)
    assert matmul_time_s(product, gpu=H100, compute_scale=1.0) == pytest.approx(KNOWN.weight_gradient_factor * plain, rel=1e-3)


def test_what_says_nothing_of_gradients_moves_nothing_for_them() -> None:
    """A product without a gradient of its own writes none, and what only reads, as a step of an optimizer, has no way back."""
    _, weight = gradients(SQUARE)
    assert isinstance(weight, Matmul)
    assert matmul_bytes(weight) == 2 * 8192 * 2 * 8192  # both operands in 16 bits
    (back,) = gradients(MemoryBound(name="step", moved_bytes=1e6))
    assert isinstance(back, MemoryBound)
    assert back.moved_bytes == 0


def test_a_weight_gradient_that_is_added_by_another_kernel_costs_what_any_product_costs() -> None:
    """It writes 2 bytes a number and reads none back, whatever the gradient is kept in."""
    apart = replace(SQUARE, phase=WEIGHT_GRADIENT, weight_gradient_bytes=4, accumulates=False)
    assert matmul_bytes(apart) == matmul_bytes(SQUARE) == 3 * 2 * 8192**2
    assert matmul_bytes(replace(apart, accumulates=True)) == (2 * 2 + 2 * 4) * 8192**2
    assert matmul_time_s(apart, gpu=H100, compute_scale=1.0) == matmul_time_s(SQUARE, gpu=H100, compute_scale=1.0)


@pytest.mark.parametrize("family", ["norm", "elementwise", "optimizer", "cast"])
def test_a_memory_bound_operator_takes_its_bytes_over_the_rate_of_its_class(family: str) -> None:
    """And the start of each kernel; 1 ms of the datasheet's memory rate."""
    operator = MemoryBound(name="any", family=family, moved_bytes=3.35e9, kernels=2)
    known = H100.kernels.memory_bound["fused" if family == "norm" else family]
    expected = 2 * known.fixed_s + 1e-3 / known.efficiency
    assert memory_bound_time_s(operator, gpu=H100, stack=STACK) == pytest.approx(expected)


@pytest.mark.parametrize("norm_kernels", ["fused", "compiled", "eager"])
def test_norms_are_as_fast_as_the_kernels_of_the_stack(norm_kernels: str) -> None:
    """Backwards with coefficients of their own; no other operator cares."""
    norm = MemoryBound(name="norm", family="norm", moved_bytes=3.35e9, backward_bytes=3.35e9)
    known = H100.kernels.memory_bound[norm_kernels]
    forward_s, backward_s = (alone_s(each, {"fusion.norms": norm_kernels}) for each in (norm, *gradients(norm)))
    assert forward_s == pytest.approx(known.fixed_s + 1e-3 / known.efficiency)
    assert backward_s == pytest.approx(known.backward_fixed_s + 1e-3 / known.backward_efficiency)
    chain = replace(norm, family="elementwise")
    assert alone_s(chain, {"fusion.norms": norm_kernels}) == alone_s(chain)


def test_eager_norms_are_slower_than_fused_ones() -> None:
    """Both ways, for the stream of a large model."""
    norm = MemoryBound(name="norm", family="norm", moved_bytes=1e9, backward_bytes=1.5e9)
    for each in (norm, *gradients(norm)):
        assert alone_s(each, {"fusion.norms": "eager"}) > 1.1 * alone_s(each, {"fusion.norms": "fused"})


def test_higher_clocks_raise_16_bit_kernels_alone() -> None:
    """Products and attention run as on a faster cluster; 8-bit products, bound by memory, and other kernels do not."""
    faster = replace(CLUSTER, compute_scale=1.25 * CLUSTER.compute_scale)
    eight_bit, norm = replace(SQUARE, precision="fp8"), MemoryBound(name="norm", family="norm", moved_bytes=1e9)
    for raised in (SQUARE, ATTENTION, replace(ATTENTION, phase=DATA_GRADIENT), replace(SQUARE, precision="fp16")):
        assert (
            alone_s(raised, {"host.clock_scale": 1.25}) == kernel_time_s(raised, cluster=faster, stack=STACK) < alone_s(raised)
        )
    for other in (eight_bit, norm):
        assert alone_s(other, {"host.clock_scale": 1.25}) == alone_s(other)


def test_8_bit_products_have_clocks_of_their_own() -> None:
    """What the settings of a stack do to them says nothing of 16-bit ones."""
    faster = replace(CLUSTER, compute_scale=1.25 * CLUSTER.compute_scale)
    eight_bit = replace(SQUARE, precision="fp8")
    assert alone_s(eight_bit, {"low_precision.clock_scale": 1.25}) == kernel_time_s(eight_bit, cluster=faster, stack=STACK)
    assert alone_s(SQUARE, {"low_precision.clock_scale": 1.25}) == alone_s(SQUARE)


def test_attention_is_as_fast_as_the_library_of_the_stack() -> None:
    """FlashAttention-2 does not use the instructions of Hopper; products do not care."""
    assert alone_s(ATTENTION, {"fusion.attention_library": "flash2"}) > 1.2 * alone_s(
        ATTENTION, {"fusion.attention_library": "fastest"}
    )
    assert alone_s(SQUARE, {"fusion.attention_library": "flash2"}) == alone_s(SQUARE, {"fusion.attention_library": "fastest"})


def test_the_slowest_of_more_gpus_is_slower() -> None:
    """One GPU is as fast as the cluster's scale; a thousand wait for the slowest, 3.2 deviations out."""
    cluster = replace(CLUSTER, compute_scale=1.0, gpu_speed_deviation=0.01)
    scales = slowest_compute_scale(cluster, np.array([1, 8, 64, 1000]))
    assert np.all(np.diff(np.asarray(scales)) < 0)
    np.testing.assert_allclose(np.asarray(scales)[[0, 3]], [1.0, 1 - 0.01 * 3.24], rtol=1e-3)


@pytest.mark.parametrize("number", [16, 64, 256, 1000])
def test_the_slowest_of_many_is_as_far_out_as_random_draws(number: int) -> None:
    """The closed form of the mean of the smallest of n normal draws, within 4 %."""
    farthest = np.random.default_rng(0).normal(size=(4000, number)).max(axis=1).mean()
    cluster = replace(CLUSTER, compute_scale=1.0, gpu_speed_deviation=0.01)
    assert (1.0 - slowest_compute_scale(cluster, number)) / 0.01 == pytest.approx(farthest, rel=0.04)
