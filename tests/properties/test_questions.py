"""Do the questions agree with each other: is what one of them says of a run what `predict` says of it?"""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from perfmodel import api
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.json.plan import run_documents
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs

CLUSTERS: Final = st.sampled_from(["dgx-h100", "dgx-a100", "dgx-b200", "gb200-nvl72", "hgx-h20"])
STACKS: Final = st.sampled_from(["megatron-core", "torchtitan", "deepspeed-zero", "generic"])
MODELS: Final = st.sampled_from(["nemotron-4-15b", "gemma-2-9b", "olmoe-1b-7b", "deepseek-v2-lite", "nemotron-3-nano"])


@examples(10)
@given(drawn=runs())
def test_a_scenario_without_a_change_changes_nothing(drawn: DrawnRun) -> None:
    """A ratio of 1 whose interval is a point, and every number the same."""
    layout = drawn.setup.layout
    told = api.whatif(drawn.run, {"same": {"micro_batch_size": int(layout.micro_batch_size)}})
    before, same = told.rows()
    assert (same["time_ratio"], same["time_ratio_low"], same["time_ratio_high"]) == (1.0, 1.0, 1.0)
    assert {**same, "scenario": "before"} == before


@examples(10)
@given(drawn=runs(), times=st.sampled_from([(1, 2), (1, 3, 6)]))
def test_points_of_a_sweep_are_predictions(drawn: DrawnRun, times: tuple[int, ...]) -> None:
    """Every number of each point, of batches that `predict` is asked for one by one; what one refuses, the other does."""
    batch = int(drawn.setup.layout.global_batch_size)
    swept = api.sweep(drawn.run, {"stages[0].global_batch_size": [batch * each for each in times]})
    for point, number in zip(swept.points, times, strict=True):
        setting = {"stages[0].global_batch_size": batch * number}
        if not point.numbers:
            with pytest.raises(InputError):
                api.predict(drawn.run, setting)
            continue
        (row,) = api.predict(drawn.run, setting).rows()
        assert {name: row[name] for name in point.numbers if name in row} == {
            name: value for name, value in point.numbers.items() if name in row
        }


@examples(25)
@given(drawn=runs())
def test_a_timeline_lasts_as_long_as_the_iteration(drawn: DrawnRun) -> None:
    """From its first start to its last end, whatever is drawn of it; no span ends before it begins.

    Waiting for what lies in the host's memory is refused: nobody knows where in a pass it falls.
    """
    assume(not drawn.run.offload)
    predicted = predict(drawn.run)
    seconds = float(predicted.stages[0][1].iteration_time_s)
    drawing = api.timeline(drawn.run, detail="passes", micro_batches=1)
    assert drawing.span_s == pytest.approx(seconds, rel=1e-8)
    assert min(span.end_s - span.start_s for span in drawing.spans) >= -1e-12 * seconds


@examples(5)
@given(
    model=MODELS,
    cluster=CLUSTERS,
    stack=STACKS,
    gpus=st.sampled_from([4, 8, 16]),
    precision=st.sampled_from(["bf16", "fp8"]),
)
def test_the_winner_of_a_plan_is_what_its_run_file_predicts(
    model: str, cluster: str, stack: str, gpus: int, precision: str
) -> None:
    """To the last digit: the file that a plan writes holds all that decides its time and its memory."""
    question: dict[str, Any] = {
        "cluster": cluster,
        "stack": stack,
        "gpus": gpus,
        "global_batch_size": 32,
        "sequence_length": 4096,
    }
    try:
        found = api.plan(model, **question, choose={"precision": precision, "micro_batch_size": "1"}, workers=1)
    except NotSupportedError:  # such a precision on such a GPU
        assume(False)
    option = found.best
    assume(option is not None)
    assert option is not None
    best = option.chain.layouts[0]
    (document,) = run_documents(found)
    ((_, predicted),) = predict(read_candidates(document)[0].run).stages
    assert float(predicted.iteration_time_s) == pytest.approx(best.iteration_time_s, rel=1e-12)
    assert float(predicted.memory.total_bytes) == pytest.approx(best.memory_bytes, rel=1e-12)
    assert int(predicted.layout.gpus) == gpus
