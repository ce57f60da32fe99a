"""How a plan looks on a terminal: the answer in a sentence, then why, what comes next to it, and what else there would be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.planning.alternatives import Alternative, differences
from perfmodel.planning.option import Option
from perfmodel.planning.plan import Plan, StagePlan
from perfmodel.planning.remedies import Obstacle
from perfmodel.planning.search import Candidate
from perfmodel.report.tables import GIBIBYTE, LABELS
from perfmodel.report.terminal import plain_table, section, titled
from perfmodel.units import gibibytes_text, large_text, seconds_text

SHORT: Final = {
    "tensor_parallel": "TP",
    "pipeline_parallel": "PP",
    "virtual_pipeline": "VP",
    "context_parallel": "CP",
    "data_parallel": "DP",
    "data_parallel_replicas": "copies",
    "micro_batch_size": "micro-batch",
    "recompute_layers": "layers again",
    "recompute": "recompute",
    "sharding": "sharding",
    "precision": "precision",
    "pipeline_schedule": "schedule",
    "sequence_parallel": "sequence parallel",
}
MOST_RIVALS: Final = 6
MOST_OF_FRONT: Final = 8
MOST_OPTIONS: Final = 16
TIGHT: Final = 0.97  # of the memory: what is above may be too much (docs/validation.md, memory)
SLOWEST: Final = 2.0  # times the best: who would give more for memory?


def plan_report(plan: Plan) -> Group:
    """The answer, the options, and for the best one each stage with its rivals, reasons and the price of less memory."""
    parts: list[RenderableType] = [*_verdict(plan)]
    if len(plan.options) > 1:
        parts.append(_options_table(plan))
    if plan.best is not None and len(plan.stages) > 1:
        parts.append(_ramp_table(plan, plan.best))
    for stage in plan.stages[-1:]:
        parts += [_rivals_table(stage), _reasons_table(stage), *_front_table(stage)]
    if plan.question.assumptions:
        parts.append(section("Assumptions", [("-", sentence) for sentence in plan.question.assumptions]))
    return Group(*parts)


def layout_text(settings: Mapping[str, Any]) -> str:
    """A layout in one line, without what is 1, off or follows: TP 8, PP 12, VP 8, DP 32, micro-batch 1, zero1, bf16.

    >>> layout_text({"tensor_parallel": 8, "pipeline_parallel": 1, "data_parallel": 96, "micro_batch_size": 1})
    'TP 8, DP 96, micro-batch 1'
    """
    words = [
        f"{SHORT[name]} {settings[name]}"
        for name in ("tensor_parallel", "pipeline_parallel", "virtual_pipeline", "context_parallel")
        if settings.get(name, 1) > 1
    ]
    words += [f"DP {settings['data_parallel']}", f"micro-batch {settings['micro_batch_size']}"]
    words += [name for name in (settings.get("sharding"),) if name and name != "none"]
    if settings.get("data_parallel_replicas", 1) > 1:
        words.append(f"{settings['data_parallel_replicas']} copies")
    words += [schedule for schedule in (settings.get("pipeline_schedule"),) if schedule and schedule != "1f1b"]
    if settings.get("sequence_parallel") and settings.get("tensor_parallel", 1) > 1:
        words.append("sequence parallel")
    if settings.get("recompute", "none") != "none":
        layers = f" of {settings['recompute_layers']} a stage" if "recompute_layers" in settings else ""
        words.append(f"{settings['recompute']} recompute{layers}")
    words += [precision for precision in (settings.get("precision"),) if precision and precision != "bf16"]
    return ", ".join(words)


def _verdict(plan: Plan) -> Iterator[Text]:
    question = plan.question
    if not plan.complete:
        yield Text("Stopped early: this is the best of what was looked at.", style="yellow")
    if plan.best is None:
        yield from _no_verdict(plan)
        return
    option, last = plan.best, plan.stages[-1]
    where = f"{question.model.name} on {option.gpus:,} GPUs of {question.cluster.name}"
    yield Text(f"{where}: {_outcome(option, last)}.")
    yield Text(f"{layout_text(last.best.settings)}.", style="bold")
    used, have = last.best.memory_bytes, float(question.cluster.gpu.memory_bytes)
    searched = f"Best of {plan.layouts:,} layouts, of which {plan.fitting:,} fit"
    yield Text(f"{searched}; it needs {gibibytes_text(used)} of {gibibytes_text(have)}.")
    if used > TIGHT * have:
        yield Text("That is tight: memory is predicted to a few percent; --leave-free 5% plans with room.", style="yellow")
    yield from _robust(last)
    yield from _limits(plan, option)


def _outcome(option: Option, last: StagePlan) -> str:
    low, high = (float(np.asarray(end)) for end in last.prediction.iteration_time_interval_s)
    seconds = f"{seconds_text(option.iteration_time_s)} an iteration ({low:.3g} to {high:.3g})"
    words = [seconds, f"MFU {100 * float(np.asarray(last.prediction.mfu)):.1f} %"]
    if option.days:
        words = [f"{days_text(option.calendar_days)} ({days_text(option.days)} of training)", *words]
        words.append(f"{option.gpu_hours:,.0f} GPU-hours")
    if option.dollars is not None and option.days:
        words.append(dollars_text(option.dollars))
    return ", ".join(words)


def days_text(days: float) -> str:
    """A duration for people.

    >>> days_text(13.94), days_text(0.12)
    ('13.9 days', '2.9 hours')
    """
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"


def dollars_text(amount: float) -> str:
    """A sum for people.

    >>> dollars_text(1_294_700), dollars_text(208_455.2)
    ('$1.295M', '$208,455')
    """
    return f"${large_text(amount)}" if amount >= 1e6 else f"${amount:,.0f}"


def _robust(stage: StagePlan) -> Iterator[Text]:
    if not stage.rivals:
        return
    share, found = stage.robustness.first_share[0], stage.robustness
    yield Text(
        f"Against its {len(stage.rivals)} nearest rivals it is first in {100 * share:.0f} % of the draws of what is uncertain; "
        f"it is {100 * found.behind:.1f} % behind the fastest on average, {100 * found.behind_most:.1f} % in one of twenty."
    )


def _limits(plan: Plan, option: Option) -> Iterator[Text]:
    question = plan.question
    if question.deadline_s is not None:
        days = question.deadline_s / 86400.0
        yield Text(f"It keeps the deadline of {days:.4g} days with {days - option.calendar_days:.1f} to spare.")
    if question.budget_dollars is not None and option.dollars is not None:
        left = question.budget_dollars - option.dollars
        yield Text(f"It keeps the budget of {dollars_text(question.budget_dollars)} with {dollars_text(left)} to spare.")


def _no_verdict(plan: Plan) -> Iterator[Text]:
    """Nothing fits, or what fits takes too long or costs too much."""
    question = plan.question
    if plan.obstacle is not None:
        yield from _obstacle(plan, plan.obstacle)
    elif not plan.looked:
        least = f"even at the peak rate it takes {plan.least_gpus:,} GPUs"
        yield Text(f"Nothing keeps the deadline: {least}, more than --most-gpus allows.", style="bold red")
    elif not plan.options:
        yield Text("Nothing that fits was found.", style="bold red")
    elif question.deadline_s is not None:
        fastest = min(plan.options, key=lambda option: option.calendar_days)
        days = question.deadline_s / 86400.0
        most = f"the fastest looked at, on {fastest.gpus:,} GPUs, takes {fastest.calendar_days:.1f}"
        cost = "" if fastest.dollars is None else f" and costs {dollars_text(fastest.dollars)}"
        limit = "" if question.budget_dollars is None else f" and {dollars_text(question.budget_dollars)}"
        yield Text(f"Nothing keeps {days:.4g} days{limit}: {most}{cost}.", style="bold red")
    elif question.budget_dollars is not None:
        cheapest = min(plan.options, key=lambda option: option.dollars or 0.0)
        least = f"the cheapest, on {cheapest.gpus:,} GPUs, costs {dollars_text(cheapest.dollars or 0.0)}"
        yield Text(f"Nothing costs at most {dollars_text(question.budget_dollars)}: {least}.", style="bold red")


def _obstacle(plan: Plan, found: Obstacle) -> Iterator[Text]:
    need, have = found.nearest.memory_bytes, float(found.workload.cluster.gpu.memory_bytes)
    name = f"{plan.question.model.name} does not fit on {found.workload.gpus:,} GPUs of {plan.question.cluster.name}"
    nearest = f"of {plan.layouts:,} layouts the one that comes nearest needs {gibibytes_text(need)} of {gibibytes_text(have)}"
    yield Text(f"{name}: {nearest}.", style="bold red")
    share = float(np.asarray(getattr(found.prediction.memory, found.part)))
    yield Text(f"Nearest: {layout_text(found.nearest.settings)}.")
    yield Text(f"Its largest part: {LABELS[found.part]}, {gibibytes_text(share)}.")
    for remedy in found.remedies:
        words = {
            "choice": "with all that the stack offers",
            "sharding": "with another sharding",
            "gpus": f"on {remedy.gpus:,} GPUs",
        }
        time = seconds_text(remedy.candidate.iteration_time_s)
        yield Text(f"It fits {words[remedy.kind]}: {layout_text(remedy.candidate.settings)}, {time} an iteration.")
    if not found.remedies:
        yield Text("No other sharding helps, nor more GPUs; a GPU with more memory, or fp8, may.")


def _options_table(plan: Plan) -> RenderableType:
    """One number of GPUs a line."""
    table = plain_table()
    for heading in ("GPUs", "iter. s", "days", "GPU-hours", "cost $", "GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    marks = ((plan.by_time, "fastest"), (plan.by_cost, "cheapest"), (plan.by_gpus, "fewest GPUs"))
    shown = _spread(plan.options, [option for option, _ in marks if option is not None])
    for option in shown:
        words = [word for marked, word in marks if marked is option]
        table.add_row(
            f"{option.gpus:,}",
            f"{option.iteration_time_s:.3f}",
            f"{option.calendar_days:.2f}" if option.days else "",
            f"{option.gpu_hours:,.0f}" if option.days else "",
            "" if option.dollars is None else dollars_text(option.dollars).removeprefix("$"),
            f"{option.memory_bytes / GIBIBYTE:.1f}",
            ", ".join(words) if option in plan.allowed else "outside the limits",
        )
    left_out = len(plan.options) - len(shown)
    return titled("Options" + (f" ({left_out} more were looked at)" if left_out else ""), table)


def _spread(options: Sequence[Option], marked: Sequence[Option]) -> list[Option]:
    """At most so many lines: the marked ones, and others evenly between."""
    if len(options) <= MOST_OPTIONS:
        return list(options)
    places = {round(place) for place in np.linspace(0, len(options) - 1, MOST_OPTIONS - len(marked))}
    return [option for place, option in enumerate(options) if place in places or any(option is each for each in marked)]


def _ramp_table(plan: Plan, option: Option) -> RenderableType:
    table = plain_table()
    for heading in ("stage", "batch", "GPUs", "iter. s", "MFU %", "GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout", overflow="fold", ratio=1)
    for number, (stage, work) in enumerate(zip(plan.stages, option.workloads, strict=True), start=1):
        table.add_row(
            *(f"{number}", f"{work.global_batch_size}", f"{work.gpus}", f"{stage.best.iteration_time_s:.3f}"),
            *(f"{100 * float(np.asarray(stage.prediction.mfu)):.1f}", f"{stage.best.memory_bytes / GIBIBYTE:.1f}"),
            layout_text(stage.best.settings),
        )
    switches = option.chain.switches
    return titled(f"The ramp: the layout changes {switches} time{'' if switches == 1 else 's'}", table)


def _rivals_table(stage: StagePlan) -> RenderableType:
    table = plain_table()
    for heading in ("iter. s", "slower", "GiB", "first"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what differs from the best", overflow="fold", ratio=1)
    ranked = list(zip((stage.best, *stage.rivals), stage.robustness.first_share, strict=True))
    for candidate, share in ranked[: MOST_RIVALS + 1]:
        slower = candidate.iteration_time_s / stage.best.iteration_time_s - 1
        table.add_row(
            f"{candidate.iteration_time_s:.4g}",
            "" if candidate is stage.best else f"{100 * slower:+.1f} %",
            f"{candidate.memory_bytes / GIBIBYTE:.1f}",
            f"{100 * share:.0f} %",
            "(the best)" if candidate is stage.best else _differing(stage.best, candidate),
        )
    return titled("The best and its nearest rivals (first: in so many of the draws)", table)


def _differing(best: Candidate, other: Candidate) -> str:
    changes = differences(best.settings, other.settings)
    return ", ".join(f"{SHORT[name]} {_value_text(value)}" for name, (_, value) in changes.items())


def _reasons_table(stage: StagePlan) -> RenderableType:
    """For each setting the nearest other values: what the best layout with that value costs, and where it loses."""
    table = plain_table()
    table.add_column("instead of", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold", ratio=1)
    for each in sorted(stage.alternatives, key=lambda one: one.slower_by):
        chosen = stage.best.settings.get(each.setting)
        table.add_row(
            f"{SHORT[each.setting]} {_value_text(chosen)}",
            _value_text(each.value),
            "does not fit" if each.candidate is None else f"{100 * each.slower_by:+.1f} %",
            _because(each),
        )
    return titled("Why not otherwise: one setting at another value, all others chosen anew", table)


def _because(each: Alternative) -> str:
    if each.candidate is None:
        return f"needs {gibibytes_text(each.needed_bytes)} at least"
    return f"{LABELS[each.part]} {1e3 * each.part_s:+.0f} ms" if each.part_s > 0 else ""


def _front_table(stage: StagePlan) -> Iterator[RenderableType]:
    """What less memory costs in time."""
    if len(stage.front) < 2:
        return
    table = plain_table()
    for heading in ("GiB", "iter. s", "slower"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout", overflow="fold", ratio=1)
    near = [each for each in stage.front if each.iteration_time_s <= SLOWEST * stage.front[0].iteration_time_s]
    places = sorted({round(place) for place in np.linspace(0, len(near) - 1, MOST_OF_FRONT)})
    for place in places:
        each = near[place]
        slower = each.iteration_time_s / stage.best.iteration_time_s - 1
        table.add_row(
            f"{each.memory_bytes / GIBIBYTE:.1f}",
            f"{each.iteration_time_s:.4g}",
            f"{100 * slower:+.1f} %" if place else "",
            layout_text(each.settings),
        )
    yield titled(f"What less memory costs ({len(places)} of {len(stage.front)} layouts that no other beats in both)", table)


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
