"""How long one kernel of fused attention takes on a GPU that does nothing else.

Symbols: b sequences, a heads, g KV heads, d head size, q queries and s keys of a sequence, S multiprocessors, P dense peak
rate, c = cluster.compute_scale, M memory rate, and the coefficients of spec/machines/coefficients.py (e, t0, h, p, w, g, y, r).

Ignored: deterministic backward kernels (up to a fifth slower at head size 128), and that few KV heads let
small forward kernels run up to a quarter faster than their bytes say.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perfmodel.count.operators import CachedAttention, FusedAttention, Matmul, MemoryBound
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric, chosen
from perfmodel.spec.machines.coefficients import AttentionCoefficients, LowAttentionCoefficients
from perfmodel.spec.machines.hardware import Gpu
from perfmodel.spec.phases import DATA_GRADIENT
from perfmodel.spec.precision import has_libraries, operand_bytes, result_format

# over the width of queries, and over that of values. Forward: scores; weighted sum. Backward: the scores again, gradients of
# queries and keys; gradients of values and of what they are weighed with
PRODUCTS = {False: (1, 1), True: (3, 2)}
PASSES = {False: 1, True: 2}  # how often queries, keys, values and output are moved


def fused_attention_time_s(attention: FusedAttention, *, gpu: Gpu, compute_scale: Numeric, library: str = "fastest") -> Numeric:
    """t0 + C*fill + L, with C = b*a*q*(k + h) * 2*n*d/(P*e(d, s)*c) * (1 + C0/t_g)^g.

    Values may be narrower than queries and keys (FusedAttention.widths): d is the mean of both, and each product has its own.
    A query meets k = s/2 keys on average under the causal mask, fewer in a window (FusedAttention.mean_keys), else s; n = 2
    products forward, 5 backward; C0 is C without h.
    causal   fill = (1 + (R/C)^p)^(1/p): R is the longest tile, which one multiprocessor computes alone
    no mask  fill = 1 + w*(ceil(W)/W - 1): W waves of tiles
    L = y * bytes of queries, keys, values and output / (M*e_m), y the share that hides behind no product

    Libraries differ in their coefficients, or in one factor of P*e by head size where their length dependence was not measured.
    Numbers of 4 bytes have one kernel in all of them, and P is the peak rate of the arithmetic that it computes in.
    On numbers of fewer than 16 bits P*e is r(d) times that of 16 bits, h is greater: long sequences gain more than short ones.

    A window shorter than the sequence cuts the keys of a query at both ends: twice h, and R is a tile that meets the window. No
    kernel with a window was measured.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> attention = FusedAttention(
    ...     name="core", sequences=1, heads=64, kv_heads=8, head_size=128, query_length=8192, key_length=8192, precision="bf16"
    ... )
    >>> seconds = fused_attention_time_s(attention, gpu=gpu_preset("h200-sxm-141gb"), compute_scale=1.0)
    >>> round(float(seconds) * 1e3, 2)  # ms; 1.71 were measured
    1.68
    """
    backward = attention.phase == DATA_GRADIENT
    known = gpu.attention(attention.precision, backward=backward, library=library)
    if has_libraries(attention.precision):
        compute_scale = compute_scale * _factor(gpu.attention_library(library).by_head_size, attention.widths / 2.0)
    elif low := gpu.low_attention(attention.precision, backward=backward):
        return low_attention_time_s(attention, known, low, gpu=gpu, compute_scale=compute_scale)
    return plain_attention_time_s(attention, known, gpu=gpu, compute_scale=compute_scale)


def low_attention_time_s(
    attention: FusedAttention,
    known: AttentionCoefficients,
    low: LowAttentionCoefficients,
    *,
    gpu: Gpu,
    compute_scale: Numeric,
) -> Numeric:
    """Attention time [s] on numbers of fewer than 16 bits: `known` is the law that `low` gave, without what depends on d.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> attention = FusedAttention(
    ...     name="core", sequences=2, heads=64, kv_heads=8, head_size=128, query_length=8192, key_length=8192, precision="fp8"
    ... )
    >>> seconds = fused_attention_time_s(attention, gpu=gpu_preset("gb300"), compute_scale=1.0)
    >>> round(float(seconds) * 1e3, 3)  # ms; 0.759 were measured, and 1.185 in bf16
    0.735
    """
    size = attention.widths / 2.0
    keys, scale = _factor(low.sequence_half, size), compute_scale * _factor(low.by_head_size, size)
    halves = {name: getattr(known, name) + keys for name in ("sequence_half", "sequence_half_full")}
    return plain_attention_time_s(attention, with_numbers(known, halves), gpu=gpu, compute_scale=scale)


def plain_attention_time_s(
    attention: FusedAttention, known: AttentionCoefficients, *, gpu: Gpu, compute_scale: Numeric
) -> Numeric:
    """Attention time [s] with given coefficients."""
    size, length = attention.widths / 2.0, attention.key_length
    queries, keys = _pairs(attention)
    extra = known.sequence_half if attention.causal else known.sequence_half_full
    if attention.window is not None:
        extra = extra * chosen(attention.window < length, 2.0, 1.0)
    peak = gpu.peak(gpu.attention_circuits(attention.precision))
    rate = peak * known.efficiency * _factor(known.by_head_size, size) * compute_scale
    if known.by_sequence_length:
        rate = rate * _factor(known.by_sequence_length, length)
    pair_s = _pair_flop(attention) / rate
    plain_s = np.asarray(pair_s * queries * keys)
    compute_s = pair_s * queries * (keys + extra) * np.power(1.0 + plain_s / known.growth_s, np.asarray(known.growth))
    multiprocessors = gpu.streaming_multiprocessors
    if attention.causal:
        longest_s = pair_s * known.longest_rows * multiprocessors * attention.farthest_key
        power = np.asarray(known.fill_power)
        fill = np.power(1.0 + np.power(longest_s / compute_s, power), 1.0 / power)
    else:
        waves = attention.sequences * attention.heads * np.ceil(attention.query_length / known.tile_rows) / multiprocessors
        fill = 1.0 + known.wave_weight * (np.ceil(waves) / waves - 1.0)
    load_s = known.exposed_load * attention_bytes(attention) / (gpu.memory_bandwidth_bytes_per_s * known.memory_efficiency)
    seconds: Numeric = known.fixed_s + compute_s * fill + load_s
    return seconds


def arithmetic_of(
    operator: Matmul | FusedAttention | CachedAttention | KeyChoice | SparseAttention | MemoryBound, gpu: Gpu
) -> str:
    """The format whose peak rate bounds a kernel: of its operands, or of what fused attention makes of them."""
    return gpu.attention_circuits(operator.precision) if isinstance(operator, FusedAttention) else operator.precision


def _pairs(attention: FusedAttention) -> tuple[Numeric, Numeric]:
    """Queries, and how many keys each of them meets on average."""
    return attention.sequences * attention.heads * attention.query_length, attention.mean_keys


def _pair_flop(attention: FusedAttention) -> Numeric:
    """FLOPs of one query with one key: products over the width of a query, and over that of a value."""
    of_queries, of_values = PRODUCTS[attention.phase == DATA_GRADIENT]
    return 2.0 * (of_queries * attention.head_size + of_values * _value_size(attention))


def _value_size(attention: FusedAttention) -> Numeric:
    """Numbers of a value of one head."""
    return attention.head_size if attention.value_size is None else attention.value_size


def executed_flop(attention: FusedAttention) -> Numeric:
    """2*n*d * b*a*q*k: what the kernel computes, without what the mask hides, with the scores that it forms again.

    >>> attention = FusedAttention(
    ...     name="core", sequences=1, heads=2, kv_heads=2, head_size=64, query_length=512, key_length=512, precision="bf16"
    ... )
    >>> executed_flop(attention) / attention.flop  # the convention counts the whole square
    0.5
    """
    queries, keys = _pairs(attention)
    return _pair_flop(attention) * queries * keys


def attention_bytes(attention: FusedAttention) -> Numeric:
    """Queries, keys, values and output moved once, with their gradients twice; the output in 16 bits at least."""
    queries = attention.heads * attention.query_length
    rows = queries + attention.kv_heads * attention.key_length
    passes, size = PASSES[attention.phase == DATA_GRADIENT], operand_bytes(attention.precision)
    moved: Numeric = size * passes * attention.sequences * rows * attention.widths
    wider = operand_bytes(result_format(attention.precision)) - size
    return moved + wider * passes * attention.sequences * queries * _value_size(attention) if wider else moved


def _factor(by_size: Mapping[str, Numeric], size: Numeric) -> Numeric:
    """The value at `size`: a straight line between the logarithms of the known ones, and level beyond them."""
    sizes = sorted(by_size, key=int)
    points = np.log2([float(each) for each in sizes])
    values = np.log([float(by_size[each]) for each in sizes])
    factor: Numeric = np.exp(np.interp(np.log2(np.asarray(size, dtype=np.float64)), points, values))
    return factor
