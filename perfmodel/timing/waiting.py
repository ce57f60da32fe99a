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

import numpy as np

from perfmodel.count.busiest import greatest_normal
from perfmodel.count.iteration import Iteration
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack


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
