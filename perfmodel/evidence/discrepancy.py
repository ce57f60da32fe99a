"""What predictions lack beyond uncertain coefficients and machines, estimated on measured runs with one weight a source.

The half width D of a cell (spec/run_evidence.py) is the one whose intervals fare best: it makes

    sum over sources of the mean over their rows of W(D)  +  POOLED_SOURCES * the same mean over all cells

least, with W the Winkler score of a 90 % interval (evidence/time_scores.py): a cell that few sources were scored in stays near
the pooled one. Intervals that are too wide cost as much as measurements outside, so coverage is not bought with width.

How much of it is b(configuration) and e(row) follows from sums of squares, shrunk towards the pooled ones:

    row^2            = (10 s0^2 + sum over configurations of (r - mean)^2)  / (10 + rows - configurations)
    configuration^2  = (4 t0^2 + sum over sources of (mean of a configuration - mean of its source)^2)
                       / (4 + configurations - sources)

r = ln(T_measured / T_predicted). The pooled ones start from s0 = 0.059 and t0 = 0.028. That of layouts is like that of
configurations, with the layouts of one model in one precision in the place of a source's.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.groups import publication
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.spec.fields import Numeric
from perfmodel.spec.run_evidence import POOLED, Discrepancy

POOLED_SOURCES: Final = 12.0  # sources of all cells that weigh on each cell; of 2, 4, 8, 12 and 20 the best score left out
FEWEST_SOURCES: Final = 2
HALF_WIDTHS: Final = np.linspace(0.02, 0.6, 117)
PRIOR_ROWS, PRIOR_CONFIGURATIONS = 10.0, 4.0
START: Final = Discrepancy(configuration_deviation=0.028, layout_deviation=0.028, row_deviation=0.059)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Residual:
    """A scored row: where it belongs, r, and its interval without any discrepancy, all in logarithms."""

    source: str
    cell: str
    subject: Hashable
    configuration: Hashable
    residual: float
    below: float
    above: float


def estimated_discrepancies(comparisons: Sequence[TimeComparison], *, without: str = "") -> dict[str, Discrepancy]:
    """The discrepancy of each cell that has a scored row, and the pooled one; of all sources but `without`.

    Of hardly any source nothing is estimated: the table is empty.
    """
    residuals = [each for each in _residuals(comparisons) if each.source != without]
    if len({each.source for each in residuals}) < FEWEST_SOURCES:
        return {}
    pooled_scores = _mean_scores(residuals).mean(axis=0)
    found = {POOLED: _estimate(POOLED, residuals, pooled_scores, START)}
    for cell in sorted({each.cell for each in residuals}):
        members = [each for each in residuals if each.cell == cell]
        found[cell] = _estimate(cell, members, pooled_scores, found[POOLED])
    return found


def _residuals(comparisons: Sequence[TimeComparison]) -> list[_Residual]:
    found = []
    for each in comparisons:
        run = each.measured.run
        if each.measured.scored and run is not None and each.predicted_s is not None:
            below, above = each.known_widths
            setup = run.setup(run.stages[0])
            found.append(
                _Residual(
                    source=publication(each.measured.source),
                    cell=setup.discrepancy.cell,
                    subject=(publication(each.measured.source), setup.subject),
                    configuration=(publication(each.measured.source), setup.configuration),
                    residual=float(np.log(each.measured.iteration_time_s / each.predicted_s)),
                    below=below,
                    above=above,
                )
            )
    return found


def _mean_scores(residuals: Sequence[_Residual]) -> NDArray[np.float64]:
    """The Winkler score with each of HALF_WIDTHS (columns), as the mean over the rows of each source (rows)."""
    residual, below, above = (
        np.asarray([getattr(each, name) for each in residuals]) for name in ("residual", "below", "above")
    )
    low, high = (np.hypot(HALF_WIDTHS[:, None], known) for known in (below, above))
    scores = winkler_scores(low_s=np.exp(-low - residual), high_s=np.exp(high - residual), measured_s=np.ones(len(residual)))
    sources = np.asarray([each.source for each in residuals])
    return np.asarray([scores[:, sources == name].mean(axis=1) for name in np.unique(sources)])


def _estimate(cell: str, residuals: Sequence[_Residual], pooled_scores: NDArray[np.float64], start: Discrepancy) -> Discrepancy:
    scores = _mean_scores(residuals)
    best = HALF_WIDTHS[np.argmin(scores.sum(axis=0) + POOLED_SOURCES * pooled_scores)]
    configuration, layout, row = _deviations(residuals, start)
    return Discrepancy(
        cell=cell,
        half_width=float(best),
        configuration_deviation=configuration,
        layout_deviation=layout,
        row_deviation=row,
        rows=len(residuals),
        sources=len(scores),
    )


def _deviations(residuals: Sequence[_Residual], start: Discrepancy) -> tuple[float, float, float]:
    """The standard deviations of configurations, of layouts among them, and of rows."""
    firsts: dict[Hashable, _Residual] = {}
    values: dict[Hashable, list[float]] = {}
    for each in residuals:
        firsts.setdefault(each.configuration, each)
        values.setdefault(each.configuration, []).append(each.residual)
    means = {name: float(np.mean(members)) for name, members in values.items()}
    rows = list(values.values())
    of_sources, of_subjects = (
        _grouped(means, {name: getattr(each, kind) for name, each in firsts.items()}) for kind in ("source", "subject")
    )
    return (
        _shrunk(of_sources, start.configuration_deviation, PRIOR_CONFIGURATIONS),
        _shrunk(of_subjects, start.layout_deviation, PRIOR_CONFIGURATIONS),
        _shrunk(rows, start.row_deviation, PRIOR_ROWS),
    )


def _grouped(values: Mapping[Hashable, float], names: Mapping[Hashable, Hashable]) -> list[list[float]]:
    groups: dict[Hashable, list[float]] = {}
    for member, value in values.items():
        groups.setdefault(names[member], []).append(value)
    return list(groups.values())


def _shrunk(groups: Sequence[Sequence[float]], start: Numeric, weight: float) -> float:
    """The standard deviation within groups, from `weight` degrees of freedom at `start` and those of the groups."""
    scatter = sum(float(np.sum((np.asarray(values) - np.mean(values)) ** 2)) for values in groups)
    freedom = sum(len(values) - 1 for values in groups)
    return float(np.sqrt((weight * start**2 + scatter) / (weight + freedom)))
