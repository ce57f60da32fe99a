"""One way to rent a cluster: so many GPUs, the best layout of each stage on them, and what that comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.calendar import CalendarOdds, StageWork, calendar_odds
from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import calendar_days, effective_share, switch_s
from perfmodel.frames import OneLine
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.prediction import StagePrediction
from perfmodel.search.alternatives import candidate_prediction
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import LayoutCandidate, SearchResult, search
from perfmodel.search.layouts.space import Workload
from perfmodel.search.question import PlanQuestion
from perfmodel.search.ramp import LayoutChain, fastest_chain
from perfmodel.spec.fields import Numeric
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, dollars_text, gpus_text, seconds_text

UNLIMITED_BYTES: Final = 1e18


@dataclass(frozen=True, kw_only=True, repr=False)
class SizeOption(OneLine):
    """One number of GPUs with the fastest layouts on it. Days are 0 where no tokens are known, dollars None without a price.

    The layouts are those of the least median time. How wide their intervals are is asked of them alone, not of every layout
    of a search (of the hundred fastest no other was less at 90 % in any of five searches, as widths differ less than times):
    `predictions` and `odds` are worked out when they are asked for.
    """

    question: PlanQuestion
    workloads: tuple[Workload, ...]  # of each ramp stage
    results: tuple[SearchResult, ...]
    chain: LayoutChain
    days: float  # of training and of switching between layouts
    calendar_days: float  # with what failures take, on average
    gpu_hours: float  # of the calendar
    dollars: float | None
    switches: int  # changes of layout that take time

    @property
    def summary(self) -> str:
        """GPUs, time, and where they are known days and cost."""
        days = f", {self.calendar_days:,.1f} calendar days" if self.days else ""
        paid = "" if self.dollars is None else f", {dollars_text(self.dollars)}"
        return f"{gpus_text(self.gpus)}, {seconds_text(self.iteration_time_s)} an iteration{days}{paid}"

    @cached_property
    def predictions(self) -> tuple[StagePrediction, ...]:
        """The prediction of the layout of each ramp stage, with its interval."""
        pairs = zip(self.chain.layouts, self.workloads, strict=True)
        return tuple(candidate_prediction(layout, work) for layout, work in pairs)

    @cached_property
    def odds(self) -> CalendarOdds | None:
        """The calendar and the bill, each with its interval around the figure of the search; None where no tokens are known."""
        if not self.question.has_tokens:
            return None
        found = self._odds(self.predictions)
        bill = None if found.dollars is None or self.dollars is None else replace(found.dollars, median=self.dollars)
        return CalendarOdds(days=replace(found.days, median=self.calendar_days), dollars=bill)

    def surest_odds(self, probability: float, *, within: float) -> CalendarOdds:
        """The odds with the layouts of least time at this probability, of those whose median is `within` of the fastest.

        No layout as fast undercuts them at this probability.
        """
        pairs = zip(self.results, self.workloads, strict=True)
        return self._odds([_surest(result.fastest, work, probability, within=within) for result, work in pairs])

    def _odds(self, predictions: Sequence[StagePrediction]) -> CalendarOdds:
        """The odds with these layouts of the ramp stages; all changes of layout are counted with the largest stage."""
        parameters = parameter_count(self.question.model).total
        largest = [work.gpus for work in self.workloads].index(self.gpus)
        works = [
            StageWork(
                gpus=work.gpus,
                parameters=parameters,
                days=predicted.training_days(stage.tokens or 0.0),
                switches=self.switches if place == largest else 0,
            )
            for place, (stage, work, predicted) in enumerate(
                zip(self.question.stages, self.workloads, predictions, strict=True)
            )
        ]
        return calendar_odds(works, self.question.terms)

    def calendar_days_at(self, probability: float) -> float:
        """Calendar days that are not exceeded with this probability; 0 where no tokens are known."""
        return 0.0 if self.odds is None else float(self.odds.days.quantile(probability))

    def dollars_at(self, probability: float) -> float | None:
        """Dollars that are not exceeded with this probability; None where no tokens or no price are known."""
        if self.odds is None or self.odds.dollars is None:
            return None
        return float(self.odds.dollars.quantile(probability))

    @property
    def deadline_probability(self) -> float | None:
        """The odds that it ends by the deadline; None without one."""
        if self.question.deadline_s is None or self.odds is None:
            return None
        return float(self.odds.days.probability_at_most(self.question.deadline_s / SECONDS_PER_DAY))

    @property
    def budget_probability(self) -> float | None:
        """The odds that it costs at most the budget; None without one."""
        if self.question.budget_dollars is None or self.odds is None or self.odds.dollars is None:
            return None
        return float(self.odds.dollars.probability_at_most(self.question.budget_dollars))

    @property
    def limits_probability(self) -> float:
        """The odds that it meets both limits: the lesser, as what makes a run late makes it dear as well; 1 without limits."""
        return min((each for each in (self.deadline_probability, self.budget_probability) if each is not None), default=1.0)

    @property
    def meets_limits(self) -> bool:
        """Whether it meets the deadline and the budget, where there are some, each at the confidence that is asked for."""
        deadline_s, budget, confidence = self.question.deadline_s, self.question.budget_dollars, self.question.confidence
        on_time = deadline_s is None or self.calendar_days_at(confidence) * SECONDS_PER_DAY <= deadline_s
        return on_time and (budget is None or (self.dollars_at(confidence) or 0.0) <= budget)

    def odds_figures(self) -> dict[str, float | None]:
        """What is not exceeded with odds of 50 and 90 %, and the odds of meeting the limits, by name; None if not known."""
        known = self.odds is not None
        return {
            "calendar_p50_days": self.calendar_days_at(0.5) if known else None,
            "calendar_p90_days": self.calendar_days_at(0.9) if known else None,
            "dollars_p50": self.dollars_at(0.5),
            "dollars_p90": self.dollars_at(0.9),
            "deadline_probability": self.deadline_probability,
            "budget_probability": self.budget_probability,
        }

    @property
    def gpus(self) -> int:
        """GPUs of the largest ramp stage."""
        return max(work.gpus for work in self.workloads)

    @property
    def iteration_time_s(self) -> float:
        """Iteration time of the last ramp stage."""
        return self.chain.layouts[-1].iteration_time_s

    @property
    def memory_bytes(self) -> float:
        """Memory of one GPU in the ramp stage that needs most."""
        return max(layout.memory_bytes for layout in self.chain.layouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedSearch:
    """The search of all ramp stages on one number of GPUs; `option` is None where nothing fits or no layout may exist."""

    gpus: int
    workloads: tuple[Workload, ...]
    results: tuple[SearchResult, ...]
    option: SizeOption | None

    @property
    def complete(self) -> bool:
        """Whether the search looked at every layout: nobody stopped it."""
        return all(each.complete for each in self.results)


def sized_search(question: PlanQuestion, gpus: int, *, workers: int | None, on_progress: Callable[[int], None]) -> SizedSearch:
    """The search of the layouts of every ramp stage on `gpus`; stages with the same workload are searched once."""
    workloads = question.workloads(gpus)
    results: list[SearchResult] = []
    for index, work in enumerate(workloads):
        if work in workloads[:index]:
            results.append(results[workloads.index(work)])
            continue
        results.append(search(layout_grids(work, question.space), workers=workers, on_progress=on_progress))
        if not results[-1].complete or not results[-1].fitting:
            break
    fits = len(results) == len(workloads) and all(each.fastest for each in results)
    option = _option(question, workloads, tuple(results)) if fits else None
    return SizedSearch(gpus=gpus, workloads=workloads, results=tuple(results), option=option)


def lower_bound_search(
    question: PlanQuestion, gpus: int, *, workers: int | None, on_progress: Callable[[int], None]
) -> SizedSearch:
    """A search whose option no layout on `gpus` beats: memory has no limit, nothing runs again, changing layouts takes no time.

    It takes a fraction of the time of `sized_search`, because most layouts differ only in how many layers run again.
    """
    space, gpu = question.space, replace(question.cluster.gpu, memory_bytes=UNLIMITED_BYTES)
    if "none" in space.recompute:
        space = replace(space, recompute=("none",))
    free = replace(question, space=space, cluster=replace(question.cluster, gpu=gpu))
    searched = sized_search(free, gpus, workers=workers, on_progress=on_progress)
    if searched.option is None:
        return searched
    return replace(searched, option=_option(question, question.workloads(gpus), searched.results, switching=False))


def _surest(fastest: Sequence[LayoutCandidate], work: Workload, probability: float, *, within: float) -> StagePrediction:
    """The layout whose iteration time is least at this probability, of those nearly as fast as the fastest by their median."""
    near = [each for each in fastest if each.iteration_time_s <= (1.0 + within) * fastest[0].iteration_time_s]
    predictions = (candidate_prediction(each, work) for each in near)
    return min(predictions, key=lambda each: float(each.estimate_s.quantile(probability)))


def _pause_s(question: PlanQuestion, workloads: tuple[Workload, ...]) -> float:
    """How long the job takes to change from one layout to another."""
    largest = max(work.gpus for work in workloads)
    return float(switch_s(gpus=largest, parameters=parameter_count(question.model).total, terms=question.terms))


def _option(
    question: PlanQuestion, workloads: tuple[Workload, ...], results: tuple[SearchResult, ...], *, switching: bool = True
) -> SizeOption:
    """The fastest chain of layouts and what it comes to; `switching` says whether a change of layout takes time."""
    pause_s = _pause_s(question, workloads) if switching else 0.0
    largest = max(work.gpus for work in workloads)
    parameters = parameter_count(question.model).total
    iterations = question.iterations(workloads)
    weights = iterations if question.has_tokens else (1.0,) * len(iterations)
    chain = fastest_chain([each.fastest for each in results], weights, switch_s=pause_s)
    stages = [
        (work.gpus, _calendar_days(question, work.gpus, parameters, each.iteration_time_s * number))
        for each, number, work in zip(chain.layouts, iterations, workloads, strict=True)
    ]
    if question.has_tokens:
        stages.append((largest, chain.switches * pause_s / SECONDS_PER_DAY))
    calendar = sum(days for _, days in stages)
    gpu_hours = sum(HOURS_PER_DAY * gpus * days for gpus, days in stages)
    paid = dollars(gpu_hours=gpu_hours, gpus=largest, calendar_days=calendar, terms=question.terms)
    return SizeOption(
        question=question,
        workloads=workloads,
        results=results,
        chain=chain,
        days=chain.total_s(pause_s) / SECONDS_PER_DAY if question.has_tokens else 0.0,
        calendar_days=calendar,
        gpu_hours=gpu_hours,
        dollars=None if paid is None else float(paid),
        switches=chain.switches if switching else 0,
    )


def _calendar_days(question: PlanQuestion, gpus: int, parameters: Numeric, training_s: float) -> float:
    share = effective_share(gpus=gpus, parameters=parameters, terms=question.terms)
    return float(calendar_days(days=training_s / SECONDS_PER_DAY, effective_share=share))
