"""How long each kernel of a list takes: the equations of timing/kernels.py, that of products worked out once for all of them.

A layout has a dozen products, and the numbers of an interval have a hundred ends (timing/uncertainty.py), of which a dozen
numbers time a product. The products of one layout therefore lie side by side on an axis of their own, and at ends that move
none of their numbers they take the time that they take anyway.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, TypeVar

import numpy as np

from perfmodel.count.operators import FusedAttention, Matmul, MemoryBound
from perfmodel.light_dataclass import replace
from perfmodel.spec.evidence.spread import arrays_of, moving_places, with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.coefficients import MatmulCoefficients
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.kernels import adds_up, in_its_pass, in_pieces, kernel_time_s, plain_matmul_time_s, product_clocks

SIZES: Final = ("rows", "columns", "inner", "batch", "weight_gradient_bytes")  # of a product in one piece
_sizes = attrgetter(*SIZES)
M = TypeVar("M", bound=Matmul)
UNTIMED: Final = ("name", "phase", "role", "repeats", "saved_bytes", "replayed")
_TIMED: Final = {
    kind: attrgetter(*(entry.name for entry in fields(kind) if entry.name not in UNTIMED))
    for kind in (Matmul, FusedAttention, MemoryBound)
}


def kernel_times_s(
    operators: Iterable[Matmul | FusedAttention | MemoryBound], *, cluster: Cluster, stack: SoftwareStack
) -> list[Numeric]:
    """The time that kernel_time_s gives each operator; equal sizes are timed once.

    >>> from perfmodel.exchange.presets import cluster_preset, stack_preset
    >>> cluster, stack = cluster_preset("dgx-h100"), stack_preset("megatron-core")
    >>> products = [Matmul(name=name, rows=4096, columns=4096, inner=1024, precision="bf16") for name in ("one", "other")]
    >>> one_s, other_s = kernel_times_s(products, cluster=cluster, stack=stack)
    >>> bool(one_s == other_s == kernel_time_s(products[0], cluster=cluster, stack=stack))
    True
    """
    keys, distinct = [], dict[Hashable, Matmul | FusedAttention | MemoryBound]()
    for operator in operators:
        keys.append(_what_is_timed(operator))
        distinct.setdefault(keys[-1], operator)
    times: dict[Hashable, Numeric] = {}
    products: dict[str, dict[Hashable, Matmul]] = {}  # by number format
    for key, operator in distinct.items():
        if isinstance(operator, Matmul):
            products.setdefault(operator.precision, {})[key] = in_pieces(operator)
        else:
            times[key] = kernel_time_s(operator, cluster=cluster, stack=stack)
    for precision, some in products.items():
        known, scale = cluster.gpu.matmul(precision, stack.fusion.matmul_library), product_clocks(precision, cluster, stack)
        seconds = _product_times_s(list(some.values()), known, gpu=cluster.gpu, compute_scale=scale)
        times.update(zip(some, seconds, strict=True))
    return [times[key] for key in keys]


def _what_is_timed(operator: Matmul | FusedAttention | MemoryBound) -> Hashable:
    """All that the time of a kernel depends on, numbers by identity: what runs again has the very ones of what ran before."""
    kind = type(operator)
    return kind, operator.phase in (DATA_GRADIENT, WEIGHT_GRADIENT) and operator.phase, *map(id, _TIMED[kind](operator))


def _product_times_s(
    products: Sequence[Matmul], known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric
) -> list[Numeric]:
    """The times of products of one number format under a sustained load; ends that move none of their numbers share one."""
    moving = moving_places({**arrays_of(known), "compute_scale": compute_scale})
    shapes = [np.broadcast(*_gpu_numbers(gpu, products[0])), *(np.broadcast(*_sizes(product)) for product in products)]
    if moving is None or any(shape.ndim >= moving.axes and shape.shape[-moving.axes] > 1 for shape in shapes):
        return _sustained_s(products, known, gpu=gpu, compute_scale=compute_scale)
    fewer = dict(moving.numbers)
    scale = fewer.pop("compute_scale")
    times = _sustained_s(products, with_numbers(known, fewer), gpu=gpu, compute_scale=scale)
    return [moving.at_every_place(seconds) for seconds in times]


def _sustained_s(products: Sequence[Matmul], known: MatmulCoefficients, *, gpu: Gpu, compute_scale: Numeric) -> list[Numeric]:
    """matmul_time_s of each product under a sustained load, those of one layout side by side."""
    numbers = (compute_scale, *arrays_of(known).values(), *_gpu_numbers(gpu, products[0]))
    axes = max(np.ndim(number) for number in numbers)
    plain_s: dict[int, Numeric] = {}
    for group in _alike(products):
        together = stacked([products[place] for place in group], SIZES, axes=axes)
        seconds = plain_matmul_time_s(together, known, gpu=gpu, compute_scale=compute_scale, sustained=True)
        plain_s.update(zip(group, np.asarray(seconds) if len(group) > 1 else [seconds], strict=True))
    return [in_its_pass(product, plain_s[place], known, compute_scale) for place, product in enumerate(products)]


def _gpu_numbers(gpu: Gpu, product: Matmul) -> tuple[Numeric, ...]:
    """What the time of a product depends on beside its sizes and the coefficients of its kernels."""
    return gpu.peak(product.precision), gpu.memory_bandwidth_bytes_per_s, gpu.cache_bytes, gpu.streaming_multiprocessors


def _alike(products: Sequence[Matmul]) -> list[list[int]]:
    """Places of products that can be one: of a single layout, with results that are all added to a gradient or all are not."""
    single: dict[bool, list[int]] = {}
    many: list[list[int]] = []
    for place, product in enumerate(products):
        if np.broadcast(*_sizes(product)).ndim:
            many.append([place])
        else:
            single.setdefault(adds_up(product), []).append(place)
    return [*single.values(), *many]


def stacked(products: Sequence[M], names: Sequence[str], *, axes: int = 0) -> M:
    """Products as one, whose sizes of these names lie on a new first axis before at least `axes` others; one stays as it is."""
    if len(products) == 1:
        return products[0]
    rows = [[getattr(product, name) for name in names] for product in products]
    shape = np.broadcast_shapes((1,) * axes, *{getattr(size, "shape", ()) for row in rows for size in row})
    sizes = np.empty((len(names), len(products), *shape))
    for place, row in enumerate(rows):
        for which, size in enumerate(row):
            sizes[which, place] = size
    changed: dict[str, Any] = dict(zip(names, sizes, strict=True))
    return replace(products[0], **changed)
