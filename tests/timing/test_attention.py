"""Does fused attention have the right limits: masks, directions, few heads, grouped KV heads, head sizes, long kernels?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import FusedAttention
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import gpu_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.coefficients import AttentionCoefficients, AttentionLibrary
from perfmodel.spec.phases import DATA_GRADIENT, RECOMPUTE
from perfmodel.timing.attention import _factor, fused_attention_time_s, plain_attention_time_s

H100 = gpu_preset("h100-sxm-80gb")
ENDLESS_MEMORY = replace(H100, memory_bandwidth_bytes_per_s=1e29)
SMS = H100.streaming_multiprocessors
# the equation without its kernel start and power limit, and the same work for every key
PLAIN = replace(H100.kernels.attention_forward, fixed_s=0.0, growth=0.0, sequence_half=0.0, sequence_half_full=0.0)
ATTENTION = FusedAttention(
    name="layer.attention.core",
    sequences=1,
    heads=32,
    kv_heads=32,
    head_size=128,
    query_length=8192,
    key_length=8192,
    precision="bf16",
)
GPUS = ["h100-sxm-80gb", "h200-sxm-141gb", "b200", "gb200", "a100-sxm-80gb"]


def square(length: Numeric, **changes: Any) -> dict[str, Any]:
    """Changes that give a sequence as many queries as keys."""
    return {"query_length": length, "key_length": length, **changes}


def seconds(gpu: str = "h100-sxm-80gb", *, scale: Numeric = 1.0, **changes: Any) -> Numeric:
    """The time of the example, changed, on a GPU as shipped."""
    return fused_attention_time_s(replace(ATTENTION, **changes), gpu=gpu_preset(gpu), compute_scale=scale)


def computing_s(known: AttentionCoefficients = PLAIN, **changes: Any) -> Numeric:
    """The time of the example, changed, on a GPU whose memory takes none."""
    return plain_attention_time_s(replace(ATTENTION, **changes), known, gpu=ENDLESS_MEMORY, compute_scale=1.0)


@pytest.mark.parametrize(("length", "flash3"), [(2048, 0.50), (8192, 0.62), (16384, 0.65)])
def test_attention_on_h100_is_near_flash_attention_3(length: int, flash3: float) -> None:
    """Causal, head 128, forward, as a share of the peak; read off arXiv:2407.08608, figure 5, to some 10 %."""
    attention = replace(ATTENTION, **square(length, sequences=16384 // length))
    reached = attention.flop / 2 / fused_attention_time_s(attention, gpu=H100, compute_scale=1.0)
    assert reached / 989.4e12 == pytest.approx(flash3, rel=0.2)


@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("phase", ["forward", DATA_GRADIENT])
def test_a_causal_mask_saves_half_of_a_long_sequence(gpu: str, phase: str) -> None:
    """A query meets s/2 keys on average; what each costs beyond its keys is nothing over half a million of them."""
    causal, full = (seconds(gpu, **square(2**19, phase=phase, causal=causal)) for causal in (True, False))
    assert causal / full == pytest.approx(0.5, rel=0.08)


def test_a_causal_mask_saves_exactly_half_of_the_pairs() -> None:
    """With the same work for every key, and enough heads to fill the GPU."""
    full = computing_s(heads=SMS * 64, causal=False)
    assert computing_s(replace(PLAIN, longest_rows=0.0), heads=SMS * 64) == pytest.approx(full / 2)


def test_the_backward_kernel_forms_five_products_where_the_forward_one_forms_two() -> None:
    """So at the same rate it takes 2.5 times as long."""
    forward, backward = (computing_s(phase=phase) for phase in ("forward", DATA_GRADIENT))
    assert backward == pytest.approx(2.5 * forward)


@pytest.mark.parametrize("gpu", GPUS)
def test_backward_attention_takes_about_three_times_as_long(gpu: str) -> None:
    """2.5 times the products, at a somewhat lower rate (arXiv:2407.08608, figures 5 and 6)."""
    assert 2.4 < seconds(gpu, phase=DATA_GRADIENT) / seconds(gpu) < 3.5


def test_queries_and_keys_need_not_be_of_the_same_tokens() -> None:
    """A ring's kernel over half of the keys forms half of the pairs, and so does one of half of the queries."""
    many: dict[str, Any] = {"heads": SMS * 64, "causal": False}
    whole = computing_s(**many)
    assert computing_s(**many, key_length=4096) == pytest.approx(whole / 2)
    assert computing_s(**many, query_length=4096) == pytest.approx(whole / 2)


@pytest.mark.parametrize(("size", "rate"), [(64, 0.5), (128, 0.25), (256, 0.25)])
def test_another_library_is_slower_by_what_is_known_of_it(size: int, rate: float) -> None:
    """As on a cluster whose clocks are that much lower: head size by head size, the last one beyond."""
    libraries = {**H100.attention_libraries, "triton": AttentionLibrary(by_head_size={"64": 0.5, "128": 0.25})}
    gpu, attention = replace(H100, attention_libraries=libraries), replace(ATTENTION, head_size=size)
    slow = fused_attention_time_s(attention, gpu=gpu, compute_scale=1.0, library="triton")
    assert slow == pytest.approx(fused_attention_time_s(attention, gpu=gpu, compute_scale=rate))


def test_a_library_that_nobody_measured_on_a_gpu_is_not_guessed() -> None:
    """Sound input, but no number."""
    gpu = replace(H100, attention_libraries={"fastest": AttentionLibrary(by_head_size={"128": 1.0})})
    with pytest.raises(NotSupportedError, match="no triton attention is known on H100 SXM 80GB; fastest are"):
        fused_attention_time_s(ATTENTION, gpu=gpu, compute_scale=1.0, library="triton")


def test_attention_that_runs_again_takes_as_long_as_the_first_time() -> None:
    """Recompute is a forward kernel."""
    assert seconds(phase=RECOMPUTE) == seconds()


def test_head_sizes_between_known_ones_lie_on_a_line_of_logarithms() -> None:
    """Known ones as they are, their geometric mean at the geometric mean, and the last one beyond."""
    known = replace(PLAIN, by_head_size={"64": 0.5, "128": 1.0, "256": 1.2})
    sizes = np.array([32, 64, 64 * 2**0.5, 128, 256, 512])
    assert _factor(known.by_head_size, sizes) == pytest.approx([0.5, 0.5, 0.5**0.5, 1.0, 1.2, 1.2])


def test_a_head_twice_as_large_at_half_the_efficiency_takes_four_times_as_long() -> None:
    """Time goes as the head size over the efficiency at that size."""
    known = replace(PLAIN, by_head_size={"128": 1.0, "256": 0.5})
    assert computing_s(known, head_size=256) == pytest.approx(4 * computing_s(known))


def test_a_lone_causal_head_takes_the_time_of_its_longest_tile() -> None:
    """One multiprocessor computes longest_rows queries with all keys, alone: the time of that share of a full wave."""
    alone = computing_s(**square(1024, heads=1))
    rate = H100.peak("bf16") * PLAIN.efficiency
    longest_s = 4 * PLAIN.longest_rows * 1024 * 128 / (rate / SMS)
    assert alone == pytest.approx(longest_s, rel=0.01)
    assert computing_s(**square(1024, heads=2)) == pytest.approx(alone, rel=0.03)


def test_many_causal_heads_share_the_gpu() -> None:
    """Where the longest tile is nothing, time goes as the heads."""
    few, many = (computing_s(**square(65536, heads=heads)) for heads in (1024, 2048))
    assert many == pytest.approx(2 * few, rel=1e-3)


def test_waves_without_a_mask_cost_their_weight() -> None:
    """Heads of one tile each: as many as multiprocessors fill them; of half as many, idle ones cost their weight."""
    full, half = (computing_s(**square(128, heads=heads, causal=False)) for heads in (SMS, SMS // 2))
    assert half == pytest.approx((1 + PLAIN.wave_weight) * full / 2)


def test_grouped_kv_heads_save_bytes_and_nothing_else() -> None:
    """Two tensors of 2 bytes a number less, read once forwards and read and written backwards, for each head that is gone."""
    saved_bytes = 2 * 2 * 8192 * 24 * 128
    for phase, passes in (("forward", 1), (DATA_GRADIENT, 2)):
        saved_s = seconds(phase=phase) - seconds(phase=phase, kv_heads=8)
        rate = H100.memory_bandwidth_bytes_per_s * H100.kernels.attention_forward.memory_efficiency
        assert saved_s == pytest.approx(passes * saved_bytes / rate, rel=1e-6)
        assert computing_s(phase=phase) == computing_s(phase=phase, kv_heads=8)


def test_long_kernels_slow_down() -> None:
    """(1 + C0/t_g)^g: nothing for a kernel that is short against t_g, 2^g for one of t_g, 4^g for one of 3 t_g."""
    full_waves: dict[str, Any] = {"heads": SMS, "causal": False}
    plain_s = computing_s(**full_waves)
    for growth_s, expected in ((1e6 * plain_s, 1.0), (plain_s, 2**0.05), (plain_s / 3, 4**0.05)):
        grown_s = computing_s(replace(PLAIN, growth=0.05, growth_s=growth_s), **full_waves)
        assert grown_s == pytest.approx(expected * plain_s)


def test_nothing_to_attend_to_takes_the_start_of_a_kernel() -> None:
    """t0 remains."""
    fixed_s = H100.kernels.attention_forward.fixed_s
    assert seconds(**square(1, heads=1e-6, kv_heads=1e-6)) == pytest.approx(fixed_s, rel=0.01)


@given(
    st.sampled_from(["heads", "sequences", "query_length", "key_length"]),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from(["forward", DATA_GRADIENT]),
    st.sampled_from(GPUS),
)
def test_more_to_attend_to_never_takes_less_time(side: str, power: int, causal: bool, phase: str, gpu: str) -> None:
    """Twice the heads, sequences, queries or keys."""
    start = 128 if side.endswith("length") else 1
    small, large = (seconds(gpu, causal=causal, phase=phase, **{side: start * 2**each}) for each in (power, power + 1))
    assert small <= large


def test_arrays_of_sizes_and_coefficients_give_what_a_loop_gives() -> None:
    """Heads and lengths of their own, under coefficients of their own."""
    heads, lengths = np.array([1, 32, 48]), np.array([512, 8192, 100])
    factors = np.array([[1.0], [0.5]])
    known = replace(H100.kernels.attention_forward, efficiency=0.7 * factors, fill_power=3 * factors)
    together = plain_attention_time_s(replace(ATTENTION, **square(lengths, heads=heads)), known, gpu=H100, compute_scale=0.9)
    assert np.shape(together) == (2, 3)
    for row, factor in enumerate((1.0, 0.5)):
        for column in range(3):
            one = replace(known, efficiency=0.7 * factor, fill_power=3 * factor)
            attention = replace(ATTENTION, **square(int(lengths[column]), heads=int(heads[column])))
            alone = plain_attention_time_s(attention, one, gpu=H100, compute_scale=0.9)
            assert np.asarray(together)[row, column] == alone
