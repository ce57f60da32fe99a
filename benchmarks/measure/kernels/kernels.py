"""Measures products, attention and memory-bound operators of the reference model on one GPU, or one core, as records.

    python -m perfmodel.benchmarks.measure.kernels.kernels --device cuda --output records.jsonl
    python -m perfmodel.benchmarks.measure.kernels.kernels --device cpu --smallest --output records.jsonl

Those of training come first, then those of generation, which runs some of them on few rows and over a cache.

Each record is written as soon as it is measured. Started again with the same file, it goes on where it was left.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import torch

from perfmodel.benchmarks.measure.kernels.memory_operators import OPERATORS, Tensor
from perfmodel.benchmarks.measure.kernels.plan import kernel_points, plan_of
from perfmodel.benchmarks.measure.kernels.points import Point
from perfmodel.benchmarks.measure.kernels.products import attention, product
from perfmodel.benchmarks.measure.kernels.record_file import measure
from perfmodel.benchmarks.measure.kernels.served.served_kernels import take as take_served
from perfmodel.benchmarks.measure.kernels.served.served_plan import served_points
from perfmodel.benchmarks.measure.kernels.timing import SECONDS, Prepare, Timing, timed
from perfmodel.benchmarks.measure.machine import Nvml, provenance, state_text, warnings
from perfmodel.benchmarks.measure.neighbours import NeighbourMeter
from perfmodel.benchmarks.measure.processes import restarted_to_measure
from perfmodel.errors import InputError, PerfmodelError
from perfmodel.model.cores import on_one_core
from perfmodel.model.supported import DTYPES
from perfmodel.spec.phases import DATA_GRADIENT

MODULE: Final = "perfmodel.benchmarks.measure.kernels.kernels"
CPU_SECONDS: Final = 0.1  # a point: there are many, and one core is slow
SMALLEST_SECONDS: Final = 0.01  # to see that it works
SERVING: Final = ("few_rows", "cached", "served", "host")  # kinds of points


def take(point: Point, device: str, *, smallest: bool = False) -> Timing:
    """The time of one point; of one of the smallest from few repeats."""
    seconds = SMALLEST_SECONDS if smallest else CPU_SECONDS if device == "cpu" else SECONDS
    if point.kind in SERVING:
        return take_served(point, device, seconds=seconds, smallest=smallest)
    size = DTYPES[point.labels.get("precision", "fp32")].itemsize
    return timed(
        _prepare(point, device),
        buffer_bytes=size * _numbers(point),
        device=device,
        warm=point.labels.get("cache") == "warm",
        fresh=point.labels.get("operator") == "loss" and point.labels["phase"] == DATA_GRADIENT,
        seconds=seconds,
        smallest=smallest,
    )


def _prepare(point: Point, device: str) -> Prepare:
    sizes = {name: int(size) for name, size in point.sizes.items() if name not in ("moved_bytes", "rotary_fraction")}
    precision, phase = point.labels["precision"], point.labels["phase"]
    if point.kind == "matmul":
        return lambda: product(**sizes, precision=precision, phase=phase, device=device)
    if point.kind == "attention":
        return lambda: attention(**sizes, precision=precision, phase=phase, device=device)
    fraction = point.sizes.get("rotary_fraction", 1.0)
    tensor = Tensor(**sizes, precision=precision, device=device, rotary_fraction=fraction)
    return lambda: OPERATORS[point.labels["operator"]](tensor, phase)


def _numbers(point: Point) -> float:
    """How many numbers the operands of a point have, and its result."""
    sizes = point.sizes
    if point.kind == "matmul":
        rows, columns, inner = (sizes[name] for name in ("rows", "columns", "inner"))
        return rows * inner + inner * columns + rows * columns
    if point.kind == "attention":
        width = 2 * (sizes["heads"] + sizes["kv_heads"]) * sizes["head_size"]
        return width * sizes["sequences"] * sizes["sequence_length"]
    return (2 * sizes["rows"] + sizes.get("table_rows", 0)) * sizes["columns"]


def check_device(device: str) -> None:
    """Raise InputError where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("no CUDA device is there; --device cpu measures this machine")


def device_points(device: str, *, smallest: bool) -> list[Point]:
    """All points that one device measures alone: those of training, and those of serving."""
    return [*kernel_points(plan_of(device, smallest=smallest)), *served_points(device, smallest=smallest)]


def show_progress(done: int, total: int, point: Point) -> None:
    """One line on stderr, written over by the next where it is a terminal; into a file, one line in a hundred."""
    if sys.stderr.isatty():
        words = " ".join([point.kind, *point.labels.values()])
        print(f"\r{done}/{total} {words:70.70}", end="", file=sys.stderr, flush=True)
    elif done % 100 == 0:
        print(f"{done}/{total}", file=sys.stderr)


def run(device: str, path: Path, *, smallest: bool) -> None:
    """Measure what the file does not hold yet, and say what was wrong with the clocks meanwhile."""
    check_device(device)
    on_one_core(device)
    sensor = Nvml.open()
    born = provenance(device, f"python -m {MODULE} --device {device}{' --smallest' if smallest else ''}")
    before, meter = sensor.readings(), NeighbourMeter()
    measured = measure(
        device_points(device, smallest=smallest),
        path,
        lambda point: take(point, device, smallest=smallest),
        provenance=lambda: born | state_text(sensor.readings()) | meter.mark(),
        on_progress=show_progress,
    )
    for sentence in (*warnings(before, sensor.readings()), *meter.sentences(device, sensor.computing())):
        print(f"kernels: {sentence}", file=sys.stderr)
    print(f"wrote {measured} records to {path}", file=sys.stderr)


def main() -> None:
    """Measure; one sentence when it cannot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--smallest", action="store_true", help="a few small sizes: seconds, to see that it works")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE")
    chosen = parser.parse_args()
    restarted_to_measure(MODULE)
    try:
        run(chosen.device, chosen.output, smallest=chosen.smallest)
    except PerfmodelError as error:
        print(f"perfmodel: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"\nkernels: stopped; the same command goes on with {chosen.output}", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
