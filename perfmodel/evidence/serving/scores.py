"""How wrong predictions of servers are on measured ones: metric by metric, by engine and by GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from perfmodel.evidence.groups import by_label
from perfmodel.evidence.interval_scores import winkler_scores
from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.serving.rows import MeasuredServing
from perfmodel.evidence.widths import Lack, widths_without_each
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.serving.intervals import value_uncertainty
from perfmodel.serving.law import ServedLoad
from perfmodel.serving.measurements import Workload, measured_value, workload_load
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.serving.evidence import FEW_CLIENTS, ServingEvidence, cell_name, model_class
from perfmodel.spec.serving.loads import CLOSED, E2E, OFFLINE, RATES, TPOT, TTFT

GROUPS: Final = ("engine", "gpu")
SERIES: Final = ("engine", "gpu", "model")  # rows of one publication that share these err alike


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingComparison:
    """A measured metric beside its prediction; `predicted` is None where the run is not covered."""

    measured: MeasuredServing
    metric: str
    value: float
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    known_widths: tuple[float, float] = (0.0, 0.0)  # of the interval without its discrepancy, in logarithms

    @property
    def relative_error(self) -> float | None:
        """predicted / measured - 1."""
        return None if self.predicted is None else self.predicted / self.value - 1.0

    @property
    def models(self) -> str:
        """Whether its model is dense or has experts."""
        work = self.measured.workload
        return model_class(has_experts=work is not None and work.setup.model.mixture is not None)

    @property
    def cell(self) -> str:
        """The cell of its discrepancy."""
        return cell_name(self.metric, self.models, self.measured.labels["load"], self.clients)

    @property
    def clients(self) -> float | None:
        """Of all replicas together, where they are stated."""
        return None if self.measured.workload is None else self.measured.workload.concurrency

    @property
    def publication(self) -> str:
        """Whose measurement it is."""
        return self.measured.publication or self.measured.source

    @property
    def is_scored(self) -> bool:
        """Whether it counts."""
        return self.measured.scored and self.predicted is not None

    def with_discrepancy(self, half_width: float) -> ServingComparison:
        """The same prediction in an interval with another discrepancy."""
        if self.predicted is None:
            return self
        low, high = (float(np.hypot(each, half_width)) for each in self.known_widths)
        return replace(self, interval=(self.predicted * float(np.exp(-low)), self.predicted * float(np.exp(high))))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingErrors:
    """The errors of one metric in a group of rows; the bias is the median error with its sign.

    Coverage is that of 90 % intervals, and their Winkler score (evidence/interval_scores.py), over rows and `by_source`, with
    each publication weighing one.
    """

    rows: int
    median_abs_error: float
    p90_abs_error: float
    bias: float
    interval_coverage: float
    interval_coverage_by_source: float
    winkler_score: float
    winkler_score_by_source: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingScoreboard:
    """All comparisons, the errors of each question, and of each in groups by engine and GPU."""

    comparisons: Sequence[ServingComparison]
    questions: Mapping[str, ServingErrors]
    groups: Mapping[str, Mapping[str, Mapping[str, ServingErrors]]]  # group -> its name -> question
    unsupported: Mapping[str, int]
    context: Mapping[str, int]
    unread: Sequence[UnreadRow] = ()


def compare_serving(rows: Sequence[MeasuredServing], evidence: ServingEvidence) -> Iterator[ServingComparison]:
    """Every row beside its prediction, and end-to-end latencies where a run states TTFT and TPOT alone.

    Rows of one run have one load, which is worked out once.
    """
    runs: dict[str, dict[str, MeasuredServing]] = {}
    loads: dict[Workload, ServedLoad] = {}
    for row in rows:
        runs.setdefault(row.run_id, {})[row.metric] = row
        yield _compared(row, row.metric, row.value, loads, evidence)
    for metrics in runs.values():
        if TTFT in metrics and TPOT in metrics and E2E not in metrics and (work := metrics[TTFT].workload) is not None:
            value = metrics[TTFT].value + (float(np.asarray(work.latency_tokens)) - 1.0) * metrics[TPOT].value
            yield _compared(metrics[TTFT], E2E, value, loads, evidence)


def _compared(
    row: MeasuredServing, metric: str, value: float, loads: dict[Workload, ServedLoad], evidence: ServingEvidence
) -> ServingComparison:
    plain = ServingComparison(measured=row, metric=metric, value=value)
    work = row.workload
    if work is None:
        return plain
    if work not in loads:
        loads[work] = workload_load(work)
    load = loads[work]
    predicted = float(measured_value(work, load, metric))
    if not 0.0 < predicted < np.inf:
        reason = "its numbers give no finite prediction; one of them is far too large or too small"
        return replace(plain, measured=replace(row, workload=None, reason=reason))
    found = value_uncertainty(work.setup, load, predicted, metric, Discrepancy())
    widths = (float(np.log(predicted / found.low_s)), float(np.log(found.high_s / predicted)))
    lack = evidence.discrepancy(metric, plain.models, row.labels["load"], plain.clients)
    return replace(plain, predicted=predicted, known_widths=widths).with_discrepancy(float(lack.half_width))


def serving_scoreboard(comparisons: Sequence[ServingComparison], unread: Sequence[UnreadRow] = ()) -> ServingScoreboard:
    """The comparisons with their errors."""
    scored = [each for each in comparisons if each.is_scored]
    return ServingScoreboard(
        comparisons=comparisons,
        questions=_errors(scored),
        groups=by_label(scored, GROUPS, _errors),
        unsupported=_counted(each.measured.reason for each in comparisons),
        context=_counted(each.measured.context for each in comparisons if each.predicted is not None),
        unread=unread,
    )


def _counted(reasons: Iterator[str] | Sequence[str]) -> dict[str, int]:
    return dict(Counter(each for each in reasons if each).most_common())


def _question(each: ServingComparison) -> Iterator[str]:
    """What a comparison is counted to: its metric, and what is asked most often of it apart."""
    yield f"{each.metric}/{each.models}"
    if each.metric == TTFT and each.clients is not None and each.clients <= FEW_CLIENTS:
        yield f"{each.metric}, 1-{FEW_CLIENTS:g} clients/{each.models}"
    if each.metric == E2E and each.measured.labels["load"] == CLOSED:
        yield f"{each.metric}, closed loops/{each.models}"
    if each.metric in RATES and each.measured.labels["load"] == OFFLINE:
        yield f"throughput of full servers/{each.models}"


def _errors(scored: Sequence[ServingComparison]) -> dict[str, ServingErrors]:
    members: dict[str, list[ServingComparison]] = {}
    for each in scored:
        for question in _question(each):
            members.setdefault(question, []).append(each)
    return {question: _summary(rows) for question, rows in sorted(members.items())}


def _summary(rows: Sequence[ServingComparison]) -> ServingErrors:
    errors = np.asarray([each.relative_error for each in rows], dtype=float)
    low, high = np.asarray([each.interval or (np.nan, np.nan) for each in rows]).T
    values = np.asarray([each.value for each in rows])
    inside = (low <= values) & (values <= high)
    winkler = winkler_scores(low_s=low, high_s=high, measured_s=values)
    owners = Counter(each.publication for each in rows)
    weights = np.asarray([1.0 / (owners[each.publication] * len(owners)) for each in rows])
    return ServingErrors(
        rows=len(rows),
        median_abs_error=float(np.median(np.abs(errors))),
        p90_abs_error=float(np.quantile(np.abs(errors), 0.9)),
        bias=float(np.median(errors)),
        interval_coverage=float(np.mean(inside)),
        interval_coverage_by_source=float(weights @ inside),
        winkler_score=float(np.mean(winkler)),
        winkler_score_by_source=float(weights @ winkler),
    )


def lacks(comparisons: Sequence[ServingComparison]) -> list[Lack]:
    """What the interval of each scored row lacks: sqrt(r^2 - w^2), w its width on the side of the measurement; else 0."""
    found = []
    for each in comparisons:
        if not each.is_scored:
            continue
        residual = float(np.log(each.value / (each.predicted or 1.0)))
        known = each.known_widths[0 if residual < 0 else 1]
        labels = each.measured.labels
        found.append(
            Lack(
                value=float(np.sqrt(max(residual**2 - known**2, 0.0))),
                cell=each.cell,
                publication=each.publication,
                series=(each.publication, *(labels[name] for name in SERIES)),
            )
        )
    return found


def without_own_source(comparisons: Sequence[ServingComparison]) -> list[ServingComparison]:
    """Each in an interval whose discrepancy is estimated without its publication; as it is where no other is scored."""
    known = {
        name: ServingEvidence(name="other sources", cells=cells)
        for name, cells in widths_without_each(lacks(comparisons)).items()
    }
    return [_with_evidence(each, known.get(each.publication)) for each in comparisons]


def _with_evidence(comparison: ServingComparison, evidence: ServingEvidence | None) -> ServingComparison:
    if evidence is None or not evidence.cells:
        return comparison
    lack = evidence.discrepancy(comparison.metric, comparison.models, comparison.measured.labels["load"], comparison.clients)
    return comparison.with_discrepancy(float(lack.half_width))
