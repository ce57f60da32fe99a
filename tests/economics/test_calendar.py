"""Do the closed odds of a calendar and of a bill agree with trials in which failures, times and terms are drawn?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.economics.calendar import StageWork, calendar_odds
from perfmodel.economics.cost import dollars
from perfmodel.economics.failures import Array, calendar_s, drawn_terms
from perfmodel.economics.goodput import calendar_variance_s2, kept_cadence, switch_s
from perfmodel.economics.outlook import outlook
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.economics import Economics
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.timing.uncertainty import Estimate
from tests.economics.test_failures import CASES

TRIALS = 4000
TYPICAL = economics_preset("typical")
PRICED = replace(TYPICAL, dollars_per_gpu_hour=2.5)
CERTAIN = replace(PRICED, spread={})
SURE = Estimate(median=12.0, low=12.0, high=12.0)
WORK = StageWork(gpus=2304, parameters=15.6e9, days=Estimate(median=12.0, low=11.0, high=14.0))
RAMP = (replace(WORK, gpus=768, days=Estimate(median=3.0, low=2.7, high=3.4)), replace(WORK, switches=1))
PROBABILITIES = (0.05, 0.5, 0.9, 0.95)
T2 = ErrorLaw(degrees=2.0)


def drawn(stages: tuple[StageWork, ...], terms: Economics, *, trials: int = TRIALS) -> tuple[Array, Array]:
    """Calendar days and dollars of many trials: one deviation of the time and one draw of the terms for all stages."""
    generator = np.random.default_rng(7)
    actual, deviations = drawn_terms(terms, generator, trials=trials), stages[0].days.laws[0].draws(generator, trials)
    calendar, hours = np.zeros(trials), np.zeros(trials)
    for stage in stages:
        size: dict[str, Any] = {"gpus": stage.gpus, "parameters": stage.parameters}
        pace = kept_cadence(**size, terms=terms, actual=actual)
        seconds = calendar_s(86400 * np.asarray(stage.days.at(deviations)), pace, generator, trials=trials)
        days = (seconds + stage.switches * np.asarray(switch_s(**size, terms=actual))) / 86400
        calendar, hours = calendar + days, hours + 24 * stage.gpus * days
    most = max(stage.gpus for stage in stages)
    return calendar, np.asarray(dollars(gpu_hours=hours, gpus=most, calendar_days=calendar, terms=actual))


@pytest.mark.parametrize("name", CASES)
def test_the_variance_of_the_calendar_is_that_of_trials(name: str) -> None:
    """Of runs with a dozen failures, and of failures that come in restarts; within four standard errors."""
    job, work_s = CASES[name], 1.2e5
    ends = calendar_s(work_s, job, np.random.default_rng(5), trials=TRIALS)
    fourth = float(np.mean((ends - ends.mean()) ** 4)) / float(ends.var()) ** 2
    error = 4 * np.sqrt((fourth - 1) / TRIALS)
    assert float(calendar_variance_s2(work_s=work_s, job=job)) / ends.var() == pytest.approx(1.0, abs=max(error, 0.1))


def test_failures_far_apart_bring_their_number_times_their_square() -> None:
    """l * W * ((R + t / 2)^2 + t^2 / 12) to first order; nothing where nothing fails."""
    job = replace(CASES["as it stands"], failures_per_s=1e-8, stall_s=0.0)
    expected = 1e-8 * 1e6 * ((300.0 + 500.0) ** 2 + 1000.0**2 / 12)
    assert float(calendar_variance_s2(work_s=1e6, job=job)) == pytest.approx(expected, rel=1e-3)
    assert float(calendar_variance_s2(work_s=1e6, job=replace(job, failures_per_s=0.0))) == 0.0


@pytest.mark.parametrize(
    ("stages", "terms", "bound"),
    [
        ((WORK,), PRICED, 0.007),
        (RAMP, PRICED, 0.007),
        (RAMP, replace(PRICED, failures_per_gpu_hour=3e-4), 0.03),  # a fifth of the calendar
        ((replace(WORK, days=SURE),), replace(CERTAIN, failures_per_gpu_hour=3e-4), 0.002),  # failures alone
        ((replace(WORK, days=SURE),), replace(CERTAIN, spread={"dollars_per_gpu_hour": 0.2}), 0.007),
    ],
)
def test_the_odds_are_those_of_trials(stages: tuple[StageWork, ...], terms: Economics, bound: float) -> None:
    """Days and dollars at four probabilities, within 0.7 %; 3 % where terms that lengthen it more than they shorten it rule."""
    found = calendar_odds(stages, terms)
    days, bill = drawn(stages, terms)
    assert found.dollars is not None
    for probability in PROBABILITIES:
        assert float(found.days.quantile(probability)) == pytest.approx(np.quantile(days, probability), rel=bound)
        assert float(found.dollars.quantile(probability)) == pytest.approx(np.quantile(bill, probability), rel=bound)


def test_tails_of_the_time_are_those_of_the_calendar() -> None:
    """As in trials whose times are drawn from Student's t with 2 degrees; normal ones would lie 2 % apart at p90."""
    stage = replace(WORK, days=replace(WORK.days, laws=(T2, T2)))
    found = calendar_odds([stage], PRICED)
    days, bill = drawn((stage,), PRICED, trials=20_000)
    assert found.dollars is not None
    for probability in (0.05, 0.25, 0.5, 0.75, 0.9, 0.95):
        assert float(found.days.quantile(probability)) == pytest.approx(np.quantile(days, probability), rel=0.009)
        assert float(found.dollars.quantile(probability)) == pytest.approx(np.quantile(bill, probability), rel=0.009)
    for probability, end in ((0.05, found.days.low), (0.95, found.days.high)):
        assert float(found.days.quantile(probability)) == pytest.approx(end, rel=1e-9)
        assert float(found.days.probability_at_most(end)) == pytest.approx(probability, abs=1e-9)


def test_the_time_alone_keeps_its_law() -> None:
    """Where nothing else is uncertain; of stages with several laws that of the heaviest tails."""
    terms = replace(CERTAIN, failures_per_gpu_hour=0.0)
    tailed = replace(WORK, days=replace(WORK.days, laws=(T2, T2)))
    found = calendar_odds([WORK, tailed], terms).days
    assert float(found.quantile(0.9)) == pytest.approx(2 * float(tailed.days.quantile(0.9)), rel=1e-9)
    assert float(found.quantile(0.9)) < 2 * 0.99 * float(WORK.days.quantile(0.9))


def test_the_ends_of_stages_add_up() -> None:
    """Without failures the interval of two halves of a run is that of the run: what is uncertain is common to both."""
    terms = replace(CERTAIN, failures_per_gpu_hour=0.0)
    half = replace(WORK, days=Estimate(median=6.0, low=5.5, high=7.0))
    whole, halves = calendar_odds([WORK], terms).days, calendar_odds([half, half], terms).days
    assert (whole.low, whole.median, whole.high) == pytest.approx((halves.low, halves.median, halves.high), rel=1e-12)
    assert (whole.low, whole.high) == pytest.approx((11.0, 14.0), rel=1e-12)


def test_a_reserved_cluster_costs_at_least_its_reservation() -> None:
    """Of 13 days here: as sure as a calendar of less; beyond, the calendar is paid."""
    terms = replace(CERTAIN, billing="reserved", reserved_days=13.0, failures_per_gpu_hour=0.0)
    bill = calendar_odds([WORK], terms).dollars
    assert bill is not None
    a_day = 2.5 * 24 * 2304
    assert float(bill.quantile(0.5)) == pytest.approx(13 * a_day, rel=1e-12)
    assert float(bill.quantile(0.95)) == pytest.approx(14 * a_day, rel=1e-9)
    assert float(bill.probability_at_most(12.9 * a_day)) == 0.0
    in_time = calendar_odds([WORK], terms).days.probability_at_most(13.5)
    assert float(bill.probability_at_most(13.5 * a_day)) == pytest.approx(float(in_time), rel=1e-9)


def test_no_price_no_bill() -> None:
    """Nor one of nothing."""
    assert calendar_odds([WORK], TYPICAL).dollars is None


def test_a_run_that_never_ends_has_no_odds() -> None:
    """Failures come faster than it can restart."""
    days = calendar_odds([WORK], replace(CERTAIN, failures_per_gpu_hour=1e3)).days
    assert float(days.probability_at_most(1e6)) == 0.0


def test_an_outlook_says_p50_and_p90() -> None:
    """p50 is its calendar on average; p90 lies between it and the high end of the interval from trials."""
    run = read_candidates("nemotron-4-15b", ["economics.dollars_per_gpu_hour=2.5"])[0].run
    result = outlook(predict(run), PRICED)
    found = result.percentiles()
    assert found["calendar_p50_days"] == pytest.approx(result.calendar_days, rel=1e-9)
    assert found["dollars_p50"] == pytest.approx(result.dollars, rel=1e-9)
    assert result.calendar_interval_days is not None
    assert result.dollars_interval is not None
    assert (result.calendar_days or 0) < (found["calendar_p90_days"] or 0) < result.calendar_interval_days[1]
    assert (result.dollars or 0) < (found["dollars_p90"] or 0) < result.dollars_interval[1]
    assert result.calendar_odds is not None
    assert float(result.calendar_odds.high) == pytest.approx(result.calendar_interval_days[1], rel=0.02)
