"""Are coverage and reliability the shares that were counted by hand, and has every interval its law of errors?"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from perfmodel.evidence.interval_scores import LEVEL, LEVELS, MISS, Intervals, reliability, winkler_scores
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.spread import DEVIATIONS


def intervals(residuals: list[float], *, below: float = 0.1, above: float = 0.1, sources: list[str] | None = None) -> Intervals:
    """Runs of one second whose logarithms lie `residuals` above their predictions."""
    predicted = np.exp(-np.asarray(residuals))
    return Intervals(
        predicted_s=predicted,
        low_s=predicted * np.exp(-below),
        high_s=predicted * np.exp(above),
        measured_s=np.ones(len(residuals)),
        sources=sources or ["one"] * len(residuals),
        laws=[NORMAL] * len(residuals),
    )


@pytest.mark.parametrize("level", LEVELS)
def test_an_interval_of_another_level_reaches_as_far_as_a_normal_distribution(level: float) -> None:
    """On each side by its own width; a hair more is outside."""
    reach = NormalDist().inv_cdf((1.0 + level) / 2.0) / DEVIATIONS
    found = intervals([0.999 * 0.1 * reach, 1.001 * 0.1 * reach, -0.999 * 0.3 * reach, -1.001 * 0.3 * reach], below=0.3)
    assert found.inside(level).tolist() == [True, False, True, False]


def test_every_row_has_a_law_of_its_own() -> None:
    """Half of Student's t with 2 degrees lies within 0.28 of where nine in ten do: sqrt(2 / 3) over 2.92; normally 0.41."""
    found = intervals([0.0275, 0.0285, 0.0275])
    laws = replace(found, laws=[ErrorLaw(degrees=2.0), ErrorLaw(degrees=2.0), NORMAL])
    assert found.inside(0.5).tolist() == [True, True, True]
    assert laws.inside(0.5).tolist() == [True, False, True]
    assert laws.inside(LEVEL).tolist() == [True, True, True]


def test_each_source_weighs_one() -> None:
    """Three rows inside of one paper count as much as one outside of another."""
    found = reliability(intervals([0.0, 0.0, 0.0, 0.5], sources=["a", "a", "a", "b"]))
    assert found.rows[LEVEL] == pytest.approx(0.75)
    assert found.by_source[LEVEL] == pytest.approx(0.5)


def test_wider_levels_cover_no_less() -> None:
    """Of any errors, by rows and by sources."""
    draws = np.random.default_rng(5).normal(scale=0.07, size=200).tolist()
    found = reliability(intervals(draws, sources=[f"s{place % 7}" for place in range(200)]))
    for shares in (found.rows, found.by_source):
        assert list(shares.values()) == sorted(shares.values())
        assert 0.3 < shares[0.5] < shares[0.95] <= 1.0


def test_a_wider_interval_pays_until_it_reaches_the_measurement() -> None:
    """Beyond that, width costs what it is; short of it, a miss costs twenty times as much."""
    low, high = np.asarray([0.8, 0.9, 0.9]), np.asarray([1.2, 1.1, 1.0])
    scores = winkler_scores(low_s=low, high_s=high, measured_s=np.asarray([1.1, 1.1, 1.1]))
    assert scores * 1.1 == pytest.approx([0.4, 0.2, 0.1 + MISS * 0.1])
