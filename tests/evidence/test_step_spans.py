"""Does a record become a step in time: every operator with its share, and all of it as long as was measured?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from perfmodel.evidence.steps.step_comparison import compare_step
from perfmodel.evidence.steps.step_records import OperatorTime
from perfmodel.evidence.steps.step_spans import MeasuredStep, measured_step
from tests.evidence.step_examples import as_predicted, small_prediction


def measured(slower: float = 1.0, **changes: object) -> MeasuredStep:
    """The step of a record, changed."""
    prediction = small_prediction()
    record = replace(as_predicted(prediction, slower=slower), **changes)  # type: ignore[arg-type]
    return measured_step(compare_step(prediction, record))


def test_it_is_as_long_as_the_profiled_step() -> None:
    """Operators one after the other, then the time in none of them."""
    found = measured()
    record = as_predicted(small_prediction())
    assert found.duration_s == pytest.approx(record.profiled_iteration_time_s, rel=1e-9)
    assert all(one.end_s == other.start_s for one, other in pairwise(found.executions))
    assert [name for name, _, _ in found.others] == ["between operators"]


def test_a_pipeline_is_as_long_as_its_stages_are_on_average() -> None:
    """All layers of the model share the mean over the stages; messages between these come last."""
    prediction = small_prediction("pipeline_parallel=2", "stages=[{data_parallel: 1, global_batch_size: 4}]")
    record = as_predicted(prediction)
    found = measured_step(compare_step(prediction, record))
    assert found.duration_s == pytest.approx(record.profiled_iteration_time_s, rel=1e-9)
    assert {each.layer for each in found.executions} == {None, *range(32)}
    others = [name for name, _, _ in found.others]
    assert others == ["pipeline.send_activations (forward)", "pipeline.send_gradients (data_gradient)", "between operators"]


def test_operators_run_in_the_order_of_the_forecast() -> None:
    """Forwards through the layers, backwards through them, then the optimizer; micro-batch after micro-batch."""
    found = measured()
    first = [each for each in found.executions if each.micro_batch == 0]
    assert [each.direction for each in first] == sorted((each.direction for each in first), reverse=True)
    products = [each for each in first if each.operator.name == "layer.mlp.fc1"]
    layers = [each.layer for each in products if each.operator.phase != "weight_gradient"]
    assert layers == [*range(32), *reversed(range(32))]
    assert [each.micro_batch for each in found.executions if each.operator.name == "head.loss"] == [0, 0, 1, 1]
    assert found.executions[-1].direction == "optimizer"


def test_every_execution_has_its_share() -> None:
    """Of a record that took twice as long as predicted, twice what is predicted for it."""
    for each in measured(2.0).executions:
        assert each.end_s - each.start_s == pytest.approx(2.0 * each.predicted_s, rel=1e-9)


def test_what_the_forecast_has_not_comes_at_the_end() -> None:
    """Under its own name."""
    other = OperatorTime(name="layer.other", phase="forward", seconds=0.25, fastest_s=0.25)
    times = [*as_predicted(small_prediction()).operators, other]
    found = measured(operators=times)
    (name, start_s, end_s), between = found.others
    assert name == "layer.other (forward)"
    assert end_s - start_s == pytest.approx(0.25)
    assert between == ("between operators", end_s, found.duration_s)
