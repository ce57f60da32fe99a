"""When a run ends and what it is billed, with odds, in closed form.

Symbols: C calendar days, B the bill, T_i days of training of ramp stage i, w_i the share of the calendar that is training
(goodput.py), s_i what changing to the layout of stage i takes:

    C = sum over stages of T_i / w_i + s_i,    B = price * 24 * sum over stages of gpus_i * (T_i / w_i + s_i)

Three kinds of things move them, independently of each other: the iteration time (all stages alike: what is uncertain of it is
common to them), every uncertain number of the terms (alike, too), and how many failures come, and when (each stage on its own:
their variances add). Each goes to both ends of its 90 % interval alone, and the logarithms of what that does add up as the root
of their squares (timing/uncertainty.py). The iteration time has the tails of measured runs, all else is normal: both add up as
error_law.py says. The median is that of average failures at the median iteration time. The closed form has to agree with
the trials of failures.py.

Ignored: that the median of the time which failures take lies below its average (by less than half of what one takes), and that
the sum of several numbers which lengthen a run more than they shorten it has a median above the sum of theirs: under typical
terms all of it is within 0.7 % of the trials, and within 3 % where failures take a fifth of the calendar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import cadence, calendar_days, calendar_variance_s2, kept_cadence, switch_s, time_shares
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.economics import Economics
from perfmodel.spec.evidence.error_law import ErrorLaw, heaviest_tails
from perfmodel.spec.evidence.spread import DEVIATIONS, both_ends, moved, uncertain_numbers, with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.timing.uncertainty import Estimate, uncertainty
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY

TIME: Final = "iteration_time"
FAILURES: Final = "failures"
MOST_FAILURES: Final = 1e12  # times its calendar, by which those of a job of microseconds lengthen it
SLOW, FAST, MANY, FEW = 1, 2, 3, 4  # places on the axis of ends: of the time, of failures; both ends of each term follow
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """What one ramp stage trains: its days of training, and how often the job changes its layout for it."""

    gpus: int
    parameters: Numeric
    days: Estimate
    switches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarOdds:
    """The calendar days of a run and its bill in dollars, as estimates; no bill without a price."""

    days: Estimate
    dollars: Estimate | None


def calendar_odds(stages: Sequence[StageWork], terms: Economics) -> CalendarOdds:
    """Calendar days and dollars of a run of these ramp stages, each with its median and its 90 % interval.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> stage = StageWork(gpus=2304, parameters=15.6e9, days=Estimate(median=12.0, low=11.0, high=13.0))
    >>> days = calendar_odds([stage], economics_preset("typical")).days
    >>> [round(float(days.quantile(probability)), 2) for probability in (0.05, 0.5, 0.9, 0.95)]
    [11.15, 12.17, 12.97, 13.2]
    """
    spreads = {TIME: 0.0, FAILURES: 0.0} | dict(uncertain_numbers(terms))
    factors = both_ends(spreads, 0)
    moving = moved(terms, {name: factors[name] for name in spreads if name not in {TIME, FAILURES}})
    ends = [_stage_ends(stage, terms, moving, length=1 + 2 * len(spreads)) for stage in stages]
    calendar = _total(ends, [1.0] * len(stages))
    gpu_hours = _total(ends, [HOURS_PER_DAY * stage.gpus for stage in stages])
    most, used = max(stage.gpus for stage in stages), with_numbers(moving, {"reserved_days": None})
    bill = dollars(gpu_hours=gpu_hours, gpus=most, calendar_days=calendar, terms=used)
    least = dollars(gpu_hours=0.0, gpus=most, calendar_days=0.0, terms=terms)  # of the days that are reserved, if any are
    of_time = heaviest_tails(stage.days.laws[0] for stage in stages)
    return CalendarOdds(
        days=_estimate(calendar, spreads, of_time),
        dollars=None if bill is None or least is None else _estimate(np.asarray(bill), spreads, of_time, least=float(least)),
    )


class _StageEnds(NamedTuple):
    """The calendar days of a ramp stage with each uncertain number at its ends, and their variance by failures [days^2]."""

    days: Array
    variance: float


def _stage_ends(stage: StageWork, terms: Economics, moving: Economics, *, length: int) -> _StageEnds:
    """What one ramp stage takes under the `terms` as they stand and with each at its ends (`moving`)."""
    work = np.full(length, float(stage.days.median))
    work[SLOW], work[FAST] = float(stage.days.high), float(stage.days.low)
    size = {"gpus": stage.gpus, "parameters": stage.parameters}
    share = time_shares(kept_cadence(**size, terms=terms, actual=moving)).training
    switches_s = stage.switches * switch_s(**size, terms=moving)
    variance_s2 = calendar_variance_s2(work_s=work[0] * SECONDS_PER_DAY, job=cadence(**size, terms=terms))
    return _StageEnds(
        days=np.asarray(calendar_days(days=work, effective_share=share) + switches_s / SECONDS_PER_DAY),
        variance=float(variance_s2) / SECONDS_PER_DAY**2,
    )


def _total(stages: Sequence[_StageEnds], weights: Sequence[float]) -> Array:
    """The weighted sum over the stages at every end; at those of failures 1.645 standard deviations off, as a factor."""
    total = np.sum([weight * each.days for weight, each in zip(weights, stages, strict=True)], axis=0)
    deviation = np.sqrt(sum(weight**2 * each.variance for weight, each in zip(weights, stages, strict=True)))
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.exp(np.minimum(DEVIATIONS * deviation / total[0], np.log(MOST_FAILURES)))
        total[MANY], total[FEW] = total[0] * factor, total[0] / factor
    return np.asarray(total)


def _estimate(ends: Array, paths: Iterable[str], of_time: ErrorLaw, *, least: float = 0.0) -> Estimate:
    """The estimate of a number that is known with each uncertain number at its ends, of which the time has a law of errors."""
    median = float(ends[0])
    with np.errstate(invalid="ignore", divide="ignore"):  # a run that never ends is infinite at every end
        found = uncertainty(ends, tuple(paths))
        widths = np.abs(np.log([float(found.low_s) / median, float(found.high_s) / median]))
        alone = np.abs(np.log([min(ends[FAST], median) / median, max(ends[SLOW], median) / median]))
        shares = np.nan_to_num((alone / widths) ** 2, nan=1.0)
    below, above = (ErrorLaw(degrees=of_time.degrees, tail_share=min(float(share), 1.0)) for share in shares)
    low, high = (np.exp(width * law.stretch) for width, law in zip(widths, (below, above), strict=True))
    return Estimate(median=median, low=median / float(low), high=median * float(high), least=least, laws=(below, above))
