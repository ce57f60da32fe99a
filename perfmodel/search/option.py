"""One way to rent a cluster: so many GPUs, the best layout of each stage on them, and what that comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from perfmodel.count.parameters import parameter_count
from perfmodel.economics.cost import dollars
from perfmodel.economics.goodput import calendar_days, effective_share, switch_s
from perfmodel.search.question import Question
from perfmodel.search.ramp import Chain, fastest_chain
from perfmodel.search.search import Found, search
from perfmodel.search.space import Workload, blocks
from perfmodel.spec.fields import Numeric
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY

UNLIMITED_BYTES: Final = 1e18


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """The fastest layouts on so many GPUs. Days are 0 and dollars None where no tokens, or no price, are known."""

    workloads: tuple[Workload, ...]  # of each stage
    found: tuple[Found, ...]
    chain: Chain
    days: float  # of training and of switching between layouts
    calendar_days: float  # with what failures take, on average
    gpu_hours: float  # of the calendar
    dollars: float | None

    @property
    def gpus(self) -> int:
        """Of the largest stage."""
        return max(work.gpus for work in self.workloads)

    @property
    def iteration_time_s(self) -> float:
        """Of the last stage."""
        return self.chain.layouts[-1].iteration_time_s

    @property
    def memory_bytes(self) -> float:
        """Of the stage that needs most."""
        return max(layout.memory_bytes for layout in self.chain.layouts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What a search over one number of GPUs came to: an option, or None where nothing fits or no layout can exist."""

    gpus: int
    workloads: tuple[Workload, ...]
    found: tuple[Found, ...]
    option: Option | None

    @property
    def complete(self) -> bool:
        """Whether the search was not stopped."""
        return all(each.complete for each in self.found)


def looked(question: Question, gpus: int, *, workers: int | None, on_progress: Callable[[int], None]) -> Looked:
    """Search the layouts of every stage on `gpus`; stages that ask the same are searched once."""
    workloads = question.workloads(gpus)
    found: list[Found] = []
    for index, work in enumerate(workloads):
        if work in workloads[:index]:
            found.append(found[workloads.index(work)])
            continue
        found.append(search(blocks(work, question.choices), workers=workers, on_progress=on_progress))
        if not found[-1].complete or not found[-1].fitting:
            break
    fits = len(found) == len(workloads) and all(each.fastest for each in found)
    option = _option(question, workloads, tuple(found), pause_s=_pause_s(question, workloads)) if fits else None
    return Looked(gpus=gpus, workloads=workloads, found=tuple(found), option=option)


def floor(question: Question, gpus: int, *, workers: int | None, on_progress: Callable[[int], None]) -> Looked:
    """What no layout on `gpus` beats: the fastest if memory had no limit, nothing ran again and changing layouts took no time.

    It is found some times faster than `looked`, because most layouts differ in how many layers run again.
    """
    choices, gpu = question.choices, replace(question.cluster.gpu, memory_bytes=UNLIMITED_BYTES)
    if "none" in choices.recompute:
        choices = replace(choices, recompute=("none",))
    free = replace(question, choices=choices, cluster=replace(question.cluster, gpu=gpu))
    seen = looked(free, gpus, workers=workers, on_progress=on_progress)
    return seen if seen.option is None else replace(seen, option=_option(free, seen.workloads, seen.found, pause_s=0.0))


def _pause_s(question: Question, workloads: tuple[Workload, ...]) -> float:
    """How long a change of layout takes."""
    largest = max(work.gpus for work in workloads)
    return float(switch_s(gpus=largest, parameters=parameter_count(question.model).total, terms=question.terms))


def _option(question: Question, workloads: tuple[Workload, ...], found: tuple[Found, ...], *, pause_s: float) -> Option:
    largest = max(work.gpus for work in workloads)
    parameters = parameter_count(question.model).total
    iterations = question.iterations(workloads)
    weights = iterations if question.has_tokens else (1.0,) * len(iterations)
    chain = fastest_chain([each.fastest for each in found], weights, switch_s=pause_s)
    stages = [
        (work.gpus, _calendar_days(question, work.gpus, parameters, each.iteration_time_s * number))
        for each, number, work in zip(chain.layouts, iterations, workloads, strict=True)
    ]
    if question.has_tokens:
        stages.append((largest, chain.switches * pause_s / SECONDS_PER_DAY))
    calendar = sum(days for _, days in stages)
    gpu_hours = sum(HOURS_PER_DAY * gpus * days for gpus, days in stages)
    paid = dollars(gpu_hours=gpu_hours, gpus=largest, calendar_days=calendar, terms=question.terms)
    return Option(
        workloads=workloads,
        found=found,
        chain=chain,
        days=chain.total_s(pause_s) / SECONDS_PER_DAY if question.has_tokens else 0.0,
        calendar_days=calendar,
        gpu_hours=gpu_hours,
        dollars=None if paid is None else float(paid),
    )


def _calendar_days(question: Question, gpus: int, parameters: Numeric, training_s: float) -> float:
    share = effective_share(gpus=gpus, parameters=parameters, terms=question.terms)
    return float(calendar_days(days=training_s / SECONDS_PER_DAY, effective_share=share))
