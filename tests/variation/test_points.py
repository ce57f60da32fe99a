"""Is what arrays of points do, and why some cannot be, exactly what each of them gets alone?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.run import Run
from perfmodel.variation.points import PointOutcome, outcomes

PRESET = "nemotron-4-15b"
LAST = 2


def draft(*settings: str) -> Run:
    """The central preset, whatever its layouts."""
    return read_candidates(PRESET, settings, draft=True)[0].run


def alone(settings: dict[str, Any]) -> dict[str, Any] | str:
    """What `perfmodel predict` says of the last stage with these settings: its numbers, or the sentence of its refusal.

    Stages before the last are dropped, because a sweep is of one stage.
    """
    try:
        run = read_candidates(PRESET, list(settings.items()), draft=True)[0].run
        mapping = {**{name: getattr(run, name) for name in run.__dataclass_fields__}, "stages": (run.stages[LAST],)}
        return predict(Run(**mapping)).rows()[0]
    except PerfmodelError as error:
        return str(error).replace("stages[0].", "")


def assert_the_same(found: Sequence[PointOutcome], expected: Sequence[dict[str, Any] | str]) -> None:
    """Every number to the last bit, every refusal to the last word."""
    assert len(found) == len(expected)
    for outcome, single in zip(found, expected, strict=True):
        if isinstance(single, str):
            assert (outcome.refusal, outcome.numbers) == (single, None)
        else:
            assert outcome.numbers is not None
            assert {name: outcome.numbers[name] for name in single if name in outcome.numbers} == {
                name: value for name, value in single.items() if name in outcome.numbers
            }


def test_degrees_and_sizes_give_what_single_predictions_give() -> None:
    """Those that can be, and those that cannot, with their sentences."""
    grid = [(tensor, micro, data) for tensor in (1, 2, 3, 4, 8, 16) for micro in (1, 2, 3, 4) for data in (96, 288, 300)]
    keys = ("tensor_parallel", "micro_batch_size", "stages[-1].data_parallel")
    columns = dict(zip(("tensor_parallel", "micro_batch_size", "data_parallel"), zip(*grid, strict=True), strict=True))
    found = outcomes(draft(), LAST, columns, number=len(grid))
    assert_the_same(found, [alone(dict(zip(keys, values, strict=True))) for values in grid])
    assert 0 < sum(bool(each.refusal) for each in found) < len(grid)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("cluster.links.network.bandwidth_bytes_per_s", (12.5e9, 50e9, 100e9)),
        ("cluster.gpu.kernels.memory_bound.fused.efficiency", (0.4, 0.8)),
        ("stack.host.launch_s", (1e-6, 1e-4)),
        ("model.layers", (8, 32, 64)),
        ("sequence_length", (2048, 4097, 8192)),
    ],
)
def test_numbers_deep_inside_a_run_are_arrays_too(key: str, values: tuple[float, ...]) -> None:
    """Of the model, the cluster and the stack."""
    found = outcomes(draft(), LAST, {key: values}, number=len(values))
    assert_the_same(found, [alone({key: value}) for value in values])


def test_one_wrong_number_spoils_no_other() -> None:
    """Heads that their KV heads do not divide cannot even stand in an array; those beside them can."""
    heads, shared = (48, 50, 48, 64), (8, 8, 5, 8)
    found = outcomes(draft(), LAST, {"model.attention_heads": heads, "model.kv_heads": shared}, number=4)
    expected = [
        alone({"model.attention_heads": one, "model.kv_heads": other}) for one, other in zip(heads, shared, strict=True)
    ]
    assert [bool(each.refusal) for each in found] == [False, True, True, False]
    assert_the_same([found[0], found[3]], [expected[0], expected[3]])


def test_numbers_that_are_right_together_may_be_set_together() -> None:
    """60 heads alone would be refused, and so would 5 KV heads."""
    (outcome,) = outcomes(draft("tensor_parallel=1"), LAST, {"model.attention_heads": [60], "model.kv_heads": [5]}, number=1)
    assert not outcome.refusal


def test_gpus_are_made_of_replicas() -> None:
    """2304 are 288 replicas of 8, or 576 of 4; 100 are a whole number of neither."""
    found = outcomes(draft(), LAST, {"gpus": [2304, 2304, 100], "tensor_parallel": [8, 4, 8]}, number=3)
    assert [each.numbers and each.numbers["data_parallel"] for each in found] == [288, 576, None]
    assert found[2].refusal == "gpus: 100 GPUs cannot be divided into replicas of 8"


def test_a_weak_sweep_keeps_the_sequences_of_a_replica() -> None:
    """The ramp has 4."""
    found = outcomes(draft(), LAST, {"gpus": [8, 2304, 24000]}, number=3, is_weak=True)
    assert [each.numbers and each.numbers["global_batch_size"] for each in found] == [4, 1152, 12000]


def test_numbers_without_a_finite_answer_are_refused_one_by_one() -> None:
    """The others are predicted."""
    found = outcomes(draft(), LAST, {"cluster.gpu.kernels.memory_bound.fused.efficiency": [1e-320, 0.8]}, number=2)
    assert [each.refusal[:36] for each in found] == ["its numbers give no finite time: one", ""]


def test_many_points_are_done_in_pieces_that_change_nothing() -> None:
    """5,000 bandwidths, and one among the last of them alone."""
    values = [1e9 * (1 + index / 100) for index in range(5000)]
    key = "cluster.links.network.bandwidth_bytes_per_s"
    found = outcomes(draft(), LAST, {key: values}, number=len(values))
    assert found[4321] == outcomes(draft(), LAST, {key: [values[4321]]}, number=1)[0]
