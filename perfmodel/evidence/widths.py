"""How wide intervals have to be beyond their uncertain numbers, so that those of one source more hold 90 % of it.

What an interval lacks of a row is l = sqrt(r^2 - w^2), r = ln(measured / predicted) and w its width without a discrepancy. The
half width D of a cell is the 90 % quantile of l, where rows of its cell have a weight of

    v = 1 / (1 + (n - 1) * rho_n) / (1 + (m - 1) * rho_m)

and those of all cells of its kind P / (sum of all v) times as much besides: cells of few rows stay near the pooled one. n are
the rows of a series (of servers one model in one engine on one GPU, of one publication), m the series of its publication, and
rho the intraclass correlations of what lies beyond the unweighted quantile: how alike rows of one series are, and the series of
one publication. A thousand rows that err alike say no more than 1/rho of them.

Of servers P is POOLED_ROWS. Fine-tunings have eight publications, two with one row; weighed one by one these two would decide,
so that their rows weigh by series alone (evidence/tuning/scores.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.interval_scores import LEVEL
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.run_evidence import pooled_cell

POOLED_ROWS: Final = 10.0  # effective rows of all cells that weigh on each; of 5, 10, 20 and 40 none serves 3 % better left out
DIGITS: Final = 3
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """l of one row, and where it belongs."""

    value: float
    cell: str
    publication: str
    series: Hashable


def estimated_widths(
    lacks: Sequence[Lack], *, pooled_rows: float = POOLED_ROWS, by_publication: bool = True
) -> dict[str, tuple[float, int, int]]:
    """D of each cell and of each kind of cells, with the rows and publications behind it; P is `pooled_rows`."""
    kinds: dict[str, list[Lack]] = {}
    for each in lacks:
        kinds.setdefault(pooled_cell(each.cell), []).append(each)
    found: dict[str, tuple[float, int, int]] = {}
    for pool, rows in kinds.items():
        values, weights = np.asarray([each.value for each in rows]), row_weights(rows, by_publication=by_publication)
        of_all = pooled_rows * weights / weights.sum()
        found[pool] = (_quantile(values, weights), *_counted(rows))
        for cell in dict.fromkeys(each.cell for each in rows):
            inside = np.asarray([each.cell == cell for each in rows])
            members = [each for each in rows if each.cell == cell]
            found[cell] = (_quantile(values, np.where(inside, weights, 0.0) + of_all), *_counted(members))
    return found


def row_weights(rows: Sequence[Lack], *, by_publication: bool = True) -> Floats:
    """v of each row; without its second part where it is not `by_publication`."""
    values = np.asarray([each.value for each in rows])
    beyond = (values > np.quantile(values, LEVEL)).astype(float)
    series: dict[Hashable, list[float]] = {}
    owners: dict[Hashable, str] = {}
    for each, out in zip(rows, beyond, strict=True):
        series.setdefault(each.series, []).append(float(out))
        owners[each.series] = each.publication
    of_rows = intraclass_correlation(series.values())
    means: dict[str, list[float]] = {}
    for name, members in series.items():
        means.setdefault(owners[name], []).append(float(np.mean(members)))
    of_series, number = intraclass_correlation(means.values()) if by_publication else 0.0, Counter(owners.values())
    alike = (
        (1.0 + (len(series[each.series]) - 1) * of_rows) * (1.0 + (number[each.publication] - 1) * of_series) for each in rows
    )
    return 1.0 / np.asarray(list(alike))


def intraclass_correlation(groups: Iterable[Sequence[float]]) -> float:
    """(B - W) / (B + (n0 - 1) * W), at least 0: how alike values of one group are; 0 where nothing tells.

    B and W are the mean squares between and within groups, n0 the size of groups that counts (one-way analysis of variance).

    >>> intraclass_correlation([[0.0, 0.0], [1.0, 1.0]]), intraclass_correlation([[0.0, 1.0], [1.0, 0.0]])
    (1.0, 0.0)
    """
    members = [np.asarray(each) for each in groups]
    sizes = np.asarray([len(each) for each in members], dtype=float)
    total, number = sizes.sum(), len(members)
    if number < 2 or total <= number:
        return 0.0
    means = np.asarray([each.mean() for each in members])
    between = float(sizes @ (means - sizes @ means / total) ** 2) / (number - 1)
    within = sum(float(np.sum((each - each.mean()) ** 2)) for each in members) / (total - number)
    size = (total - sizes @ sizes / total) / (number - 1)
    variance = between + (size - 1.0) * within
    return float(max(between - within, 0.0) / variance) if variance > 0 else 0.0


def _quantile(values: Floats, weights: Floats) -> float:
    """The least of the values up to which LEVEL of the weights lie."""
    order = np.argsort(values)
    upto = np.cumsum(weights[order]) / weights.sum()
    return round(float(values[order][np.searchsorted(upto, LEVEL - 1e-12)]), DIGITS)


def _counted(rows: Sequence[Lack]) -> tuple[int, int]:
    return len(rows), len({each.publication for each in rows})


def widths_without_each(
    lacks: Sequence[Lack], *, pooled_rows: float = POOLED_ROWS, by_publication: bool = True
) -> Mapping[str, dict[str, tuple[float, int, int]]]:
    """The widths without each publication that has a row; none where no other has."""
    others = {name: [each for each in lacks if each.publication != name] for name in {each.publication for each in lacks}}
    return {
        name: estimated_widths(rows, pooled_rows=pooled_rows, by_publication=by_publication) for name, rows in others.items()
    }
