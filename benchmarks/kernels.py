"""Measures matrix products (forward and both gradients), fused attention and copies on this machine, as records.

    python -m benchmarks.kernels --device cuda --output records.jsonl
    python -m benchmarks.kernels --device cpu --smallest --output records.jsonl

Random operands, several buffers in turn so that caches do not flatter, warm-up, the median of several repeats. The records go
into `python -m benchmarks.fit --records`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Final

import torch

from perfmodel.evidence.records import Record
from perfmodel.exchange.output import write_text

REPEATS: Final = 7
BUFFERS: Final = 3
SIDES: Final = (1024, 2048, 4096, 8192, 16384)
SMALL_SIDES: Final = (128, 256)


def median_s(run: Callable[[int], object], device: str) -> tuple[float, float]:
    """Median time of run(buffer), and the distance between its quartiles over that."""
    for buffer in range(BUFFERS):
        run(buffer)
    times = [_one_s(run, repeat % BUFFERS, device) for repeat in range(REPEATS)]
    low, middle, high = statistics.quantiles(times, n=4)
    return middle, (high - low) / middle


def _one_s(run: Callable[[int], object], buffer: int, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        run(buffer)
        return time.perf_counter() - start
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run(buffer)
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end)) / 1e3


def matmul_records(device: str, sides: tuple[int, ...], provenance: dict[str, str]) -> Iterator[Record]:
    """Y = X W^T, dX = dY W and dW = dY^T X, of every combination of sizes."""
    for rows, columns, inner in product(sides, repeat=3):
        x = [_random(rows, inner, device=device) for _ in range(BUFFERS)]
        w = [_random(columns, inner, device=device) for _ in range(BUFFERS)]
        y = [_random(rows, columns, device=device) for _ in range(BUFFERS)]
        phases: dict[str, Callable[[int], object]] = {
            "forward": lambda i, x=x, w=w: x[i] @ w[i].T,  # type: ignore[misc]
            "data_gradient": lambda i, y=y, w=w: y[i] @ w[i],  # type: ignore[misc]
            "weight_gradient": lambda i, x=x, y=y: y[i].T @ x[i],  # type: ignore[misc]
        }
        for phase, run in phases.items():
            seconds, spread = median_s(run, device)
            yield Record(
                kind="matmul",
                sizes={"rows": rows, "columns": columns, "inner": inner},
                labels={"precision": "bf16", "phase": phase},
                seconds=seconds,
                spread=spread,
                repeats=REPEATS,
                provenance=provenance,
            )


def attention_records(device: str, lengths: tuple[int, ...], provenance: dict[str, str]) -> Iterator[Record]:
    """Causal attention of 8 heads of 64 and 128, forward and backward."""
    attend = torch.nn.functional.scaled_dot_product_attention
    for length, size in product(lengths, (64, 128)):
        q, k, v = (_random(1, 8, length, size, device=device).requires_grad_() for _ in range(3))
        out = attend(q, k, v, is_causal=True)
        ones = torch.ones_like(out)
        phases: dict[str, Callable[[int], object]] = {
            "forward": lambda _, q=q, k=k, v=v: attend(q, k, v, is_causal=True),  # type: ignore[misc]
            "data_gradient": lambda _, q=q, k=k, v=v, out=out, ones=ones: torch.autograd.grad(  # type: ignore[misc]
                out, (q, k, v), ones, retain_graph=True
            ),
        }
        for phase, run in phases.items():
            seconds, spread = median_s(run, device)
            yield Record(
                kind="attention",
                sizes={"sequences": 1, "heads": 8, "kv_heads": 8, "head_size": size, "sequence_length": length},
                labels={"precision": "bf16", "phase": phase, "mask": "causal"},
                seconds=seconds,
                spread=spread,
                repeats=REPEATS,
                provenance=provenance,
            )


def copy_records(device: str, megabytes: tuple[int, ...], provenance: dict[str, str]) -> Iterator[Record]:
    """A copy: every byte read once and written once."""
    for size in megabytes:
        sources = [torch.rand(size * 250_000, device=device) for _ in range(BUFFERS)]
        target = torch.empty_like(sources[0])
        seconds, spread = median_s(lambda i, s=sources, t=target: t.copy_(s[i]), device)  # type: ignore[misc]
        yield Record(
            kind="memory_bound",
            sizes={"moved_bytes": 2e6 * size},
            labels={"operator": "copy", "phase": "forward", "class": "fused"},
            seconds=seconds,
            spread=spread,
            repeats=REPEATS,
            provenance=provenance,
        )


def _random(*shape: int, device: str) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.bfloat16, device=device)


def provenance_of(device: str) -> dict[str, str]:
    """What every record says of where it was taken."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {
        "gpu": name,
        "software": f"torch {torch.__version__}",
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python -m benchmarks.kernels",
    }


def main() -> None:
    """Measure everything and write it, whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smallest", action="store_true", help="a few small sizes: seconds, to see that it works")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    chosen = parser.parse_args()
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("kernels: no CUDA device is there; --device cpu measures this machine")
    sides, provenance = (SMALL_SIDES if chosen.smallest else SIDES), provenance_of(chosen.device)
    records = [
        *matmul_records(chosen.device, sides, provenance),
        *attention_records(chosen.device, sides, provenance),
        *copy_records(chosen.device, (1, 4) if chosen.smallest else (64, 256, 1024), provenance),
    ]
    write_text(chosen.output, "".join(json.dumps(each.document()) + "\n" for each in records))
    print(f"wrote {len(records)} records to {chosen.output}", file=sys.stderr)


if __name__ == "__main__":
    main()
