"""The plan: which layout on how many GPUs, why, what comes next to it, and what stands in the way where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError
from perfmodel.frames import OneLine, Tabular
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction
from perfmodel.search.alternatives import Alternative, alternatives, candidate_prediction
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.option import SizedSearch, SizeOption
from perfmodel.search.question import PlanQuestion
from perfmodel.search.remedies import Obstacle, obstacle
from perfmodel.search.robustness import Robustness, robustness
from perfmodel.search.sizing import Sizing, least_gpus
from perfmodel.spec.axes import CHOSEN

MOST_RANKED: Final = 20  # layouts of a number of GPUs in a table
MOST_RIVALS: Final = 12  # the nearest layouts that the best is held against
RIVAL_SETTINGS: Final = (
    *(axis.name for axis in CHOSEN),
    "micro_batch_size",
    "sharding",
    "precision",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class StagePlan(OneLine):
    """The best layout of one ramp stage: its prediction, the nearest rivals, and why no other is better."""

    prediction: StagePrediction
    best: LayoutCandidate
    rivals: tuple[LayoutCandidate, ...]  # the fastest with other degrees, micro-batch, sharding or precision
    alternatives: tuple[Alternative, ...]
    robustness: Robustness  # of the best and the rivals
    front: tuple[LayoutCandidate, ...]  # time against memory, the fastest first

    @property
    def summary(self) -> str:
        """The prediction of the best layout, and how many others are near."""
        first = f"first in {100 * self.robustness.first_share[0]:.0f} % of draws"
        return f"{self.prediction.summary}; {first}, beside {len(self.rivals)} rivals"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan(Tabular):
    """The answer to a plan question. `best` is None where nothing fits, or nothing meets the limits at the confidence."""

    question: PlanQuestion
    searches: tuple[SizedSearch, ...]  # one for each number of GPUs that was searched, the fewest first
    best: SizeOption | None
    stages: tuple[StagePlan, ...]  # those of the best option
    obstacle: Obstacle | None  # where nothing fits
    least_gpus: int  # what the deadline needs at the peak rate; 1 without a deadline
    is_sized: bool  # whether a deadline or a budget decided how many GPUs
    complete: bool  # false where the search was stopped

    @property
    def summary(self) -> str:
        """The best option, or that there is none, and how many layouts were looked at."""
        model, cluster = self.question.model.name, self.question.cluster.name
        nothing = "nothing meets the limits" if self.options else "nothing fits"
        return f"{model} on {cluster}: {nothing if self.best is None else self.best.summary}; of {self.layouts:,} layouts"

    @property
    def options(self) -> tuple[SizeOption, ...]:
        """The options of all numbers of GPUs on which a layout fits, whether they meet the limits or not."""
        return tuple(each.option for each in self.searches if each.option is not None)

    @property
    def allowed(self) -> tuple[SizeOption, ...]:
        """The options that meet the deadline and the budget at the confidence that is asked for."""
        return tuple(option for option in self.options if option.meets_limits)

    @property
    def by_time(self) -> SizeOption | None:
        """The option that ends first, of those that meet the limits."""
        return min(self.allowed, key=lambda option: (_time(option), option.gpus), default=None)

    @property
    def by_cost(self) -> SizeOption | None:
        """The cheapest option that meets the limits: in dollars where there is a price, else in GPU-hours."""
        return min(self.allowed, key=lambda option: (_cost(option), option.gpus), default=None)

    @property
    def by_gpus(self) -> SizeOption | None:
        """The option on the fewest GPUs, of those that meet the limits."""
        return min(self.allowed, key=lambda option: option.gpus, default=None)

    @property
    def likeliest(self) -> SizeOption | None:
        """The option with the best odds of meeting the limits; of equal ones the one that ends first, or that costs least."""
        second = _cost if self.question.deadline_s is None else _time
        return min(self.options, key=lambda option: (-option.limits_probability, second(option)), default=None)

    @property
    def front(self) -> tuple[SizeOption, ...]:
        """Options that no other beats in both time and cost (or GPUs, where no tokens are known), the fastest first."""
        kept: list[SizeOption] = []
        for option in sorted(self.options, key=lambda each: (_time(each), _cost(each))):
            if not kept or _cost(option) < _cost(kept[-1]):
                kept.append(option)
        return tuple(kept)

    @property
    def layouts(self) -> int:
        """How many layouts were looked at."""
        return sum(result.layouts for each in self.searches for result in each.results)

    @property
    def fitting(self) -> int:
        """How many of the layouts that were looked at fit in memory."""
        return sum(result.fitting for each in self.searches for result in each.results)

    def rows(self) -> list[dict[str, Any]]:
        """The fastest layouts of each number of GPUs, ranked by the iteration time of the last ramp stage.

        `best` marks the layout of the best option. Days, cost and odds are those of an option, and stand beside its own
        layout; `slower_by` is how much longer an iteration of another one takes.
        """
        return [row for option in self.options for row in _ranked(option, is_best=option is self.best)]


def plan(
    question: PlanQuestion,
    gpus: Sequence[int],
    *,
    most_gpus: int,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Plan:
    """The best layouts on each of `gpus`; where it is empty, on the numbers that the deadline or the budget asks for.

    `on_progress` is told how many layouts were looked at. Errors: InputError when no layout of any number can exist.
    """
    sizing = Sizing(question, most=most_gpus, workers=workers, on_progress=on_progress)
    sizing.search(gpus)
    searches = sorted(sizing.searches.values(), key=lambda each: each.gpus)
    possible = [each for each in searches if each.results[-1].layouts]
    if sizing.complete and searches and not possible:
        raise InputError(_impossible(question, searches))
    answer = _answer(question, searches, is_sized=not gpus, complete=sizing.complete)
    if answer.options or not sizing.complete or not possible:
        return answer
    in_the_way = obstacle(question, possible[-1], workers=workers, on_progress=on_progress, most=most_gpus)
    return replace(answer, obstacle=in_the_way)


def _answer(question: PlanQuestion, searches: Sequence[SizedSearch], *, is_sized: bool, complete: bool) -> Plan:
    """The plan whose best option has the fewest GPUs where there is a deadline, else the least time."""
    allowed = [each.option for each in searches if each.option is not None and each.option.meets_limits]
    wanted = _time if question.deadline_s is None else _gpus
    best = min(allowed, key=lambda option: (wanted(option), option.gpus), default=None)
    stages = () if best is None else tuple(_stage_plans(best))
    return Plan(
        question=question,
        searches=tuple(searches),
        best=best,
        stages=stages,
        obstacle=None,
        least_gpus=least_gpus(question),
        is_sized=is_sized,
        complete=complete,
    )


def _stage_plans(option: SizeOption) -> Iterable[StagePlan]:
    stages = zip(option.workloads, option.results, option.chain.layouts, option.predictions, strict=True)
    for work, result, best, predicted in stages:
        rivals = tuple(_rivals(result.fastest, best))[:MOST_RIVALS]
        predictions = [predicted, *(candidate_prediction(each, work) for each in rivals)]
        times = [each.iteration_time_s for each in (best, *rivals)]
        yield StagePlan(
            prediction=predictions[0],
            best=best,
            rivals=rivals,
            alternatives=alternatives(result, best, work),
            robustness=robustness(times, [each.uncertainty for each in predictions]),
            front=tuple(result.front),
        )


def _rivals(fastest: Sequence[LayoutCandidate], best: LayoutCandidate) -> Iterable[LayoutCandidate]:
    """The fastest layouts with other degrees, micro-batch, sharding or precision; how much runs again is a detail.

    Layouts with the same time and memory count once: they are one layout described twice (zero1 without data parallelism).
    """
    seen = {_degrees(best), best.figures}
    for each in fastest:
        if seen.isdisjoint({_degrees(each), each.figures}):
            seen |= {_degrees(each), each.figures}
            yield each


def _degrees(candidate: LayoutCandidate) -> tuple[Any, ...]:
    return tuple(candidate.settings.get(name) for name in RIVAL_SETTINGS)


def _time(option: SizeOption) -> float:
    return option.calendar_days or option.iteration_time_s


def _gpus(option: SizeOption) -> float:
    return float(option.gpus)


def _cost(option: SizeOption) -> float:
    return option.dollars or option.gpu_hours or float(option.gpus)


def _impossible(question: PlanQuestion, searches: Sequence[SizedSearch]) -> str:
    """Why no layout of any number of GPUs may exist: the settings that were given, or what divides the batch."""
    numbers = ", ".join(f"{each.gpus:,}" for each in searches[:3]) + (" .." if len(searches) > 3 else "")
    works = [each.workloads[len(each.results) - 1] for each in searches]
    here = f"no layout of {numbers} GPUs trains {question.model.name} with a global batch of {works[0].global_batch_size:,}"
    wider = replace(question.space, fixed={}, sequence_parallel=(True, False))
    if any(next(layout_grids(work, wider), None) is not None for work in works):
        return f"{here} under the settings that are given; allow other values"
    return f"{here}: data_parallel must divide both; make the batch a multiple of the number of nodes"


def _ranked(option: SizeOption, *, is_best: bool) -> Iterator[dict[str, Any]]:
    """The layout of an option and the fastest others on as many GPUs, each layout once, the fastest first."""
    chosen = option.chain.layouts[-1]
    others = {each.figures: each for each in option.results[-1].fastest if each.figures != chosen.figures}
    for rank, each in enumerate(sorted([chosen, *others.values()], key=lambda one: one.figures)[:MOST_RANKED], start=1):
        terms = _terms(option) if each is chosen else dict.fromkeys(_terms(option), np.nan)
        times = {"iteration_time_s": each.iteration_time_s, "slower_by": each.iteration_time_s / chosen.iteration_time_s - 1.0}
        ranks = {"gpus": option.gpus, "rank": rank, "best": is_best and each is chosen}
        yield ranks | times | terms | {"memory_bytes": each.memory_bytes} | dict(each.settings)


def _terms(option: SizeOption) -> dict[str, float]:
    """Days, cost and odds of an option by name."""
    return {
        "days": option.days or np.nan,
        "calendar_days": option.calendar_days or np.nan,
        "gpu_hours": option.gpu_hours or np.nan,
        "dollars": np.nan if option.dollars is None else option.dollars,
        **{name: np.nan if value is None else value for name, value in option.odds_figures().items()},
    }
