"""How long one kernel takes on a GPU that does nothing else.

Symbols: F = flop of the kernel, P = dense peak rate, c = cluster.compute_scale, M = memory rate, and the coefficients of
spec/machines/coefficients.py (e, t0, k0, w, v, z, x, g, t_g, b, e_m, h, p).

Ignored: reuse of the cache between kernels but where a coefficient says so (cached_share of the left operand of a product,
cached_speedup), and products of weights whose sides are no multiple of 8 (a slower kernel family).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, reduce
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import FusedAttention, Matmul, MemoryBound
from perfmodel.light_dataclass import replace
from perfmodel.spec.evidence.spread import arrays_of, with_numbers
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.machines.coefficients import FUSED_KERNELS, MatmulCoefficients, MemoryBoundCoefficients
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.spec.precision import FP32_BYTES, number_format, operand_bytes, result_format
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.attention import fused_attention_time_s

ALIGNED_BYTES = 16  # what tensor cores want of every side: NVIDIA Matrix Multiplication Background guide, section 2.1
WORTH_SORTING = 64  # shapes: with fewer, finding equal ones costs more than timing them
SPLITS = (1, 2, 3, 4, 6, 8)
SUDDENNESS = 4.0  # how suddenly the power limit and the end of the cache take hold: the shape of the law, not of a GPU
CACHE_SHARE = 0.7  # of the cache, that one operand can keep for itself
ATTENTION_POWER = 0.5  # of what products draw, tensor cores wait for the softmax: with 0.3 and 0.7, published runs fit worse
NEAR = 0.6  # b of slowest_compute_scale: a property of the normal distribution, not of hardware


def kernel_time_s(operator: Matmul | FusedAttention | MemoryBound, *, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """Time [s] of one execution of `operator`, at clocks that no power limit of a whole pass holds down."""
    match operator:
        case Matmul():
            scale, library = product_clocks(operator.precision, cluster, stack), stack.fusion.matmul_library
            return matmul_time_s(operator, gpu=cluster.gpu, compute_scale=scale, library=library, sustained=True)
        case FusedAttention():
            scale = cluster.compute_scale * stack.host.clock_scale
            library = stack.fusion.attention_on(cluster.gpu.generation)
            return fused_attention_time_s(operator, gpu=cluster.gpu, compute_scale=scale, library=library)
        case MemoryBound():
            return memory_bound_time_s(operator, gpu=cluster.gpu, stack=stack, busy_share=cluster.busy_share)
        case _:  # pragma: no cover - mypy proves it unreachable
            assert_never(operator)


def product_clocks(precision: str, cluster: Cluster, stack: SoftwareStack) -> Numeric:
    """compute_scale of products: what the software makes of the clocks of tensor cores differs between 8 and 16 bits."""
    is_low = number_format(precision).low
    return cluster.compute_scale * (stack.low_precision.clock_scale if is_low else stack.host.clock_scale)


def clock_share(power: Numeric) -> Numeric:
    """x^(1/3): the clocks at a share x of the power, which grows with their cube."""
    share: Numeric = np.cbrt(power)
    return share


def power_slowdown(gpu: Gpu, clocks: Numeric) -> Numeric:
    """max(1, (1 + g) * (d*r)^(1/3)): how much longer tensor cores take where the power limit holds their clocks down.

    The limiter averages the power over many kernels: where products run for a share d of a pass, and passes for a share r of
    the time, it allows clocks (d*r)^(-1/3) times as high as where they run alone, which g = gpu.full_load_slowdown stands for.
    `clocks` is the `clock_share` of d*r.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> [round(float(power_slowdown(gpu_preset("h100-sxm-80gb"), clock_share(duty))), 3) for duty in (1.0, 0.8, 0.4)]
    [1.28, 1.188, 1.0]
    """
    slowdown: Numeric = np.maximum(1.0, (1.0 + gpu.full_load_slowdown) * clocks)
    return slowdown


def at_power_limit(operator: Matmul | FusedAttention, clocks: Numeric, *, gpu: Gpu, stack: SoftwareStack) -> Numeric:
    """How much longer a kernel takes where a power limit leaves tensor cores `clocks` (power_slowdown); others take no longer.

    The limit does not know the clocks that a law was fitted at: where they are b times those of the chip's kin (burst_clocks),
    products lose b times as much to it. They meet the tighter of it and their own, which is in their time already: the limit
    that one meets within milliseconds (matmul_time_s, g). Those outside of tensor cores (fp32) draw less than it allows.
    """
    if isinstance(operator, FusedAttention):
        return power_slowdown(gpu, clocks)
    if not gpu.power_limited(operator.precision):
        return 1.0
    law = gpu.matmul(operator.precision, stack.fusion.matmul_library)
    beyond: Numeric = np.maximum(power_slowdown(gpu, clocks * law.burst_clocks) / (1.0 + law.slowdown), 1.0)
    return beyond


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


def at_cluster_load(cluster: Cluster, gpus: Numeric) -> Cluster:
    """The cluster as `gpus` that all wait for one another find it: at the slowest one's clocks, beside busy neighbours.

    busy_share = (min(n, node) - 1) / (node - 1) of a node's other devices run too.
    """
    others = np.maximum(cluster.gpus_per_node - 1.0, 1.0)
    busy = (np.minimum(np.asarray(gpus, dtype=np.float64), cluster.gpus_per_node) - 1.0) / others
    return with_numbers(cluster, {"compute_scale": slowest_compute_scale(cluster, gpus), "busy_share": busy})


def matmul_time_s(
    product: Matmul, *, gpu: Gpu, compute_scale: Numeric, library: str = "newest", sustained: bool = False
) -> Numeric:
    """t0 + (C^p + L^p)^(1/p): computing and loading, partly at the same time; times the factors of its pass.

    C = C1*(1 + g*u/(1 + u)), u = (C1/t_g)^4: a kernel that lasts meets the power limit; C1*(1 + g) of whatever length where
        the load is sustained, as training is: the power controller sees seconds, a benchmark's short kernels end before it acts
    C1 = min over tiles and splits s of
        F/(P*e*c*rate) * (1 + k0*s/k)*(1 + z*padding)*(1 + w*idle) + x*(s - 1)*8*m*n/M,   v for w where one wave is not full
    L = (bytes - h*X/(1 + (X/(0.7*cache))^4)) / (M*e_m): the left operand, of X bytes, is found in the cache where it fits

    padding = T*tile/(m*n) - 1 is what T output tiles cover beyond the matrix; idle = ceil(W)/W - 1, with W = T*s/S, the idle
    share of the last wave of them on S SMs. A library cuts the inner size into s partial sums (fp32, written and read) where
    the tiles alone would leave SMs idle. Batched products of activations whose sides are no multiples of 16 bytes leave the
    tensor cores: at least F / (c * their rate outside of them), where that is known. Factors: of dX = dY W, of dW = X^T dY, of
    splitting the sums of both (is_split), and of adding dW to fp32. The numbers are those of one `library` of products, fitted
    by benchmarks/fit on AIConfigurator's tables (the newest) and on microsoft/vidur's (cublas_2023); perfmodel/data/kernels has
    the error on held-out shapes.

    >>> from perfmodel.exchange.presets import gpu_preset
    >>> product = Matmul(name="fc1", rows=8192, columns=8192, inner=8192, precision="bf16")
    >>> seconds = matmul_time_s(product, gpu=gpu_preset("h100-sxm-80gb"), compute_scale=1.0)
    >>> round(float(product.flop / seconds / 1e12))  # TFLOP/s; 798 were measured
    742
    """
    known, product = gpu.matmul(product.precision, library), in_pieces(product)
    seconds = plain_matmul_time_s(product, known, gpu=gpu, compute_scale=compute_scale, sustained=sustained)
    return in_its_pass(product, seconds, known, compute_scale)


def in_its_pass(product: Matmul, seconds: Numeric, known: MatmulCoefficients, compute_scale: Numeric) -> Numeric:
    """The time of a product times the factors of its pass; no less than off the tensor cores where its sides keep it there."""
    if not product.has_weight and known.unaligned_flop_per_s is not None:
        seconds = np.maximum(seconds, _unaligned_s(product, known.unaligned_flop_per_s * compute_scale))
    if is_split(product, known):
        seconds = seconds * known.split_accumulator_factor
    if product.phase == DATA_GRADIENT and product.has_weight:
        return seconds * known.data_gradient_factor
    if product.phase != WEIGHT_GRADIENT:
        return seconds
    seconds = seconds * known.transposed_factor
    if not product.accumulates:
        return seconds
    in_fp32 = np.asarray(product.weight_gradient_bytes) == FP32_BYTES
    factor: Numeric = chosen(in_fp32, known.weight_gradient_factor, 1.0)
    return seconds * factor


def is_split(product: Matmul, known: MatmulCoefficients) -> bool:
    """Whether its partial sums leave the tensor cores: gradients of linears in 8 bits, on tensor cores that round their sums.

    Hopper's keep about 14 bits of a sum (arXiv:2412.19437, section 3.3.2). Forward products live with that, which is fast
    accumulation; sums of gradients are carried on in fp32 outside of the tensor cores, which wait meanwhile
    (use_split_accumulator of Transformer Engine, no use_fast_accum of torchao).
    """
    of_gradient = product.has_weight and product.phase in (DATA_GRADIENT, WEIGHT_GRADIENT)
    return of_gradient and anywhere(np.asarray(known.split_accumulator_factor) != 1)


def accumulation(product: Matmul, *, gpu: Gpu, stack: SoftwareStack) -> Numeric:
    """How many times as long a product takes as its tensor cores work, which draw nothing while they wait; 1 of most."""
    known = gpu.matmul(product.precision, stack.fusion.matmul_library)
    return known.split_accumulator_factor if is_split(product, known) else 1.0


def in_pieces(product: Matmul) -> Matmul:
    """n products of rows/n on streams beside each other: they share the waves, but each rounds its rows up to whole tiles."""
    if not anywhere(product.pieces != 1):
        return product
    return replace(product, rows=product.rows / product.pieces, batch=product.batch * product.pieces, pieces=1)


def _unaligned_s(product: Matmul, flop_per_s: Numeric) -> Numeric:
    """F / rate of products of which some side is no multiple of 16 bytes, 0 of all others."""
    numbers = ALIGNED_BYTES // operand_bytes(product.precision)
    sides = (product.rows, product.columns, product.inner)
    unaligned = reduce(np.logical_or, (np.asarray(side) % numbers != 0 for side in sides))
    seconds: Numeric = chosen(unaligned, product.flop, 0.0) / flop_per_s
    return seconds


def plain_matmul_time_s(
    product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric, sustained: bool = False
) -> Numeric:
    """Matmul time [s] with given coefficients, whatever the result is added to; each distinct shape is timed once.

    Not where coefficients are of each shape: equal shapes may differ in them.
    """
    sizes = (product.rows, product.columns, product.inner, product.batch)
    beside = (compute_scale, product.weight_gradient_bytes)
    if max(np.size(size) for size in sizes) < WORTH_SORTING or any(np.ndim(each) for each in beside) or _is_by_shape(known):
        return _product_time_s(product, known, gpu=gpu, compute_scale=compute_scale, sustained=sustained)
    distinct, places = _distinct(sizes)
    shapes = replace(product, rows=distinct[0], columns=distinct[1], inner=distinct[2], batch=distinct[3])
    return np.asarray(_product_time_s(shapes, known, gpu=gpu, compute_scale=compute_scale, sustained=sustained))[..., places]


def _is_by_shape(known: MatmulCoefficients) -> bool:
    """Whether some coefficients lie along the last axis, as shapes do; ends of spreads lie along the first."""
    return any(each.shape[-1:] not in ((), (1,)) for each in arrays_of(known).values())


def _distinct(sizes: Sequence[Numeric]) -> tuple[list[NDArray[Any]], NDArray[np.int64]]:
    """The distinct combinations of some arrays that broadcast, and where each element finds its own."""
    whole = np.broadcast_arrays(*sizes)
    flat = [each.ravel() for each in whole]
    order = np.lexsort(flat)
    changes = reduce(np.logical_or, (each[order][1:] != each[order][:-1] for each in flat))
    first = np.concatenate([[True], changes])
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.cumsum(first) - 1
    return [each[order][first] for each in flat], places.reshape(whole[0].shape)


def _product_time_s(
    product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric, sustained: bool
) -> Numeric:
    """The equation of matmul_time_s for all shapes as they are given, and nothing that a result is added to."""
    compute_s = _compute_s(product, known, gpu=gpu, compute_scale=compute_scale, sustained=sustained)
    left = operand_bytes(product.precision) * product.rows * product.inner
    cached = known.cached_share * left / (1.0 + np.power(np.asarray(left / (CACHE_SHARE * gpu.cache_bytes)), SUDDENNESS))
    load_s = (matmul_bytes(product) - product.batch * cached) / (gpu.memory_bandwidth_bytes_per_s * known.memory_efficiency)
    longer: Numeric = np.maximum(compute_s, load_s)
    ratio = np.minimum(compute_s, load_s) / longer
    together: Numeric = np.power(1.0 + np.power(ratio, np.asarray(known.overlap_power)), np.asarray(1.0 / known.overlap_power))
    return known.fixed_s + longer * together


def _compute_s(product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric, sustained: bool) -> Numeric:
    """C: what the SMs take, at the clocks of a sustained load or at those that a single kernel of this length meets."""
    compute_s = _best_option_s(product, known, gpu=gpu, compute_scale=compute_scale)
    if sustained:
        return compute_s * (1.0 + known.slowdown)
    long = np.power(compute_s / known.slowdown_s, SUDDENNESS)
    return compute_s * (1.0 + known.slowdown * (1.0 - 1.0 / (1.0 + long)))


def _best_option_s(product: Matmul, known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric) -> NDArray[Any]:
    """The time of the best tile and split, before the power limit: the options lie on a new first axis."""
    sides = tuple((tile.rows, tile.columns, float(tile.rate)) for tile in known.tiles)
    rows, columns, inner, batch = product.rows, product.columns, product.inner, product.batch
    full_s = product.flop / (gpu.peak(product.precision) * known.efficiency * compute_scale)
    sums_s = known.split_traffic * 2 * FP32_BYTES * batch / gpu.memory_bandwidth_bytes_per_s * rows * columns
    numbers = (full_s, sums_s, inner, known.k_half, known.wave_weight, known.fill_weight, known.padding_weight)
    axes = (1,) * max(np.ndim(number) for number in (*numbers, gpu.streaming_multiprocessors))
    high, wide, rate, splits = (option.reshape(-1, *axes) for option in _options(sides, known.most_splits))
    upright = np.ceil(rows / high) * np.ceil(columns / wide)
    lying = np.ceil(rows / wide) * np.ceil(columns / high)
    tiles = np.minimum(upright, lying)
    padding = tiles * (high * wide) / (rows * columns) - 1.0
    waves = batch * tiles * splits / gpu.streaming_multiprocessors
    idle = (np.ceil(waves) / waves - 1.0) * chosen(waves < 1.0, known.fill_weight, known.wave_weight)
    work = (1.0 + known.k_half * splits / inner) * (1.0 + known.padding_weight * padding) * (1.0 + idle) / rate
    least: NDArray[Any] = (full_s * work + sums_s * (splits - 1.0)).min(axis=0)
    return least


@cache
def _options(sides: tuple[tuple[int, int, float], ...], most_splits: int) -> tuple[NDArray[np.float64], ...]:
    """Rows, columns and rate of every tile, and the number of splits, of every combination of a tile and a split."""
    both = [(*side, float(split)) for side in sides for split in SPLITS if split <= most_splits]
    return tuple(np.asarray(column, dtype=np.float64) for column in zip(*both, strict=True))


def matmul_bytes(product: Matmul) -> Numeric:
    """Both operands read and the result written once; a gradient that the product itself adds to is read and written."""
    operands = operand_bytes(product.precision) * product.inner * (product.rows + product.columns)
    each = 2 * product.weight_gradient_bytes if adds_up(product) else operand_bytes(result_format(product.precision))
    result = product.rows * product.columns * each
    return product.batch * (operands + result)


def adds_up(product: Matmul) -> bool:
    """Whether the product adds its result to a gradient."""
    return product.phase == WEIGHT_GRADIENT and product.accumulates


def memory_bound_time_s(operator: MemoryBound, *, gpu: Gpu, stack: SoftwareStack, busy_share: Numeric = 0.0) -> Numeric:
    """kernels * t0 + bytes / (M*e*r), r = 1 + u/(1 + (B/cache)^2): t0, e and u (cached_speedup) of the class of its kernels.

    Devices that share one memory, as the cores of a CPU do, slow each other down: times 1 + (f - 1) * busy_share, with f the
    busy_factor of the class.

    B = bytes / kernels is what each kernel moves: r is 1 + u for one that fits the cache, 1 for one that is far larger. u is 0
    unless it was measured.

    >>> from perfmodel.exchange.presets import gpu_preset, stack_preset
    >>> norm = MemoryBound(name="layer.mlp.norm", family="norm", moved_bytes=100e6)
    >>> seconds = memory_bound_time_s(norm, gpu=gpu_preset("h100-sxm-80gb"), stack=stack_preset("megatron-core"))
    >>> round(float(seconds) * 1e6, 1)  # us
    38.8
    """
    known = gpu.kernels.memory_bound[memory_bound_class(operator, gpu=gpu, stack=stack)]
    seconds = plain_memory_bound_time_s(operator, known, gpu=gpu)
    factor = known.backward_busy_factor if operator.phase == DATA_GRADIENT else known.busy_factor
    return seconds * (1.0 + (factor - 1.0) * busy_share) if anywhere(factor != 1.0) else seconds


def plain_memory_bound_time_s(operator: MemoryBound, known: MemoryBoundCoefficients, *, gpu: Gpu) -> Numeric:
    """Memory-bound time [s] with given coefficients."""
    if operator.phase == DATA_GRADIENT:
        fixed_s, efficiency, speedup = known.backward_fixed_s, known.backward_efficiency, known.backward_cached_speedup
    else:
        fixed_s, efficiency, speedup = known.fixed_s, known.efficiency, known.cached_speedup
    rate = gpu.memory_bandwidth_bytes_per_s * efficiency
    if anywhere(speedup):
        against = operator.moved_bytes / np.maximum(operator.kernels, 1) / gpu.cache_bytes
        rate = rate * (1.0 + speedup / (1.0 + against * against))
    return operator.kernels * fixed_s + operator.moved_bytes / rate


def memory_bound_class(operator: MemoryBound, *, gpu: Gpu, stack: SoftwareStack) -> str:
    """The class of kernels that run `operator`: a key of KernelProfile.memory_bound.

    Its very kernel where the GPU's profile has it, best in its precision (gelu-fp32, then gelu), a fused one before the chain
    that it stands for; else what its family is like, best in its precision (cast-nvfp4), for norms the kernels of the stack.
    """
    for kernel in (operator.kernel, FUSED_KERNELS.get(operator.kernel, "")):
        for known in (f"{kernel}-{operator.precision}", kernel):
            if known in gpu.kernels.memory_bound:
                return known
    if operator.family != "norm":
        known = f"{operator.family}-{operator.precision}"
        return known if known in gpu.kernels.memory_bound else operator.family
    return "eager" if stack.fusion.norms == "eager_fp32" else stack.fusion.norms  # of layer norms, which have one kernel
