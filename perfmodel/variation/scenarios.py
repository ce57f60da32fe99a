"""A run beside the same run with settings changed, and how sure the difference is.

    ln(T' / T) +- sqrt(sum_i (d'_i - d_i)^2 + sum_j d_j^2 + D^2)

T and T' are iteration times before and after, d_i = half width that number i alone gives a time / that time. Numbers i are the
same in both runs, so most of their error cancels; numbers j are of one run alone, or differ between the two. D is what the
discrepancies of both leave to their ratio: nothing where only numbers, replicas or the batch change (run_evidence.py).
Own runs narrow neither: they tell how far times are off together, which has cancelled (timing/uncertainty.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np

from perfmodel.economics.outlook import Outlook
from perfmodel.frames import OneLine, Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.fields import Numeric


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Scenario(OneLine):
    """A run with some settings changed: `settings` are the changes, none for the run before."""

    name: str
    settings: tuple[str, ...]
    prediction: Prediction
    outlook: Outlook
    assumptions: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Its name, and the prediction."""
        return f"{self.name}: {self.prediction.summary}"

    def stage(self, place: int) -> StagePrediction:
        """The prediction of the ramp stage at `place`."""
        return self.prediction.stages[place][1]

    def totals(self) -> dict[str, float | None]:
        """Totals over all ramp stages, of training and of the calendar; None for what the run does not state enough for."""
        values = {name: getattr(self.prediction, name) for name in ("total_tokens", "total_days", "gpu_hours")}
        return {name: None if value is None else float(value) for name, value in values.items()} | self.outlook.totals()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WhatIf(Tabular):
    """A run before and after changes; `place` is the ramp stage that is shown, -1 the last of each run.

    `taken` are sentences about keys for which the run lists several values.
    """

    before: Scenario
    scenarios: tuple[Scenario, ...]
    place: int = -1
    taken: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How much longer an iteration takes in each scenario."""
        ratios = ", ".join(f"{each.name} {100 * (self.time_ratio(each) - 1):+.1f} %" for each in self.scenarios)
        return f"{self.before.prediction.run.name}, time of an iteration: {ratios}"

    @property
    def fits(self) -> bool:
        """Whether every stage of every scenario fits."""
        return all(each.prediction.fits for each in self.scenarios)

    @property
    def may_fit(self) -> bool:
        """Whether every stage of every scenario fits or is tight."""
        return all(each.prediction.may_fit for each in self.scenarios)

    def quantities(self, scenario: Scenario) -> dict[str, Any]:
        """The numbers of the ramp stage that is shown, then the totals of the run."""
        stage = {name: np.asarray(value).item() for name, value in scenario.stage(self.place).quantities().items()}
        return stage | scenario.totals()

    def time_ratio(self, scenario: Scenario) -> float:
        """Iteration time after / before, of the ramp stage that is shown."""
        return float(scenario.stage(self.place).iteration_time_s / self.before.stage(self.place).iteration_time_s)

    def time_ratio_interval(self, scenario: Scenario) -> tuple[float, float]:
        """The 90 % interval of the time ratio."""
        before, after = (_relative_half_widths(each.stage(self.place)) for each in (self.before, scenario))
        runs = self.before.prediction.run, scenario.prediction.run
        shared = {path for path in before.keys() & after.keys() if _same_number(*runs, path)}
        squares = [(after[path] - before[path]) ** 2 for path in sorted(shared)]
        squares += [width**2 for widths in (before, after) for path, width in sorted(widths.items()) if path not in shared]
        squares.append(_discrepancy_apart(self.before.stage(self.place), scenario.stage(self.place)) ** 2)
        ratio, apart = self.time_ratio(scenario), float(np.sqrt(sum(squares)))
        return ratio * float(np.exp(-apart)), ratio * float(np.exp(apart))

    def rows(self) -> list[dict[str, Any]]:
        """A row for each scenario, the run before first; `time_ratio` is its iteration time over that of the run before."""
        rows = []
        for each in (self.before, *self.scenarios):
            low, high = self.time_ratio_interval(each)
            ratios = {"time_ratio": self.time_ratio(each), "time_ratio_low": low, "time_ratio_high": high}
            rows.append({"scenario": each.name} | self.quantities(each) | ratios)
        return rows


def _relative_half_widths(predicted: StagePrediction) -> dict[str, float]:
    """By key path, how much each uncertain number alone changes the iteration time, as a share of it."""
    seconds = float(predicted.iteration_time_s)
    return {path: float(half_s) / seconds for path, half_s in predicted.uncertainty.half_widths_s.items()}


def _discrepancy_apart(before: StagePrediction, after: StagePrediction) -> float:
    """The half width of the logarithm of the time ratio that the discrepancies of both runs leave."""
    return float(before.work.setup.discrepancy_against(after.work.setup))


def _same_number(one: Any, other: Any, path: str) -> bool:
    """Whether two runs have the same number at `path`, and so the same error of it."""
    steps = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    return np.array_equal(_at(one, steps), _at(other, steps))


def _at(run: Any, steps: list[str]) -> Numeric:
    """The number of a run at a key path, given as the names and places on the way."""

    def step_into(place: Any, step: str) -> Any:
        if isinstance(place, Mapping):
            return place[step]
        return place[int(step)] if isinstance(place, tuple) else getattr(place, step)

    number: Numeric = reduce(step_into, steps, run)
    return number
