"""How much do own runs help? Published runs of one source, predicted with and without others of it.

Each source in turn is somebody whose runs are known in part: every row is predicted once from one other row of its
configuration (the next one, the last from the first), in the number format that both state, or from all rows of other models of
its software and GPU, or from all rows of other software or GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeAlias

import numpy as np

from perfmodel.evidence.groups import publication
from perfmodel.evidence.own_runs import Offset, OwnResidual, own_posterior, own_residual
from perfmodel.evidence.time_scores import ErrorSummary, TimeComparison, summarise_times
from perfmodel.light_dataclass import dataclass, replace

Row: TypeAlias = tuple[TimeComparison, OwnResidual]
FILE, SOFTWARE = 0, 1  # places of what rows share, the widest first


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRunScores:
    """The errors of the same rows before and after own runs of their source were known; None where there are no such rows."""

    before: ErrorSummary | None
    after: ErrorSummary | None


def scores_from_one_run(comparisons: Sequence[TimeComparison]) -> OwnRunScores:
    """Every row of a configuration that has another one in its source, predicted from one of these."""
    pairs = []
    for members in _grouped(rows_with_residuals(comparisons), lambda each, own: (own.groups, each.stated_precision)):
        if len(members) > 1:
            others = [*members[1:], members[0]]
            pairs += [
                (comparison, own_posterior([other]).offset(own.groups))
                for (comparison, own), (_, other) in zip(members, others, strict=True)
            ]
    return _scores(pairs)


def scores_from_other_models(comparisons: Sequence[TimeComparison]) -> OwnRunScores:
    """Every row whose source has other models in its software on its GPU, predicted from all of these."""
    return _scores(offsets_from_others(rows_with_residuals(comparisons), SOFTWARE))


def scores_from_other_software(comparisons: Sequence[TimeComparison]) -> OwnRunScores:
    """Every row whose source has other software, or other GPUs, predicted from all rows of these."""
    return _scores(offsets_from_others(rows_with_residuals(comparisons), FILE))


def offsets_from_others(rows: Iterable[Row], shared: int) -> list[tuple[TimeComparison, Offset]]:
    """Each row with what all those say of it that share no more with it than its FILE, or than its SOFTWARE."""
    pairs = []
    for members in _grouped(rows, lambda _, own: own.groups[:shared]):
        for group in dict.fromkeys(own.groups[shared] for _, own in members):
            if others := [own for _, own in members if own.groups[shared] != group]:
                posterior = own_posterior(others)
                pairs += [(each, posterior.offset(own.groups)) for each, own in members if own.groups[shared] == group]
    return pairs


def shifted(comparison: TimeComparison, offset: Offset) -> TimeComparison:
    """The prediction as own runs shift and narrow it."""
    if comparison.predicted_s is None or comparison.interval_s is None:
        return comparison
    predicted_s = comparison.predicted_s * float(np.exp(offset.shift))
    low, high = (predicted_s * (end / comparison.predicted_s) ** offset.remaining for end in comparison.interval_s)
    return replace(comparison, predicted_s=predicted_s, interval_s=(low, high), law=offset.law)


def rows_with_residuals(comparisons: Iterable[TimeComparison]) -> list[Row]:
    """The scored rows with their residuals."""
    return [(each, own) for each in comparisons if (own := own_residual(each)) is not None]


def _scores(pairs: Sequence[tuple[TimeComparison, Offset]]) -> OwnRunScores:
    return OwnRunScores(
        before=summarise_times([each for each, _ in pairs]), after=summarise_times([shifted(*pair) for pair in pairs])
    )


def _grouped(rows: Iterable[Row], group: Callable[[TimeComparison, OwnResidual], Hashable]) -> list[list[Row]]:
    """The rows of one source and group."""
    found: dict[Hashable, list[Row]] = {}
    for each, own in rows:
        found.setdefault((publication(each.measured.source), group(each, own)), []).append((each, own))
    return list(found.values())
