"""Are the layouts next to a run's those that can be, with the numbers that each would have alone?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import PerfmodelError
from perfmodel.prediction import predict
from perfmodel.spec.run import Run
from perfmodel.variation.layout_map import FEWEST, MOST_COLUMNS, LayoutMap, layout_map
from perfmodel.variation.strong_scaling import replicas, strong_scaling

RAMP = api.load("nemotron-4-15b")
PIPELINE = api.load("nemotron-4-15b", {"pipeline_parallel": 4, "virtual_pipeline": 2})


def alone(run: Run, numbers: Mapping[str, Any]) -> Run:
    """The run with the layout of one neighbour as its only stage."""
    stage = replace(run.stages[-1], data_parallel=numbers["data_parallel"], global_batch_size=numbers["global_batch_size"])
    tensor, pipeline, pieces = (numbers[name] for name in ("tensor_parallel", "pipeline_parallel", "virtual_pipeline"))
    return replace(run, stages=(stage,), tensor_parallel=tensor, pipeline_parallel=pipeline, virtual_pipeline=pieces)


@pytest.mark.parametrize("run", [RAMP, PIPELINE], ids=["ramp", "pipeline"])
def test_every_neighbour_has_the_numbers_that_it_has_alone(run: Run) -> None:
    """One call with arrays gives what single predictions give."""
    found = layout_map(run)
    for each in found.neighbours[::7]:
        ((_, predicted),) = predict(alone(run, each.numbers)).stages
        assert each.numbers["iteration_time_s"] == float(predicted.iteration_time_s)
        assert each.numbers["mfu"] == float(predicted.mfu)
        assert each.numbers["fits"] == bool(predicted.fits)


@pytest.mark.parametrize("run", [RAMP, PIPELINE], ids=["ramp", "pipeline"])
def test_all_use_the_gpus_of_the_run(run: Run) -> None:
    """The pipeline fills what tensor and data parallelism leave; the run itself is one of them."""
    found = layout_map(run)
    gpus = int(run.layout(run.stages[-1]).gpus)
    assert found.gpus == gpus
    assert {each.numbers["gpus"] for each in found.neighbours} == {gpus}
    own = {(each.tensor_parallel, each.data_parallel): each.numbers for each in found.neighbours}[found.here]
    assert own["mfu"] == float(predict(run).stages[-1][1].mfu)


def test_what_cannot_be_is_left_out() -> None:
    """A layout that is not among them is refused alone too, for those degrees that are."""
    found = layout_map(RAMP)
    known = {(each.tensor_parallel, each.data_parallel) for each in found.neighbours}
    refused = 0
    for tensor in found.tensor_parallel:
        for data in found.data_parallel:
            stages = 2304 // (tensor * data)
            if (tensor, data) in known or 2304 % (tensor * data):
                continue
            refused += 1
            stage = replace(RAMP.stages[-1], data_parallel=data)
            with pytest.raises(PerfmodelError):
                replace(RAMP, stages=(stage,), tensor_parallel=tensor, pipeline_parallel=stages)
    assert refused


def test_one_gpu_may_grow() -> None:
    """Where there is nothing to choose the number of GPUs grows, and each replica keeps its sequences."""
    found = layout_map(api.load("laptop"))
    assert found.gpus is None
    assert len(found.neighbours) >= FEWEST
    assert found.here in {(each.tensor_parallel, each.data_parallel) for each in found.neighbours}
    assert all(each.numbers["global_batch_size"] == each.data_parallel for each in found.neighbours)


def test_a_map_is_never_too_wide() -> None:
    """Of many columns the best stay, and the run's own."""
    found: LayoutMap = layout_map(api.load("nemotron-4-15b", {"stages[*].global_batch_size": 11520}))
    assert len(found.data_parallel) <= MOST_COLUMNS
    assert found.here[1] in found.data_parallel


def test_strong_scaling_keeps_the_batch() -> None:
    """The run's own point has its own numbers; every number of replicas divides the batch."""
    swept = strong_scaling(RAMP)
    by_replicas = {point.values[0]: point.numbers for point in swept.points}
    assert {numbers["global_batch_size"] for numbers in by_replicas.values()} == {1152}
    assert by_replicas[288]["iteration_time_s"] == float(predict(RAMP).stages[-1][1].iteration_time_s)
    assert all(1152 % each == 0 for each in by_replicas)


def test_replicas_lie_around_the_run() -> None:
    """About halvings and doublings, never more than there are sequences."""
    layout = RAMP.layout(RAMP.stages[0])
    assert replicas(layout) == [3, 6, 12, 24, 48, 96, 192, 384]
    assert replicas(replace(layout, data_parallel=1, global_batch_size=1)) == [1]


def test_a_map_has_no_degrees_that_the_stack_does_not_offer() -> None:
    """But those of the run itself."""
    run = api.load("nemotron-4-15b", {"stack": "pytorch-fsdp", "sharding": "zero3"})
    assert set(layout_map(run).tensor_parallel) <= {1, 8}
    assert {each.numbers["pipeline_parallel"] for each in layout_map(run).neighbours} == {1}
