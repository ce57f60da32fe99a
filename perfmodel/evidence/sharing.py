"""How widely do the runs of one source share their errors? The shares that serve best where part of a source is known.

`file` (run_evidence.py) is that of STEPS whose intervals have the least Winkler score where every row is predicted from
all rows of its source in other software or on other GPUs, `models` the same from all rows of other models of its software
(evidence/own_run_scores.py); each publication weighs one. Hardly any publication shows several softwares, or many models of
one, so both hold for all cells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from perfmodel.evidence.groups import publication
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.own_run_scores import FILE, SOFTWARE, Row, offsets_from_others, rows_with_residuals, shifted
from perfmodel.evidence.tails import ALL
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import replace
from perfmodel.spec.evidence.run_evidence import Sharing

STEPS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def sharing_without_each(comparisons: Sequence[TimeComparison]) -> dict[str, Sharing]:
    """The shares over all publications but one, for each, and over ALL."""
    rows = rows_with_residuals(comparisons)
    models = [_scores(_shared_as(rows, Sharing(models=step)), SOFTWARE) for step in STEPS]
    files = [_scores(_shared_as(rows, Sharing(file=step)), FILE) for step in STEPS]
    publications = {publication(each.measured.source) for each, _ in rows}
    return {
        without: Sharing(file=_best(files, without), models=_best(models, without)) for without in (ALL, *sorted(publications))
    }


def _best(scores: Sequence[Mapping[str, float]], without: str) -> float:
    """That of STEPS with the least mean score of the publications but one; the first where none shows any."""
    sums = [sum(score for name, score in each.items() if name != without) for each in scores]
    return STEPS[int(np.argmin(sums))]


def _shared_as(rows: Sequence[Row], sharing: Sharing) -> list[Row]:
    return [(each, replace(own, discrepancy=replace(own.discrepancy, sharing=sharing))) for each, own in rows]


def _scores(rows: Sequence[Row], shared: int) -> dict[str, float]:
    """The mean Winkler score of the rows of each publication, predicted from those that share no more with them."""
    found: dict[str, list[float]] = {}
    for comparison, offset in offsets_from_others(rows, shared):
        after = shifted(comparison, offset)
        (low, high), measured = after.interval_s or (0.0, 0.0), after.measured
        score = winkler_scores(low_s=np.asarray(low), high_s=np.asarray(high), measured_s=np.asarray(measured.iteration_time_s))
        found.setdefault(publication(measured.source), []).append(float(score))
    return {name: float(np.mean(each)) for name, each in found.items()}
