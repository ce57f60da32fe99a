"""Does one documented set of assumptions predict the published ramp of Nemotron-4 15B (arXiv:2402.16819, Table 2)?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import Prediction, predict
from tests.stacks import stack_with


@pytest.fixture(scope="module")
def ramp() -> Prediction:
    """The preset run, as `perfmodel predict nemotron-4-15b` has it."""
    (candidate,) = read_candidates("nemotron-4-15b")
    return predict(candidate.run)


def test_every_stage_is_within_5_percent_of_its_published_iteration_time(ramp: Prediction) -> None:
    """0.57, 0.58 and 0.64 s."""
    for stage, predicted in ramp.stages:
        assert predicted.iteration_time_s == pytest.approx(stage.published.iteration_time_s, rel=0.05)


def test_every_stage_is_within_2_points_of_its_published_mfu(ramp: Prediction) -> None:
    """34.3, 33.3 and 30.5 %."""
    for stage, predicted in ramp.stages:
        assert predicted.mfu == pytest.approx(stage.published.mfu, abs=0.02)


def test_the_total_is_within_6_percent_of_the_published_days(ramp: Prediction) -> None:
    """0.8 + 0.4 + 11.9 days."""
    assert ramp.total_days == pytest.approx(13.1, rel=0.06)


def test_an_iteration_grows_by_6_percent_over_the_ramp(ramp: Prediction) -> None:
    """Exposed data-parallel communication grows with the number of replicas."""
    first, *_, last = (predicted for _, predicted in ramp.stages)
    assert last.iteration_time_s >= 1.06 * first.iteration_time_s
    grown = last.breakdown.data_parallel_exposed_s - first.breakdown.data_parallel_exposed_s
    assert grown > 0.8 * (last.iteration_time_s - first.iteration_time_s)


def test_the_published_times_lie_in_their_90_percent_intervals(ramp: Prediction) -> None:
    """The prediction says how sure it is, and it is."""
    for stage, predicted in ramp.stages:
        low, high = predicted.iteration_time_interval_s
        assert stage.published.iteration_time_s is not None
        assert low < stage.published.iteration_time_s < high


def test_the_growth_comes_from_latency_network_efficiency_and_the_bucket_rule(ramp: Prediction) -> None:
    """Take the three causes away, and less than 1 % remains (the slowest of more GPUs)."""
    cluster = ramp.run.cluster
    network = cluster.links.network
    without = replace(
        network.collectives,
        latency_s=0,
        rank_latency_s=0,
        node_latency_s=0,
        tree_start_s=0,
        tree_latency_s=0,
        scale_exponent=0,
    )
    network = replace(network, collectives=without)
    cluster = replace(cluster, links=replace(cluster.links, network=network))
    stages = predict(
        replace(ramp.run, cluster=cluster, stack=stack_with(ramp.run.stack, {"overlap.bucket_parameters_per_rank": 0}))
    ).stages
    assert stages[-1][1].iteration_time_s < 1.01 * stages[0][1].iteration_time_s


def test_totals_sum_the_stages(ramp: Prediction) -> None:
    """8 T tokens; GPU-hours are days * 24 * GPUs of each stage."""
    assert ramp.total_tokens == 8e12
    hours = sum(predicted.days(stage.tokens or 0) * 24 * predicted.layout.gpus for stage, predicted in ramp.stages)
    assert ramp.gpu_hours == pytest.approx(hours, rel=1e-12)


def test_days_carry_their_interval(ramp: Prediction) -> None:
    """As many iterations at either end of theirs; what is uncertain is common to all stages, so that ends add up."""
    ends = []
    for stage, predicted in ramp.stages:
        days = predicted.training_days(stage.tokens or 0)
        iterations = (stage.tokens or 0) / predicted.layout.tokens_per_iteration
        low, high = (float(iterations * end) / 86400 for end in predicted.iteration_time_interval_s)
        assert (days.low, days.median, days.high) == pytest.approx((low, predicted.days(stage.tokens or 0), high), rel=1e-12)
        ends.append((low, high))
    total = ramp.total_training_days
    assert total is not None
    assert (total.low, total.high) == pytest.approx(tuple(map(sum, zip(*ends, strict=True))), rel=1e-12)
    assert total.median == ramp.total_days
    rows = ramp.rows()
    found = [[row["days_low"], row["days_high"]] for row in rows]
    assert np.asarray(found) == pytest.approx(np.asarray(ends), rel=1e-12)


def test_a_stage_without_tokens_leaves_the_totals_unknown(ramp: Prediction) -> None:
    """Nothing is made up for what the run does not say."""
    stages = (replace(ramp.run.stages[0], tokens=None), *ramp.run.stages[1:])
    prediction = predict(replace(ramp.run, stages=stages))
    assert prediction.total_tokens is None
    assert prediction.total_days is None
    assert prediction.total_training_days is None
    assert prediction.rows()[0]["days_low"] is None
    assert prediction.gpu_hours is None


def test_most_of_the_uncertainty_of_the_ramp_is_named(ramp: Prediction) -> None:
    """Every number that widens the interval has its share, greatest first; with the discrepancy they are all of it."""
    for _, predicted in ramp.stages:
        shares = list(predicted.uncertainty.shares.values())
        squares = {part: half_s * half_s for part, half_s in predicted.uncertainty.parts_s.items()}
        assert sum(shares) + squares["discrepancy"] / sum(squares.values()) == pytest.approx(1.0, rel=1e-9)
        assert shares == sorted(shares, reverse=True)
        assert all(path.startswith(("cluster.", "stack.")) for path in predicted.uncertainty.shares)
