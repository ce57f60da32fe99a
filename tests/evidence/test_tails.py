"""Are the degrees of the law of errors those that the rows were drawn with, each source weighing one?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.tails import ALL, laws_without_each, likely_degrees
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.spread import DEVIATIONS
from tests.evidence.test_discrepancy import compared

WIDTH = 0.1


def drawn(law: ErrorLaw, sources: int) -> list[TimeComparison]:
    """A row a source, with errors of this law in intervals of one width."""
    errors = law.draws(np.random.default_rng(4), sources) * WIDTH / DEVIATIONS
    return [compared(f"s{place}", float(error), known=WIDTH) for place, error in enumerate(errors)]


@pytest.mark.parametrize("degrees", [1.5, 3.0])
def test_the_degrees_are_those_of_the_draws(degrees: float) -> None:
    """Within what so many sources can tell, which holds the truth."""
    rows = drawn(ErrorLaw(degrees=degrees), 400)
    low, high = likely_degrees(rows)
    assert low < degrees < high < 2.5 * low
    assert low < laws_without_each(rows)[ALL].degrees < high


def test_normal_errors_have_many_degrees() -> None:
    """As far as the grid goes, or nearly."""
    assert laws_without_each(drawn(NORMAL, 400))[ALL].degrees > 10


def test_each_source_weighs_one() -> None:
    """A hundred equal rows of one are as good as one."""
    rows = drawn(ErrorLaw(degrees=2.0), 30)
    assert laws_without_each([*rows, *[rows[0]] * 99]) == pytest.approx(laws_without_each(rows))


def test_a_source_that_is_left_out_says_nothing() -> None:
    """Nor do rows of context; of hardly any source there is no law."""
    rows = drawn(ErrorLaw(degrees=2.0), 12)
    odd = compared("odd", 9.0, known=WIDTH)
    assert laws_without_each([*rows, odd])["odd"] == laws_without_each(rows)[ALL]
    assert laws_without_each([*rows, odd])[ALL].degrees < laws_without_each(rows)[ALL].degrees
    context = replace(odd, measured=replace(odd.measured, scored=False))
    assert laws_without_each([*rows, context]) == laws_without_each(rows)
    assert laws_without_each(rows[:2]) == {}


def test_the_shipped_degrees_are_few() -> None:
    """Measured runs have heavy tails: nearer to 2 degrees than to a normal distribution."""
    degrees = cluster_preset("dgx-h100").evidence.degrees
    assert degrees is not None
    assert 1.0 < degrees < 4.0
