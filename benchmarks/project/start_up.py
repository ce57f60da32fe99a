"""What perfmodel costs: a prediction and a validation as whole processes, and one prediction inside a process.

python -m perfmodel.benchmarks.project.start_up [TABLE.csv ...]

Bars: the best of 5 runs of `predict nemotron-4-15b --json` within 0.25 s, peak memory within 120 MB; the median prediction
within 5 ms, of the central run and of a layout that uses every kind of parallelism; `validate` of the shipped table, and of all
that are named, within 5 s together. Exit code 1 over a bar.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict_stage

PERFMODEL = str(Path(sys.executable).with_name("perfmodel"))
PREDICT = (PERFMODEL, "predict", "nemotron-4-15b", "--json")
EVERY_KIND = ("tensor_parallel=4", "pipeline_parallel=8", "virtual_pipeline=2", "context_parallel=2", "sequence_length=8192")
MORE_MICRO_BATCHES = ("stages=[{data_parallel: 4, global_batch_size: 64}]",)
REPEATS = 5
BAR_S, BAR_BYTES, BAR_PREDICTION_S, BAR_VALIDATION_S = 0.25, 120e6, 5e-3, 5.0


def process(command: Sequence[str]) -> tuple[float, int]:
    """Wall time [s] and peak resident memory [bytes] of one run of a command."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)} failed with exit code {child.returncode}")
    return seconds, usage.ru_maxrss * 1024


def prediction_s(overrides: Sequence[str] = (), repeats: int = 200) -> float:
    """Median time of one prediction of one stage, inside a warm process."""
    run = read_candidates("nemotron-4-15b", overrides)[0].run
    setup = run.setup(run.stages[0])
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        predict_stage(setup)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, print, and say whether the bars are met."""
    runs = [process(PREDICT) for _ in range(REPEATS + 1)][1:]
    best_s, median_s = min(seconds for seconds, _ in runs), statistics.median(seconds for seconds, _ in runs)
    peak_bytes = max(peak for _, peak in runs)
    plain_s, every_s = prediction_s(), prediction_s((*EVERY_KIND, *MORE_MICRO_BATCHES))
    tables = [(), *((path,) for path in sys.argv[1:])]
    validation_s = sum(process((PERFMODEL, "validate", *table, "--json"))[0] for table in tables)
    print(f"whole process   best {best_s:.3f} s, median {median_s:.3f} s of {REPEATS} (bar {BAR_S} s)")
    print(f"peak memory     {peak_bytes / 1e6:.1f} MB (bar {BAR_BYTES / 1e6:.0f} MB)")
    print(f"one prediction  median {plain_s * 1e3:.2f} ms (bar {BAR_PREDICTION_S * 1e3:.0f} ms)")
    print(f"with every kind of parallelism  median {every_s * 1e3:.2f} ms (bar {BAR_PREDICTION_S * 1e3:.0f} ms)")
    print(f"validate, {len(tables)} table{'s' if len(tables) > 1 else ''}  {validation_s:.2f} s (bar {BAR_VALIDATION_S:.0f} s)")
    over = max(plain_s, every_s) > BAR_PREDICTION_S or validation_s > BAR_VALIDATION_S
    if best_s > BAR_S or peak_bytes > BAR_BYTES or over:
        sys.exit(1)


if __name__ == "__main__":
    main()
