"""What runs of one's own say of later predictions: the shift that they ask for, and how much of an interval they leave.

    r = ln(T_measured / T_predicted) = file + software + model + configuration + row

All runs of a file share the first part, those of one software on one kind of GPU the second, those of one model in one
precision the third, those of one configuration (spec/setup.py) the fourth; the last is noise. Given how wide errors are at
once, each is normal around nothing. Of the variance V of an unseen run, (half width of its 90 % interval / 1.645)^2, row and
configuration have what published runs of its cell show (run_evidence.py), layouts of one model differ less than models do,
and the rest is shared more widely:

    row = min(row_deviation^2, V)
    configuration + model = min(configuration_deviation^2, models_share * (V - row))
    configuration = min(layout_deviation^2, configuration + model)    file = file_share * the rest    software = the rest of it

Coefficients and the machine are among what is shared: all runs have the same. With K the covariances of the runs, k those of a
prediction with them, R their rows, and V for both the mean over the runs of the prediction's narrowest group,

    shift = k (K + R)^-1 r    remaining variance = V - k (K + R)^-1 k

For N runs of one configuration, with t^2 = V - s^2 and row s^2: shift = N t^2 / (N t^2 + s^2) * mean of r, and remaining
variance = s^2 (1 + t^2 / (N t^2 + s^2)).

How wide errors are at once is learned as well: all errors of one software on one kind of GPU are a multivariate t of nu degrees
(spec/evidence/error_law.py), so that its runs, with Q = r (K + R)^-1 r / u(nu)^2, leave one of nu' = nu + N degrees that is

    sqrt((nu + Q) / nu') * u(nu) / u(nu')

times as wide at 90 %: runs that lie where they were predicted narrow an interval by more than their shift does, runs far off
widen it.

One odd run does not lead: a run whose r is z standard deviations from what all others foretell of it weighs
w = min(1, (f + 1) / (f + z^2)), which is Student's t of f degrees as a mixture of normals, and its variance is what was
foretold over w; it counts as w of a run.
Runs that agree do lead, however far they are: of several runs, most lie in their intervals, or all intervals are stretched
until they do.

Ignored: that two runs of one configuration with other batches or replicas may differ by more than noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.evidence.error_law import NORMAL, ErrorLaw, heaviest_tails
from perfmodel.spec.evidence.own_runs import setting_word
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.spec.setup import SUBJECT, Setup

FREEDOM: Final = 4.0  # f: odd runs are so frequent that few degrees of freedom describe them
LEAST_ROW_DEVIATION: Final = 0.01  # runs repeat within 1 to 2 % in one place
LEAST_HALF_WIDTH: Final = 1e-6  # of an interval: less is rounding
MOST_TURNS: Final = 200  # of weights and what follows from them
SETTLED: Final = 1e-9

Floats = NDArray[np.float64]
Group = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnResidual:
    """One run beside its prediction, in logarithms of the iteration time; `groups` are what it belongs to, the widest first."""

    residual: float  # ln(measured / predicted)
    half_width: float  # of the 90 % interval of its prediction
    discrepancy: Discrepancy  # of its cell
    groups: tuple[Group, ...]  # its software on its GPU, its model, its configuration

    @property
    def variances(self) -> Floats:
        """Of what the file, the software, the model, the configuration and the row bring to the residual, in this order."""
        total = (self.half_width / DEVIATIONS) ** 2
        row = min(max(float(self.discrepancy.row_deviation), LEAST_ROW_DEVIATION) ** 2, total)
        sharing = self.discrepancy.sharing
        configuration = min(float(self.discrepancy.configuration_deviation) ** 2, sharing.models * (total - row))
        layout = min(float(self.discrepancy.layout_deviation) ** 2, configuration)
        shared = total - row - configuration
        file = sharing.file * shared
        return np.asarray([file, shared - file, configuration - layout, layout, row])


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """What own runs say of a prediction: ln T moves by `shift`, and its interval is `remaining` times as wide."""

    shift: float
    remaining: float
    runs: int  # of its narrowest group that has any
    law: ErrorLaw = NORMAL  # how errors are distributed in that interval


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPosterior:
    """The runs of a file, and their weights; an axis has a place a run."""

    runs: Sequence[OwnResidual]  # in intervals as wide as they turned out to need
    stretch: float  # how many times as wide as predicted that is
    weights: Floats  # 1 for a run that is as foretold, less for an odd one
    covariances: NDArray[np.floating]  # K + R

    def offset(self, groups: Sequence[Group]) -> Offset:
        """What the runs say of a prediction in these groups, the widest first; what no run is in says nothing."""
        paths = _paths(groups)
        depth = max(place for place, path in enumerate(paths) if any(path in _paths(each.groups) for each in self.runs))
        known = paths[: depth + 1]
        variances = np.asarray([each.variances for each in self.runs])
        inside = np.asarray([[path in _paths(each.groups) for path in known] for each in self.runs])
        typical = variances[inside[:, -1]].mean(axis=0)
        covariances = (inside * np.sqrt(variances[:, : depth + 1])) @ np.sqrt(typical[: depth + 1])
        leads = np.linalg.solve(self.covariances, covariances)
        law, scale = self._law(inside[:, 1] if depth else np.zeros(len(self.runs), dtype=bool))
        return Offset(
            shift=float(leads @ self._residuals),
            remaining=scale * self.stretch * float(np.sqrt(max(1.0 - float(leads @ covariances) / typical.sum(), 0.0))),
            runs=int(inside[:, -1].sum()),
            law=law,
        )

    @property
    def _residuals(self) -> Floats:
        return np.asarray([each.residual for each in self.runs])

    def _law(self, known: NDArray[np.bool_]) -> tuple[ErrorLaw, float]:
        """The law of errors after the runs at these places, and how many times as wide it is at 90 %."""
        before = heaviest_tails(each.discrepancy.law for each in self.runs)
        if before.is_normal or not known.any():
            return before, 1.0
        residuals = self._residuals[known]
        square = float(residuals @ np.linalg.solve(self.covariances[np.ix_(known, known)], residuals)) / before.unit**2
        after = ErrorLaw(degrees=before.degrees + float(self.weights[known].sum()))
        return after, float(np.sqrt((before.degrees + square) / after.degrees)) * before.unit / after.unit


def own_posterior(runs: Sequence[OwnResidual]) -> OwnPosterior:
    """The runs with weights that agree with what each of them is foretold to be by the others."""
    stretch = _stretch(runs)
    runs = [replace(each, half_width=stretch * each.half_width) for each in runs]
    variances = np.asarray([each.variances for each in runs])
    residuals, rows = np.asarray([each.residual for each in runs]), variances[:, -1]
    shared = _shared_covariances(runs, np.sqrt(variances[:, :-1]))
    noise, weights = rows, np.ones(len(runs))
    for _ in range(MOST_TURNS):
        precision = np.linalg.inv(shared + np.diag(noise))
        apart = 1.0 / np.diag(precision)  # variance of a run about what all others foretell, with its noise as it is weighed
        foretold = apart - noise + rows  # with the noise of a run that is not odd
        square = (apart * (precision @ residuals)) ** 2 / foretold
        before, weights = weights, np.minimum((FREEDOM + 1.0) / (FREEDOM + square), 1.0)
        noise = rows + foretold * (1.0 / weights - 1.0)
        if np.all(np.abs(weights - before) < SETTLED):
            break
    return OwnPosterior(runs=runs, stretch=stretch, weights=weights, covariances=shared + np.diag(noise))


def _stretch(runs: Sequence[OwnResidual]) -> float:
    """1, or what most runs need to lie in their intervals; of one run alone, nobody knows whether it is odd."""
    needed = sorted(abs(each.residual) / each.half_width for each in runs)
    return max(needed[(len(runs) - 1) // 2], 1.0) if len(runs) > 1 else 1.0


def _paths(groups: Sequence[Group]) -> list[tuple[Group, ...]]:
    """The groups from the file on, each with those that it lies in."""
    return [tuple(groups[:depth]) for depth in range(len(groups) + 1)]


def _shared_covariances(runs: Sequence[OwnResidual], deviations: Floats) -> Floats:
    """K: what any two runs have in common; `deviations` has a row a run and a column for each part but the noise."""
    total = np.zeros((len(runs), len(runs)))
    for depth in range(deviations.shape[1]):
        places: dict[tuple[Group, ...], int] = {}
        of_run = np.asarray([places.setdefault(each.groups[:depth], len(places)) for each in runs])
        total += np.outer(deviations[:, depth], deviations[:, depth]) * (of_run[:, None] == of_run)
    return total


def own_residual(comparison: TimeComparison) -> OwnResidual | None:
    """A measured run beside its prediction; None where it is not predicted, or leaves something decisive open."""
    run = comparison.measured.run
    if run is None or comparison.predicted_s is None or comparison.interval_s is None or not comparison.measured.scored:
        return None
    low, high = comparison.interval_s
    setup = run.setup(run.stages[0])
    return OwnResidual(
        residual=float(np.log(comparison.measured.iteration_time_s / comparison.predicted_s)),
        half_width=max(float(np.log(high / low)) / 2.0, LEAST_HALF_WIDTH),
        discrepancy=setup.discrepancy,
        groups=groups_of(setup),
    )


def groups_of(setup: Setup) -> tuple[Group, ...]:
    """The groups of a run below its file, the widest first: software and GPU, model, configuration."""
    words = {name: setting_word(name, value) for name, value in setup.settings.items()}
    model = tuple(words[name] for name in SUBJECT)
    return (setup.stack.name, setup.cluster.gpu.name), model, tuple(words.values())
