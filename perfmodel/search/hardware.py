"""The same question asked of several clusters: each with its own best layout, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan
from perfmodel.units import SECONDS_PER_HOUR, seconds_text

BILLION: Final = 1e9
SURE: Final = 0.9
COLUMNS: Final = (  # of a table; the settings of the layout follow
    *("gpus", "iteration_time_s", "iteration_time_low_s", "iteration_time_high_s", "mfu", "tokens_per_s"),
    *("tokens_per_s_per_gpu", "days", "calendar_days", "calendar_p90_days", "gpu_hours", "dollars_per_gpu_hour", "dollars"),
    *("dollars_per_billion_tokens", "memory_bytes", "fit_probability"),
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class HardwarePlans(Tabular):
    """A plan for each cluster, by its name as it was typed; `refused` says why there is none of the others."""

    plans: Mapping[str, Plan]
    refused: Mapping[str, str]

    @property
    def summary(self) -> str:
        """The time of an iteration on each cluster."""
        times = [f"{name} {seconds_text(option.iteration_time_s)}" for name, option in self.answers.items()]
        return ", ".join([*times, *(f"{name} nothing" for name in self.unanswered)])

    @property
    def answers(self) -> dict[str, SizeOption]:
        """The best option of each cluster that has one."""
        return {name: plan.best for name, plan in self.plans.items() if plan.best is not None}

    @property
    def unanswered(self) -> tuple[str, ...]:
        """Clusters on which nothing fits, meets the limits or may exist."""
        return tuple(name for name in (*self.plans, *self.refused) if name not in self.answers)

    @property
    def fastest(self) -> str | None:
        """The cluster on which the run ends first; where no tokens are known, the one that trains most tokens a second."""
        return min(self.answers, key=lambda name: self.times(name)[0], default=None)

    @property
    def cheapest(self) -> str | None:
        """The cluster that asks the fewest dollars for as many tokens; None where a price is not known."""
        costs = {name: dollars_per_billion_tokens(option) for name, option in self.answers.items()}
        known = {name: cost for name, cost in costs.items() if cost is not None}
        return min(known, key=lambda name: known[name]) if known and len(known) == len(costs) else None

    def times(self, name: str) -> tuple[float, float, float]:
        """What a cluster takes for as many tokens [s or days]: the median and both ends of its 90 % interval."""
        option = self.answers[name]
        predicted, tokens_per_s = option.predictions[-1], tokens_per_second(option)
        low_s, high_s = (float(end) / option.iteration_time_s for end in predicted.iteration_time_interval_s)
        median = option.calendar_days or 1.0 / tokens_per_s
        return median, median * low_s, median * high_s

    @property
    def as_fast(self) -> tuple[str, ...]:
        """Clusters that may be as fast as the fastest: their intervals meet."""
        if self.fastest is None:
            return ()
        _, _, latest = self.times(self.fastest)
        return tuple(name for name in self.answers if name != self.fastest and self.times(name)[1] <= latest)

    def rows(self) -> list[dict[str, Any]]:
        """A row for each cluster: its best option, and in `refusal` why there is none."""
        return [self._row(name) for name in (*self.plans, *self.refused)]

    def _row(self, name: str) -> dict[str, Any]:
        option = self.answers.get(name)
        if option is None:
            reason = self.refused.get(name, "nothing fits, or nothing meets the limits")
            return {"cluster": name, **dict.fromkeys(COLUMNS), "refusal": reason} | dict.fromkeys(self._settings)
        predicted, settings = option.predictions[-1], option.chain.layouts[-1].settings
        low_s, high_s = (float(end) for end in predicted.iteration_time_interval_s)
        price = option.question.terms.dollars_per_gpu_hour
        values: tuple[Any, ...] = (
            *(option.gpus, option.iteration_time_s, low_s, high_s, float(predicted.mfu), tokens_per_second(option)),
            *(float(predicted.tokens_per_s_per_gpu), option.days or None, option.calendar_days or None),
            option.calendar_days_at(SURE) or None,
            *(option.gpu_hours or None, None if price is None else float(price), option.dollars),
            *(dollars_per_billion_tokens(option), option.memory_bytes, float(predicted.fit_probability)),
        )
        return {"cluster": name, **dict(zip(COLUMNS, values, strict=True)), "refusal": ""} | dict(settings)

    @property
    def _settings(self) -> tuple[str, ...]:
        """The settings of a layout, as the first answer has them."""
        return next((tuple(option.chain.layouts[-1].settings) for option in self.answers.values()), ())


def tokens_per_second(option: SizeOption) -> float:
    """Tokens of the last ramp stage that the whole cluster trains on in a second."""
    return float(np.asarray(option.predictions[-1].tokens_per_s))


def dollars_per_billion_tokens(option: SizeOption) -> float | None:
    """GPUs * price / tokens per second, of training that is not interrupted; None where no price is known."""
    price = option.question.terms.dollars_per_gpu_hour
    return None if price is None else BILLION * option.gpus * float(price) / SECONDS_PER_HOUR / tokens_per_second(option)
