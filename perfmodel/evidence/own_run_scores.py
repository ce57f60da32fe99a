"""How much do own runs help? Published runs of one source, predicted with and without others of it.

Each source in turn is somebody whose runs are known in part: every row is predicted once from one other row of its
configuration (the next one, the last from the first), or from all rows of other models of its software and GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perfmodel.evidence.groups import publication
from perfmodel.evidence.own_runs import Offset, OwnResidual, own_posterior, own_residual
from perfmodel.evidence.time_scores import ErrorSummary, TimeComparison, summarise_times


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnRunScores:
    """The errors of the same rows before and after own runs of their source were known; None where there are no such rows."""

    before: ErrorSummary | None
    after: ErrorSummary | None


def scores_from_one_run(comparisons: Sequence[TimeComparison]) -> OwnRunScores:
    """Every row of a configuration that has another one in its source, predicted from one of these."""
    pairs = []
    for members in _grouped(comparisons, lambda each: each.groups).values():
        if len(members) > 1:
            others = [*members[1:], members[0]]
            pairs += [
                (comparison, own_posterior([other]).offset(own.groups))
                for (comparison, own), (_, other) in zip(members, others, strict=True)
            ]
    return _scores(pairs)


def scores_from_other_models(comparisons: Sequence[TimeComparison]) -> OwnRunScores:
    """Every row whose source has other models in its software on its GPU, predicted from all of these."""
    pairs = []
    for members in _grouped(comparisons, lambda each: each.groups[0]).values():
        for model in dict.fromkeys(own.groups[1] for _, own in members):
            if others := [own for _, own in members if own.groups[1] != model]:
                posterior = own_posterior(others)
                pairs += [(each, posterior.offset(own.groups)) for each, own in members if own.groups[1] == model]
    return _scores(pairs)


def shifted(comparison: TimeComparison, offset: Offset) -> TimeComparison:
    """The prediction as own runs shift and narrow it."""
    if comparison.predicted_s is None or comparison.interval_s is None:
        return comparison
    predicted_s = comparison.predicted_s * float(np.exp(offset.shift))
    low, high = (predicted_s * (end / comparison.predicted_s) ** offset.remaining for end in comparison.interval_s)
    return replace(comparison, predicted_s=predicted_s, interval_s=(low, high))


def _scores(pairs: Sequence[tuple[TimeComparison, Offset]]) -> OwnRunScores:
    return OwnRunScores(
        before=summarise_times([each for each, _ in pairs]), after=summarise_times([shifted(*pair) for pair in pairs])
    )


def _grouped(
    comparisons: Sequence[TimeComparison], group: Callable[[OwnResidual], Hashable]
) -> dict[Hashable, list[tuple[TimeComparison, OwnResidual]]]:
    """The scored rows with their residuals, by source and group."""
    found: dict[Hashable, list[tuple[TimeComparison, OwnResidual]]] = {}
    for each in comparisons:
        if (own := own_residual(each)) is not None:
            found.setdefault((publication(each.measured.source), group(own)), []).append((each, own))
    return found
