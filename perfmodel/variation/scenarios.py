"""What if: a run beside the same run with settings changed, and how sure the difference is.

    ln(T' / T) +- sqrt(sum_i (d'_i - d_i)^2 + sum_j d_j^2)

T and T' are iteration times before and after, d_i = half width that number i alone gives a time / that time. Numbers i are the
same in both runs, so most of their error cancels; numbers j are of one run alone, or differ between the two.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from perfmodel.economics.outlook import Outlook
from perfmodel.frames import Tabular
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.fields import Numeric


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A run under some settings; `settings` are those that make it another run than the one before."""

    name: str
    settings: tuple[str, ...]
    prediction: Prediction
    outlook: Outlook
    assumptions: tuple[str, ...] = ()

    def stage(self, place: int) -> StagePrediction:
        """The prediction of one of its stages, by its place in the ramp."""
        return self.prediction.stages[place][1]

    def totals(self) -> dict[str, float | None]:
        """Over all stages of the run: training, then what it comes to; None for what does not follow from what it states."""
        values = {name: getattr(self.prediction, name) for name in ("total_tokens", "total_days", "gpu_hours")}
        return {name: None if value is None else float(value) for name, value in values.items()} | self.outlook.totals()


@dataclass(frozen=True, slots=True, kw_only=True)
class WhatIf(Tabular):
    """A run before and after; `place` is the stage of the ramp that is shown, -1 the last of each.

    `taken` are sentences about keys for which the run lists several values.
    """

    before: Scenario
    scenarios: tuple[Scenario, ...]
    place: int = -1
    taken: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether every stage of every scenario fits."""
        return all(each.prediction.fits for each in self.scenarios)

    def quantities(self, scenario: Scenario) -> dict[str, Any]:
        """Every number of the shown stage, then those of the whole run."""
        stage = {name: np.asarray(value).item() for name, value in scenario.stage(self.place).quantities().items()}
        return stage | scenario.totals()

    def time_ratio(self, scenario: Scenario) -> float:
        """Iteration time after / before, of the shown stage."""
        return float(scenario.stage(self.place).iteration_time_s / self.before.stage(self.place).iteration_time_s)

    def time_ratio_interval(self, scenario: Scenario) -> tuple[float, float]:
        """Its 90 % interval."""
        before, after = (_relative_half_widths(each.stage(self.place)) for each in (self.before, scenario))
        runs = self.before.prediction.run, scenario.prediction.run
        shared = {path for path in before.keys() & after.keys() if _same_number(*runs, path)}
        squares = [(after[path] - before[path]) ** 2 for path in sorted(shared)]
        squares += [width**2 for widths in (before, after) for path, width in sorted(widths.items()) if path not in shared]
        ratio, apart = self.time_ratio(scenario), float(np.sqrt(sum(squares)))
        return ratio * float(np.exp(-apart)), ratio * float(np.exp(apart))

    def rows(self) -> list[dict[str, Any]]:
        """A row a scenario, the run before first; `time_ratio` is its iteration time over that before."""
        rows = []
        for each in (self.before, *self.scenarios):
            low, high = self.time_ratio_interval(each)
            ratios = {"time_ratio": self.time_ratio(each), "time_ratio_low": low, "time_ratio_high": high}
            rows.append({"scenario": each.name} | self.quantities(each) | ratios)
        return rows


def _relative_half_widths(predicted: StagePrediction) -> dict[str, float]:
    """By key path what each uncertain number alone does to the iteration time, as a share of it."""
    seconds = float(predicted.iteration_time_s)
    return {path: float(half_s) / seconds for path, half_s in predicted.uncertainty.half_widths_s.items()}


def _same_number(one: Any, other: Any, path: str) -> bool:
    """Whether two runs hold the same number at `path`: its error is then the same in both."""
    steps = re.sub(r"\[(\d+)\]", r".\1", path).split(".")
    return np.array_equal(_at(one, steps), _at(other, steps))


def _at(run: Any, steps: list[str]) -> Numeric:
    """The number that the steps lead to."""

    def step_into(place: Any, step: str) -> Any:
        if isinstance(place, Mapping):
            return place[step]
        return place[int(step)] if isinstance(place, tuple) else getattr(place, step)

    number: Numeric = reduce(step_into, steps, run)
    return number
