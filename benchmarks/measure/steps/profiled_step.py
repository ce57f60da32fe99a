"""One step under torch.profiler, every operator under the name that the forecast has for it: a trace for viewers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from perfmodel.model.operators import Label, Recorder, recording


class Marks(Recorder):
    """A recorder whose marks are ranges of the profiler too."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.ranges: list[Any] = []

    def open(self, label: Label) -> None:
        """A range with the name and the phase of the operator."""
        super().open(label)
        name, phase = label
        self.ranges.append(record_function(f"{name} ({phase})"))
        self.ranges[-1].__enter__()

    def close(self) -> None:
        """The end of the range that was opened last."""
        self.ranges.pop().__exit__(None, None, None)
        super().close()


def write_profile(step: Callable[[], object], device: torch.device, output: Path | None) -> None:
    """Run two steps; the trace of the second goes to `output`, of a rank that has one (all ranks take part in the steps).

    The first one is the profiler's own warm-up: what it sets up for its first events would count to them.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])

    def write(found: Any) -> None:
        if output is not None:
            found.export_chrome_trace(str(output))

    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=1), on_trace_ready=write) as found:
        for _ in range(2):
            with recording(Marks(device)):
                step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            found.step()
