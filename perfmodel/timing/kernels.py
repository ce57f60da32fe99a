"""How long one kernel takes on a GPU that does nothing else.

Symbols: F = flop of the kernel, P = dense peak rate, c = cluster.compute_scale, M = memory rate, and the coefficients of
spec/coefficients.py (e, t0, k0, w, v, z, g, p).

Ignored: L2 reuse between kernels (matters below some 50 MB), clocks that change within a kernel, shapes that are no
multiple of 8 (a slower kernel family).
"""

from __future__ import annotations

from typing import assert_never

import numpy as np

from perfmodel.count.operators import DATA_GRADIENT, WEIGHT_GRADIENT, FusedAttention, Matmul, MemoryBound
from perfmodel.spec.coefficients import MatmulCoefficients
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster, Gpu
from perfmodel.spec.stack import SoftwareStack

OPERAND_BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}
RESULT_BYTES = 2
FP32_BYTES = 4
NEAR = 0.6  # b of slowest_compute_scale: a property of the normal distribution, not of hardware


def kernel_time_s(operator: Matmul | FusedAttention | MemoryBound, *, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """Time [s] of one execution of `operator`."""
    match operator:
        case Matmul():
            return matmul_time_s(operator, gpu=cluster.gpu, compute_scale=cluster.compute_scale)
        case FusedAttention():
            return fused_attention_time_s(operator, gpu=cluster.gpu, compute_scale=cluster.compute_scale)
        case MemoryBound():
            return memory_bound_time_s(operator, gpu=cluster.gpu, stack=stack)
        case _:  # pragma: no cover - mypy proves it unreachable
            assert_never(operator)


def slowest_compute_scale(cluster: Cluster, gpus: Numeric) -> Numeric:
    """c * (1 - d*m(n)): all wait for the slowest of n GPUs, whose speeds have standard deviation d.

    The slowest of n normal draws lies sqrt(2*ln(n) + b^2) - b deviations out, with b = 0.6: 0 for one GPU, sqrt(2*ln n) for
    very many, and within 4 % of the exact mean for 16 to 10,000.

    >>> from perfmodel.exchange.presets import cluster_preset
    >>> cluster = cluster_preset("dgx-h100")
    >>> [round(float(slowest_compute_scale(cluster, n) / cluster.compute_scale), 3) for n in (1, 16, 1024)]
    [1.0, 0.976, 0.959]
    """
    deviations: Numeric = np.sqrt(2.0 * np.log(np.asarray(gpus, dtype=np.float64)) + NEAR * NEAR) - NEAR
    return cluster.compute_scale * (1.0 - cluster.gpu_speed_deviation * deviations)


def matmul_time_s(product: Matmul, *, gpu: Gpu, compute_scale: Numeric) -> Numeric:
    """t0 + (C^p + L^p)^(1/p): computing and loading, partly at the same time; times the factor of adding to fp32.

    C = F*(1 + k0/k)*(1 + z*padding)*(1 + w*idle)*(1 + F/F0)^g / (P*e*c), with v instead of w where one wave is not full
    L = bytes / (M*e_m)

    padding = T*tile/(m*n) - 1 is what T output tiles cover beyond the matrix, idle = ceil(T/S)*S/T - 1 the idle share of
    the last wave of T tiles on S SMs. Fitted by benchmarks/fit_kernels.py on NVIDIA AIConfigurator's measured tables;
    perfmodel/data/gpus has the error on held-out shapes.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> product = Matmul(name="fc1", rows=8192, columns=8192, inner=8192, precision="bf16")
    >>> seconds = matmul_time_s(product, gpu=gpu_preset("h100-sxm-80gb"), compute_scale=1.0)
    >>> round(float(product.flop / seconds / 1e12))  # TFLOP/s; 798 were measured
    762
    """
    known = gpu.kernels.matmul[product.precision]
    seconds = plain_matmul_time_s(product, known, gpu=gpu, compute_scale=compute_scale)
    if product.phase != WEIGHT_GRADIENT:
        return seconds
    in_fp32 = np.asarray(product.weight_gradient_bytes) == FP32_BYTES
    factor: Numeric = np.where(in_fp32, known.weight_gradient_factor, 1.0)
    return seconds * factor


def plain_matmul_time_s(product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric) -> Numeric:
    """The same with given coefficients, whatever the result is added to."""
    compute_s = _compute_s(product, known, gpu=gpu, compute_scale=compute_scale)
    load_s = matmul_bytes(product) / (gpu.memory_bandwidth_bytes_per_s * known.memory_efficiency)
    longer: Numeric = np.maximum(compute_s, load_s)
    ratio = np.minimum(compute_s, load_s) / longer
    together: Numeric = np.power(1.0 + np.power(ratio, np.asarray(known.overlap_power)), np.asarray(1.0 / known.overlap_power))
    return known.fixed_s + longer * together


def _compute_s(product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric) -> Numeric:
    flop, multiprocessors = product.flop, gpu.streaming_multiprocessors
    upright = np.ceil(product.rows / known.tile_rows) * np.ceil(product.columns / known.tile_columns)
    lying = np.ceil(product.rows / known.tile_columns) * np.ceil(product.columns / known.tile_rows)
    tiles = np.minimum(upright, lying)
    padding = tiles * known.tile_rows * known.tile_columns / (product.rows * product.columns) - 1.0
    waves = product.batch * tiles / multiprocessors
    idle = (np.ceil(waves) / waves - 1.0) * np.where(waves < 1.0, known.fill_weight, known.wave_weight)
    size: Numeric = np.power(np.asarray(1.0 + flop / known.size_reference_flop), np.asarray(known.size_exponent))
    shape: Numeric = (1.0 + known.k_half / product.inner) * (1.0 + known.padding_weight * padding) * (1.0 + idle) * size
    return flop * shape / (gpu.peak(product.precision) * known.efficiency * compute_scale)


def matmul_bytes(product: Matmul) -> Numeric:
    """Both operands read and the result written once; the gradient that a weight gradient is added to is read and written."""
    operands = OPERAND_BYTES[product.precision] * product.inner * (product.rows + product.columns)
    result = (
        product.rows
        * product.columns
        * (2 * product.weight_gradient_bytes if product.phase == WEIGHT_GRADIENT else RESULT_BYTES)
    )
    return product.batch * (operands + result)


def fused_attention_time_s(attention: FusedAttention, *, gpu: Gpu, compute_scale: Numeric) -> Numeric:
    """t0 + F_c*(1 + s_half/s_eff) / (P*e*c): F_c counts only the causal half, s_eff = s/2 is the mean keys of a query.

    The backward kernel does 5 products where the forward one does 2: it forms the scores again.
    Form: fitted on NVIDIA cudnn-frontend's published timings; perfmodel/data/gpus names the fit and its error.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> attention = FusedAttention(
    ...     name="layer.attention.core", sequences=1, heads=64, head_size=128, sequence_length=8192, precision="bf16"
    ... )
    >>> seconds = fused_attention_time_s(attention, gpu=gpu_preset("h200-sxm-141gb"), compute_scale=1.0)
    >>> round(float(seconds) * 1e3, 2)  # ms; 1.71 were measured
    1.7
    """
    backward = attention.phase == DATA_GRADIENT
    known = gpu.kernels.attention_backward if backward else gpu.kernels.attention_forward
    keys = attention.sequence_length / 2.0
    width = attention.heads * attention.head_size
    flop = 2.0 * known.products * attention.sequences * attention.sequence_length * keys * width
    rate = gpu.peak(attention.precision) * known.efficiency * compute_scale
    return known.fixed_s + flop * (1.0 + known.sequence_half / keys) / rate


def memory_bound_time_s(operator: MemoryBound, *, gpu: Gpu, stack: SoftwareStack) -> Numeric:
    """kernels * t0 + bytes / (M*e_s): e_s belongs to the stack (how well it fuses), not to the GPU.

    >>> from perfmodel.exchange.presets import gpu_preset, stack_preset
    >>> norm = MemoryBound(name="layer.mlp.norm", moved_bytes=100e6)
    >>> seconds = memory_bound_time_s(norm, gpu=gpu_preset("h100-sxm-80gb"), stack=stack_preset("megatron-core"))
    >>> round(float(seconds) * 1e6, 1)  # us
    39.3
    """
    memory = gpu.memory_bandwidth_bytes_per_s
    known = gpu.kernels
    if operator.quantises and known.quantise_fixed_s is not None and known.quantise_efficiency is not None:
        return operator.kernels * known.quantise_fixed_s + operator.moved_bytes / (memory * known.quantise_efficiency)
    return operator.kernels * known.memory_bound_fixed_s + operator.moved_bytes / (memory * stack.memory_bound_efficiency)
