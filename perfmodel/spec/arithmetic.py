"""Sums and products of numbers of which many are nothing: of a million layouts, one that changes nothing is not worked out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.spec.fields import Numeric, Truth, chosen


def is_nothing(value: Numeric) -> bool:
    """Whether it is the number 0, and no array."""
    return isinstance(value, float) and value == 0.0


def added(one: Numeric, other: Numeric) -> Numeric:
    """one + other, at no cost where one of them is the number 0."""
    if isinstance(other, float) and other == 0.0:
        return one
    return other if isinstance(one, float) and one == 0.0 else one + other


def less(one: Numeric, other: Numeric) -> Numeric:
    """one - other, at no cost where the other is the number 0."""
    return one if is_nothing(other) else one - other


def multiplied(one: Numeric, times: Numeric) -> Numeric:
    """one * times, at no cost where `one` is the number 0, or `times` the number 1."""
    return one if is_nothing(one) or (isinstance(times, float) and times == 1.0) else one * times


def divided(one: Numeric, by: NDArray[Any]) -> Numeric:
    """one / by, at no cost where `one` is the number 0, or `by` a single 1."""
    return one if is_nothing(one) or (by.size == 1 and by == 1) else one / by


def either(condition: Truth, yes: Numeric, no: Numeric) -> Numeric:
    """np.where(condition, yes, no), at no cost where both are the same number."""
    return no if isinstance(yes, int | float) and isinstance(no, int | float) and yes == no else chosen(condition, yes, no)


def single(value: Numeric) -> Numeric:
    """The number that all of an array are; an array of several as it is."""
    if not isinstance(value, np.ndarray) or not value.size or (value != value.flat[0]).any():
        return value
    number: Numeric = value.flat[0]
    return number
