"""What ranks wait for each other where they meet: the price of times that differ from rank to rank and from moment to moment.

    waiting = sum over axes of e(n) * sqrt(D * T * S)

n ranks meet S times an iteration, in each collective within layers and once at the optimizer step, and work T/S between two
meetings. Whatever interrupts them comes at random, so that variances add up: work of t seconds has the variance D*t, where D,
variance over mean, is itself a time (interruptions of d seconds that take the share f of the time have D = f*d). The last of n
ranks arrives e(n) standard deviations after the mean of them, e(n) the expected greatest of n normal numbers (L. H. C. Tippett,
Biometrika 17, 1925). How noise of operating systems grows with the number of ranks that meet: D. Tsafrir, Y. Etsion, D. G.
Feitelson, S. Kirkpatrick, "System noise, OS clock ticks, and fine-grained parallel applications", ICS 2005; T. Hoefler, T.
Schneider, A. Lumsdaine, "Characterizing the influence of system noise on large-scale applications by simulation", SC 2010.
Left out: ranks that are slower all the time (timing/kernels.py, at_cluster_load), and stages of a pipeline, whose bubble it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import erf, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.iteration import Iteration
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack

FARTHEST: Final = 12.0  # standard deviations
POINTS: Final = 1201


def known_dispersion_s(cluster: Cluster, stack: SoftwareStack) -> Numeric | None:
    """D of a machine of which somebody measured how far apart its ranks meet, where the software does not hide that."""
    known = cluster.rank_dispersion_s
    return known if known is not None and anywhere(known) and not stack.overlap.hide_all else None


def rank_waiting_s(work: Iteration, busy_s: Numeric, *, dispersion_s: Numeric) -> Numeric:
    """sum over axes of S * w, w = e(n) * sqrt(D * T/S): what an iteration of `busy_s` waits for the last of its ranks."""
    waited: Numeric = 0.0
    each_s = meeting_waits_s(work, busy_s, dispersion_s=dispersion_s)
    for name, (_, times) in work.meetings.items():
        waited = waited + times * each_s[name]
    return waited


def meeting_waits_s(work: Iteration, busy_s: Numeric, *, dispersion_s: Numeric) -> Mapping[str, Numeric]:
    """e(n) * sqrt(D * T/S): what a rank waits at one meeting along each axis, on average over the ranks."""
    waits: dict[str, Numeric] = {}
    for name, (ranks, times) in work.meetings.items():
        between_s = busy_s / np.maximum(times, 1.0)
        waits[name] = greatest_normal(ranks) * np.sqrt(dispersion_s * between_s)
    return waits


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
