"""How many experts some tokens meet, and how much more the busiest of several ranks has than their mean: matters of chance.

Symbols: R ranks, E experts of which a token chooses k, T tokens, s how far loads of single experts lie apart, as a standard
deviation over their mean.
"""

from __future__ import annotations

from functools import cache
from math import erf, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.spec.fields import Numeric

FARTHEST: Final = 12.0  # standard deviations
POINTS: Final = 1201
LEAST_VARIANCE: Final = 1e-8  # of loads that differ at all


def share_met(*, chance: Numeric, tokens: Numeric, scatter: Numeric) -> Numeric:
    """1 - (1 + s^2 * m)^(-1/s^2) of experts are met by some of T tokens, m = -T * log(1 - k/E); 1 - (1 - k/E)^T of s = 0.

    Copies of an expert are a Poisson number, of a mean that differs from expert to expert as a gamma number of mean 1 and
    standard deviation s: those that are liked take copies that would wake others. Of one token, which chooses k different
    ones, that is up to 1 % too few.

    >>> [round(float(share_met(chance=8 / 256, tokens=64, scatter=s)), 3) for s in (0.0, 0.5)]
    [0.869, 0.807]
    """
    mean = -np.log1p(-np.asarray(chance, dtype=float)) * tokens
    variance = np.square(np.asarray(scatter, dtype=float))
    even = -np.expm1(-mean)
    uneven = -np.expm1(-np.log1p(variance * mean) / np.maximum(variance, LEAST_VARIANCE))
    met: NDArray[Any] = np.where(variance < LEAST_VARIANCE, even, uneven)
    return met


def busiest_load(*, ranks: Numeric, experts: Numeric, copies: Numeric, scatter: Numeric) -> Numeric:
    """1 + e(R) * sqrt(s^2 * R/E + 1/n), at most R: copies of tokens on the busiest rank over their mean n = T*k/R.

    A rank has E/R experts, whose loads differ independently of each other; and even with equal odds few copies do not fall
    evenly. Both spread like normal numbers, of which the greatest is e(R) standard deviations above the mean. Copies on a rank
    have the variance n*(1 - 1/R), but what one has the others have not, which sets them as far apart as n alone.

    >>> round(float(busiest_load(ranks=8, experts=128, copies=1e9, scatter=0.5)), 3)
    1.178
    """
    mean = np.maximum(copies / np.asarray(ranks, dtype=float), 1e-9)
    variance = np.square(scatter) * ranks / experts + 1.0 / mean
    return np.minimum(1.0 + greatest_normal(ranks) * np.sqrt(variance), ranks)


def greatest_normal(ranks: Numeric) -> Numeric:
    """e(n) = integral over x > 0 of 1 - F(x)^n - (1 - F(x))^n, F the normal distribution: the expected greatest of n numbers.

    >>> [round(float(greatest_normal(n)), 4) for n in (1, 2, 10, 1000)]
    [0.0, 0.5642, 1.5388, 3.2414]
    """
    unique, places = np.unique(np.asarray(ranks, dtype=np.float64), return_inverse=True)
    below, step = _normal_below(), FARTHEST / (POINTS - 1)
    heights = 1.0 - below ** unique[:, None] - (1.0 - below) ** unique[:, None]
    areas = step * (heights.sum(axis=1) - (heights[:, 0] + heights[:, -1]) / 2.0)
    found: NDArray[Any] = np.maximum(areas, 0.0)[places.reshape(np.shape(ranks))]
    return found


@cache
def _normal_below() -> NDArray[np.float64]:
    """F at even steps from 0 to FARTHEST."""
    return np.array([(1.0 + erf(x / sqrt(2.0))) / 2.0 for x in np.linspace(0.0, FARTHEST, POINTS)])
