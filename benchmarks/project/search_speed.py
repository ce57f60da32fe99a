"""How many layouts a search looks at in a second, and what it takes: Nemotron-4 340B on 3,072 GPUs, on 2 workers.

python -m perfmodel.benchmarks.project.search_speed [--many [LAYOUTS]]

Bars: 1,000,000 legal layouts a second for time and memory together, nothing left out; 3,000,000 for the whole search, which
asks for no time of what does not fit; peak memory of all processes within 2 GiB. Medians of 5 runs. Exit code 1 over a bar.
Beside them: how many single predictions one core makes in a second, here and in Calculon.

--many: a search of 100 million layouts (or as many as LAYOUTS says): both precisions, every sharding and every schedule, on
several numbers of GPUs, with the peak memory on the way. Ctrl-C shows the best so far.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from perfmodel.count.iteration import iteration
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage, stage_memory, stage_times_s
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import SearchResult, grid_memory_bytes, grid_time_s, search
from perfmodel.search.layouts.side_by_side import side_by_side
from perfmodel.search.layouts.space import LayoutGrid, SearchSpace, Workload, offered_space
from perfmodel.spec.layout import PIPELINE_SCHEDULES, SHARDINGS, Layout

WORK = Workload(
    model=model_preset("nemotron-4-340b"),
    cluster=cluster_preset("dgx-h100"),
    stack=stack_preset("megatron-core"),
    gpus=3072,
    global_batch_size=2304,
    sequence_length=4096,
)
WORKERS: Final = 2
REPEATS: Final = 5
SINGLES: Final = 200
MANY: Final = 100_000_000
MANY_GPUS: Final = (3072, 1536, 6144, 768, 4608, 2304, 1024, 2048)
REPORT_EVERY: Final = 10_000_000
BAR_LAYOUTS_PER_S, BAR_SEARCHED_PER_S, BAR_BYTES = 1e6, 3e6, 2 * 2**30
CALCULON_PREDICTION_S: Final = 1.8e-3  # calculon-ai/calculon: one prediction of a warm process, one core


def peak_bytes() -> int:
    """The most memory that this process has held, and at most its workers beside it."""
    own, workers = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return (own + WORKERS * workers) * 1024


def mib(size_bytes: float) -> str:
    """As a person reads it."""
    return f"{size_bytes / 2**20:,.0f} MiB"


def median_s(what: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time of some runs, after one that does not count."""
    what()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def time_and_memory(grid: LayoutGrid) -> int:
    """Both of every layout of a grid, and how many there are."""
    with np.errstate(all="ignore"):
        grid_memory_bytes(grid)
        grid_time_s(grid)
    return int(grid.allowed.sum())


def every_layout(space: SearchSpace) -> int:
    """Time and memory of all legal layouts, side by side; from no space to the last figure."""
    return sum(number for _, number in side_by_side(time_and_memory, layout_grids(WORK, space), workers=WORKERS))


def some_layouts(space: SearchSpace) -> list[Layout]:
    """Single layouts from all over the space."""
    draw = np.random.default_rng(550)
    every = list(layout_grids(WORK, space))
    chosen = (every[index] for index in draw.integers(len(every), size=SINGLES))
    cells = ((grid, np.argwhere(grid.allowed)) for grid in chosen)
    return [Layout(**grid.values(*map(int, some[draw.integers(len(some))]))) for grid, some in cells]


def alone(layout: Layout) -> None:
    """Time and memory of one layout, with the functions that a search uses."""
    work = iteration(WORK.setup(layout))
    stage_memory(work)
    stage_times_s([work], gpus=WORK.gpus)


def single_s(one: Callable[[Layout], Any], layouts: list[Layout]) -> float:
    """Median time of one prediction after the other; layouts remember what was asked of them, so each is new."""
    times = []
    with np.errstate(all="ignore"):
        for layout in layouts:
            fresh = replace(layout)
            start = time.perf_counter()
            one(fresh)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure() -> bool:
    """Print every figure beside its bar; whether all are met."""
    space, (busy, _, _) = offered_space(WORK.stack), os.getloadavg()
    found = search(layout_grids(WORK, space), workers=WORKERS)
    search_s = median_s(lambda: search(layout_grids(WORK, space), workers=WORKERS))
    search_bytes = peak_bytes()
    all_s = median_s(lambda: every_layout(space))
    rate, peak = found.layouts / all_s, peak_bytes()
    layouts = some_layouts(space)
    alone_s = single_s(alone, layouts)
    predicted_s = single_s(lambda layout: predict_stage(WORK.setup(layout)), layouts)
    print(f"{WORK.model.name} on {WORK.gpus:,} GPUs, {WORKERS} workers, medians of {REPEATS} runs")
    print(f"this machine     {os.cpu_count()} cores, {busy:.1f} of them busy before")
    print(f"legal layouts    {found.layouts:,}, of which {found.fitting:,} fit")
    print(f"time and memory  {rate:,.0f} layouts/s: all of them in {all_s:.2f} s (bar {BAR_LAYOUTS_PER_S:,.0f} layouts/s)")
    searched = found.layouts / search_s
    print(f"whole search     {searched:,.0f} layouts/s: {search_s:.2f} s (bar {BAR_SEARCHED_PER_S:,.0f} layouts/s)")
    print(f"peak memory      {mib(search_bytes)}, with all figures {mib(peak)} (bar {mib(BAR_BYTES)})")
    print("one by one, on one core:")
    for what, seconds in (("with interval", predicted_s), ("as in a search", alone_s), ("Calculon", CALCULON_PREDICTION_S)):
        times = f"on arrays {rate * seconds / WORKERS:,.0f} times as many"
        print(f"  {what:14s} {1 / seconds:,.0f} layouts/s ({seconds * 1e3:.2f} ms); {times}")
    return rate >= BAR_LAYOUTS_PER_S and searched >= BAR_SEARCHED_PER_S and peak <= BAR_BYTES


def many_grids(layouts: int) -> Iterator[LayoutGrid]:
    """Blocks of many spaces, until there are enough layouts."""
    space = SearchSpace(precision=("bf16", "fp8"), sharding=SHARDINGS, pipeline_schedule=PIPELINE_SCHEDULES)
    seen = 0
    for gpus in MANY_GPUS:
        for grid in layout_grids(replace(WORK, gpus=gpus), space):
            if seen >= layouts:
                return
            seen += int(grid.allowed.sum())
            yield grid


def search_many(layouts: int) -> SearchResult:
    """A search with a progress bar, and the peak memory on the way."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[peak]}"), TimeElapsedColumn(), TimeRemainingColumn())
    marks: list[int] = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("layouts", total=layouts, peak="")

        def advance(seen: int) -> None:
            progress.update(task, completed=min(seen, layouts), peak=mib(peak_bytes()))
            if seen >= REPORT_EVERY * (len(marks) + 1):
                marks.append(peak_bytes())

        found = search(many_grids(layouts), workers=WORKERS, on_progress=advance)
    for number, peak in enumerate(marks, start=1):
        print(f"after {number * REPORT_EVERY:,} layouts  {mib(peak)} at most")
    return found


def report_many(layouts: int) -> None:
    """Search, and say what was found however it ended."""
    start = time.perf_counter()
    found = search_many(layouts)
    seconds, rate = time.perf_counter() - start, found.layouts / (time.perf_counter() - start)
    ended = "all of them" if found.complete else "stopped"
    print(f"{ended}: {found.layouts:,} layouts, of which {found.fitting:,} fit, in {seconds:.1f} s: {rate:,.0f} layouts/s")
    for best in found.fastest[:1]:
        print(f"best so far: {best.iteration_time_s:.3f} s, {best.memory_bytes / 1e9:.1f} GB on {best.gpus:,} GPUs")
        print(", ".join(f"{name} {value}" for name, value in best.settings.items()))


def main() -> None:
    """Measure, print, and say whether the bars are met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--many", metavar="LAYOUTS", type=int, nargs="?", const=MANY)
    arguments = parser.parse_args()
    if arguments.many is not None:
        report_many(arguments.many)
    elif not measure():
        sys.exit(1)


if __name__ == "__main__":
    main()
