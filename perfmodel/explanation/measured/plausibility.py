"""How plausible one hypothesis is beside what was measured.

    weight = chance * P(it runs) * integral over ln f of density(ln f) * prod_r N(ln m_r; ln p_r(f), s_r)

m_r are measured readings (the iteration, and what was given beside it), p_r(f) what the equations give for them with the number
times f, s_r their standard deviations without that number's own share. A setting is one point instead of an integral. P(it
runs) comes from predicted memory: the run was measured, so it fitted. An iteration may follow a link that is off less than
predicted, as overlap may hide more of it: where it takes less than T(f),

    s_T(f)^2 = s_T^2 + (follow_error / 1.64 * ln(T(f) / T(1)))^2.

Ignored: how the deviations of readings are correlated; how s_r changes along f otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import PerfmodelError
from perfmodel.explanation.measured.hypotheses import OffNumber, OtherSetting
from perfmodel.explanation.measured.readings import Reading, Spread, iteration_interval
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.evidence.causes import DiagnosisPriors
from perfmodel.spec.evidence.spread import DEVIATIONS
from perfmodel.spec.fields import Numeric
from perfmodel.spec.setup import Setup

FINE: Final = 4001  # points of ln f over which the likelihood is added up
LEAST_VALUE: Final = 1e-9  # of a predicted reading, in seconds or bytes/s
NO_EFFECT: Final = 1e-3  # of ln T: a hypothesis that changes nothing explains nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A hypothesis held against the measurement: how near it comes, and how plausible it is.

    Of a number, `factor` is what brings the iteration nearest to the measured one, and `deviations` how far that is from 1 in
    standard deviations of the number's own prior (None where it has none). `gap` is ln(measured / time_s), what is left to
    explain; `explains` whether that lies within the 90 % interval of what the hypothesis predicts.
    """

    hypothesis: OffNumber | OtherSetting
    after: Any  # the value that the number or the setting needs
    factor: float | None
    deviations: float | None
    setup: Setup  # with that value
    time_s: float
    gap: float
    explains: bool
    fit_probability: float
    plausibility: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WeighedFinding:
    """A finding before it is normalised, with ln of its weight."""

    finding: Finding
    log_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReadings:
    """What was measured, and what the run as it is predicts for it."""

    setup: Setup
    predicted: StagePrediction
    readings: tuple[Reading, ...]
    spreads: tuple[Spread, ...]
    memory_doubt: float

    def log_likelihood(
        self, logs: Sequence[Any], spreads: Sequence[Spread], *, without: str = "", follow_error: float = 0.0
    ) -> NDArray[np.float64]:
        """sum_r ln N(ln m_r; ln p_r, s_r) for ln p_r in `logs`, which may be arrays; the iteration is the first."""
        total = np.asarray(0.0)
        change = logs[0] - np.log(float(self.predicted.iteration_time_s))
        following = [follow_error / DEVIATIONS * change, *[0.0] * (len(logs) - 1)]
        for reading, log, spread, own in zip(self.readings, logs, spreads, following, strict=True):
            gap = np.log(reading.measured) - log
            above, below = (spread.towards(side, without=without) for side in (1.0, -1.0))
            sigma = np.where(gap > 0, above, np.hypot(below, own))
            total = total - 0.5 * (gap / sigma) ** 2 - np.log(sigma)
        return total

    def log_fits(self, probability: float) -> float:
        """ln of the chance that a layout ran whose memory fits with this probability."""
        return float(np.log(self.memory_doubt + (1.0 - self.memory_doubt) * probability))


def weighed_number(number: OffNumber, evidence: RunReadings) -> WeighedFinding | None:
    """A number over all its factors; None where the iteration does not depend on it."""
    everywhere = number.at(evidence.setup, number.factors)
    curves = [_log(_over(each, everywhere, len(number.factors))) for each in evidence.readings]
    if np.ptp(curves[0]) < NO_EFFECT:
        return None
    places = np.log(number.factors)
    fine = np.linspace(places[0], places[-1], FINE)
    logs = [np.interp(fine, places, curve) for curve in curves]
    likelihood = evidence.log_likelihood(logs, evidence.spreads, without=number.key, follow_error=number.follow_error)
    fits = float(evidence.predicted.fit_probability)
    log_weight = float(np.log(number.chance)) + _log_mean(likelihood, number.log_density(fine)) + evidence.log_fits(fits)
    return WeighedFinding(finding=_number_finding(number, curves[0], evidence, fits), log_weight=log_weight)


def _over(reading: Reading, setup: Setup, places: int) -> NDArray[np.float64]:
    """What the equations give for a reading at every place of a setup's numbers."""
    with np.errstate(all="ignore"):
        return np.broadcast_to(np.asarray(reading.predicted(setup), dtype=np.float64), (places,))


def _number_finding(number: OffNumber, curve: NDArray[np.float64], evidence: RunReadings, fits: float) -> Finding:
    """The factor nearest to 1 at which the iteration takes what was measured, or else that which comes nearest to it."""
    iteration, places = evidence.readings[0], np.log(number.factors)
    target = float(np.log(iteration.measured))
    above = curve > target
    crossings = np.flatnonzero(above[1:] != above[:-1])
    if len(crossings):
        at = min(crossings, key=lambda each: abs(places[each] + places[each + 1]))
        factors = np.exp(np.linspace(places[at], places[at + 1], len(places)))
        times = _log(_over(iteration, number.at(evidence.setup, factors), len(factors)))
        rising = np.argsort(times)
        factor = float(np.exp(np.interp(target, times[rising], np.log(factors)[rising])))
    else:
        factor = float(number.factors[np.argmin(np.abs(curve - target))])
    changed = number.at(evidence.setup, factor)
    time_s = float(iteration.predicted(changed))
    gap = target - float(np.log(time_s))
    return Finding(
        hypothesis=number,
        after=number.value * factor,
        factor=factor,
        deviations=number.deviations(factor),
        setup=changed,
        time_s=time_s,
        gap=gap,
        explains=abs(gap) <= DEVIATIONS * evidence.spreads[0].towards(gap, without=number.key),
        fit_probability=fits,
        plausibility=0.0,
    )


def weighed_setting(setting: OtherSetting, evidence: RunReadings) -> WeighedFinding | None:
    """A setting with its other value; None where it changes nothing, or the equations do not cover it."""
    try:
        setup = setting.change(evidence.setup)
        with np.errstate(all="ignore"):
            there = predict_stage(setup)
            beside = [float(each.predicted(setup)) for each in evidence.readings[1:]]
    except PerfmodelError:
        return None
    logs = [float(_log(each)) for each in (float(there.iteration_time_s), *beside)]
    if abs(logs[0] - np.log(float(evidence.predicted.iteration_time_s))) < NO_EFFECT:
        return None
    spreads, fits = (iteration_interval(there).widened(setting.error), *evidence.spreads[1:]), float(there.fit_probability)
    gap = float(np.log(evidence.readings[0].measured) - logs[0])
    finding = Finding(
        hypothesis=setting,
        after=setting.after,
        factor=None,
        deviations=None,
        setup=setup,
        time_s=float(there.iteration_time_s),
        gap=gap,
        explains=abs(gap) <= DEVIATIONS * spreads[0].towards(gap),
        fit_probability=fits,
        plausibility=0.0,
    )
    log_weight = float(np.log(setting.chance) + evidence.log_likelihood(logs, spreads)) + evidence.log_fits(fits)
    return WeighedFinding(finding=finding, log_weight=log_weight)


def rival_log_weights(evidence: RunReadings, priors: DiagnosisPriors) -> list[float]:
    """ln of the weights of nothing being otherwise, and of a cause elsewhere that may change a reading by any factor."""
    logs = [_log(float(each.predicted(evidence.setup))) for each in evidence.readings]
    fits = evidence.log_fits(float(evidence.predicted.fit_probability))
    chances = [float(each.chance) for each in priors.numbers] + [float(each.chance) for each in priors.settings]
    chances.append(float(priors.elsewhere.value))
    nothing = float(np.sum(np.log1p(-np.asarray(chances)))) + float(evidence.log_likelihood(logs, evidence.spreads))
    wide = float(np.log1p(priors.elsewhere_spread.value)) / DEVIATIONS
    anywhere = [
        Spread(below=float(np.hypot(wide, each.below)), above=float(np.hypot(wide, each.above)), of_number={})
        for each in evidence.spreads
    ]
    elsewhere = float(np.log(priors.elsewhere.value)) + float(evidence.log_likelihood(logs, anywhere))
    return [nothing + fits, elsewhere + fits]


def _log(values: Numeric) -> NDArray[np.float64]:
    """ln of what is predicted for a reading; kernels that do not run take next to nothing, so that it is finite."""
    return np.asarray(np.log(np.maximum(values, LEAST_VALUE)))


def _log_mean(logs: NDArray[np.float64], log_density: NDArray[np.float64]) -> float:
    """ln of the mean of exp(logs), weighed by a density at the same places."""
    most, density = float(np.max(logs + log_density)), np.exp(log_density)
    return most + float(np.log(np.sum(np.exp(logs + log_density - most)) / np.sum(density)))
