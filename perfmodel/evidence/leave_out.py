"""How wrong are predictions when what was fitted on runs is estimated anew without the source that is scored?

A prior fitted on runs is one number x of many runs. To score a source without itself, every such x is estimated from the rows
of all other sources,

    x' = x * f,  f = the factor of the greatest posterior  p(f) * c(f)^-n,

and its own rows are predicted with x'. c is the mean over the n sources, each weighing one, of their median
|T(f)/T_measured - 1|: c^-n is what remains of the likelihood of errors that follow Laplace's law, exp(-n*c/b) / b^n, when its
scale b is anything, all sizes alike (the integral over ln b). p is what was known of x without any run, log-normal with the
90 % interval value / (1 + spread) to value * (1 + spread): it decides where the sources do not. x is the median of the runs
that share it. What is shipped is what all sources together give (`estimated_factor`). To keep one prediction a row and a prior,
ln T(f) = ln T + s * ln f, with the slope s of a second prediction at f = 1.1: the priors act nearly as powers. The discrepancy
of its interval is then estimated on all other sources (evidence/discrepancy.py), and the law of errors in intervals on what all
others turn out to lie in theirs (evidence/tails.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.discrepancy import estimated_discrepancies
from perfmodel.evidence.groups import publication
from perfmodel.evidence.measured_rows import MeasuredRun
from perfmodel.evidence.tails import laws_without_each
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import predict_stage
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import DEVIATIONS, moved
from perfmodel.spec.run import Run

STEP: Final = 1.1  # of the second prediction
FACTORS: Final = np.exp(np.linspace(-1.0, 1.0, 401))
LEAST_COST: Final = 1e-3  # no measurement is that sure: sources that agree by chance do not outweigh everything


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPrior:
    """A number that was fitted on runs: its key path in a run, and the rows that share it, by patterns of their labels.

    Those rows are of mixtures of experts alone, or of all others: what was fitted on the ones is known without the others.
    `value` and `spread` are what was known of it without any run: a number, and the half width of its 90 % interval as a share.
    """

    key: str
    rows: Mapping[str, str]
    value: float
    spread: float
    of_mixtures: bool = False

    def serves(self, measured: MeasuredRun) -> bool:
        """Whether the prediction of a row depends on it."""
        is_mixture = measured.model.mixture is not None
        return is_mixture == self.of_mixtures and all(
            re.search(pattern, measured.labels.get(label, "")) for label, pattern in self.rows.items()
        )

    def log_density(self, runs: Sequence[Run]) -> NDArray[np.float64]:
        """ln p at each of FACTORS, but for a constant, where these runs have the number as it is shipped."""
        shipped = np.median([_value(run, self.key) for run in runs])
        deviations = DEVIATIONS * np.log(FACTORS * shipped / self.value) / np.log1p(self.spread)
        return np.asarray(-0.5 * deviations**2)


def left_out(comparisons: Sequence[TimeComparison], priors: Sequence[FittedPrior]) -> list[TimeComparison]:
    """Each comparison as it is with every fitted prior estimated without the publication that it comes from."""
    covered = [each for each in comparisons if each.predicted_s is not None]
    names = np.asarray([publication(each.measured.source) for each in covered])
    factor = np.ones(len(covered))
    for prior in priors:
        slope = _slopes(covered, prior)
        for name in np.unique(names[slope != 0.0]):
            own = names == name
            factor[own] *= _estimate(covered, names, slope, prior, without=name) ** slope[own]
    scaled = [_scaled(each, float(by)) for each, by in zip(covered, factor, strict=True)]
    changed = iter(_with_others_law(_with_others_discrepancy(scaled)))
    return [each if each.predicted_s is None else next(changed) for each in comparisons]


def estimated_factor(comparisons: Sequence[TimeComparison], prior: FittedPrior) -> float:
    """f of all sources together: 1 where what is shipped is what they say."""
    covered = [each for each in comparisons if each.predicted_s is not None]
    names = np.asarray([publication(each.measured.source) for each in covered])
    return _estimate(covered, names, _slopes(covered, prior), prior, without="")


def _with_others_law(covered: Sequence[TimeComparison]) -> list[TimeComparison]:
    """Each in an interval whose law of errors is that of all publications but its own."""
    names = [publication(each.measured.source) for each in covered]
    laws = laws_without_each(covered)
    return [replace(each, law=laws.get(name, each.law)) for each, name in zip(covered, names, strict=True)]


def _with_others_discrepancy(covered: Sequence[TimeComparison]) -> list[TimeComparison]:
    """Each in an interval whose discrepancy is estimated without its publication; as it is where no other is scored."""
    names = [publication(each.measured.source) for each in covered]
    estimated = {name: estimated_discrepancies(covered, without=name) for name in set(names)}
    return [_in_its_cell(each, estimated[name]) for each, name in zip(covered, names, strict=True)]


def _in_its_cell(comparison: TimeComparison, estimated: Mapping[str, Discrepancy]) -> TimeComparison:
    run = comparison.measured.run
    if run is None:
        return comparison
    own = run.setup(run.stages[0]).discrepancy
    found = estimated.get(own.cell) or estimated.get(own.pool)
    return comparison if found is None else comparison.with_discrepancy(float(found.half_width))


def _slopes(covered: Sequence[TimeComparison], prior: FittedPrior) -> NDArray[np.float64]:
    """d ln T / d ln x of each row; 0 where it does not depend on the prior."""
    return np.asarray([_slope(each, prior) if prior.serves(each.measured) else 0.0 for each in covered])


def _slope(comparison: TimeComparison, prior: FittedPrior) -> float:
    run = comparison.measured.run
    if run is None or not comparison.predicted_s:
        return 0.0
    step = {prior.key: STEP}
    changed = replace(run, cluster=moved(run.cluster, step, "cluster."), stack=moved(run.stack, step, "stack."))
    later_s = float(predict_stage(changed.setup(changed.stages[0])).iteration_time_s)
    return float(np.log(later_s / comparison.predicted_s) / np.log(STEP))


def _estimate(
    covered: Sequence[TimeComparison], names: NDArray[np.str_], slope: NDArray[np.float64], prior: FittedPrior, *, without: str
) -> float:
    """f: the factor of a prior that suits all sources but one; what was known of it where no other says something."""
    runs = [each.measured.run for each, moves in zip(covered, slope, strict=True) if moves and each.measured.run is not None]
    scored = np.asarray([each.measured.scored for each in covered])
    used = scored & (names != without) & (slope != 0.0)
    others = np.unique(names[used])
    posterior = prior.log_density(runs)
    if len(others):
        ratio = np.asarray([(each.predicted_s or 0.0) / each.measured.iteration_time_s for each in covered])
        errors = np.abs(ratio[used] * FACTORS[:, None] ** slope[used] - 1.0)
        cost = np.mean([np.median(errors[:, names[used] == name], axis=1) for name in others], axis=0)
        posterior = posterior - len(others) * np.log(np.maximum(cost, LEAST_COST))
    return float(FACTORS[np.argmax(posterior)])


def _value(run: Run, key: str) -> float:
    """The number at a key path of a run, as it is shipped."""
    found: Any = run
    for name in key.split("."):
        found = found[name] if isinstance(found, Mapping) else getattr(found, name)
    return float(found)


def _scaled(comparison: TimeComparison, factor: float) -> TimeComparison:
    """A comparison whose predicted time, with its interval, is `factor` times as long."""
    low, high = comparison.interval_s or (0.0, 0.0)
    interval = None if comparison.interval_s is None else (low * factor, high * factor)
    return replace(comparison, predicted_s=(comparison.predicted_s or 0.0) * factor, interval_s=interval)
