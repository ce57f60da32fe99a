"""How wrong predictions of servers are, and how wide their intervals have to be for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.serving.rows import MeasuredServing
from perfmodel.evidence.serving.scores import (
    ServingComparison,
    compare_serving,
    lacks,
    serving_scoreboard,
    without_own_source,
)
from perfmodel.evidence.widths import estimated_widths
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.serving.measurements import Workload, measured_value, workload_load
from perfmodel.spec.serving.evidence import ServingEvidence
from perfmodel.spec.serving.loads import CLOSED, E2E, OFFLINE, TOKENS, TPOT, TTFT
from perfmodel.spec.serving.setup import Request

NOTHING = ServingEvidence(name="nothing", cells={})
WORK = Workload(
    setup=serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"),
    request=Request(input_tokens=1000.0, output_tokens=500.0),
    kind=CLOSED,
    concurrency=8.0,
)


def row(metric: str, value: float, *, run_id: str = "r", source: str = "lab", context: str = "") -> MeasuredServing:
    """A measurement of the workload."""
    labels = {"engine": "vllm", "gpu": "h100", "load": WORK.kind, "model": "llama"}
    return MeasuredServing(
        run_id=run_id, source=source, labels=labels, metric=metric, value=value, workload=WORK, context=context
    )


def off_by(residuals: list[float], *, source: str = "lab", metric: str = TPOT) -> list[ServingComparison]:
    """Comparisons whose measurements lie so far from predictions of 1, in logarithms."""
    return [
        ServingComparison(measured=row(metric, 1.0, source=source), metric=metric, value=float(np.exp(each)), predicted=1.0)
        for each in residuals
    ]


def test_latency_follows_where_a_run_states_ttft_and_tpot() -> None:
    """TTFT + (O - 1) * TPOT, once a run; where it is stated itself, that stands."""
    derived = list(compare_serving([row(TTFT, 0.1), row(TPOT, 0.01)], NOTHING))
    (latency,) = derived[2:]
    assert latency.metric == E2E
    assert latency.value == pytest.approx(0.1 + 499 * 0.01)
    stated = list(compare_serving([row(TTFT, 0.1), row(TPOT, 0.01), row(E2E, 5.0)], NOTHING))
    assert [each.value for each in stated if each.metric == E2E] == [5.0]


def test_context_is_predicted_and_not_scored() -> None:
    """A suspect row has a prediction, counts to nothing, and its reason is told."""
    scores = serving_scoreboard(list(compare_serving([row(TPOT, 0.01, context="suspect")], NOTHING)))
    assert scores.comparisons[0].predicted is not None
    assert not scores.questions
    assert scores.context == {"suspect": 1}


def test_nine_rows_in_ten_lie_in_the_estimated_interval() -> None:
    """The half width is the 90 % quantile of the residuals; with one source, its coverage is that of rows."""
    comparisons = off_by([0.01 * place for place in range(101)])
    half_width, rows, sources = estimated_widths(lacks(comparisons))["passes/dense/server"]
    assert (half_width, rows, sources) == (0.9, 101, 1)
    scores = serving_scoreboard([each.with_discrepancy(half_width) for each in comparisons])
    found = scores.questions["tpot_s/dense"]
    assert found.interval_coverage == pytest.approx(0.9, abs=0.011)
    assert found.interval_coverage_by_source == pytest.approx(found.interval_coverage)
    assert found.winkler_score_by_source == pytest.approx(found.winkler_score)


def test_what_an_interval_lacks_is_the_rest_of_squares() -> None:
    """sqrt(r^2 - w^2) on the side of the measurement; nothing where it lies inside."""
    above, below = (replace(each, known_widths=(0.4, 0.3)) for each in off_by([0.5, -0.5]))
    inside = replace(off_by([0.2])[0], known_widths=(0.4, 0.3))
    assert [each.value for each in lacks([above, below, inside])] == pytest.approx([0.4, 0.3, 0.0])


def test_a_source_is_scored_with_the_errors_of_others() -> None:
    """Its own rows do not widen its interval."""
    comparisons = off_by([0.1] * 40, source="one") + off_by([0.5] * 40, source="other")
    widths = {each.measured.source: each.interval for each in without_own_source(comparisons)}
    assert widths["one"] == pytest.approx((np.exp(-0.5), np.exp(0.5)))
    assert widths["other"] == pytest.approx((np.exp(-0.1), np.exp(0.1)))


def test_tables_of_one_publication_are_left_out_together() -> None:
    """Two tables of one laboratory do not tell of each other; a table of nobody else keeps its intervals."""
    first, second, other = (off_by([each] * 9, source=name) for name, each in (("a", 0.1), ("b", 0.5), ("c", 0.3)))
    ours = [replace(each, measured=replace(each.measured, publication="lab")) for each in (*first, *second)]
    found = without_own_source([*ours, *other])
    assert {each.measured.source: round(float(np.log((each.interval or (0, 1))[1])), 3) for each in found} == {
        "a": 0.3,
        "b": 0.3,
        "c": 0.5,
    }
    assert without_own_source(ours) == ours


def test_coverage_by_source_weighs_each_publication_alike() -> None:
    """Nine rows inside and one of another source outside: 90 % of rows, half of the sources."""
    comparisons = [each.with_discrepancy(0.2) for each in (*off_by([0.1] * 9, source="one"), *off_by([0.5], source="other"))]
    found = serving_scoreboard(comparisons).questions["tpot_s/dense"]
    assert (found.interval_coverage, found.interval_coverage_by_source) == pytest.approx((0.9, 0.5))
    assert found.winkler_score < found.winkler_score_by_source


def test_a_full_server_is_asked_for_as_many_as_fit() -> None:
    """Whatever number of clients its row states; replicas beside each other add up."""
    full = Workload(setup=WORK.setup, request=WORK.request, kind=OFFLINE, replicas=4.0)
    load = workload_load(full)
    assert load.running > 200
    assert measured_value(full, load, TOKENS) == pytest.approx(4 * load.tokens_per_s)


def test_a_run_of_few_requests_does_not_fill_a_server() -> None:
    """Fewer requests than fit are one round of all; a whole number of rounds is a full server; the rest lasts longer."""
    most = float(np.asarray(workload_load(Workload(setup=WORK.setup, request=WORK.request, kind=OFFLINE)).running))

    def rate(requests: float) -> tuple[float, float]:
        work = Workload(setup=WORK.setup, request=WORK.request, kind=OFFLINE, requests=requests)
        load = workload_load(work)
        return float(np.asarray(load.running)), float(np.asarray(measured_value(work, load, TOKENS)))

    endless = rate(float("inf"))[1]
    assert rate(most / 2)[0] == pytest.approx(most / 2)
    assert rate(most / 2)[1] < endless
    assert rate(3 * most)[1] == pytest.approx(endless)
    assert rate(3 * most + 1)[1] < endless


def test_end_to_end_latency_is_that_of_the_stated_answer() -> None:
    """TTFT + (O - 1) * TPOT with the O that is stated, where answers are shorter on average."""
    shorter = Request(input_tokens=900.0, output_tokens=450.0)
    work = Workload(setup=WORK.setup, request=shorter, kind=CLOSED, concurrency=8.0, stated_output_tokens=500.0)
    load = workload_load(work)
    assert measured_value(work, load, E2E) == pytest.approx(float(load.ttft_s + 499 * load.tpot_s))
