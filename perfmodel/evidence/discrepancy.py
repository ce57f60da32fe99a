"""What predictions lack beyond uncertain coefficients and machines, estimated on measured runs with one weight a source.

The half width D of a cell (spec/evidence/run_evidence.py) is the one whose intervals fare best: it makes

    sum over sources of the mean over their rows of W(D)  +  POOLED_SOURCES * the same mean over all cells

least, with W the Winkler score of a 90 % interval (evidence/time_scores.py): a cell that few sources were scored in stays near
the pooled one. Intervals that are too wide cost as much as measurements outside, so coverage is not bought with width.

How much of it is b(configuration) and e(row) follows from how far rows of one source lie apart (evidence/deviations.py). Rows
that state other number formats are of other configurations, whether or not they are predicted alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.deviations import Residual, deviations
from perfmodel.evidence.groups import publication
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import replace
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw
from perfmodel.spec.evidence.run_evidence import Discrepancy

POOLED_SOURCES: Final = 12.0  # sources of all cells that weigh on each cell; of 2, 4, 8, 12 and 20 the best score left out
FEWEST_SOURCES: Final = 2
HALF_WIDTHS: Final = np.linspace(0.02, 0.6, 117)


def estimated_discrepancies(
    comparisons: Sequence[TimeComparison], *, without: str = "", law: ErrorLaw = NORMAL
) -> dict[str, Discrepancy]:
    """The discrepancy of each cell that has a scored row, and the pooled one; of all sources but `without`.

    Mixtures of experts have a pooled one of their own. Errors are distributed by `law`. Of hardly any source nothing is
    estimated: the table is empty.
    """
    residuals = [each for each in _residuals(comparisons) if each.source != without]
    kinds: dict[str, list[Residual]] = {}
    for each in residuals:
        kinds.setdefault(each.pool, []).append(each)
    found: dict[str, Discrepancy] = {}
    for pool, members in kinds.items():
        found |= _of_one_kind(members, pool, law)
    return found


def _of_one_kind(residuals: Sequence[Residual], pool: str, law: ErrorLaw) -> dict[str, Discrepancy]:
    """The discrepancies of cells that one pooled cell stands for."""
    if len({each.source for each in residuals}) < FEWEST_SOURCES:
        return {}
    pooled_scores, apart = _mean_scores(residuals).mean(axis=0), deviations(residuals, law)
    cells = sorted({each.cell for each in residuals})
    members = {pool: residuals} | {cell: [each for each in residuals if each.cell == cell] for cell in cells}
    return {
        cell: replace(
            apart[cell],
            cell=cell,
            half_width=_half_width(rows, pooled_scores),
            rows=len(rows),
            sources=len({each.source for each in rows}),
            law=law,
        )
        for cell, rows in members.items()
    }


def _residuals(comparisons: Sequence[TimeComparison]) -> list[Residual]:
    found = []
    for each in comparisons:
        run, source = each.measured.run, publication(each.measured.source)
        if each.measured.scored and run is not None and each.predicted_s is not None:
            below, above = each.known_widths
            setup = run.setup(run.stages[0])
            found.append(
                Residual(
                    source=source,
                    cell=setup.discrepancy.cell,
                    pool=setup.discrepancy.pool,
                    subject=(source, setup.subject, each.stated_precision),
                    configuration=(source, setup.configuration, each.stated_precision),
                    residual=float(np.log(each.measured.iteration_time_s / each.predicted_s)),
                    below=below,
                    above=above,
                )
            )
    return found


def _mean_scores(residuals: Sequence[Residual]) -> NDArray[np.float64]:
    """The Winkler score with each of HALF_WIDTHS (columns), as the mean over the rows of each source (rows)."""
    residual, below, above = (
        np.asarray([getattr(each, name) for each in residuals]) for name in ("residual", "below", "above")
    )
    low, high = (np.hypot(HALF_WIDTHS[:, None], known) for known in (below, above))
    scores = winkler_scores(low_s=np.exp(-low - residual), high_s=np.exp(high - residual), measured_s=np.ones(len(residual)))
    sources = np.asarray([each.source for each in residuals])
    return np.asarray([scores[:, sources == name].mean(axis=1) for name in np.unique(sources)])


def _half_width(residuals: Sequence[Residual], pooled_scores: NDArray[np.float64]) -> float:
    """D: of HALF_WIDTHS the one of the best score."""
    return float(HALF_WIDTHS[np.argmin(_mean_scores(residuals).sum(axis=0) + POOLED_SOURCES * pooled_scores)])
