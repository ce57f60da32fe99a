"""What whole commands cost: a plan, a page of HTML, a timeline, as somebody at a terminal waits for them.

python -m perfmodel.benchmarks.project.commands

Bars, the median of 3 runs each: the full search of Nemotron-4 340B on 3,072 GPUs within 2 s, with start and report; a page of
the central run within 5 s and 3 MB; its timeline within 5 s. Exit code 1 over a bar.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Final

from perfmodel.benchmarks.project.start_up import PERFMODEL, process

RUN: Final = "nemotron-4-15b"
REPEATS: Final = 3
PAGE_BYTES: Final = 3e6
SEARCH: Final = (
    "plan",
    "nemotron-4-340b",
    "--cluster",
    "dgx-h100",
    "--gpus",
    "3072",
    "--tokens",
    "8T",
    "--global-batch-size",
    "2304",
)


def main() -> None:
    """Measure, print, and say whether the bars are met."""
    with tempfile.TemporaryDirectory() as folder:
        page, trace = Path(folder) / "report.html", Path(folder) / "trace.json"
        commands = {
            "plan, 340B on 3,072 GPUs": (SEARCH, 1.5),
            "report": (("report", RUN, "-o", str(page)), 5.0),
            "timeline": (("timeline", RUN, "-o", str(trace)), 5.0),
        }
        over = False
        for name, (arguments, bar_s) in commands.items():
            runs = [process((PERFMODEL, *arguments)) for _ in range(REPEATS)]
            median_s, peak_bytes = statistics.median(seconds for seconds, _ in runs), max(peak for _, peak in runs)
            over = over or median_s > bar_s
            print(f"{name:26}median {median_s:.2f} s of {REPEATS} (bar {bar_s:g} s), peak {peak_bytes / 1e6:.0f} MB")
        size = page.stat().st_size
        print(f"{'page':26}{size / 1e6:.2f} MB (bar {PAGE_BYTES / 1e6:g} MB)")
    if over or size > PAGE_BYTES:
        sys.exit(1)


if __name__ == "__main__":
    main()
