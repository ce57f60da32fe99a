"""Does the comparison of a step with its prediction add up, name what is left over, and refuse other steps?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.steps.compared import BETWEEN, OVERHEAD, GroupOfRanks
from perfmodel.evidence.steps.step_comparison import BUBBLE, compare_step
from perfmodel.evidence.steps.step_records import CollectiveCount, OperatorTime, StepRecord, step_record
from perfmodel.prediction import Prediction
from tests.evidence.step_examples import as_predicted, small_prediction


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """Of a step on four GPUs."""
    return small_prediction()


@pytest.fixture(scope="module")
def record(prediction: Prediction) -> StepRecord:
    """A step that took what was predicted."""
    return as_predicted(prediction)


def test_a_step_as_predicted_has_no_errors(prediction: Prediction, record: StepRecord) -> None:
    """Step, operators, memory, calls and payload."""
    comparison = compare_step(prediction, record)
    pairs = [comparison.step, *comparison.operators, *comparison.memory.values()]
    pairs += [*comparison.calls.values(), *comparison.payload_bytes.values()]
    assert all(pair.predicted == pytest.approx(pair.measured, rel=1e-6, abs=1e-9) for pair in pairs)
    assert len(comparison.calls) >= 3


def test_both_sides_add_up_to_their_steps(prediction: Prediction) -> None:
    """Operators, what lies between them, and what marks cost; what ranks wait for one another is part of their collectives."""
    slow = as_predicted(prediction, slower=1.5)
    reduction = next(each for each in slow.operators if each.name == "optimizer.reduce_gradients")
    others = [each for each in slow.operators if each is not reduction]
    waited = replace(slow, operators=[*others, replace(reduction, seconds=reduction.seconds + 0.1)])
    waited = replace(waited, profiled_iteration_time_s=slow.iteration_time_s + 0.1 + 0.2, between_s=slow.between_s + 0.2)
    comparison = compare_step(prediction, waited)
    rest_s = {pair.name: pair.measured for pair in comparison.operators if not pair.kind}
    assert comparison.waiting_s == pytest.approx(0.1)
    assert rest_s[OVERHEAD] == pytest.approx(-0.3)
    assert rest_s[BETWEEN] == pytest.approx(slow.between_s + 0.2)
    assert sum(pair.measured for pair in comparison.operators) == pytest.approx(waited.iteration_time_s)
    assert sum(pair.predicted for pair in comparison.operators) == pytest.approx(comparison.step.predicted)
    assert comparison.step.error == pytest.approx(1 / 1.5 - 1)


def test_what_stages_of_a_pipeline_wait_for_each_other_is_a_row_of_its_own() -> None:
    """In messages between stages and in collectives of all ranks; times are those of a stage on average, and add up."""
    prediction = small_prediction("pipeline_parallel=4", "stages=[{data_parallel: 1, global_batch_size: 8}]")
    stage, slow = prediction.stages[0][1], as_predicted(prediction, slower=1.5)
    waits = {"pipeline.send_gradients": 0.25, "optimizer.gradient_norm.all_reduce": 0.5, "embedding.scatter": 0.125}
    waited = replace(
        slow,
        operators=[replace(each, seconds=each.seconds + waits.get(each.name, 0.0)) for each in slow.operators],
        profiled_iteration_time_s=slow.iteration_time_s + sum(waits.values()),
    )
    comparison = compare_step(prediction, waited)
    bubble = next(pair for pair in comparison.operators if pair.name == BUBBLE)
    assert [bubble.measured, comparison.waiting_s] == pytest.approx([0.75, 0.125])
    assert bubble.predicted > float(stage.breakdown.pipeline_bubble_s)  # of the last stage, which has the head
    assert sum(pair.measured for pair in comparison.operators) == pytest.approx(waited.iteration_time_s)
    assert sum(pair.predicted for pair in comparison.operators) == pytest.approx(comparison.step.predicted)
    messages = {group.pipeline_stage: pair for group, pair in comparison.calls.items() if group.kind == "point_to_point"}
    assert [(pair.predicted, pair.error) for pair in messages.values()] == [(8, 0.0), (16, 0.0), (16, 0.0), (8, 0.0)]


def test_the_largest_operators_make_up_their_share(prediction: Prediction, record: StepRecord) -> None:
    """The longest first, no more than are needed."""
    comparison = compare_step(prediction, record)
    chosen = comparison.largest(0.5)
    times = [pair.measured for pair in chosen]
    assert times == sorted(times, reverse=True)
    assert sum(times[:-1]) < 0.5 * record.profiled_iteration_time_s <= sum(times)


def test_an_operator_that_was_not_predicted_stands_in_the_list(prediction: Prediction, record: StepRecord) -> None:
    """With nothing on the other side, and so no error that would look small."""
    more = OperatorTime(name="layer.surprise", phase="forward", seconds=1.0, fastest_s=1.0)
    comparison = compare_step(prediction, replace(record, operators=[*record.operators, more]))
    found = next(pair for pair in comparison.operators if pair.name == "layer.surprise")
    assert (found.predicted, found.measured, found.error) == (0.0, 1.0, -1.0)


def test_calls_that_only_torch_saw_are_shown(prediction: Prediction, record: StepRecord) -> None:
    """A group that the forecast does not know."""
    more = CollectiveCount(kind="all_to_all", ranks=3, calls=2, payload_bytes=64)
    comparison = compare_step(prediction, replace(record, collectives=[*record.collectives, more]))
    assert comparison.calls[GroupOfRanks("all_to_all", 3)].predicted == 0
    assert comparison.calls[GroupOfRanks("all_to_all", 3)].measured == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("tensor_parallel=4", "tensor_parallel: the run has 4, the record was measured with 2"),
        ("micro_batch_size=2", "micro_batch_size: the run has 2, the record was measured with 1"),
        ("model.layers=16", "model.layers: the run has 16, the record was measured with 32"),
        ("sequence_parallel=false", "sequence_parallel: the run has false, the record was measured with true"),
    ],
)
def test_another_step_is_refused(record: StepRecord, setting: str, sentence: str) -> None:
    """Like is compared with like."""
    with pytest.raises(InputError, match=sentence):
        compare_step(small_prediction(setting), record)


def test_the_stage_that_was_measured_is_found(record: StepRecord) -> None:
    """Of a ramp, the one with the record's degree of data parallelism."""
    ramp = "stages=[{data_parallel: 1, global_batch_size: 2}, {data_parallel: 2, global_batch_size: 4}]"
    assert compare_step(small_prediction(ramp), record).predicted.layout.data_parallel == 2


def test_each_difference_is_said_to_be_within_the_interval_of_its_measurement_or_not(
    prediction: Prediction, record: StepRecord
) -> None:
    """Of an operator whose record says none, nothing is."""
    first, second, *others = record.operators
    wide = replace(first, interval_s=(0.9 * first.seconds, 1.1 * first.seconds))
    off = replace(second, seconds=2 * second.seconds, interval_s=(1.9 * second.seconds, 2.1 * second.seconds))
    found = compare_step(prediction, replace(record, operators=[wide, off, *others]))
    by_name = {(pair.name, pair.phase): pair for pair in found.operators}
    assert by_name[first.name, first.phase].is_within is True
    assert by_name[second.name, second.phase].is_within is False
    assert by_name[others[0].name, others[0].phase].is_within is None
    row = by_name[second.name, second.phase].row()
    assert (row["within"], row["measured_interval_s"]) == (False, [1.9 * second.seconds, 2.1 * second.seconds])


@pytest.mark.parametrize("interval", [[1.0], [2.0, 3.0], [0.1, 0.2, 0.3], [3.0, 0.5]])
def test_an_interval_that_is_none_is_refused(record: StepRecord, interval: list[float]) -> None:
    """It has two ends, and the time between them."""
    document = record.document()
    document["operators"][0] |= {"seconds": 1.0, "fastest_s": 1.0, "interval_s": interval}
    with pytest.raises(InputError, match="interval"):
        step_record(document)


def test_what_ranks_wait_is_predicted_in_their_collectives(prediction: Prediction) -> None:
    """The part of the breakdown, shared out by how often they meet; what lies between operators does not have it twice."""
    still = compare_step(prediction, as_predicted(prediction))
    restless = small_prediction("cluster.rank_dispersion_s=1e-4")
    found = compare_step(restless, as_predicted(prediction))
    part = float(restless.stages[0][1].breakdown.rank_waiting_s)
    assert found.predicted_waiting_s == pytest.approx(part)
    assert part > 0 == still.predicted_waiting_s
    assert all(pair.predicted_waiting_s == 0 for pair in found.operators if pair.kind != "collective")
    assert sum(pair.predicted for pair in found.operators) == pytest.approx(float(restless.stages[0][1].iteration_time_s))
