"""How heavy are the tails of errors? The degrees of Student's t that make the measured rows likeliest in their intervals.

The degrees nu maximise

    sum over sources of the mean over their rows of ln f(z) - ln w,    z = 1.645 * ln(T_measured / T) / w

with f the density of errors in deviations (error_law.py) and w the width of the interval on the side of the measurement.
As every interval holds 90 % whatever nu is, nu says how errors lie inside and beyond: few degrees are most errors near nothing
and some of them far away.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import lgamma, pi
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.groups import publication
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.spread import DEVIATIONS

DEGREES: Final = np.exp(np.linspace(np.log(1.0), np.log(50.0), 150))
SURE: Final = 1.92  # how much likelier than the end of a 95 % interval of one number the likeliest is, in ln
LEAST_WIDTH: Final = 1e-6
FEWEST_SOURCES: Final = 2
ALL: Final = ""  # in the place of a source that is left out: none is
Floats = NDArray[np.float64]


def laws_without_each(comparisons: Sequence[TimeComparison]) -> dict[str, ErrorLaw]:
    """The law of the likeliest degrees over all sources but one, for each that has a scored row, and over ALL.

    Where hardly any are scored there is none.
    """
    likelihoods = _log_likelihoods(comparisons)
    if len(likelihoods) <= FEWEST_SOURCES:
        return {}
    return {
        without: _likeliest([each for name, each in likelihoods.items() if name != without]) for without in (ALL, *likelihoods)
    }


def likely_degrees(comparisons: Sequence[TimeComparison]) -> tuple[float, float]:
    """The 95 % interval of the degrees: as far as the likelihood of the sources falls to exp(-SURE) of its greatest."""
    total = np.sum(list(_log_likelihoods(comparisons).values()), axis=0)
    likely = DEGREES[total >= total.max() - SURE]
    return float(likely[0]), float(likely[-1])


def _likeliest(likelihoods: Sequence[Floats]) -> ErrorLaw:
    return ErrorLaw(degrees=float(DEGREES[np.argmax(np.sum(likelihoods, axis=0))]))


def _log_likelihoods(comparisons: Sequence[TimeComparison]) -> dict[str, Floats]:
    """The mean over the rows of each source of the log density, at each of DEGREES."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for each in comparisons:
        if each.measured.scored and each.predicted_s is not None and each.interval_s is not None:
            residual = float(np.log(each.measured.iteration_time_s / each.predicted_s))
            end = each.interval_s[1] if residual > 0 else each.interval_s[0]
            width = max(abs(float(np.log(end / each.predicted_s))), LEAST_WIDTH)
            rows.setdefault(publication(each.measured.source), []).append((residual, width))
    return {name: _mean_log_density(*np.asarray(pairs).T) for name, pairs in rows.items()}


def _mean_log_density(residuals: Floats, widths: Floats) -> Floats:
    deviations = DEVIATIONS * residuals / widths
    return np.asarray(
        [np.mean(_log_density(deviations, ErrorLaw(degrees=float(each))) - np.log(widths / DEVIATIONS)) for each in DEGREES]
    )


def _log_density(deviations: Floats, law: ErrorLaw) -> Floats:
    """ln f(z) = ln Gamma((nu + 1) / 2) - ln Gamma(nu / 2) - ln(pi * nu) / 2 - ln u - (nu + 1) / 2 * ln(1 + (z / u)^2 / nu).

    >>> [round(float(_log_density(np.array(z), ErrorLaw(degrees=2.0))), 4) for z in (0.0, 1.0)]
    [-0.4658, -1.885]
    """
    degrees, unit = law.degrees, law.unit
    constant = lgamma((degrees + 1.0) / 2.0) - lgamma(degrees / 2.0) - 0.5 * np.log(pi * degrees) - np.log(unit)
    return np.asarray(constant - (degrees + 1.0) / 2.0 * np.log1p((deviations / unit) ** 2 / degrees))
