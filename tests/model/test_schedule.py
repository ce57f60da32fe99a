"""The order in which a real pipeline runs its passes is the one that the forecast simulates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.events.pipeline_order import BACKWARD, pipeline_order
from perfmodel.model.pipelines.schedule import Task, schedule_of_stage
from tests.model.small_models import ONE_RANK


@pytest.mark.parametrize(("stages", "virtual"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2), (4, 3), (8, 4)])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_every_stage_runs_the_steps_of_the_forecast(stages: int, virtual: int, rounds: int) -> None:
    """Pass by pass, over the same pieces; with fewer micro-batches than the warm-up, and with many."""
    batches = rounds * stages if virtual > 1 else rounds
    layout = replace(
        ONE_RANK, pipeline_parallel=stages, virtual_pipeline=virtual, micro_batch_size=1, global_batch_size=batches
    )
    for stage, steps in enumerate(pipeline_order(layout)):
        predicted = [
            tuple(Task(task.kind == BACKWARD, task.piece // stages, task.micro_batch) for task in step) for step in steps
        ]
        assert schedule_of_stage(layout, stage) == predicted
