"""Whether what a layout needs fits in memory, and how sure that is.

ln M_real = ln M + e with e normal, so that M / (1 + w) .. M * (1 + w) is the 90 % interval of what is needed. A layout fits
where the whole interval does, does not where none of it does, and is tight where the interval reaches the capacity.

Symbols: M predicted memory, C what the GPU has, w states.memory_error of the software stack.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.spec.evidence.spread import DEVIATIONS, share_below
from perfmodel.spec.fields import Numeric

FITS: Final = "fits"
TIGHT: Final = "tight"
DOES_NOT_FIT: Final = "does not fit"
LEAST: Final = 1e-12  # of an error of 0, so that the room is divided by something
SURE: Final = 0.95  # at either end of a 90 % interval


def fit_probability(*, needed_bytes: Numeric, capacity_bytes: Numeric, error: Numeric) -> Numeric:
    """Phi(ln(C / M) / s) with s = ln(1 + w) / 1.645: the odds that M_real is at most C; 0 or 1 for w = 0.

    >>> [round(float(fit_probability(needed_bytes=need, capacity_bytes=80.0, error=0.1)), 2) for need in (88.0, 80.0, 80 / 1.1)]
    [0.05, 0.5, 0.95]
    """
    room = np.log(capacity_bytes / needed_bytes)
    deviation = np.log1p(np.maximum(error, LEAST)) / DEVIATIONS
    return share_below(room / deviation)


def fit_verdict(probability: float) -> str:
    """Fits from odds of 95 % on, does not fit up to 5 %, and is tight between them.

    >>> fit_verdict(0.99), fit_verdict(0.6), fit_verdict(0.01)
    ('fits', 'tight', 'does not fit')
    """
    if probability >= SURE:
        return FITS
    return TIGHT if probability > 1.0 - SURE else DOES_NOT_FIT
