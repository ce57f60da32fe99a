"""Are errors distributed as Student's t, as a normal distribution, or as the sum of both, and do draws lie so?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import atan, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.spec.evidence.error_law import FARTHEST, NORMAL, ErrorLaw, heaviest_tails
from perfmodel.spec.evidence.spread import DEVIATIONS, deviations_at, share_below

CLOSED_FORMS: Mapping[float, Callable[[float], float]] = {  # of Student's t, by degrees
    1.0: lambda t: 0.5 + atan(t) / pi,
    2.0: lambda t: 0.5 + t / (2.0 * sqrt(2.0 + t * t)),
    4.0: lambda t: 0.5 + 0.375 * (t / sqrt(1.0 + t * t / 4.0)) * (1.0 - t * t / (12.0 * (1.0 + t * t / 4.0))),
}
UPPER_T = {1.0: 6.313752, 2.0: 2.919986, 4.0: 2.131847, 30.0: 1.697261}  # t.95 of printed tables


@pytest.mark.parametrize("degrees", CLOSED_FORMS)
def test_it_is_students_t(degrees: float) -> None:
    """Its closed forms of 1, 2 and 4 degrees, from near the middle to far outside."""
    law = ErrorLaw(degrees=degrees)
    for t in (-40.0, -3.0, -0.2, 0.0, 0.7, 2.0, 9.0, 300.0):
        assert float(law.share_below(t * law.unit)) == pytest.approx(CLOSED_FORMS[degrees](t), abs=3e-9)


@pytest.mark.parametrize("degrees", UPPER_T)
def test_a_unit_of_t_is_that_of_printed_tables(degrees: float) -> None:
    """1.645 over t.95."""
    assert ErrorLaw(degrees=degrees).unit == pytest.approx(DEVIATIONS / UPPER_T[degrees], rel=1e-6)


def test_many_degrees_are_a_normal_distribution() -> None:
    """And so is what has no share of the tails."""
    places = np.array([-3.0, -1.0, 0.0, 0.5, 2.5])
    normal = np.asarray(share_below(places))
    assert np.asarray(ErrorLaw(degrees=1e6).share_below(places)) == pytest.approx(normal, abs=1e-6)
    assert np.array_equal(np.asarray(ErrorLaw(degrees=2.0, tail_share=0.0).share_below(places)), normal)
    assert float(NORMAL.deviations_at(0.8)) == float(deviations_at(0.8))
    assert NORMAL.unit == NORMAL.stretch == 1.0


@given(st.floats(1.0, 60.0), st.floats(0.0, 1.0), st.floats(0.001, 0.999))
def test_shares_and_deviations_are_each_others_inverse(degrees: float, tail_share: float, share: float) -> None:
    """Whatever the law; nine in ten lie within DEVIATIONS, and both sides are alike."""
    law = ErrorLaw(degrees=degrees, tail_share=tail_share)
    assert float(law.share_below(law.deviations_at(share))) == pytest.approx(share, abs=1e-9)
    assert float(law.share_below(DEVIATIONS)) == pytest.approx(0.95, abs=1e-9)
    assert float(law.share_below(-DEVIATIONS)) == pytest.approx(0.05, abs=1e-9)


def test_a_sum_is_the_convolution_of_its_parts() -> None:
    """Of t with 2 degrees, by its closed form, and a normal part, integrated by brute force."""
    law = ErrorLaw(degrees=2.0, tail_share=0.36)
    normal = np.linspace(-6.0, 6.0, 4001)
    weight = np.exp(-0.5 * normal**2)
    for deviations in (-4.0, -DEVIATIONS, -0.3, 0.0, 1.0, 6.0):
        of_t = [CLOSED_FORMS[2.0](each) for each in (deviations * law.stretch - 0.8 * normal) / (0.6 * law.unit)]
        assert float(law.share_below(deviations)) == pytest.approx(weight @ np.asarray(of_t) / weight.sum(), abs=1e-9)


def test_half_widths_of_a_sum_are_nearly_the_root_of_their_squares() -> None:
    """From 0.4 % less to 4.5 % more from 1.5 degrees on; exactly where one part brings all."""
    stretches = [ErrorLaw(degrees=nu, tail_share=h).stretch for nu in (1.5, 2.0, 5.0) for h in (0.02, 0.2, 0.5, 0.8, 0.98)]
    assert min(stretches) > 0.9935
    assert 1.03 < max(stretches) < 1.046
    assert ErrorLaw(degrees=2.0).stretch == ErrorLaw(degrees=2.0, tail_share=0.0).stretch == 1.0


@pytest.mark.parametrize("law", [NORMAL, ErrorLaw(degrees=2.0), ErrorLaw(degrees=2.0, tail_share=0.4)])
def test_draws_lie_as_the_law_says(law: ErrorLaw) -> None:
    """As many below each place, within four standard errors; none beyond the farthest."""
    draws = law.draws(np.random.default_rng(3), 20_000)
    for share in (0.05, 0.25, 0.5, 0.8, 0.95, 0.99):
        assert np.mean(draws <= law.deviations_at(share)) == pytest.approx(share, abs=4 * sqrt(share * (1 - share) / 20_000))
    assert np.abs(draws).max() == pytest.approx(law.farthest)
    assert law.farthest == pytest.approx(float(law.deviations_at(FARTHEST)))


def test_fewer_degrees_are_heavier_tails() -> None:
    """More errors near nothing and more far away; the heaviest of several laws is that of the fewest degrees."""
    laws = [ErrorLaw(degrees=each) for each in (1.5, 3.0, 8.0)]
    for share, sign in ((0.75, 1.0), (0.99, -1.0)):
        reach = [sign * float(law.deviations_at(share)) for law in (*laws, NORMAL)]
        assert reach == sorted(reach)
    assert heaviest_tails([NORMAL, laws[1], laws[0], laws[2]]) == laws[0]
