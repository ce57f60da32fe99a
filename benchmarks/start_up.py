"""What `perfmodel predict nemotron-4-15b --json` costs as a whole process, and one prediction inside a process.

python -m benchmarks.start_up

Bars: the best of 5 runs within 0.35 s, peak memory within 120 MB; the median prediction within 5 ms. Exit code 1 over a bar.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from perfmodel.exchange.run_files import read_candidates
from perfmodel.predict import predict_stage

COMMAND = [str(Path(sys.executable).with_name("perfmodel")), "predict", "nemotron-4-15b", "--json"]
REPEATS = 5
BAR_S, BAR_BYTES, BAR_PREDICTION_S = 0.35, 120e6, 5e-3


def process() -> tuple[float, int]:
    """Wall time [s] and peak resident memory [bytes] of one run of the command."""
    start = time.perf_counter()
    child = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(COMMAND)} failed with exit code {child.returncode}")
    return seconds, usage.ru_maxrss * 1024


def prediction_s(repeats: int = 100) -> float:
    """Median time of one prediction of one stage, inside a warm process."""
    run = read_candidates("nemotron-4-15b")[0].run
    layout = run.layout(run.stages[0])
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        predict_stage(run.model, run.cluster, run.stack, layout)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, print, and say whether the bars are met."""
    runs = [process() for _ in range(REPEATS + 1)][1:]
    best_s, median_s = min(seconds for seconds, _ in runs), statistics.median(seconds for seconds, _ in runs)
    peak_bytes, inside_s = max(peak for _, peak in runs), prediction_s()
    print(f"whole process   best {best_s:.3f} s, median {median_s:.3f} s of {REPEATS} (bar {BAR_S} s)")
    print(f"peak memory     {peak_bytes / 1e6:.1f} MB (bar {BAR_BYTES / 1e6:.0f} MB)")
    print(f"one prediction  median {inside_s * 1e3:.2f} ms (bar {BAR_PREDICTION_S * 1e3:.0f} ms)")
    if best_s > BAR_S or peak_bytes > BAR_BYTES or inside_s > BAR_PREDICTION_S:
        sys.exit(1)


if __name__ == "__main__":
    main()
