"""Fits how far apart the ranks of one machine meet: D, variance over mean of the time from one meeting to the next [s].

w = e(n) * sqrt(D * t) (timing/waiting.py), so each record of `rank_times`, a wait w every t seconds, says D = (w / e(n))^2 / t.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from perfmodel.count.busiest import greatest_normal
from perfmodel.evidence.steps.records import Record

KIND: Final = "rank_times"
LEAST_SPREAD: Final = 1.0  # by judgement: what else the machine does differs from one hour to the next
MOST_SPREAD: Final = 3.0


def rank_dispersion(records: Sequence[Record], sources: dict[str, Any]) -> dict[str, Any]:
    """The keys of a cluster that say it; none where nothing was measured."""
    own = [each for each in records if each.kind == KIND]
    if not own:
        return {}
    found = np.array([_of_one(each) for each in own])
    middle = float(np.median(found))
    spread = float(np.clip(np.max(np.abs(found / middle - 1.0)), LEAST_SPREAD, MOST_SPREAD))
    least_s, most_s = (choose(each.sizes["period_s"] for each in own) for choose in (min, max))
    sources["rank_dispersion_s"] = (
        f"{len(own)} lengths of work, a meeting every {1e3 * least_s:.3g} to {1e3 * most_s:.3g} ms, "
        f"on {own[0].sizes['ranks']:g} ranks of this machine"
    )
    return {"rank_dispersion_s": float(f"{middle:.3g}"), "spread": {"rank_dispersion_s": float(f"{spread:.2g}")}}


def _of_one(each: Record) -> float:
    """(w / e(n))^2 / t of one record."""
    return (each.seconds / float(greatest_normal(each.sizes["ranks"]))) ** 2 / each.sizes["period_s"]
