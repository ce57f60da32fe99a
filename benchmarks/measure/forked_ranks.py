"""What torchrun does on one machine, with ranks that share one start of torch where there is no GPU.

python -m perfmodel.benchmarks.measure.forked_ranks RANKS MODULE [ARGUMENTS ...]

The module is imported once and each rank is a fork that calls its `main`: importing torch takes seconds, and a CPU has as many
ranks as cores. CUDA does not survive a fork; with GPUs torchrun itself starts the ranks.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import time
import traceback
import uuid
from collections.abc import Sequence
from typing import Final

import torch
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

SEEN_S: Final = 1.0  # until the launcher has seen whose end ended the others: it looks ten times a second


def main() -> None:
    """Start the ranks and wait for them; the error of the first that failed is torchrun's own report."""
    ranks, module, *arguments = sys.argv[1:]
    if torch.cuda.is_available():
        from torch.distributed.run import main as torchrun

        torchrun(["--standalone", f"--nproc-per-node={ranks}", "-m", module, *arguments])
        return
    importlib.import_module(module)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=int(ranks),
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="fork",
    )
    logging.disable()  # what it says stands in the error as well, and torch imports its compiler to write a line of it
    elastic_launch(config, run)(module, arguments)


def run(module: str, arguments: Sequence[str]) -> None:
    """One rank: `python -m module` in a process that has imported it already."""
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(each, signal.SIG_DFL)  # the launcher's own handlers would say that it was stopped
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.disable(logging.NOTSET)
    loaded = importlib.import_module(module)
    sys.argv = [str(loaded.__file__), *arguments]
    try:
        loaded.main()
    except Exception:  # noqa: BLE001 - any of them ends a rank as it would end a program
        traceback.print_exc()
        time.sleep(SEEN_S)
        sys.exit(1)


if __name__ == "__main__":
    main()
