"""The time and the memory of one layout, predicted alone and without its interval, which takes as long as all the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.prediction import stage_memory
from perfmodel.spec.setup import Setup
from perfmodel.timing.kernels import at_cluster_load
from perfmodel.timing.schedule import breakdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """What a search is held against."""

    iteration_time_s: float
    memory: MemoryBytes


def alone(setup: Setup) -> Alone:
    """Bit for bit what `predict_stage` gives (test_a_layout_alone_is_what_is_predicted)."""
    with np.errstate(all="ignore"):
        work = iteration(setup)
        parts = breakdown(work, cluster=at_cluster_load(setup.cluster, setup.layout.gpus), stack=setup.stack)
        return Alone(iteration_time_s=float(parts.total_s), memory=stage_memory(work))
