"""Are steady steps kept in bounded memory, and their figures those of all?"""

from __future__ import annotations

import pytest

from perfmodel.exchange.translation.logs.steady_steps import KEPT, Numbers


def test_of_many_numbers_a_bounded_part_is_kept() -> None:
    """Evenly over all of them, so that their median stays."""
    numbers = Numbers()
    total = 5 * KEPT
    for value in range(total):
        numbers.add(float(value))
    assert len(numbers.kept) <= KEPT
    assert numbers.seen == total
    assert numbers.at(0.5) == pytest.approx(total / 2, rel=1e-4)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0)])
def test_shares_lie_between_their_neighbours(share: float, value: float) -> None:
    """In proportion."""
    numbers = Numbers()
    for each in (4.0, 1.0, 3.0, 2.0):
        numbers.add(each)
    assert numbers.at(share) == value


def test_no_numbers_have_no_median() -> None:
    """Nothing is made up."""
    assert Numbers().at(0.5) is None
