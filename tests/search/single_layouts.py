"""The time and the memory of one layout, predicted alone and without its interval, which takes as long as all the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.count.iteration import iteration
from perfmodel.count.memory import MemoryBytes
from perfmodel.prediction import stage_breakdown, stage_memory
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What a search is held against."""

    iteration_time_s: float
    memory: MemoryBytes


def alone(setup: Setup) -> Alone:
    """Bit for bit what `predict_stage` gives (test_a_layout_alone_is_what_is_predicted)."""
    with np.errstate(all="ignore"):
        seconds = float(stage_breakdown(setup).total_s)
        return Alone(iteration_time_s=seconds, memory=stage_memory(iteration(setup)))
