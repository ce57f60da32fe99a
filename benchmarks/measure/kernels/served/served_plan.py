"""Which points of serving a calibration measures: products with few rows, attention over a cache, and what stands between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.served.served_traffic import HEAD_SIZE, LATENT, served_bytes
from perfmodel.spec.serving.formats import WIDE
from perfmodel.spec.serving.profile import SERVED_KERNELS

WIDTHS: Final = {"route": (8, 32), "sample": (8192, 32768)}  # columns of those that do not work on the stream
EXPERTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedGrid:
    """The sizes that are combined."""

    rows: Sequence[int]
    weights: Sequence[tuple[int, int]]  # columns, inner
    expert_rows: Sequence[int]
    experts: Sequence[tuple[int, int]]  # columns, inner of each
    contexts: Sequence[int]
    sequences: Sequence[int]
    heads: Sequence[tuple[int, int]]  # heads, KV heads
    tokens: Sequence[int]
    widths: Sequence[int]
    layers: int  # of the small model that shows what the interpreter takes


CPU: Final = ServedGrid(
    rows=(1, 2, 4, 8, 16, 32, 64),
    weights=((512, 512), (1024, 512), (2048, 512), (512, 2048), (768, 768), (4096, 1024), (1024, 4096), (8192, 512)),
    expert_rows=(1, 2, 8, 64, 256),
    experts=((2048, 512), (512, 1024), (512, 512), (512, 256)),
    contexts=(128, 512, 1024, 2048),
    sequences=(1, 4, 16),
    heads=((8, 4), (12, 4), (16, 8), (8, 8)),
    tokens=(1, 4, 16, 256, 1024, 2048),
    widths=(512, 1024, 2048),
    layers=8,
)
CUDA: Final = ServedGrid(
    rows=(1, 2, 4, 8, 16, 32, 64),
    weights=(
        (4096, 4096),
        (6144, 4096),
        (14336, 4096),
        (4096, 14336),
        (8192, 8192),
        (1024, 8192),
        (28672, 4096),
        (128256, 4096),
    ),
    expert_rows=(1, 2, 8, 64, 256),
    experts=((28672, 4096), (4096, 14336), (1536, 2048), (2048, 768)),
    contexts=(512, 2048, 8192, 32768),
    sequences=(1, 4, 16),
    heads=((32, 8), (64, 8), (16, 8), (16, 16)),
    tokens=(1, 16, 64, 1024, 4096),
    widths=(4096, 8192),
    layers=8,
)
SMALLEST: Final = ServedGrid(
    rows=(1, 4),
    weights=((64, 32), (32, 64), (64, 64)),
    expert_rows=(1, 4),
    experts=((64, 32), (32, 64)),
    contexts=(16, 32),
    sequences=(1, 2),
    heads=((4, 2),),
    tokens=(1, 80),
    widths=(64,),
    layers=2,
)
GRIDS: Final = {"cpu": CPU, "cuda": CUDA}


def served_points(device: str, *, smallest: bool = False) -> list[Point]:
    """All points of serving that one GPU, or one core, measures alone, in 16 bits."""
    grid = SMALLEST if smallest else GRIDS[device]
    between = Point(kind="host", sizes={"layers": grid.layers}, labels={"precision": WIDE})
    return [*_products(grid), *_attention(grid), *_kernels(grid), between]


def _products(grid: ServedGrid) -> Iterator[Point]:
    """Single matrices, and those of experts, of which each has rows of its own."""
    shapes = [(rows, 1, weight) for rows, weight in product(grid.rows, grid.weights)]
    shapes += [(rows, EXPERTS, weight) for rows, weight in product(grid.expert_rows, grid.experts)]
    for rows, matrices, (columns, inner) in shapes:
        sizes = {"rows": rows, "columns": columns, "inner": inner, "matrices": matrices}
        yield Point(kind="few_rows", sizes=sizes, labels={"precision": WIDE})


def _attention(grid: ServedGrid) -> Iterator[Point]:
    """Heads that share keys, and latent attention, whose values are a part of its one key."""
    narrow = int(LATENT.kv_rank)
    sizes = [(heads, kv_heads, HEAD_SIZE, HEAD_SIZE) for heads, kv_heads in grid.heads]
    sizes += [(heads, 1, narrow + int(LATENT.rotary_head_size), narrow) for heads in sorted({each[0] for each in grid.heads})]
    for sequences, context, (heads, kv_heads, head_size, value_size) in product(grid.sequences, grid.contexts, sizes):
        each = {"heads": heads, "kv_heads": kv_heads, "head_size": head_size, "value_size": value_size}
        yield Point(kind="cached", sizes={"sequences": sequences, "context": context, **each}, labels={"precision": WIDE})


def _kernels(grid: ServedGrid) -> Iterator[Point]:
    for kernel in SERVED_KERNELS:
        for rows, columns in product(grid.tokens, WIDTHS.get(kernel, grid.widths)):
            if kernel == "sample" and rows > max(grid.sequences):
                continue
            moved = served_bytes(kernel, rows=rows, columns=columns)
            sizes = {"moved_bytes": moved, "rows": rows, "columns": columns}
            yield Point(kind="served", sizes=sizes, labels={"operator": kernel, "precision": WIDE})
