"""How errors are distributed about what is predicted: with the tails that measured runs show, or normal.

    e = sqrt(h) * t + sqrt(1 - h) * n

e is an error of a logarithm in deviations: DEVIATIONS of them reach to either end of its 90 % interval. t is Student's t with
`degrees` of freedom nu, n is normal, each in deviations of its own, and h is the share of the squared half width that t brings.
What has the tails of t in common is wide or narrow together (a multivariate t: one scale for all of it), so half widths of it
add up as the root of their squares exactly. t is normal with a variance of u^2 / g, g gamma distributed about 1 with shape
nu / 2:

    P(e <= x) = sum over j of w_j * Phi(x / sqrt(h * u^2 / g_j + 1 - h)),    u = DEVIATIONS / t.95(nu)

with the trapezoidal rule over ln g, which is right to 1e-8 from 1 degree on. Where both parts bring something, the 90 % half
width of their sum is `stretch` times the root of the squares: 0.994 to 1.045 from 1.5 degrees on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.spread import DEVIATIONS, deviations_at, share_below
from perfmodel.spec.fields import Numeric

UPPER: Final = 0.95  # of a 90 % interval: what lies below its upper end
FARTHEST: Final = (
    0.999  # draws lie no farther than this share: farther ones take the time of a simulation, and move no interval
)
NODES: Final = 128
DEPTH: Final = 24.0  # -ln of the weight at which nodes end
HALVINGS: Final = 64
MOST_DEVIATIONS: Final = 1e9
LAWS: Final = 256  # whose numbers are remembered
QUANTILES: Final = 4096  # of laws that are remembered
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorLaw:
    """How errors are distributed, in deviations: `tail_share` of the squared half width has the tails of Student's t."""

    degrees: float = inf  # of freedom: infinitely many are a normal distribution
    tail_share: float = 1.0

    @property
    def is_normal(self) -> bool:
        """Whether no part of it has heavier tails."""
        return self.degrees == inf or self.tail_share == 0.0

    @property
    def unit(self) -> float:
        """u: how many deviations one unit of Student's t is; 1 for infinitely many degrees.

        >>> round(ErrorLaw(degrees=2.0).unit * 2.91999, 4)
        1.6449
        """
        return 1.0 if self.degrees == inf else DEVIATIONS / _upper_t(self.degrees)

    @property
    def stretch(self) -> float:
        """The 90 % half width of the sum over the root of the squares of those of its parts."""
        return 1.0 if self.is_normal or self.tail_share == 1.0 else _stretch(self.degrees, self.tail_share)

    @property
    def farthest(self) -> float:
        """How many deviations from the middle draws are at most."""
        return float(self.deviations_at(FARTHEST))

    def share_below(self, deviations: Numeric) -> Numeric:
        """P(e <= x): the share of errors below so many deviations.

        >>> [round(float(ErrorLaw(degrees=2.0).share_below(each)), 3) for each in (-DEVIATIONS, 0.0, 2 * DEVIATIONS)]
        [0.05, 0.5, 0.986]
        """
        return share_below(deviations) if self.is_normal else _of_sum(np.asarray(deviations) * self.stretch, self)

    def deviations_at(self, share: Numeric) -> Numeric:
        """How many deviations from the middle this share of errors lies below; 0 < share < 1.

        >>> [round(float(ErrorLaw(degrees=2.0).deviations_at(each)), 3) for each in (0.05, 0.5, 0.75, 0.95, 0.975)]
        [-1.645, 0.0, 0.46, 1.645, 2.424]
        """
        if self.is_normal:
            return deviations_at(share)
        return _deviations_at(self, float(share)) if np.ndim(share) == 0 else _at_shares(self, share)

    def draws(self, generator: np.random.Generator, number: int) -> Array:
        """So many errors at random, in deviations; none is farther from the middle than `farthest`."""
        spread = np.sqrt(self.tail_share * self.draws_of_scale(generator, number) ** 2 + 1.0 - self.tail_share)
        return np.clip(spread * generator.standard_normal(number) / self.stretch, -self.farthest, self.farthest)

    def draws_of_scale(self, generator: np.random.Generator, number: int) -> Array:
        """u / sqrt(g): how wide all that has these tails is at once, so many times at random; 1 for a normal distribution."""
        if self.degrees == inf:
            return np.ones(number)
        return np.asarray(self.unit / np.sqrt(generator.gamma(self.degrees / 2.0, 2.0 / self.degrees, number)))


NORMAL: Final = ErrorLaw()


def heaviest_tails(laws: Iterable[ErrorLaw]) -> ErrorLaw:
    """The law of the fewest degrees, for what is as uncertain as several numbers together."""
    return min(laws, key=lambda law: law.degrees)


@lru_cache(maxsize=LAWS)
def _upper_t(degrees: float) -> float:
    """t.95(nu): what 95 % of Student's t with so many degrees lie below."""
    return float(_inverse(lambda units: _mixture(np.asarray(units), degrees, 1.0, 0.0), UPPER))


@lru_cache(maxsize=LAWS)
def _stretch(degrees: float, tail_share: float) -> float:
    law = ErrorLaw(degrees=degrees, tail_share=tail_share)
    return float(_inverse(lambda each: _of_sum(each, law), UPPER)) / DEVIATIONS


@lru_cache(maxsize=QUANTILES)
def _deviations_at(law: ErrorLaw, share: float) -> np.float64:
    """Of one share: a plan asks for the same of one law again and again, and halving takes a millisecond."""
    return np.float64(_at_shares(law, share))


def _at_shares(law: ErrorLaw, share: Numeric) -> Array:
    return np.asarray(_inverse(lambda each: _of_sum(each, law), share) / law.stretch)


def _of_sum(deviations: Numeric, law: ErrorLaw) -> Array:
    """P(e <= x) of the sum at the top of the file, whose 90 % interval is `stretch` times as wide."""
    return _mixture(np.asarray(deviations, dtype=float), law.degrees, law.tail_share * law.unit**2, 1.0 - law.tail_share)


@lru_cache(maxsize=LAWS)
def _scales(degrees: float) -> tuple[Array, Array]:
    """1 / g at the nodes, and their weights: ln w = (nu / 2) * (1 + ln g - g) but for a constant."""
    depth = 2.0 * DEPTH / degrees
    log_g = np.linspace(-(depth + np.sqrt(2.0 * depth)), min(np.sqrt(2.0 * depth), np.log1p(depth) + 1.0), NODES)
    weights = np.exp(degrees / 2.0 * (1.0 + log_g - np.exp(log_g)))
    return np.exp(-log_g), weights / weights.sum()


def _mixture(deviations: Array, degrees: float, tail_variance: float, variance: float) -> Array:
    """sum over j of w_j * Phi(x / sqrt(tail_variance / g_j + variance))."""
    wide, weights = _scales(degrees)
    return np.asarray(share_below(deviations[..., None] / np.sqrt(tail_variance * wide + variance)) @ weights)


def _inverse(below: Callable[[Numeric], Numeric], share: Numeric) -> Array:
    """Where a symmetric distribution has this share below, by halving; the distribution is 0.5 at 0."""
    above = 0.5 + np.abs(np.asarray(share, dtype=float) - 0.5)
    low, high = np.zeros_like(above), np.full_like(above, 8.0)
    while np.any(short := (below(high) < above) & (high < MOST_DEVIATIONS)):
        high = np.where(short, 8.0 * high, high)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        enough = below(middle) >= above
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.asarray(np.sign(np.asarray(share) - 0.5) * high)
