"""The calendar, GPU-hours and energy that one ramp stage takes: on average, or in each of many trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.calendar import StageWork
from perfmodel.economics.energy import busy_share, power_w
from perfmodel.economics.failures import Array, calendar_s
from perfmodel.economics.goodput import Cadence, cadence, calendar_days, kept_cadence, switch_s, time_shares
from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.uncertainty import Estimate
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, gpus_text, seconds_text

LEAST_SHARE: Final = 0.01  # of the calendar: a run that trains less never ends


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJob:
    """A ramp stage as a job on a cluster, as its prediction has it; `training` is in days, None where no tokens are known."""

    gpus: int
    parameters: float
    training: Estimate | None
    switches: bool  # whether the stage before has another number of GPUs
    breakdown: Breakdown
    cluster: Cluster

    @property
    def days(self) -> float | None:
        """Days of training at the median iteration time; None where the tokens are not known."""
        return None if self.training is None else float(self.training.median)

    @property
    def work(self) -> StageWork | None:
        """What the stage trains, for the odds of the calendar; None where its tokens are not known."""
        if self.training is None:
            return None
        return StageWork(gpus=self.gpus, parameters=self.parameters, days=self.training, switches=int(self.switches))

    def cadence(self, terms: Economics) -> Cadence:
        """How often the job fails and writes checkpoints. Errors: InputError where it hardly ever trains."""
        job = cadence(gpus=self.gpus, parameters=self.parameters, terms=terms)
        if float(time_shares(job).training) < LEAST_SHARE:
            every = "never" if job.failures_per_s == 0 else f"every {seconds_text(float(1.0 / job.failures_per_s))}"
            stalls = f"{seconds_text(float(job.stall_s))} of each {seconds_text(float(job.interval_s + job.stall_s))}"
            raise InputError(
                f"such a run never ends: {gpus_text(self.gpus)} fail {every}, restart in "
                f"{seconds_text(float(job.restart_s))} and wait for checkpoints {stalls}",
                key="economics",
            )
        return job

    def switch_s(self, terms: Economics) -> Numeric:
        """Seconds to change from the stage before to this one; 0 where the number of GPUs stays."""
        return switch_s(gpus=self.gpus, parameters=self.parameters, terms=terms) if self.switches else 0.0

    def power_w(self, job: Cadence, terms: Economics) -> Numeric | None:
        """Average power of the site; None for a cluster that does not state the power of a node."""
        busy = busy_share(self.breakdown, time_shares(job))
        return power_w(gpus=self.gpus, busy=busy, cluster=self.cluster, terms=terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUse:
    """What one ramp stage uses, or several together: numbers, or arrays of one number a trial."""

    calendar_days: Numeric
    gpu_hours: Numeric
    energy_j: Numeric | None


def stage_job(prediction: Prediction, place: int) -> StageJob:
    """The job of the ramp stage at `place`."""
    stage, predicted = prediction.stages[place]
    gpus = int(predicted.layout.gpus)
    return StageJob(
        gpus=gpus,
        parameters=float(parameter_count(prediction.run.model).total),
        training=None if stage.tokens is None else predicted.training_days(stage.tokens),
        switches=place > 0 and gpus != int(prediction.stages[place - 1][1].layout.gpus),
        breakdown=predicted.breakdown,
        cluster=prediction.run.cluster,
    )


def expected_use(job: StageJob, terms: Economics) -> ResourceUse | None:
    """What a job uses on average; None where its tokens are not known."""
    if job.training is None:
        return None
    pace = job.cadence(terms)
    days = calendar_days(days=job.training.median, effective_share=time_shares(pace).training)
    return _resource_use(job, pace, terms, days + job.switch_s(terms) / SECONDS_PER_DAY)


def drawn_use(
    job: StageJob, terms: Economics, drawn_terms: Economics, deviations: Array, generator: np.random.Generator
) -> ResourceUse | None:
    """What a job uses in each trial: terms and deviations of the iteration time are given, failures are drawn.

    Checkpoints are written as often as is best under the `terms` that are known, not under those of a trial.
    """
    if job.training is None:
        return None
    pace = kept_cadence(gpus=job.gpus, parameters=job.parameters, terms=terms, actual=drawn_terms)
    work_s = SECONDS_PER_DAY * job.training.at(deviations)
    seconds = calendar_s(work_s, pace, generator, trials=len(deviations)) + job.switch_s(drawn_terms)
    return _resource_use(job, pace, drawn_terms, seconds / SECONDS_PER_DAY)


def _resource_use(job: StageJob, pace: Cadence, terms: Economics, days: Numeric) -> ResourceUse:
    power = job.power_w(pace, terms)
    return ResourceUse(
        calendar_days=days,
        gpu_hours=HOURS_PER_DAY * job.gpus * days,
        energy_j=None if power is None else power * days * SECONDS_PER_DAY,
    )


def total_use(parts: Sequence[ResourceUse | None]) -> ResourceUse | None:
    """What all ramp stages use together; None where one of them is None."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    energies = [part.energy_j for part in known if part.energy_j is not None]
    return ResourceUse(
        calendar_days=sum(part.calendar_days for part in known),
        gpu_hours=sum(part.gpu_hours for part in known),
        energy_j=sum(energies) if len(energies) == len(known) else None,
    )
