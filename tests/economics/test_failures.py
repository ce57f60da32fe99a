"""Do many trials agree with the closed form, and are they the same each time?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.economics.failures import calendar_s, drawn_terms, interval_of
from perfmodel.economics.goodput import Cadence, time_shares
from perfmodel.exchange.presets import economics_preset

TRIALS = 2000
JOB = Cadence(failures_per_s=1e-4, interval_s=1000.0, stall_s=20.0, hidden_s=0.0, restart_s=300.0)
CASES = {
    "as it stands": JOB,
    "written beside training": replace(JOB, hidden_s=800.0),
    "failures in restarts": replace(JOB, failures_per_s=1e-3, restart_s=2000.0),
    "long checkpoints": replace(JOB, stall_s=900.0),
    "no stall": replace(JOB, stall_s=0.0, hidden_s=1000.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_average_of_trials_is_the_closed_form(name: str) -> None:
    """Within four standard errors, and what the ends of a run bring: an interval and a restart at most."""
    job, work_s = CASES[name], 2e6
    ends = calendar_s(work_s, job, np.random.default_rng(1), trials=TRIALS)
    error = 4 * np.std(ends) / np.sqrt(TRIALS) + 2 * (job.interval_s + job.stall_s + job.hidden_s)
    assert np.mean(ends) == pytest.approx(work_s / float(time_shares(job).training), abs=float(error))


def one_trial_s(work_s: float, job: Cadence, generator: np.random.Generator) -> float:
    """The same, second by second: the events of one run, told one after the other."""
    passed, kept, start = 0.0, 0.0, 0.0
    while True:
        fails = generator.standard_exponential() / float(job.failures_per_s)
        clock, done, whole = start, kept, []
        while True:
            step = min(float(job.interval_s), work_s - done)
            if clock + step > fails:
                break
            clock, done = clock + step, done + step
            if done >= work_s:
                return passed + clock
            clock += float(job.stall_s)
            whole.append((clock + float(job.hidden_s), done))
        kept = max([kept, *(saved for at, saved in whole if at <= fails)])
        passed, start = passed + fails, float(job.restart_s)


@pytest.mark.parametrize("name", CASES)
def test_trials_end_as_a_run_told_event_by_event(name: str) -> None:
    """Average and both ends of the interval of short runs, in which every end counts."""
    job, work_s = CASES[name], 6500.0
    told = np.random.default_rng(2)
    one_by_one = np.array([one_trial_s(work_s, job, told) for _ in range(TRIALS)])
    at_once = calendar_s(work_s, job, np.random.default_rng(3), trials=TRIALS)
    error = 4 * np.hypot(np.std(one_by_one), np.std(at_once)) / np.sqrt(TRIALS)
    assert np.mean(at_once) == pytest.approx(np.mean(one_by_one), abs=float(error))
    assert interval_of(at_once) == pytest.approx(interval_of(one_by_one), rel=0.1)


def test_a_run_that_never_fails_ends_when_it_should() -> None:
    """In every trial alike."""
    ends = calendar_s(5000.0, replace(JOB, failures_per_s=0.0), np.random.default_rng(1), trials=10)
    assert ends == pytest.approx(np.full(10, 5000 * 1.02), rel=1e-12)


def test_no_trial_ends_before_its_work_is_done() -> None:
    """Failures only add to it."""
    work_s = np.linspace(1e3, 1e6, 500)
    assert np.all(calendar_s(work_s, JOB, np.random.default_rng(1), trials=500) >= work_s)


def test_more_failures_than_chance_matters_for_end_on_average() -> None:
    """A job of a year that fails every minute."""
    job = replace(JOB, failures_per_s=1 / 60, restart_s=10.0, interval_s=10.0, stall_s=1.0)
    ends = calendar_s(3e7, job, np.random.default_rng(1), trials=5)
    assert ends == pytest.approx(np.full(5, 3e7 / float(time_shares(job).training)), rel=1e-12)


def test_the_same_seed_gives_the_same_trials() -> None:
    """And another one others."""
    first, again, other = (calendar_s(1e6, JOB, np.random.default_rng(seed), trials=9) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_uncertain_terms_lie_in_their_intervals_nine_times_of_ten() -> None:
    """c / (1 + s) to c * (1 + s); those without a spread do not move."""
    terms = economics_preset("typical")
    drawn = drawn_terms(terms, np.random.default_rng(1), trials=4000)
    rate, spread = terms.failures_per_gpu_hour, terms.spread["failures_per_gpu_hour"]
    inside = (drawn.failures_per_gpu_hour > rate / (1 + spread)) & (drawn.failures_per_gpu_hour < rate * (1 + spread))
    assert np.mean(inside) == pytest.approx(0.9, abs=0.02)
    assert np.min(drawn.power_usage_effectiveness) >= 1
    assert drawn.requeue_s == terms.requeue_s
    assert drawn_terms(replace(terms, spread={}), np.random.default_rng(1)) is not drawn
