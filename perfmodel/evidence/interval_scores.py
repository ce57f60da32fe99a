"""How honest are intervals: how many measurements they cover at each stated level, and what their width is worth.

An interval is that of a time whose logarithm has a law on either side of the prediction T (error_law.py): at another level
than 90 % each side is ln(T / low) or ln(high / T) times z / 1.645, z = that many deviations to either end of the level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.spread import DEVIATIONS

LEVELS: Final = (0.5, 0.8, 0.9, 0.95)
LEVEL: Final = 0.9  # of the intervals that are printed
MISS: Final = 2.0 / (1.0 - LEVEL)  # what a measurement beyond an interval costs the Winkler score, for each unit beyond


@dataclass(frozen=True, slots=True, kw_only=True)
class Intervals:
    """90 % intervals of predicted times beside the measured ones [s], and whose these are; arrays have a place a row."""

    predicted_s: NDArray[np.float64]
    low_s: NDArray[np.float64]
    high_s: NDArray[np.float64]
    measured_s: NDArray[np.float64]
    sources: Sequence[str]
    laws: Sequence[ErrorLaw]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Of rows, when each source weighs one; they add up to 1."""
        weights = np.asarray([1.0 / self.sources.count(each) for each in self.sources])
        return np.asarray(weights / weights.sum())

    def inside(self, level: float) -> NDArray[np.bool_]:
        """Which measurements lie in their interval of this level."""
        scale = np.ones(len(self.laws))
        if level != LEVEL:
            reach = {law: float(law.deviations_at((1.0 + level) / 2.0)) / DEVIATIONS for law in set(self.laws)}
            scale = np.asarray([reach[law] for law in self.laws])
        low = self.predicted_s * (self.low_s / self.predicted_s) ** scale
        high = self.predicted_s * (self.high_s / self.predicted_s) ** scale
        return np.asarray((low <= self.measured_s) & (self.measured_s <= high))

    @property
    def winkler_scores(self) -> NDArray[np.float64]:
        """The Winkler score of each row."""
        return winkler_scores(low_s=self.low_s, high_s=self.high_s, measured_s=self.measured_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Observed shares of measurements inside intervals, by the stated one: of rows, and with each source weighing one."""

    rows: Mapping[float, float]
    by_source: Mapping[float, float]


def reliability(intervals: Intervals) -> Reliability:
    """Stated against observed coverage at each of LEVELS."""
    inside = {level: intervals.inside(level) for level in LEVELS}
    return Reliability(
        rows=MappingProxyType({level: float(np.mean(each)) for level, each in inside.items()}),
        by_source=MappingProxyType({level: float(intervals.weights @ each) for level, each in inside.items()}),
    )


def winkler_scores(
    *, low_s: NDArray[np.float64], high_s: NDArray[np.float64], measured_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Width of a 90 % interval, and twenty times what a measurement lies beyond it, as a share of the measurement.

    Narrow and honest is small (Gneiting and Raftery 2007, section 6.2).

    >>> winkler_scores(low_s=np.array([0.9]), high_s=np.array([1.0]), measured_s=np.array([1.1])).round(3).tolist()
    [1.909]
    """
    beyond = np.maximum(low_s - measured_s, 0.0) + np.maximum(measured_s - high_s, 0.0)
    return np.asarray((high_s - low_s + MISS * beyond) / measured_s)
