"""One way to rent a cluster: so many GPUs, the best layout of each stage on them, and what that comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import calendar_days, effective_share, switch_s
from perfmodel.search.question import PlanQuestion
from perfmodel.search.ramp import LayoutChain, fastest_chain
from perfmodel.search.search import SearchResult, search
from perfmodel.search.space import Workload, layout_grids
from perfmodel.spec.fields import Numeric
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY

UNLIMITED_BYTES: Final = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeOption:
    """One number of GPUs with the fastest layouts on it. Days are 0 where no tokens are known, dollars None without a price."""

    workloads: tuple[Workload, ...]  # of each ramp stage
    results: tuple[SearchResult, ...]
    chain: LayoutChain
    days: float  # of training and of switching between layouts
    calendar_days: float  # with what failures take, on average
    gpu_hours: float  # of the calendar
    dollars: float | None

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
    option = _option(question, workloads, tuple(results), pause_s=_pause_s(question, workloads)) if fits else None
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
    return replace(searched, option=_option(free, searched.workloads, searched.results, pause_s=0.0))


def _pause_s(question: PlanQuestion, workloads: tuple[Workload, ...]) -> float:
    """How long the job takes to change from one layout to another."""
    largest = max(work.gpus for work in workloads)
    return float(switch_s(gpus=largest, parameters=parameter_count(question.model).total, terms=question.terms))


def _option(
    question: PlanQuestion, workloads: tuple[Workload, ...], results: tuple[SearchResult, ...], *, pause_s: float
) -> SizeOption:
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
        workloads=workloads,
        results=results,
        chain=chain,
        days=chain.total_s(pause_s) / SECONDS_PER_DAY if question.has_tokens else 0.0,
        calendar_days=calendar,
        gpu_hours=gpu_hours,
        dollars=None if paid is None else float(paid),
    )


def _calendar_days(question: PlanQuestion, gpus: int, parameters: Numeric, training_s: float) -> float:
    share = effective_share(gpus=gpus, parameters=parameters, terms=question.terms)
    return float(calendar_days(days=training_s / SECONDS_PER_DAY, effective_share=share))
