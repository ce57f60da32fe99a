"""Which points a calibration of a device measures.

Sizes are spaced by their logarithms. Of all combinations of rows with weights a third is left out, and what takes too long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.traffic import moved_bytes
from perfmodel.errors import InputError, did_you_mean
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, OPTIMIZER, WEIGHT_GRADIENT

PRECISIONS: Final = ("bf16", "fp32")
BOTH: Final = (FORWARD, DATA_GRADIENT)
PHASES: Final = {  # of every memory-bound operator
    **dict.fromkeys(("layernorm", "rmsnorm", "gelu", "squared_relu", "swiglu", "geglu"), BOTH),
    **dict.fromkeys(("rotary", "residual", "loss", "lookup"), BOTH),
    **dict.fromkeys(("accumulate", "overwrite"), (WEIGHT_GRADIENT,)),
    **dict.fromkeys(("adam", "scale", "square_sum", "zero"), (OPTIMIZER,)),
    "copy": (FORWARD,),
}
IN_FP32: Final = ("scale", "square_sum", "zero")  # whatever the precision of the run: of fp32 gradients
NOT_IN_FP32: Final = ("overwrite",)  # there the product writes into the gradient
THROUGH_PARAMETERS: Final = ("adam", "scale", "square_sum", "zero")  # of a whole model: nothing of them was just written
FUSED: Final = ("adam", "copy")  # one kernel that was written for it; the others are PyTorch's own, one by one
FRACTIONS: Final = (0.5, 1.0)  # of each head that is rotated
LEFT_OUT: Final = 2  # of three combinations of rows with weights
MOST_FP32_SCORES: Final = 2**29  # GPUs have no fused fp32 kernel for shared keys: all scores lie in their memory, several times
TABLE: Final = 4  # rows of an embedding table, for each token that is looked up
COLD: Final = (*THROUGH_PARAMETERS, "copy")
WARM_BYTES: Final = 128 * 2**20  # beyond it no cache holds anything
COLLECTIVES: Final = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point")
KIB: Final = 2**10
MIB: Final = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelGrid:
    """The sizes that are combined; `most_flop` is that of the largest product of each precision."""

    rows: Sequence[int]
    weights: Sequence[tuple[int, int]]  # columns, inner
    most_flop: dict[str, float]
    heads: int
    head_sizes: Sequence[int]
    sequences: Sequence[tuple[int, int]]  # length, how many
    moved_bytes: Sequence[float]
    payload_bytes: Sequence[float]


CPU: Final = KernelGrid(
    rows=(256, 512, 1024, 2048),
    weights=(
        *((256, 512), (512, 512), (2048, 512), (512, 2048), (1024, 1024), (4096, 1024), (1024, 4096), (4096, 4096)),
        *((64, 1024), (1024, 64), (4096, 128), (256, 4096), (16384, 512)),
    ),
    most_flop={"bf16": 60e9, "fp32": 20e9},
    heads=8,
    head_sizes=(64, 128),
    sequences=((128, 4), (256, 2), (512, 1), (512, 4), (768, 1), (1024, 1), (1536, 1)),
    moved_bytes=tuple(64.0 * KIB * 4**power for power in range(7)),
    payload_bytes=(*(1.0 * KIB * 4**power for power in range(9)), 512.0 * KIB, 2.0 * MIB, 256.0 * MIB),
)
CUDA: Final = KernelGrid(
    rows=(512, 1024, 2048, 4096, 8192, 16384),
    weights=(
        *((1024, 1024), (2048, 2048), (4096, 4096), (8192, 8192), (16384, 16384), (1536, 6144), (6144, 1536), (3072, 8192)),
        *((12288, 4096), (4096, 16384), (16384, 4096), (8192, 1024), (1024, 8192), (256, 4096), (4096, 256), (512, 2048)),
    ),
    most_flop={"bf16": 1e13, "fp32": 1e12},
    heads=32,
    head_sizes=(64, 128),
    sequences=((512, 1), (512, 8), (1024, 4), (2048, 1), (2048, 4), (4096, 1), (4096, 2), (8192, 1), (16384, 1)),
    moved_bytes=(*(64.0 * KIB * 4**power for power in range(7)), 1024.0 * MIB),
    payload_bytes=tuple(1.0 * KIB * 4**power for power in range(11)),
)
SMALLEST: Final = KernelGrid(
    rows=(256,),
    weights=((64, 32), (32, 64), (64, 64), (64, 128)),
    most_flop=dict.fromkeys(PRECISIONS, 1e9),
    heads=4,
    head_sizes=(64,),
    sequences=((32, 1), (64, 1)),
    moved_bytes=(16.0 * KIB, 128.0 * KIB),
    payload_bytes=(1.0 * KIB, 64.0 * KIB),
)
PLANS: Final = {"cpu": CPU, "cuda": CUDA}


def plan_of(device: str, *, smallest: bool = False) -> KernelGrid:
    """The sizes for a device, or the few small ones that show that everything works."""
    if device not in PLANS:
        raise InputError(f"{device} is not a device; {did_you_mean(device, PLANS)}")
    return SMALLEST if smallest else PLANS[device]


def kernel_points(plan: KernelGrid) -> list[Point]:
    """All points that one GPU, or one core, measures alone."""
    return [*_products(plan), *_attention(plan), *_memory_bound(plan)]


def _products(plan: KernelGrid) -> Iterator[Point]:
    """Products of every number of rows with every weight, of which each third combination is left out."""
    shapes = [
        (rows, *weight)
        for (i, weight), (j, rows) in product(enumerate(plan.weights), enumerate(plan.rows))
        if (i + j) % 3 != LEFT_OUT
    ]
    for precision, (rows, columns, inner) in product(PRECISIONS, shapes):
        if 2.0 * rows * columns * inner > plan.most_flop[precision]:
            continue
        for phase in (FORWARD, DATA_GRADIENT, WEIGHT_GRADIENT):
            sizes = {"rows": rows, "columns": columns, "inner": inner}
            yield Point(kind="matmul", sizes=sizes, labels={"precision": precision, "phase": phase})


def _attention(plan: KernelGrid) -> Iterator[Point]:
    for precision, size, kv_heads, (length, number), phase in product(
        PRECISIONS, plan.head_sizes, (plan.heads, plan.heads // 4), plan.sequences, BOTH
    ):
        if precision == "fp32" and number * plan.heads * length**2 > MOST_FP32_SCORES:
            continue
        sizes = {
            "sequences": number,
            "heads": plan.heads,
            "kv_heads": kv_heads,
            "head_size": size,
            "sequence_length": length,
        }
        yield Point(kind="attention", sizes=sizes, labels={"precision": precision, "phase": phase, "mask": "causal"})


def _memory_bound(plan: KernelGrid) -> Iterator[Point]:
    for kernel, precision, target in product(PHASES, PRECISIONS, plan.moved_bytes):
        if (kernel in IN_FP32 and precision != "fp32") or (kernel in NOT_IN_FP32 and precision == "fp32"):
            continue
        for fraction in FRACTIONS if kernel == "rotary" else (1.0,):
            yield from _of_one_kernel(kernel, precision, target, fraction)


def cache_state(kernel: str) -> str:
    """What of a memory-bound operator is in the caches when it begins in a step: nothing, or what was written just before."""
    return "cold" if kernel in COLD else "warm"


def _of_one_kernel(kernel: str, precision: str, target: float, fraction: float) -> Iterator[Point]:
    """In all phases, on a tensor whose forward pass moves about `target` bytes."""
    columns = 256 if target < MIB else 1024 if target < 16 * MIB else 4096

    def moved(phase: str, rows: int) -> float:
        return moved_bytes(
            kernel,
            phase,
            precision=precision,
            rows=rows,
            columns=columns,
            table_rows=TABLE * rows,
            rotary_fraction=fraction,
        )

    rows = max(round(target / moved(PHASES[kernel][0], 1)), 1)
    extra = {"rotary_fraction": fraction} if kernel == "rotary" else {"table_rows": TABLE * rows} if kernel == "lookup" else {}
    for phase in PHASES[kernel]:
        whole, cache = moved(phase, rows), cache_state(kernel)
        if cache == "warm" and whole > WARM_BYTES:
            continue
        words = {"operator": kernel, "phase": phase, "class": "fused" if kernel in FUSED else "eager"}
        yield Point(
            kind="memory_bound",
            sizes={"moved_bytes": whole, "rows": rows, "columns": columns, **extra},
            labels=words | {"precision": precision, "cache": cache},
        )


def busy_points(plan: KernelGrid) -> list[Point]:
    """Memory-bound points of two sizes, to be measured on all devices of a machine at once."""
    sizes = sorted(plan.moved_bytes)[-3:-1] or plan.moved_bytes
    chosen = replace(plan, moved_bytes=tuple(sizes))
    return [replace(point, labels={**point.labels, "busy": "all"}) for point in _memory_bound(chosen)]


def collective_points(plan: KernelGrid, groups: Sequence[tuple[int, int]], *, backend: str, precision: str) -> list[Point]:
    """All collectives over groups of (ranks, nodes); single messages between two ranks alone."""
    return [
        Point(
            kind="collective",
            sizes={"payload_bytes": payload, "ranks": ranks, "nodes": nodes},
            labels={"operator": operator, "backend": backend, "precision": precision},
        )
        for (ranks, nodes), operator, payload in product(groups, COLLECTIVES, plan.payload_bytes)
        if operator != "point_to_point" or ranks == 2
    ]
