"""The plan: which layout on how many GPUs, why, what comes next to it, and what stands in the way where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError
from perfmodel.frames import Tabular
from perfmodel.prediction import StagePrediction
from perfmodel.search.alternatives import Alternative, alternatives, predicted
from perfmodel.search.option import Looked, Option
from perfmodel.search.question import Question
from perfmodel.search.remedies import Obstacle, obstacle
from perfmodel.search.robustness import Robustness, robustness
from perfmodel.search.search import Candidate
from perfmodel.search.sizing import Sizing, least_gpus
from perfmodel.search.space import blocks
from perfmodel.units import SECONDS_PER_DAY

RIVALS: Final = 12  # the nearest layouts that the best is held against
RIVAL_SETTINGS: Final = (
    "tensor_parallel",
    "pipeline_parallel",
    "context_parallel",
    "micro_batch_size",
    "sharding",
    "precision",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """The layout of one stage: its prediction, its nearest rivals with theirs, and why it is the best."""

    prediction: StagePrediction
    best: Candidate
    rivals: tuple[Candidate, ...]  # the fastest with other degrees, micro-batch, sharding or precision
    alternatives: tuple[Alternative, ...]
    robustness: Robustness  # of the best and the rivals
    front: tuple[Candidate, ...]  # time against memory, the fastest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Tabular):
    """What a question comes to. `best` is None where nothing fits, or nothing meets the deadline or the budget."""

    question: Question
    looked: tuple[Looked, ...]  # every number of GPUs that was searched, the fewest first
    best: Option | None
    stages: tuple[StagePlan, ...]  # of the best
    obstacle: Obstacle | None  # where nothing fits
    least_gpus: int  # that the deadline needs at the peak rate; 1 without a deadline
    is_sized: bool  # whether a deadline or a budget decided how many GPUs
    complete: bool  # false where it was stopped

    @property
    def options(self) -> tuple[Option, ...]:
        """Every number of GPUs on which it fits, whether it meets the limits or not."""
        return tuple(each.option for each in self.looked if each.option is not None)

    @property
    def allowed(self) -> tuple[Option, ...]:
        """Those within the deadline and the budget."""
        return tuple(option for option in self.options if meets(option, self.question))

    @property
    def by_time(self) -> Option | None:
        """The option that is over first."""
        return min(self.allowed, key=lambda option: (_time(option), option.gpus), default=None)

    @property
    def by_cost(self) -> Option | None:
        """The cheapest: in dollars where there is a price, else in GPU-hours."""
        return min(self.allowed, key=lambda option: (_cost(option), option.gpus), default=None)

    @property
    def by_gpus(self) -> Option | None:
        """The one on the fewest GPUs."""
        return min(self.allowed, key=lambda option: option.gpus, default=None)

    @property
    def front(self) -> tuple[Option, ...]:
        """Options that no other beats in both time and cost (or GPUs, where no tokens are known), the fastest first."""
        kept: list[Option] = []
        for option in sorted(self.options, key=lambda each: (_time(each), _cost(each))):
            if not kept or _cost(option) < _cost(kept[-1]):
                kept.append(option)
        return tuple(kept)

    @property
    def layouts(self) -> int:
        """How many were looked at."""
        return sum(found.layouts for each in self.looked for found in each.found)

    @property
    def fitting(self) -> int:
        """How many of them fit in memory."""
        return sum(found.fitting for each in self.looked for found in each.found)

    def rows(self) -> list[dict[str, Any]]:
        """An option a row, with the layout of its last stage."""
        return [_row(option, option is self.best) for option in self.options]


def plan(
    question: Question,
    gpus: Sequence[int],
    *,
    most_gpus: int,
    workers: int | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Plan:
    """The best layouts on each of `gpus`; without any, on the number that the deadline or the budget asks for.

    `on_progress` is told how many layouts were looked at. Errors: InputError when no layout of any number can exist.
    """
    sizing = Sizing(question, most=most_gpus, workers=workers, on_progress=on_progress)
    sizing.look_at(gpus)
    seen = sorted(sizing.looked.values(), key=lambda each: each.gpus)
    possible = [each for each in seen if each.found[-1].layouts]
    if sizing.complete and seen and not possible:
        raise InputError(_impossible(question, seen))
    made = _made(question, seen, is_sized=not gpus, complete=sizing.complete)
    if made.options or not sizing.complete or not possible:
        return made
    in_the_way = obstacle(question, possible[-1], workers=workers, on_progress=on_progress, most=most_gpus)
    return replace(made, obstacle=in_the_way)


def meets(option: Option, question: Question) -> bool:
    """Whether an option keeps the deadline and the budget, where there are any."""
    late = question.deadline_s is not None and option.calendar_days * SECONDS_PER_DAY > question.deadline_s
    dear = question.budget_dollars is not None and (option.dollars or 0.0) > question.budget_dollars
    return not late and not dear


def _made(question: Question, looked_at: Sequence[Looked], *, is_sized: bool, complete: bool) -> Plan:
    """The fewest GPUs where there is a deadline, else the fastest."""
    allowed = [each.option for each in looked_at if each.option is not None and meets(each.option, question)]
    wanted = _time if question.deadline_s is None else _gpus
    best = min(allowed, key=lambda option: (wanted(option), option.gpus), default=None)
    stages = () if best is None else tuple(_stage_plans(best))
    return Plan(
        question=question,
        looked=tuple(looked_at),
        best=best,
        stages=stages,
        obstacle=None,
        least_gpus=least_gpus(question),
        is_sized=is_sized,
        complete=complete,
    )


def _stage_plans(option: Option) -> Iterable[StagePlan]:
    for work, found, best in zip(option.workloads, option.found, option.chain.layouts, strict=True):
        rivals = tuple(_rivals(found.fastest, best))[:RIVALS]
        predictions = [predicted(each, work) for each in (best, *rivals)]
        times = [each.iteration_time_s for each in (best, *rivals)]
        yield StagePlan(
            prediction=predictions[0],
            best=best,
            rivals=rivals,
            alternatives=alternatives(found, best, work),
            robustness=robustness(times, [each.uncertainty for each in predictions]),
            front=tuple(found.front),
        )


def _rivals(fastest: Sequence[Candidate], best: Candidate) -> Iterable[Candidate]:
    """The fastest of every other choice of degrees, micro-batch, sharding and precision; how much runs again is a detail.

    Layouts with the same figures are one in other words (zero1 where nothing is data parallel).
    """
    seen = {_degrees(best), best.figures}
    for each in fastest:
        if seen.isdisjoint({_degrees(each), each.figures}):
            seen |= {_degrees(each), each.figures}
            yield each


def _degrees(candidate: Candidate) -> tuple[Any, ...]:
    return tuple(candidate.settings.get(name) for name in RIVAL_SETTINGS)


def _time(option: Option) -> float:
    return option.calendar_days or option.iteration_time_s


def _gpus(option: Option) -> float:
    return float(option.gpus)


def _cost(option: Option) -> float:
    return option.dollars or option.gpu_hours or float(option.gpus)


def _impossible(question: Question, seen: Sequence[Looked]) -> str:
    """Why no layout of any number of GPUs can exist: what is chosen, or what divides."""
    numbers = ", ".join(f"{each.gpus:,}" for each in seen[:3]) + (" .." if len(seen) > 3 else "")
    works = [each.workloads[len(each.found) - 1] for each in seen]
    here = f"no layout of {numbers} GPUs trains {question.model.name} with a global batch of {works[0].global_batch_size:,}"
    choices = replace(question.choices, fixed={}, sequence_parallel=(True, False))
    if any(next(blocks(work, choices), None) is not None for work in works):
        return f"{here} and the values that it may choose; allow others"
    return f"{here}: data parallel has to divide both; a batch that is a multiple of the number of nodes has layouts"


def _row(option: Option, is_best: bool) -> dict[str, Any]:
    last = option.chain.layouts[-1]
    return {
        "best": is_best,
        "gpus": option.gpus,
        "iteration_time_s": last.iteration_time_s,
        "days": option.days or np.nan,
        "calendar_days": option.calendar_days or np.nan,
        "gpu_hours": option.gpu_hours or np.nan,
        "dollars": np.nan if option.dollars is None else option.dollars,
        "memory_bytes": option.memory_bytes,
    } | dict(last.settings)
