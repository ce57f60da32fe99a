"""Which single number or setting explains what was measured: every hypothesis weighed by the same equations.

plausibility = weight / sum of all weights (plausibility.py), `nothing` and `elsewhere` among them: the run as it
is, and a cause that the model has no number for, which may do anything up to a factor.

Ignored: two causes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError
from perfmodel.explanation.measured.hypotheses import OffNumber, off_numbers, other_settings
from perfmodel.explanation.measured.plausibility import (
    Finding,
    RunReadings,
    rival_log_weights,
    weighed_number,
    weighed_setting,
)
from perfmodel.explanation.measured.readings import Reading, interval_of, iteration_interval, iteration_reading
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction, predict
from perfmodel.spec.evidence.causes import DiagnosisPriors
from perfmodel.spec.run import Run
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import seconds_text

PLAUSIBLE: Final = 0.1  # of a cause that is called an explanation
OUTWEIGHS: Final = 0.5  # of one that explains more than all else together, though its time lies beyond its interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """All findings of one cause, the most plausible first: software that is another may be one of several."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def plausibility(self) -> float:
        """That it is this cause, whichever value it has."""
        return sum(each.plausibility for each in self.findings)

    @property
    def best(self) -> Finding:
        """The most plausible of its findings."""
        return self.findings[0]

    @property
    def explains(self) -> bool:
        """Whether its best finding gives the measured time within its interval, or it is more plausible than all else."""
        return self.best.explains or self.plausibility >= OUTWEIGHS


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Diagnosis(Tabular):
    """One ramp stage beside a measurement, `stated` as it was written.

    The plausibilities of causes, `nothing` (several numbers, each within its interval) and `elsewhere` add up to 1.
    """

    run: Run
    place: int
    stated: str
    predicted: StagePrediction
    readings: tuple[Reading, ...]  # the iteration first
    causes: tuple[Cause, ...]
    nothing: float
    elsewhere: float

    @property
    def summary(self) -> str:
        """Measured beside predicted time, and the likeliest cause where there is something to explain."""
        times = f"{seconds_text(self.measured_s)} measured, {seconds_text(float(self.predicted.iteration_time_s))} predicted"
        if self.is_expected or not self.causes:
            return f"{self.run.name}: {times}: as expected"
        first = self.causes[0]
        return f"{self.run.name}: {times}; likeliest cause {first.name}, {100 * first.plausibility:.0f} %"

    @property
    def measured_s(self) -> float:
        """The measured iteration time."""
        return self.readings[0].measured

    @property
    def gap(self) -> float:
        """ln(measured / predicted) of the iteration; positive where the run is slower than predicted."""
        return float(np.log(self.measured_s / float(self.predicted.iteration_time_s)))

    @property
    def is_expected(self) -> bool:
        """Whether the measured time lies within the 90 % interval of the prediction."""
        low_s, high_s = self.predicted.iteration_time_interval_s
        return bool(low_s <= self.measured_s <= high_s)

    @property
    def explaining(self) -> tuple[Cause, ...]:
        """Causes whose best finding brings the prediction to the measurement."""
        return tuple(each for each in self.causes if each.explains)

    @property
    def is_explained(self) -> bool:
        """Whether nothing needs an explanation, or one cause alone is a plausible one."""
        return self.is_expected or any(each.plausibility >= PLAUSIBLE for each in self.explaining)

    @property
    def closest(self) -> Finding:
        """The finding that leaves least to explain."""
        return min((each for cause in self.causes for each in cause.findings), key=lambda each: abs(each.gap))

    def rows(self) -> list[dict[str, Any]]:
        """Every finding, those of the most plausible cause first."""
        return [row(cause, finding) for cause in self.causes for finding in cause.findings]


def row(cause: Cause, finding: Finding) -> dict[str, Any]:
    """One finding as a row of a table."""
    hypothesis = finding.hypothesis
    return {
        "cause": cause.name,
        "key": hypothesis.key,
        "before": hypothesis.value if isinstance(hypothesis, OffNumber) else hypothesis.before,
        "after": finding.after,
        "factor": finding.factor,
        "deviations": finding.deviations,
        "iteration_time_s": finding.time_s,
        "remaining_gap": float(np.expm1(finding.gap)),
        "explains": finding.explains,
        "fit_probability": finding.fit_probability,
        "plausibility": finding.plausibility,
    }


def diagnosis(
    run: Run,
    *,
    place: int,
    measured_s: float,
    stated: str = "",
    priors: DiagnosisPriors,
    beside: Sequence[Reading] = (),
    stacks: Sequence[SoftwareStack] = (),
    unstated: Sequence[str] = (),
) -> Diagnosis:
    """The ramp stage at `place` beside its measured time, and what was measured `beside` it.

    `stacks` are other software that offers the layout, `unstated` the settings that the run leaves to their defaults.
    Errors: InputError for a run of arrays.
    """
    _, predicted = predict(run).stages[place]
    if np.ndim(predicted.iteration_time_s):
        raise InputError("this run holds arrays of layouts or numbers; one layout at a time can be diagnosed")
    readings, setup = (iteration_reading(measured_s), *beside), predicted.work.setup
    spreads = (iteration_interval(predicted), *(interval_of(each, setup) for each in beside))
    doubt = float(priors.memory_doubt.value)
    evidence = RunReadings(setup=setup, predicted=predicted, readings=readings, spreads=spreads, memory_doubt=doubt)
    numbers = [found for each in off_numbers(setup, priors) if (found := weighed_number(each, evidence))]
    alternatives = other_settings(setup, priors, stacks=stacks, unstated=unstated)
    settings = [found for each in alternatives if (found := weighed_setting(each, evidence))]
    weighed = [*numbers, *settings]
    rivals = rival_log_weights(evidence, priors)
    *own, nothing, elsewhere = _normalised([*(each.log_weight for each in weighed), *rivals])
    return Diagnosis(
        run=run,
        place=place % len(run.stages),
        stated=stated,
        predicted=predicted,
        readings=readings,
        causes=_causes(zip((each.finding for each in weighed), own, strict=True)),
        nothing=nothing,
        elsewhere=elsewhere,
    )


def _normalised(log_weights: Sequence[float]) -> list[float]:
    weights = np.exp(np.asarray(log_weights) - max(log_weights))
    return [float(each) for each in weights / weights.sum()]


def _causes(found: Iterable[tuple[Finding, float]]) -> tuple[Cause, ...]:
    """Findings by cause, the most plausible first."""
    by_name: dict[str, list[Finding]] = {}
    for finding, share in found:
        by_name.setdefault(finding.hypothesis.cause, []).append(replace(finding, plausibility=share))
    causes = [
        Cause(name=name, findings=tuple(sorted(several, key=lambda each: -each.plausibility)))
        for name, several in by_name.items()
    ]
    return tuple(sorted(causes, key=lambda each: -each.plausibility))
