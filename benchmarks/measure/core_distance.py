"""How far from each other are the cores of ranks? What one has just written another reads from a cache of both, or from afar.

The cores of a virtual machine are threads of its host, which moves them, and lets others use their cache. Two that share a
cache, and have it for themselves, send each other messages faster; two that do not share one read the memory faster:

    distance = time of a rank to read half a mebibyte that the first rank wrote just before     [s]

On a guest of two cores of an AMD EPYC it is 25 us, or 28 to 35 for half a minute or so; messages of 1.5 MiB then take 1.0 to
1.5 ms, or 1.4 to 2.0, and a walk through 32 MiB on both cores at once 2.2 ms, or 1.3 where they are apart. Times of one state
say little of the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from perfmodel.evidence.steps.records import Record

APART: Final = "cores_apart_us"  # in the provenance of a record
SAME: Final = 1.12  # up to so many times the usual short distance it is the same state
SHORT: Final = 0.25  # of all looks, how many are at most the usual short distance: a few are shorter, as clocks change too


def stated_distance_s(provenance: Mapping[str, str]) -> float | None:
    """What a record says of its cores; None where it says nothing that is a number."""
    try:
        stated_us = float(provenance[APART])
    except (KeyError, ValueError):
        return None
    return stated_us / 1e6 if math.isfinite(stated_us) else None


def distance_text(distances_s: Sequence[float]) -> dict[str, str]:
    """What a record says of its cores after some looks: the greatest distance; nothing of one core alone.

    >>> distance_text([2.4713e-05]), distance_text([])
    ({'cores_apart_us': '24.7'}, {})
    """
    return {APART: f"{max(distances_s) * 1e6:.1f}"} if distances_s else {}


def near_s(provenances: Iterable[Mapping[str, str]]) -> float:
    """The usual short distance of those that some records state, their lower quartile; infinity where none states any."""
    stated = sorted(each for each in map(stated_distance_s, provenances) if each is not None)
    return stated[math.ceil(SHORT * len(stated)) - 1] if stated else math.inf


def nearest(records: Sequence[Record], usual_s: float) -> list[Record]:
    """Those of some records whose cores were near; where none's were, those that were nearest.

    Records that do not state a distance are all as good as near ones.
    """
    near = [each for each in records if is_near(each.provenance, usual_s)]
    least_s = min((stated_distance_s(each.provenance) or 0.0 for each in records), default=0.0)
    return near or [each for each in records if is_near(each.provenance, least_s)]


def is_near(provenance: Mapping[str, str], usual_s: float) -> bool:
    """Whether the cores of a record were as near as they usually are when they are near, or it does not say.

    >>> [is_near({"cores_apart_us": text}, 25e-6) for text in ("26.0", "33.1")], is_near({}, 25e-6)
    ([True, False], True)
    """
    stated = stated_distance_s(provenance)
    return stated is None or stated <= SAME * usual_s


def moved(distances_s: Sequence[float]) -> list[str]:
    """The sentence on cores that were moved between some looks.

    >>> moved([2.5e-5, 2.6e-5])
    []
    """
    if not distances_s or max(distances_s) <= SAME * min(distances_s):
        return []
    low, high = (f"{1e6 * distance_s:.0f}" for distance_s in (min(distances_s), max(distances_s)))
    sentence = (
        f"the cores of the ranks were not always as near: to read what another core wrote took {low} us, and {high} us; the "
        "host of a virtual machine moves its cores, and messages and memory are not as fast in both states; measure again"
    )
    return [sentence]
