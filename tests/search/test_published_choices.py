"""Does a plan agree with the layouts that NVIDIA chose for Megatron-Core, or say what it would do otherwise and why?

Every layout of a model on a GPU in a precision in NVIDIA's own benchmarks (dgxc-benchmarking, Megatron-Bridge, NeMo's user
guide), on the fewest GPUs that a row of data/published_runs.csv has it on, where the row has all layers of its model (some have
fewer, for small clusters) and fits in the predicted memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest

from perfmodel.prediction import StagePrediction, predict
from perfmodel.search.alternatives import candidate_prediction, largest_loss, setting_differences
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import LayoutCandidate, search
from perfmodel.search.layouts.space import Workload, offered_space
from perfmodel.spec.run import Run
from perfmodel.timing.breakdown import PARTS
from tests.comparisons import measured

pytestmark = pytest.mark.slow

SOURCES = ("NVIDIA/dgxc", "NVIDIA-NeMo/Megatron-Bridge", "docs.nvidia.com")
SETTINGS = (
    "precision",
    "tensor_parallel",
    "pipeline_parallel",
    "virtual_pipeline",
    "context_parallel",
    "micro_batch_size",
    "sharding",
)
CLOSE = 0.05
SHARE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A published layout beside the best that the search finds for the same work."""

    published: StagePrediction
    settings: dict[str, Any]  # of the published layout
    best: LayoutCandidate
    work: Workload

    @property
    def slower_by(self) -> float:
        """Of the published one, as a ratio to the best."""
        return float(self.published.iteration_time_s) / self.best.iteration_time_s - 1.0


def rows() -> Iterator[Run]:
    """The run on the fewest GPUs of each layout of a model on a GPU in a precision."""
    runs = [row.run for row in measured() if row.run is not None and row.source.startswith(SOURCES)]
    layers: dict[int, int] = {}
    for run in runs:
        model = int(run.model.hidden_size)
        layers[model] = max(layers.get(model, 0), int(run.model.layers))
    seen = set()
    for run in sorted(runs, key=lambda run: int(run.layout(run.stages[0]).gpus)):
        model = int(run.model.hidden_size)  # sources name a model in several ways; its width is its own
        layout = run.layout(run.stages[0])
        key = model, run.cluster.gpu.name, *(getattr(layout, name) for name in SETTINGS)
        if key not in seen and run.model.layers == layers[model] and predict(run).fits:
            seen.add(key)
            yield run


@cache
def choices() -> tuple[Choice, ...]:
    """All of them, each with the best layout of its GPUs, batch, sequence, precision and stack."""
    return tuple(map(_choice, rows()))


def _choice(run: Run) -> Choice:
    stage, layout = run.stages[0], run.layout(run.stages[0])
    work = Workload(
        model=run.model,
        cluster=run.cluster,
        stack=run.stack,
        gpus=int(layout.gpus),
        global_batch_size=int(stage.global_batch_size),
        sequence_length=int(run.sequence_length),
    )
    found = search(layout_grids(work, offered_space(run.stack, precision=(run.precision,))), workers=1)
    settings = {name: getattr(layout, name) for name in found.fastest[0].settings}
    return Choice(published=predict(run).stages[0][1], settings=settings, best=found.fastest[0], work=work)


def test_there_are_enough() -> None:
    """Several models, GPUs and precisions."""
    assert len(choices()) >= 10
    assert len({choice.work.model.name for choice in choices()}) >= 4
    assert len({choice.work.cluster.gpu.name for choice in choices()}) >= 3
    assert {choice.settings["precision"] for choice in choices()} == {"bf16", "fp8", "mxfp8"}


def test_published_layouts_are_among_the_best() -> None:
    """At least eight of ten are within 5 % of the best that fits."""
    near = [choice.slower_by <= CLOSE for choice in choices()]
    assert np.mean(near) >= SHARE


def test_none_is_better_than_the_best() -> None:
    """The search looked at the published layout as well."""
    assert all(choice.slower_by >= -1e-9 for choice in choices())


def test_the_others_come_with_a_reason() -> None:
    """What the best one changes, and the part of the iteration in which that gains most of the difference."""
    far = [choice for choice in choices() if choice.slower_by > CLOSE]
    for choice in far:
        best = candidate_prediction(choice.best, choice.work)
        part, lost_s = largest_loss(best.breakdown, choice.published.breakdown)
        assert setting_differences(choice.settings, choice.best.settings)
        assert part in PARTS
        assert lost_s >= (float(choice.published.iteration_time_s) - choice.best.iteration_time_s) / len(PARTS)


@pytest.mark.parametrize("place", range(10))
def test_a_searched_time_is_the_predicted_one(place: int) -> None:
    """To the last bit: the best of a search, predicted alone."""
    choice = choices()[place]
    alone = candidate_prediction(choice.best, choice.work)
    assert float(np.asarray(alone.iteration_time_s)) == choice.best.iteration_time_s
    assert float(np.asarray(alone.memory.total_bytes)) == choice.best.memory_bytes
