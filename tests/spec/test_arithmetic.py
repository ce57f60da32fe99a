"""Sums and products that leave out what is nothing give what plain ones give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.spec.arithmetic import added, divided, either, less, multiplied, single

NUMBERS = st.one_of(st.sampled_from([0.0, 1.0, 1, 0]), st.floats(-1e6, 1e6), st.just(np.array([0.0, 1.0, 2.5])))


@given(one=NUMBERS, other=NUMBERS)
def test_what_is_left_out_changes_nothing(one: float, other: float) -> None:
    """To the bit, of numbers and arrays of them."""
    assert np.array_equal(added(one, other), np.add(one, other))
    assert np.array_equal(less(one, other), np.subtract(one, other))
    assert np.array_equal(np.broadcast_to(multiplied(one, other), np.broadcast(one, other).shape), np.multiply(one, other))


@given(one=NUMBERS, by=st.sampled_from([1, 2, 8]))
def test_a_share_of_one_is_all_of_it(one: float, by: int) -> None:
    """Quotients by a single number, and by several."""
    assert np.array_equal(divided(one, np.asarray(by)), np.divide(one, by))
    several = np.array([1.0, 2.0, 4.0])
    assert np.array_equal(np.broadcast_to(divided(one, several), several.shape), one / several)


def test_of_two_equal_numbers_either_is_one() -> None:
    """No array is made of them."""
    condition = np.array([True, False])
    assert either(condition, 0, 0) == 0
    assert np.array_equal(either(condition, 1.0, np.array([2.0, 3.0])), [1.0, 3.0])


@pytest.mark.parametrize(("value", "found"), [(3.0, 3.0), (np.full((2, 3), 8.0), 8.0), (np.array(5), 5)])
def test_an_array_of_one_number_is_that_number(value: float, found: float) -> None:
    """However many there are of it."""
    assert np.ndim(single(value)) == 0
    assert single(value) == found


def test_an_array_of_several_numbers_stays() -> None:
    """As does one of none."""
    for value in (np.array([1.0, 2.0]), np.zeros((0, 3))):
        assert single(value) is value
