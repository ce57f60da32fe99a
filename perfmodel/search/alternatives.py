"""Why this layout and not another: for each setting the best other values, with the best that each allows.

An alternative keeps one setting at another value and chooses all others anew: what tensor parallel 4 costs is what the fastest
layout with tensor parallel 4 costs, not what the winner becomes with that number alone changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction, predict_stage, stage_breakdown
from perfmodel.search.layouts.search import Extremes, LayoutCandidate, SearchResult
from perfmodel.search.layouts.space import CATEGORIES, COLUMN_AXES, NUMERIC_SETTINGS, ROW_AXES, Workload
from perfmodel.timing.breakdown import PARTS, Breakdown

SETTINGS: Final = (*ROW_AXES, *COLUMN_AXES, *CATEGORIES)  # what a person chooses one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """The best layout with one setting at another value; `candidate` is None where nothing with that value fits.

    `part` is the part of the iteration that loses most against the best layout, `part_s` the seconds it loses;
    `needed_bytes` is what the smallest layout with that value needs.
    """

    setting: str
    value: Any
    candidate: LayoutCandidate | None
    needed_bytes: float
    slower_by: float  # as a ratio to the best time; infinity where nothing fits
    part: str
    part_s: float


def alternatives(result: SearchResult, best: LayoutCandidate, work: Workload) -> tuple[Alternative, ...]:
    """For every setting the best lower and higher value, or every other category; values without a layout are left out."""
    winner = _parts(best, work)
    return tuple(
        _alternative(result, (name, value), best, winner, work)
        for name in SETTINGS
        for value in _other_values(result, name, best.settings.get(name))
    )


def candidate_prediction(candidate: LayoutCandidate, work: Workload) -> StagePrediction:
    """The prediction of a candidate layout, with its 90 % interval and its parts."""
    with np.errstate(all="ignore"):
        return predict_stage(work.setup(candidate.layout))


def _parts(candidate: LayoutCandidate, work: Workload) -> Breakdown:
    with np.errstate(all="ignore"):
        return stage_breakdown(work.setup(candidate.layout))


def setting_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings in which two layouts differ, with both values; what follows from others (data parallel) is left out."""
    names = (*NUMERIC_SETTINGS, *CATEGORIES, "recompute_modules")
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def largest_loss(against: Breakdown, other: Breakdown) -> tuple[str, float]:
    """The part of an iteration in which `other` takes most time more than `against`, and that time [s]."""
    lost = {part: float(getattr(other, part)) - float(getattr(against, part)) for part in PARTS}
    part = max(lost, key=lambda name: lost[name])
    return part, lost[part]


def _other_values(result: SearchResult, name: str, chosen: Any) -> Iterator[Any]:
    values = [value for setting, value in result.by_setting if setting == name]
    if name in CATEGORIES:
        yield from sorted((value for value in values if value != chosen), key=str)
        return
    for side in ([value for value in values if value < chosen], [value for value in values if value > chosen]):
        if side:
            yield min(side, key=lambda value: (_time_s(result.by_setting[name, value]), abs(value - chosen)))


def _time_s(extremes: Extremes) -> float:
    return np.inf if extremes.fastest is None else extremes.fastest.iteration_time_s


def _alternative(
    result: SearchResult, which: tuple[str, Any], best: LayoutCandidate, winner: Breakdown, work: Workload
) -> Alternative:
    (name, value), extremes = which, result.by_setting[which]
    needed = min(each.memory_bytes for each in (extremes.smallest, extremes.fastest) if each is not None)
    candidate = extremes.fastest
    if candidate is None:
        return Alternative(
            setting=name, value=value, candidate=None, needed_bytes=needed, slower_by=np.inf, part="", part_s=0.0
        )
    part, part_s = largest_loss(winner, _parts(candidate, work))
    slower_by = candidate.iteration_time_s / best.iteration_time_s - 1.0
    return Alternative(
        setting=name, value=value, candidate=candidate, needed_bytes=needed, slower_by=slower_by, part=part, part_s=part_s
    )
