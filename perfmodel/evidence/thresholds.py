"""Bars that scores must stay below, as `median=5%` or `stack/megatron-core:median=0.03`: what CI holds a model to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.units import parse_quantity


class Summary(Protocol):
    """What is said of many rows at once."""

    @property
    def scores(self) -> Mapping[str, float | None]:
        """Fractions by name, all the better the smaller; None where there is no row to tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """The highest value of a score that passes: over all rows, or over those whose `group` (stack, say) is `name`."""

    score: str
    highest: float
    group: str = ""
    name: str = ""

    @property
    def place(self) -> str:
        """Which rows it is about."""
        return f"{self.group}/{self.name}" if self.group else "all rows"


def read_bar(text: str, *, scores: Sequence[str], groups: Mapping[str, Collection[str]]) -> Bar:
    """The bar that `text` sets, SCORE=VALUE or GROUP/NAME:SCORE=VALUE. Errors: InputError for what is not known.

    >>> read_bar("stack/fsdp:median=5%", scores=["median", "p90"], groups={"stack": ["fsdp"]})
    Bar(score='median', highest=0.05, group='stack', name='fsdp')
    """
    try:
        key, equals, value = text.rpartition("=")
        if not equals:
            raise InputError(f"a score and its bar are needed, as in {scores[0]}=5%")
        highest = _fraction(value)
        place, _, score = key.rpartition(":") if "/" in key else ("", "", key)
        group, _, name = place.partition("/")
        if "/" in key and not place:
            raise InputError(f"a group needs a score too, as in {key}:{scores[0]}=5%")
        if score not in scores:
            raise InputError(f"{shown(score)} is not a score; {did_you_mean(score, scores)}")
        if place and group not in groups:
            raise InputError(f"{shown(group)} is not a group; {did_you_mean(group, groups)}")
        if place and name not in groups[group]:
            raise InputError(f"no row has {group} {shown(name)}; {did_you_mean(name, groups[group])}")
    except PerfmodelError as error:
        raise InputError(str(error), key=f"--fail-above {text[:80]}") from None
    return Bar(score=score, highest=highest, group=group, name=name)


def _fraction(text: str) -> float:
    value = parse_quantity(text, "ratio")
    if not 0 <= value <= 1:
        meant = f"; did you mean {value:g}%?" if 1 < value <= 100 and "%" not in text else ""
        raise InputError(f"{shown(text)} is not between 0 and 1 (0 and 100%){meant}")
    return value


def missed_bars(bars: Sequence[Bar], *, overall: Summary | None, groups: Mapping[str, Mapping[str, Summary]]) -> list[str]:
    """A sentence for each bar that is missed: what, what it is, and where the bar lies. No covered row misses every bar."""
    missed = []
    for bar in bars:
        summary = groups.get(bar.group, {}).get(bar.name) if bar.group else overall
        value = None if summary is None else summary.scores[bar.score]
        limit = f"the bar is {100 * bar.highest:.4g} %"
        if value is None:
            missed.append(f"{bar.place}: no covered row tells the {bar.score}; {limit}")
        elif value > bar.highest:
            missed.append(f"{bar.place}: {bar.score} is {100 * value:.4g} %; {limit}")
    return missed
