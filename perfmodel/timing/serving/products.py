"""How long products of a served model take: bound by the bytes of their weights where rows are few.

Symbols: a = fixed_s and e = efficiency of the GPU's serving profile, M memory rate.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from operator import attrgetter
from typing import Final

import numpy as np

from perfmodel.count.roles import EXPERT_PRODUCTS
from perfmodel.count.serving.forward_pass import ServedProduct
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.coefficients import MatmulCoefficients
from perfmodel.spec.precision import number_format
from perfmodel.spec.serving.profile import ServedKernel
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.kernel_times import stacked
from perfmodel.timing.kernels import matmul_bytes, plain_matmul_time_s

SIMILAR: Final = 2.0**0.5  # times reading: beyond it, computing is what takes the time
SIZES: Final = ("rows", "columns", "inner", "batch", "weight_bytes", "choices")  # what the time of a product depends on
_sizes = attrgetter(*SIZES)


def product_times_s(products: Sequence[ServedProduct], setup: ServingSetup) -> list[tuple[Numeric, Numeric]]:
    """What each takes where reading its weights bounds it, and where computing does: 0 of the other.

    Products of one law and shape lie on one first axis, and equal ones are timed once.
    """
    laws: dict[Hashable, dict[Hashable, list[int]]] = {}
    for place, each in enumerate(products):
        numbers = [np.asarray(size, dtype=float) for size in _sizes(each)]
        law = (each.precision, each.law, each.role in EXPERT_PRODUCTS, each.beside, max(number.shape for number in numbers))
        sizes = tuple(number.tobytes() for number in numbers)
        laws.setdefault(law, {}).setdefault(sizes, []).append(place)
    times: dict[int, tuple[Numeric, Numeric]] = {}
    for alike in laws.values():
        distinct = [products[places[0]] for places in alike.values()]
        seconds, computed = product_time_s(stacked(distinct, SIZES), setup)
        read_s, computing_s = np.where(computed, 0.0, seconds), np.where(computed, seconds, 0.0)
        for row, places in enumerate(alike.values()):
            found = (read_s, computing_s) if len(distinct) == 1 else (read_s[row], computing_s[row])
            times.update(dict.fromkeys(places, found))
    return [times[place] for place in range(len(products))]


def product_time_s(product: ServedProduct, setup: ServingSetup) -> tuple[Numeric, Numeric]:
    """Time of a product, a + b*n + c'*m + (C^p + L^p)^(1/p) of n matrices, and whether computing takes longer than reading.

    L = bytes of weights and rows * (1 + k0/k) / (e*M) bounds few rows, whatever their number: a column's weights, of k numbers,
    cost k0 more to begin, and are a chain of c*k at least: (L^q + (c*k)^q)^(1/q) then stands for L. C and p are those of the
    GPU's products with many rows (timing/kernels.py), of experts without what padding to whole tiles costs, as they have narrow
    tiles, and so have products with fewer rows than a tile. Weights in fewer bits than operands are read as what they are. Of a
    product that runs beside others a is hidden: what both read they share the memory for. m choices of experts, which every GPU
    goes through, are more than 0 of experts alone.
    """
    gpu, of_experts, small = setup.cluster.gpu, product.role in EXPERT_PRODUCTS, product_kernel(product, setup)
    ratio = product.read_bytes / matmul_bytes(product)
    large = gpu.matmul(product.precision)
    reading = small.efficiency / (1.0 + small.inner_half / product.inner)
    if anywhere(np.asarray(small.inner_s) > 0):
        reading = reading / _beside_the_chain(small, product, product.read_bytes / (reading * gpu.memory_bandwidth_bytes_per_s))
    fixed_s = small.fixed_s + (setup.engine.cast_s if number_format(product.precision).low else 0.0)
    fixed_s = 0.0 if product.beside else fixed_s
    known = with_numbers(
        large,
        {
            "efficiency": large.efficiency * small.computing * (1.0 if of_experts else _of_narrow_tiles(product, large)),
            "fixed_s": fixed_s,
            "memory_efficiency": reading / ratio,
            "cached_share": 0.0,
            "padding_weight": 0.0 if of_experts else large.padding_weight,
            "overlap_power": large.overlap_power if small.overlap_power is None else small.overlap_power,
        },
    )
    seconds = plain_matmul_time_s(product, known, gpu=gpu, compute_scale=setup.cluster.compute_scale)
    read_s = product.read_bytes / (reading * gpu.memory_bandwidth_bytes_per_s)
    more_s = small.each_s * product.batch + small.choice_s * product.choices
    return seconds + more_s, (seconds - fixed_s) > SIMILAR * read_s


def _of_narrow_tiles(product: ServedProduct, large: MatmulCoefficients) -> Numeric:
    """How much less than the smallest tile, of T rows, is computed of fewer rows m: 1 + z*(T/m - 1), z the share of padding.

    Kernels for few rows take them as the narrow side of an instruction, of 8 and more.
    """
    fewest = min(tile.rows for tile in large.tiles)
    return 1.0 + large.padding_weight * np.maximum(fewest / np.maximum(product.rows, 1.0) - 1.0, 0.0)


def product_kernel(product: ServedProduct, setup: ServingSetup) -> ServedKernel:
    """The numbers of the kernel that multiplies by these weights: experts', or any other's, as the engine has it."""
    engine, profile = setup.engine, setup.profile
    if product.role in EXPERT_PRODUCTS:
        return profile.expert_product(product.law, engine.family, engine.expert_kernels)
    return profile.small_product(product.law, engine.family)


def _beside_the_chain(small: ServedKernel, product: ServedProduct, read_s: Numeric) -> Numeric:
    """How many times as long reading takes beside the chain over the inner size: (1 + (c*k / L)^q)^(1/q)."""
    chain: Numeric = np.power(small.inner_s * product.inner / np.maximum(read_s, 1e-30), small.inner_power)
    return np.power(1.0 + chain, 1.0 / small.inner_power)
