"""What one stage of a run takes of calendar, GPU-hours and energy: on average, or in each of many trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.energy import busy_share, power_w
from perfmodel.economics.failures import Array, calendar_s, drawn_time_s
from perfmodel.economics.goodput import Cadence, cadence, calendar_days, switch_s, time_shares
from perfmodel.errors import InputError
from perfmodel.prediction import Prediction
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.spec.hardware import Cluster
from perfmodel.timing.breakdown import Breakdown
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, seconds_text

LEAST_SHARE: Final = 0.01  # of the calendar: a run that trains less gets nowhere


@dataclass(frozen=True, slots=True, kw_only=True)
class StageJob:
    """All that follows from the prediction of a stage; days are None where its tokens are not known."""

    gpus: int
    parameters: float
    days: float | None
    interval_days: tuple[float, float] | None
    switches: bool  # to another size than that of the stage before
    breakdown: Breakdown
    cluster: Cluster

    def plan(self, terms: Economics) -> Cadence:
        """How often it fails and checkpoints. Errors: InputError when it would take a hundred times as long as it trains."""
        plan = cadence(gpus=self.gpus, parameters=self.parameters, terms=terms)
        if float(time_shares(plan).training) < LEAST_SHARE:
            every = "never" if plan.failures_per_s == 0 else f"every {seconds_text(float(1.0 / plan.failures_per_s))}"
            stalls = f"{seconds_text(float(plan.stall_s))} of each {seconds_text(float(plan.interval_s + plan.stall_s))}"
            raise InputError(
                f"{self.gpus} GPUs that fail {every}, restart in {seconds_text(float(plan.restart_s))} and stall for "
                f"checkpoints {stalls} hardly ever train: such a run does not end",
                key="economics",
            )
        return plan

    def switch_s(self, terms: Economics) -> Numeric:
        """From the stage before to this one."""
        return switch_s(gpus=self.gpus, parameters=self.parameters, terms=terms) if self.switches else 0.0

    def power_w(self, plan: Cadence, terms: Economics) -> Numeric | None:
        """Of the site, on average."""
        busy = busy_share(self.breakdown, time_shares(plan))
        return power_w(gpus=self.gpus, busy=busy, cluster=self.cluster, terms=terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a stage, or several, take: numbers, or one for each trial."""

    calendar_days: Numeric
    gpu_hours: Numeric
    energy_j: Numeric | None


def stage_job(prediction: Prediction, place: int) -> StageJob:
    """The stage at a place of the ramp."""
    stage, predicted = prediction.stages[place]
    gpus = int(predicted.layout.gpus)
    days = None if stage.tokens is None else float(predicted.days(stage.tokens))
    low, high = (float(end / predicted.iteration_time_s) for end in predicted.iteration_time_interval_s)
    return StageJob(
        gpus=gpus,
        parameters=float(parameter_count(prediction.run.model).total),
        days=days,
        interval_days=None if days is None else (days * low, days * high),
        switches=place > 0 and gpus != int(prediction.stages[place - 1][1].layout.gpus),
        breakdown=predicted.breakdown,
        cluster=prediction.run.cluster,
    )


def expected(job: StageJob, terms: Economics) -> Spent | None:
    """What it takes on average; None where its tokens are not known."""
    if job.days is None:
        return None
    plan = job.plan(terms)
    days = calendar_days(days=job.days, effective_share=time_shares(plan).training)
    return _spent(job, plan, terms, days + job.switch_s(terms) / SECONDS_PER_DAY)


def drawn(
    job: StageJob, terms: Economics, drawn_terms: Economics, deviations: Array, generator: np.random.Generator
) -> Spent | None:
    """The same in each trial: its terms and the deviation of its iteration time are given, its failures are drawn.

    Checkpoints are written as often as the `terms` as they stand have it: nobody knows them better.
    """
    if job.days is None or job.interval_days is None:
        return None
    plan = cadence(gpus=job.gpus, parameters=job.parameters, terms=drawn_terms)
    plan = replace(plan, interval_s=np.maximum(job.plan(terms).interval_s, plan.hidden_s))
    work_s = SECONDS_PER_DAY * drawn_time_s(job.days, job.interval_days, deviations)
    seconds = calendar_s(work_s, plan, generator, trials=len(deviations)) + job.switch_s(drawn_terms)
    return _spent(job, plan, drawn_terms, seconds / SECONDS_PER_DAY)


def _spent(job: StageJob, plan: Cadence, terms: Economics, days: Numeric) -> Spent:
    power = job.power_w(plan, terms)
    return Spent(
        calendar_days=days,
        gpu_hours=HOURS_PER_DAY * job.gpus * days,
        energy_j=None if power is None else power * days * SECONDS_PER_DAY,
    )


def total(parts: Sequence[Spent | None]) -> Spent | None:
    """The sum of all stages; None where one of them is."""
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    energies = [part.energy_j for part in known if part.energy_j is not None]
    return Spent(
        calendar_days=sum(part.calendar_days for part in known),
        gpu_hours=sum(part.gpu_hours for part in known),
        energy_j=sum(energies) if len(energies) == len(known) else None,
    )
