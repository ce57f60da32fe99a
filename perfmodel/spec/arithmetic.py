"""Sums and products of numbers of which many are nothing: of a million layouts, one that changes nothing is not worked out."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from perfmodel.spec.fields import Numeric


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
