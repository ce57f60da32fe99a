"""The odds that a layout fits, and the verdict that follows."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.memory.fit import DOES_NOT_FIT, FITS, TIGHT, fit_probability, fit_verdict


def odds(needed: float, error: float = 0.1) -> float:
    """Odds that `needed` bytes fit in 80."""
    return float(fit_probability(needed_bytes=needed, capacity_bytes=80.0, error=error))


def test_as_much_as_there_is_fits_in_half_of_all_cases() -> None:
    """Whatever the error."""
    assert odds(80.0) == odds(80.0, error=0.3) == 0.5


@pytest.mark.parametrize("error", [0.02, 0.1, 0.5])
def test_the_verdict_follows_the_90_percent_interval(error: float) -> None:
    """Fits while M * (1 + w) <= C, does not fit from M / (1 + w) > C on, tight between them."""
    edges = (80 / (1 + error), 80 * (1 + error))
    needs = (0.999 * edges[0], 1.001 * edges[0], 0.999 * edges[1], 1.001 * edges[1])
    assert [fit_verdict(odds(need, error)) for need in needs] == [FITS, TIGHT, TIGHT, DOES_NOT_FIT]


def test_more_need_is_never_likelier_to_fit() -> None:
    """The odds fall, over arrays too."""
    found = fit_probability(needed_bytes=np.linspace(40.0, 160.0, 50), capacity_bytes=80.0, error=0.1)
    assert np.all(np.diff(found) <= 0)


def test_without_error_it_fits_or_does_not() -> None:
    """Odds of 1 below the capacity, 0 above."""
    assert (odds(79.9, error=0.0), odds(80.1, error=0.0)) == (1.0, 0.0)


def test_the_verdict_changes_at_19_of_20_and_at_one_of_20() -> None:
    """The very odds belong to the surer word."""
    assert [fit_verdict(each) for each in (0.95, 0.9499, 1.0 - 0.95 + 1e-9, 1.0 - 0.95)] == [FITS, TIGHT, TIGHT, DOES_NOT_FIT]
