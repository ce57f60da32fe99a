"""Is the share of the calendar that trains what Young, Daly and published runs have?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.economics.goodput import (
    Cadence,
    cadence,
    calendar_days,
    checkpoint_s,
    daly_interval_s,
    effective_share,
    restart_s,
    switch_s,
    time_shares,
    young_interval_s,
)
from perfmodel.exchange.presets import economics_preset

TYPICAL = economics_preset("typical")
LLAMA = {"gpus": 16384, "parameters": 405e9}  # arXiv:2407.21783
LLAMA_DAYS = 54
JOB = Cadence(failures_per_s=1e-4, interval_s=1000.0, stall_s=20.0, hidden_s=0.0, restart_s=300.0)


def test_llama_3_is_interrupted_as_often_as_it_was() -> None:
    """419 unexpected interruptions in 54 days on 16,384 GPUs."""
    interruptions = cadence(**LLAMA, terms=TYPICAL).failures_per_s * LLAMA_DAYS * 86400
    assert interruptions == pytest.approx(419, abs=2)


def test_llama_3_trains_more_than_90_percent_of_the_time() -> None:
    """As its authors report, with nothing of the restart taken from them."""
    assert 0.90 < effective_share(**LLAMA, terms=TYPICAL) < 0.95


def test_two_other_clusters_lie_within_the_spread_of_failures() -> None:
    """2.34 and 6.50 failures in 1,000 node-days of 8 A100 (arXiv:2410.21680)."""
    rate, spread = TYPICAL.failures_per_gpu_hour, TYPICAL.spread["failures_per_gpu_hour"]
    for failures in (2.34, 6.50):
        assert rate / (1 + spread) <= failures / 1000 / 24 / 8 * 1.01
        assert failures / 1000 / 24 / 8 <= rate * (1 + spread) * 1.02


def test_without_failures_only_checkpoints_take_time() -> None:
    """t / (t + d)."""
    shares = time_shares(replace(JOB, failures_per_s=0.0))
    assert shares.training == pytest.approx(1000 / 1020, rel=1e-12)
    assert shares.stalled == pytest.approx(20 / 1020, rel=1e-12)
    assert shares.lost == pytest.approx(0, abs=1e-15)
    assert shares.restarting == 0


def test_without_failures_nobody_writes_checkpoints() -> None:
    """Unless their interval is fixed."""
    never = replace(TYPICAL, failures_per_gpu_hour=0.0)
    assert effective_share(**LLAMA, terms=never) == 1
    assert np.isinf(cadence(**LLAMA, terms=never).interval_s)
    fixed = replace(never, checkpoint_interval_s=100.0, checkpoint_stall_share=1.0)
    stall_s = float(checkpoint_s(**LLAMA, terms=fixed))
    assert effective_share(**LLAMA, terms=fixed) == pytest.approx(100 / (100 + stall_s), rel=1e-12)


def test_rare_failures_cost_what_a_first_order_says() -> None:
    """d / t for checkpoints, l * (t / 2 + R + a) for failures."""
    job = replace(JOB, failures_per_s=1e-8, hidden_s=50.0)
    expected = 20 / 1020 + 1e-8 * (1020 / 2 + 300 + 50)
    assert 1 - time_shares(job).training == pytest.approx(expected, rel=1e-4)


def test_the_closed_form_is_that_of_daly() -> None:
    """M * exp(R / M) * (exp((t + d) / M) - 1) / t for each second of training, where nothing is written beside it."""
    mean_s = 1e4
    per_second = mean_s * np.exp(300 / mean_s) * np.expm1(1020 / mean_s) / 1000
    assert time_shares(JOB).training == pytest.approx(1 / per_second, rel=1e-12)


def test_an_interval_for_cheap_checkpoints_is_young_s() -> None:
    """sqrt(2 * d * M) in the limit of d << M."""
    for stall_s in (1e-2, 1e-4):
        given_s = {"stall_s": stall_s, "failures_per_s": 1e-5}
        assert daly_interval_s(**given_s) == pytest.approx(young_interval_s(**given_s), rel=3 * np.sqrt(stall_s * 1e-5))


def test_checkpoints_longer_than_the_time_between_failures_are_written_once_in_that_time() -> None:
    """The other case of Daly's equation."""
    assert daly_interval_s(stall_s=2e4, failures_per_s=1e-4) == 1e4


@given(st.floats(1e-3, 100), st.floats(1e-7, 1e-3))
def test_no_other_interval_is_noticeably_better_than_daly_s(stall_s: float, failures_per_s: float) -> None:
    """The approximation is as good as the best of a scan."""
    best_s = daly_interval_s(stall_s=stall_s, failures_per_s=failures_per_s)
    job = Cadence(failures_per_s=failures_per_s, interval_s=best_s, stall_s=stall_s, hidden_s=0.0, restart_s=60.0)
    others = replace(job, interval_s=best_s * np.geomspace(0.1, 10, 201))
    assert time_shares(job).training >= np.max(time_shares(others).training) * (1 - 1e-4)


@given(st.floats(0, 1e-2), st.floats(1e-3, 1e6), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 1e6))
def test_the_shares_of_the_calendar_sum_to_1(
    failures_per_s: float, interval_s: float, stall_s: float, hidden_s: float, wait_s: float
) -> None:
    """And none is negative."""
    job = Cadence(failures_per_s=failures_per_s, interval_s=interval_s, stall_s=stall_s, hidden_s=hidden_s, restart_s=wait_s)
    shares = time_shares(job)
    parts = [shares.training, shares.lost, shares.stalled, shares.restarting]
    assert sum(parts) == pytest.approx(1, rel=1e-12)
    assert min(parts) >= -1e-12


@pytest.mark.parametrize(
    "key",
    [
        "failures_per_gpu_hour",
        "checkpoint_bytes_per_parameter",
        "checkpoint_stall_share",
        "detect_s",
        "requeue_s",
        "start_up_s",
    ],
)
def test_more_of_what_goes_wrong_leaves_less_to_train(key: str) -> None:
    """Failures, bytes, stalls and restarts, each alone."""
    shares = [effective_share(**LLAMA, terms=replace(TYPICAL, **{key: getattr(TYPICAL, key) * times})) for times in (1, 2, 4)]
    assert all(after < before for before, after in pairwise(shares))


def test_more_gpus_train_less_of_the_time() -> None:
    """They fail more often."""
    shares = effective_share(gpus=2 ** np.arange(3, 18), parameters=405e9, terms=TYPICAL)
    assert np.all(np.diff(shares) < 0)


def test_a_storage_of_its_own_rate_does_not_grow_with_the_gpus() -> None:
    """Up to it, each GPU brings its share."""
    terms = replace(TYPICAL, storage_write_bytes_per_s=1e12, storage_read_bytes_per_s=2e12)
    small, large = (checkpoint_s(gpus=gpus, parameters=1e12, terms=terms) for gpus in (1000, 100_000))
    assert small == checkpoint_s(gpus=1000, parameters=1e12, terms=TYPICAL)
    assert large == 14.0
    assert restart_s(gpus=100_000, parameters=1e12, terms=terms) == 960 + 7


def test_a_checkpoint_begins_after_the_last_is_written() -> None:
    """A shorter interval that is asked for is not taken."""
    terms = replace(TYPICAL, checkpoint_interval_s=1e-3)
    job = cadence(**LLAMA, terms=terms)
    assert job.interval_s == job.hidden_s > 1e-3


def test_a_planned_switch_loses_nothing_and_waits_for_nobody() -> None:
    """It is shorter than a restart by detection and queue, and longer by the checkpoint that it writes."""
    extra = restart_s(**LLAMA, terms=TYPICAL) - switch_s(**LLAMA, terms=TYPICAL)
    assert extra == pytest.approx(TYPICAL.detect_s + TYPICAL.requeue_s - checkpoint_s(**LLAMA, terms=TYPICAL), rel=1e-12)


def test_many_jobs_at_once_are_each_of_them() -> None:
    """GPUs and parameters broadcast, bit for bit."""
    gpus, parameters = np.array([8, 512, 16384])[:, None], np.array([8e9, 405e9])
    shares = effective_share(gpus=gpus, parameters=parameters, terms=TYPICAL)
    assert np.shape(shares) == (3, 2)
    for (row, column), share in np.ndenumerate(shares):
        assert share == effective_share(gpus=gpus[row, 0], parameters=parameters[column], terms=TYPICAL)


@pytest.mark.parametrize("share", [1e-3, 0.5, 1.0])
def test_the_calendar_is_never_shorter_than_training(share: float) -> None:
    """And forever for what never trains."""
    assert calendar_days(days=10.0, effective_share=share) >= 10
    assert np.isinf(calendar_days(days=10.0, effective_share=0.0))


def test_a_job_that_always_fails_trains_nothing() -> None:
    """No overflow, no warning."""
    nothing: Any = effective_share(gpus=1e9, parameters=1e15, terms=replace(TYPICAL, failures_per_gpu_hour=1e6))
    assert nothing == 0


def test_nobody_is_told_to_write_checkpoints_every_minute() -> None:
    """Where the best interval is shorter than any that is published, that one is taken; one that is given stays as it is."""
    small: dict[str, Any] = {"gpus": 2304, "parameters": 15.6e9}
    free = cadence(**small, terms=replace(TYPICAL, least_checkpoint_interval_s=0.0))
    assert free.interval_s < TYPICAL.least_checkpoint_interval_s
    assert cadence(**small, terms=TYPICAL).interval_s == TYPICAL.least_checkpoint_interval_s == 300.0
    assert cadence(**small, terms=replace(TYPICAL, checkpoint_interval_s=30.0)).interval_s == 30.0
    slow = replace(TYPICAL, failures_per_gpu_hour=1e-9)
    assert cadence(**small, terms=slow).interval_s > 300.0
