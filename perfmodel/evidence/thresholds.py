"""Thresholds that scores must not exceed, as `median=5%` or `stack/megatron-core:median=0.03`, for checks in CI."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.units import parse_quantity, share_text


class ScoreSummary(Protocol):
    """The scores of a group of rows."""

    @property
    def scores(self) -> Mapping[str, float | None]:
        """Fractions by name, the smaller the better; None where no row has the score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """The highest value of a score that passes: over all rows, or over the rows whose `group` (stack, say) is `name`."""

    score: str
    highest: float
    group: str = ""
    name: str = ""

    @property
    def scope(self) -> str:
        """The rows that the threshold is about, in words."""
        return f"{self.group}/{self.name}" if self.group else "all rows"


def read_threshold(text: str, *, scores: Sequence[str], groups: Mapping[str, Collection[str]]) -> Threshold:
    """The threshold in a text, SCORE=VALUE or GROUP/NAME:SCORE=VALUE. Errors: InputError for an unknown score or group.

    >>> read_threshold("stack/fsdp:median=5%", scores=["median", "p90"], groups={"stack": ["fsdp"]})
    Threshold(score='median', highest=0.05, group='stack', name='fsdp')
    """
    try:
        key, equals, value = text.rpartition("=")
        if not equals:
            raise InputError(f"write SCORE=VALUE, as in {scores[0]}=5%")
        highest = _fraction(value)
        place, _, score = key.rpartition(":") if "/" in key else ("", "", key)
        group, _, name = place.partition("/")
        if "/" in key and not place:
            raise InputError(f"a score is missing; write {key}:{scores[0]}=5%")
        if score not in scores:
            raise InputError(f"{shown(score)} is not a score; {did_you_mean(score, scores)}")
        if place and group not in groups:
            raise InputError(f"{shown(group)} is not a group; {did_you_mean(group, groups)}")
        if place and name not in groups[group]:
            raise InputError(f"no row has {group} {shown(name)}; {did_you_mean(name, groups[group])}")
    except PerfmodelError as error:
        raise InputError(str(error), key=f"--fail-above {text[:80]}") from None
    return Threshold(score=score, highest=highest, group=group, name=name)


def _fraction(text: str) -> float:
    value = parse_quantity(text, "ratio")
    if not 0 <= value <= 1:
        meant = f"; did you mean {value:g}%?" if 1 < value <= 100 and "%" not in text else ""
        raise InputError(f"{shown(text)} is not between 0 and 1 (0 and 100%){meant}")
    return value


def missed_thresholds(
    thresholds: Sequence[Threshold], *, overall: ScoreSummary | None, groups: Mapping[str, Mapping[str, ScoreSummary]]
) -> list[str]:
    """A sentence for each threshold that is exceeded. Where no row is covered, every threshold counts as exceeded."""
    missed = []
    for threshold in thresholds:
        summary = groups.get(threshold.group, {}).get(threshold.name) if threshold.group else overall
        value = None if summary is None else summary.scores[threshold.score]
        limit = f"at most {share_text(threshold.highest)} is allowed"
        if value is None:
            missed.append(f"{threshold.scope}: no covered row has a {threshold.score}; {limit}")
        elif value > threshold.highest:
            missed.append(f"{threshold.scope}: {threshold.score} is {share_text(value)}; {limit}")
    return missed
