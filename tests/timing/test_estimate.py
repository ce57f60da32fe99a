"""Do odds and quantiles of an uncertain number follow from its median and the two ends of its 90 % interval?"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.timing.uncertainty import Estimate

TIME = Estimate(median=10.0, low=9.5, high=12.0)


def test_its_interval_holds_nine_in_ten() -> None:
    """A twentieth lies below its low end, a half below its median, a twentieth above its high end."""
    for probability, end in ((0.05, TIME.low), (0.5, TIME.median), (0.95, TIME.high)):
        assert float(TIME.quantile(probability)) == pytest.approx(end, rel=1e-12)
        assert float(TIME.probability_at_most(end)) == pytest.approx(probability, abs=1e-12)


def test_each_side_has_a_width_of_its_own() -> None:
    """1.2816 / 1.6449 of the way to either end in the logarithm: 80 % lie between p10 and p90."""
    assert np.log(float(TIME.quantile(0.9)) / 10.0) == pytest.approx(np.log(12.0 / 10.0) * 1.2815515655 / 1.6448536270)
    assert np.log(10.0 / float(TIME.quantile(0.1))) == pytest.approx(np.log(10.0 / 9.5) * 1.2815515655 / 1.6448536270)


@given(st.floats(0.001, 0.999), st.floats(1.01, 3.0), st.floats(1.01, 3.0))
def test_odds_and_quantiles_are_each_others_inverse(probability: float, below: float, above: float) -> None:
    """Whatever the widths of both sides."""
    known = Estimate(median=7.0, low=7.0 / below, high=7.0 * above)
    assert float(known.probability_at_most(known.quantile(probability))) == pytest.approx(probability, abs=1e-9)


@pytest.mark.parametrize("law", [NORMAL, ErrorLaw(degrees=2.0)])
def test_draws_have_its_odds(law: ErrorLaw) -> None:
    """Of deviations of its law, as many lie at most at a limit as its probability says."""
    time = replace(TIME, laws=(law, law))
    draws = time.at(law.draws(np.random.default_rng(1), 20_000))
    for limit in (9.7, 10.0, 11.0, 12.5):
        assert np.mean(draws <= limit) == pytest.approx(float(time.probability_at_most(limit)), abs=0.012)


def test_each_side_has_a_law_of_its_own() -> None:
    """Heavier tails above the median alone: what is below is as likely as before, both ends are what they were."""
    time = replace(TIME, laws=(NORMAL, ErrorLaw(degrees=2.0)))
    for probability in (0.05, 0.2, 0.5, 0.95):
        assert float(time.quantile(probability)) == pytest.approx(float(TIME.quantile(probability)), rel=1e-9)
    assert float(time.quantile(0.8)) < float(TIME.quantile(0.8))
    assert float(time.quantile(0.99)) > float(TIME.quantile(0.99))
    assert float(time.probability_at_most(float(time.quantile(0.99)))) == pytest.approx(0.99)


def test_what_is_certain_is_met_or_not() -> None:
    """By a limit at it and above, and not below, at every probability."""
    certain = Estimate(median=4.0, low=4.0, high=4.0)
    assert np.asarray(certain.probability_at_most(np.array([3.999, 4.0, 4.001]))).tolist() == [0.0, 1.0, 1.0]
    assert np.asarray(certain.quantile(np.array([0.01, 0.5, 0.99]))).tolist() == [4.0] * 3


def test_it_is_not_less_than_its_least() -> None:
    """Low quantiles are the least itself; no limit below is ever met, the least is as often as what it replaces."""
    bill = Estimate(median=10.0, low=9.5, high=12.0, least=11.0)
    assert float(bill.quantile(0.5)) == 11.0
    assert float(bill.quantile(0.9)) == float(TIME.quantile(0.9))
    assert float(bill.probability_at_most(10.99)) == 0.0
    assert float(bill.probability_at_most(11.0)) == float(TIME.probability_at_most(11.0)) > 0.5


def test_what_never_ends_is_never_in_time() -> None:
    """Infinite at every probability."""
    never = Estimate(median=inf, low=inf, high=inf)
    assert float(never.quantile(0.9)) == inf
    assert float(never.probability_at_most(1e9)) == 0.0


def test_arrays_broadcast() -> None:
    """Of times against probabilities, and of times against limits; each as alone."""
    medians = np.array([[5.0], [10.0]])
    many = Estimate(median=medians, low=0.95 * medians, high=1.2 * medians)
    probabilities = np.array([0.1, 0.5, 0.9])
    found = np.asarray(many.quantile(probabilities))
    assert found.shape == (2, 3)
    assert found[1].tolist() == pytest.approx([float(TIME.quantile(each)) for each in probabilities], rel=1e-12)
    assert np.asarray(many.probability_at_most(found))[1] == pytest.approx(probabilities, abs=1e-12)
