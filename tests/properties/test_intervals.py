"""Do intervals contain their centre, and those of less confidence lie inside those of more?"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.prediction import predict_stage
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.timing.uncertainty import Estimate
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs

CONFIDENCES: Final = (0.5, 0.8, 0.9, 0.95)
WIDTHS: Final = st.floats(0.0, 2.0)


def interval(estimate: Estimate, confidence: float) -> tuple[float, float]:
    """The middle interval that holds so much."""
    return float(estimate.quantile((1 - confidence) / 2)), float(estimate.quantile((1 + confidence) / 2))


def assert_nested(estimate: Estimate) -> None:
    """50 % in 80 % in 90 % in 95 %, each around the median; that of 90 % is the one that it is made of."""
    median, every = float(estimate.median), [interval(estimate, each) for each in CONFIDENCES]
    for (low, high), (lower, higher) in pairwise([(median, median), *every]):
        assert lower <= low * (1 + 1e-12)
        assert high <= higher * (1 + 1e-12)
    assert every[2] == pytest.approx((float(estimate.low), float(estimate.high)), rel=1e-6)


@examples(25)
@given(drawn=runs())
def test_intervals_of_a_run_nest_around_its_time(drawn: DrawnRun) -> None:
    """Whatever the run; its three parts make the whole, and no part is negative."""
    predicted = predict_stage(drawn.setup)
    assert_nested(predicted.estimate_s)
    low, high = (float(each) for each in predicted.iteration_time_interval_s)
    assert 0 < low < float(predicted.iteration_time_s) < high
    assert min(float(each) for each in predicted.uncertainty.parts_s.values()) >= 0
    shares = [float(each) for each in predicted.uncertainty.shares.values()]
    assert min(shares, default=0) >= 0
    assert sum(shares) <= 1 + 1e-9


@examples(60)
@given(
    median=st.floats(1e-6, 1e9),
    below=WIDTHS,
    above=WIDTHS,
    degrees=st.none() | st.floats(1.0, 60.0),
)
def test_intervals_of_any_estimate_nest(median: float, below: float, above: float, degrees: float | None) -> None:
    """Of any widths on either side and any tails, down to none."""
    law = NORMAL if degrees is None else ErrorLaw(degrees=degrees)
    assert_nested(Estimate(median=median, low=median * np.exp(-below), high=median * np.exp(above), laws=(law, law)))
