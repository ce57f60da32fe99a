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
ALMOST_ALL: Final = 1.0 - 1e-15  # of the experts, whose logarithm is not infinite yet


def share_met(*, chance: Numeric, tokens: Numeric, scatter: Numeric) -> Numeric:
    """1 - (1 + T*((1 - k/E)^(-s^2) - 1))^(-1/s^2) of experts are met by some of T tokens; 1 - (1 - k/E)^T of s = 0.

    A token passes an expert by with the odds exp(-x), x a number that differs from expert to expert as a gamma number does, s
    its standard deviation over its mean: those that are liked take copies that would wake others. That of one token k/E of them
    are met, and all where k = E, sets the mean.

    >>> [round(float(share_met(chance=8 / 256, tokens=64, scatter=s)), 3) for s in (0.0, 0.5)]
    [0.869, 0.808]
    """
    variance, number = np.square(np.asarray(scatter, dtype=float)), np.asarray(tokens, dtype=float)
    passed_by = np.log1p(-np.minimum(chance, ALMOST_ALL))
    even = -np.expm1(number * passed_by)
    power = np.maximum(variance, LEAST_VARIANCE)
    uneven = -np.expm1(-np.log1p(number * np.expm1(-power * passed_by)) / power)
    met: NDArray[Any] = np.where(variance < LEAST_VARIANCE, even, uneven)
    return met


def busiest_load(*, ranks: Numeric, experts: Numeric, per_token: Numeric, tokens: Numeric, scatter: Numeric) -> Numeric:
    """1 + e(R) * sqrt(s^2 * R/E + (E - k)/(E - 1)/n), at most R and E/k: copies on the busiest rank over their mean n = T*k/R.

    A rank has E/R experts, whose loads differ independently of each other; and even with equal odds few copies do not fall
    evenly. Both spread like normal numbers, of which the greatest is e(R) standard deviations above the mean. A token has its k
    copies on different experts, so that those on a rank have the variance n*(1 - 1/R)*(E - k)/(E - 1); but what one rank has
    the others have not, which sets them as far apart as n*(E - k)/(E - 1) alone. An expert has T copies at most.

    >>> round(float(busiest_load(ranks=8, experts=128, per_token=8, tokens=1e9, scatter=0.5)), 3)
    1.178
    """
    mean = np.maximum(tokens * per_token / np.asarray(ranks, dtype=float), 1e-9)
    different = (experts - per_token) / np.maximum(experts - 1.0, 1.0)
    variance = np.square(scatter) * ranks / experts + different / mean
    return np.minimum(1.0 + greatest_normal(ranks) * np.sqrt(variance), np.minimum(ranks, experts / per_token))


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
