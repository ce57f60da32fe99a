"""What a predicted run takes: calendar, GPU-hours, dollars, energy and carbon, of each ramp stage and in total.

Days of training are the prediction's. The calendar adds what failures, checkpoints and the switches between stages of other
sizes take on average (economics/goodput.py). Its 90 % interval is that of many trials (economics/failures.py), in which
failures come at random, and the iteration time, for all stages alike, and each uncertain number of the terms lie anywhere
in intervals of their own. What it takes at most with odds of a half and of nine in ten is that of the closed form
(economics/calendar.py), as in plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Final, TypeAlias

import numpy as np

from perfmodel.economics.calendar import CalendarOdds, calendar_odds
from perfmodel.economics.cost import dollars
from perfmodel.economics.energy import carbon_kg
from perfmodel.economics.failures import TRIALS, drawn_terms, interval_of
from perfmodel.economics.goodput import TimeShares, time_shares
from perfmodel.economics.stage_job import ResourceUse, StageJob, drawn_use, expected_use, stage_job, total_use
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import Prediction
from perfmodel.spec.economics import Economics
from perfmodel.spec.evidence.error_law import NORMAL, heaviest_tails
from perfmodel.spec.fields import Numeric
from perfmodel.timing.uncertainty import Estimate
from perfmodel.units import SECONDS_PER_DAY

PERCENTILES: Final = (50, 90)
SEED: Final = 0  # so that a run has the same interval each time
IntervalEnds: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOutlook:
    """What one ramp stage takes; None for what does not follow without its tokens, a price or the power of a node."""

    gpus: int
    days: float | None  # of training
    calendar_days: float | None
    calendar_interval_days: IntervalEnds | None
    gpu_hours: float | None  # of the whole calendar, failures included
    dollars: float | None  # of a reserved cluster: for the days of this stage
    energy_j: float | None
    carbon_kg: float | None
    power_w: float | None  # average of the site
    failures: float | None  # expected number
    failure_interval_s: float | None  # mean time between failures; None where nothing fails
    checkpoint_interval_s: float | None  # training between two checkpoints; None where none are written
    checkpoint_s: float  # time to write a checkpoint
    checkpoint_stall_s: float  # the part of it that training waits for
    restart_s: float
    switch_s: float  # time to change from a stage of another size before this one
    shares: TimeShares  # of the calendar without that change

    @property
    def effective_share(self) -> float:
        """The share of the calendar that is training which counts."""
        return float(self.shares.training)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Outlook(Tabular):
    """What a run takes under `terms`: each ramp stage, and totals, which are None where a stage has None."""

    terms: Economics
    stages: tuple[StageOutlook, ...]
    days: float | None
    calendar_days: float | None
    calendar_interval_days: IntervalEnds | None
    calendar_odds: Estimate | None  # days, in closed form
    gpu_hours: float | None
    dollars: float | None
    dollars_interval: IntervalEnds | None
    dollars_odds: Estimate | None
    energy_j: float | None
    energy_interval_j: IntervalEnds | None
    carbon_kg: float | None
    failures: float | None
    effective_share: float | None  # days / calendar days

    def rows(self) -> list[dict[str, Any]]:
        """A row for each ramp stage, counted from 1; intervals and shares of the calendar in columns of their own."""
        return [{"stage": place + 1} | _columns(stage) for place, stage in enumerate(self.stages)]

    def totals(self) -> dict[str, float | None]:
        """The totals by name, both ends of each interval apart; `calendar_gpu_hours` include what failures take.

        p50 and p90: what the calendar and the dollars are at most with odds of a half and of nine in ten.
        """
        ends: dict[str, float | None] = {}
        for name in ("calendar_interval_days", "dollars_interval", "energy_interval_j"):
            low, high = getattr(self, name) or (None, None)
            ends |= {name.replace("interval", "low"): low, name.replace("interval", "high"): high}
        plain = ("calendar_days", "effective_share", "failures", "dollars", "energy_j", "carbon_kg")
        return {name: getattr(self, name) for name in plain} | {
            "calendar_gpu_hours": self.gpu_hours,
            **ends,
            **self.percentiles(),
        }

    def percentiles(self) -> dict[str, float | None]:
        """Calendar days and dollars that are not exceeded with odds of 50 and of 90 %, by name; None if not known."""
        return {
            name.format(percent): None if odds is None else float(odds.quantile(percent / 100))
            for name, odds in (("calendar_p{}_days", self.calendar_odds), ("dollars_p{}", self.dollars_odds))
            for percent in PERCENTILES
        }


def outlook(prediction: Prediction, terms: Economics) -> Outlook:
    """Calendar, GPU-hours, dollars, energy and carbon of a predicted run, under these terms.

    Errors: InputError for a run that fails more often than it can train.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> from perfmodel.exchange.run_files import read_candidates
    >>> from perfmodel.prediction import predict
    >>> run = outlook(predict(read_candidates("nemotron-4-15b")[0].run), economics_preset("typical"))
    >>> bool(run.days < run.calendar_days < run.calendar_interval_days[1]), run.dollars
    (True, None)
    """
    jobs = [stage_job(prediction, place) for place in range(len(prediction.stages))]
    generator = np.random.default_rng(SEED)
    law = heaviest_tails(NORMAL if job.training is None else job.training.laws[0] for job in jobs)
    other_terms, deviations = drawn_terms(terms, generator), law.draws(generator, TRIALS)
    averages = [expected_use(job, terms) for job in jobs]
    trials = [drawn_use(job, terms, other_terms, deviations, generator) for job in jobs]
    most = max(job.gpus for job in jobs)
    stages = tuple(
        _stage_outlook(job, terms, average, trial, most) for job, average, trial in zip(jobs, averages, trials, strict=True)
    )
    bill, bills = (_bill(total_use(parts), most, each) for parts, each in ((averages, terms), (trials, other_terms)))
    return _outlook(terms, stages, (total_use(averages), total_use(trials)), (bill, bills), _odds(jobs, terms))


def _odds(jobs: Sequence[StageJob], terms: Economics) -> CalendarOdds | None:
    """The odds of the calendar and of the bill; None where the tokens of a stage are not known."""
    known = [job.work for job in jobs if job.work is not None]
    return calendar_odds(known, terms) if len(known) == len(jobs) else None


def _stage_outlook(
    job: StageJob, terms: Economics, average: ResourceUse | None, trial: ResourceUse | None, most: int
) -> StageOutlook:
    cadence = job.cadence(terms)
    power = job.power_w(cadence, terms)
    energy = None if average is None else average.energy_j
    fails, calendar = bool(cadence.failures_per_s), None if average is None else float(average.calendar_days)
    return StageOutlook(
        gpus=job.gpus,
        days=job.days,
        calendar_days=calendar,
        calendar_interval_days=None if trial is None else interval_of(trial.calendar_days),
        gpu_hours=None if average is None else float(average.gpu_hours),
        dollars=_number(_bill(average, most, replace(terms, reserved_days=None))),
        energy_j=_number(energy),
        carbon_kg=None if energy is None else float(carbon_kg(energy_j=energy, terms=terms)),
        power_w=_number(power),
        failures=None if calendar is None else float(cadence.failures_per_s) * calendar * SECONDS_PER_DAY,
        failure_interval_s=1.0 / float(cadence.failures_per_s) if fails else None,
        checkpoint_interval_s=float(cadence.interval_s) if np.isfinite(cadence.interval_s) else None,
        checkpoint_s=float(cadence.stall_s + cadence.hidden_s),
        checkpoint_stall_s=float(cadence.stall_s),
        restart_s=float(cadence.restart_s),
        switch_s=float(job.switch_s(terms)),
        shares=time_shares(cadence),
    )


def _bill(used: ResourceUse | None, most: int, terms: Economics) -> Numeric | None:
    """Dollars of what was used, where the largest ramp stage has `most` GPUs."""
    if used is None:
        return None
    return dollars(gpu_hours=used.gpu_hours, gpus=most, calendar_days=used.calendar_days, terms=terms)


def _outlook(
    terms: Economics,
    stages: tuple[StageOutlook, ...],
    used: tuple[ResourceUse | None, ResourceUse | None],
    bills: tuple[Numeric | None, Numeric | None],
    odds: CalendarOdds | None,
) -> Outlook:
    """The outlook with its totals; in each pair the first is the average, the second has a number for each trial."""
    average, trials = used
    days = _sum([stage.days for stage in stages])
    calendar = None if average is None else float(average.calendar_days)
    return Outlook(
        terms=terms,
        stages=stages,
        days=days,
        calendar_days=calendar,
        calendar_interval_days=None if trials is None else interval_of(trials.calendar_days),
        calendar_odds=None if odds is None else odds.days,
        gpu_hours=None if average is None else float(average.gpu_hours),
        dollars=_number(bills[0]),
        dollars_interval=None if bills[1] is None else interval_of(bills[1]),
        dollars_odds=None if odds is None else odds.dollars,
        energy_j=None if average is None else _number(average.energy_j),
        energy_interval_j=None if trials is None or trials.energy_j is None else interval_of(trials.energy_j),
        carbon_kg=_sum([stage.carbon_kg for stage in stages]),
        failures=_sum([stage.failures for stage in stages]),
        effective_share=None if days is None or calendar is None else days / calendar,
    )


def _number(value: Numeric | None) -> float | None:
    return None if value is None else float(value)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _columns(stage: StageOutlook) -> dict[str, Any]:
    """Every number of a ramp stage by its name in a table."""
    low, high = stage.calendar_interval_days or (None, None)
    values = {entry.name: getattr(stage, entry.name) for entry in fields(stage)}
    del values["calendar_interval_days"], values["shares"]
    shares = {f"{entry.name}_share": float(getattr(stage.shares, entry.name)) for entry in fields(stage.shares)}
    return values | {"calendar_low_days": low, "calendar_high_days": high} | shares
