"""When a run ends, drawn many times: failures come at random, and numbers that are known to an interval only are drawn from it.

Times between failures are exponentially distributed. After a failure a trial goes back to its last whole checkpoint, so the
work between two failures does not depend on the past: many of them are drawn at once and summed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.economics.goodput import Cadence, time_shares
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.economics import Economics
from perfmodel.spec.evidence.spread import DEVIATIONS, moved
from perfmodel.spec.fields import Numeric

TRIALS: Final = 1000
AT_ONCE: Final = 128  # failures of each trial that are drawn together
MOST_FAILURES: Final = 5000.0  # the time that more of them take varies by less than 2 %: its average is taken
Array = NDArray[np.float64]


def calendar_s(work_s: Numeric, job: Cadence, generator: np.random.Generator, *, trials: int = TRIALS) -> Array:
    """The seconds until `work_s` of training are done, a number for each trial; arrays have a number for each trial, too."""
    work = np.broadcast_to(np.asarray(work_s, dtype=float), (trials,))
    average = np.broadcast_to(work / time_shares(job).training, (trials,))
    failures = np.asarray(job.failures_per_s)
    if not np.any(failures) or np.max(average * failures) > MOST_FAILURES:
        return np.array(average)
    state = _Trials(
        work_s=work,
        mean_s=_each(1.0 / failures, trials),
        interval_s=_each(job.interval_s, trials),
        stall_s=_each(job.stall_s, trials),
        hidden_s=_each(job.hidden_s, trials),
        restart_s=_each(job.restart_s, trials),
    )
    return _ends_s(state, generator)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trials:
    """The numbers of a job in each trial; arrays of one number a trial."""

    work_s: Array
    mean_s: Array
    interval_s: Array
    stall_s: Array
    hidden_s: Array
    restart_s: Array

    def those(self, places: NDArray[np.intp]) -> dict[str, Array]:
        """The numbers of the trials at `places`, as columns that broadcast over the failures of each trial."""
        return {name: getattr(self, name)[places][:, None] for name in self.__dataclass_fields__}


def _each(value: Numeric, trials: int) -> Array:
    return np.broadcast_to(np.asarray(value, dtype=float), (trials,))


def _ends_s(state: _Trials, generator: np.random.Generator) -> Array:
    """The seconds until the work of each trial is done: failures are drawn until that is so for all."""
    trials = len(state.work_s)
    ends, passed, gained = np.zeros(trials), np.zeros(trials), np.zeros(trials)
    running, first = np.arange(trials), True
    while running.size:
        column = state.those(running)
        apart = generator.standard_exponential((running.size, AT_ONCE)) * column["mean_s"]
        restart = np.repeat(column["restart_s"], AT_ONCE, axis=1)
        if first:
            restart[:, 0] = 0.0  # nothing has failed yet
        kept = _kept_s(apart - restart, column)
        left = column["work_s"] - (gained[running][:, None] + np.cumsum(kept, axis=1) - kept)
        needed = left + column["stall_s"] * np.floor(left / column["interval_s"])
        done = apart - restart >= needed
        place = np.arange(running.size), np.argmax(done, axis=1)
        finished = done[place]
        before = passed[running] + np.cumsum(apart, axis=1)[place] - apart[place]
        ends[running[finished]] = (before + restart[place] + needed[place])[finished]
        passed[running] += apart.sum(axis=1)
        gained[running] += kept.sum(axis=1)
        running, first = running[~finished], False
    return ends


def _kept_s(up: Array, column: Mapping[str, Array]) -> Array:
    """Training [s] that the last whole checkpoint holds `up` seconds after a start; the first one is whole after t + d + a."""
    period = column["interval_s"] + column["stall_s"]
    checkpoints = np.floor(np.maximum(up - column["hidden_s"], 0.0) / period)
    return np.asarray(column["interval_s"] * checkpoints, dtype=float)


def drawn_terms(terms: Economics, generator: np.random.Generator, *, trials: int = TRIALS) -> Economics:
    """The terms with every uncertain number drawn anew in each trial: c * (1 + s)**(z / 1.645), s its spread, z normal."""
    factors = {
        name: (1.0 + np.asarray(spread)) ** (generator.standard_normal(trials) / DEVIATIONS)
        for name, spread in terms.spread.items()
        if np.any(spread)
    }
    return moved(terms, factors) if factors else terms


def interval_of(draws: Any) -> tuple[float, float]:
    """The 90 % interval of numbers that were drawn."""
    low, high = np.quantile(np.asarray(draws, dtype=float), (0.05, 0.95))
    return float(low), float(high)
