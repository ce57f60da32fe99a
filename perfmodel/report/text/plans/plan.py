"""How a plan looks on a terminal: the answer in sentences, then what else there would be, why, and what comes next to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType

from perfmodel.light_dataclass import dataclass
from perfmodel.report.text.plans.plan_odds import SURE, short_odds
from perfmodel.report.text.plans.plan_verdict import layout_text, recompute_text, verdict
from perfmodel.report.text.terminal import percent_text, plain_table, section, setting_text, titled
from perfmodel.report.words import LABELS, SHORT
from perfmodel.search.alternatives import Alternative, setting_differences
from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan, StagePlan
from perfmodel.spec.axes import TENSOR
from perfmodel.units import GIBIBYTE, SECONDS_PER_DAY, dollars_text, gibibytes_text, seconds_text

MOST_RIVALS: Final = 6
MOST_OF_FRONT: Final = 6
MOST_OPTIONS: Final = 16
SLOWEST: Final = 1.5  # times the best: who would give more for memory?
THE_BEST: Final = "(the best)"
HOW_MUCH_AGAIN: Final = frozenset({"recompute_layers", "recompute_modules"})  # what `recompute_text` says with the mode


def plan_report(plan: Plan) -> Group:
    """The answer, the options, and for the best one each stage with its rivals, reasons and the price of less memory."""
    parts: list[RenderableType] = [*verdict(plan)]
    if plan.options and (len(plan.searches) > 1 or plan.best is None):
        parts.append(options_table(plan))
    if plan.best is not None and len(plan.stages) > 1:
        parts.append(ramp_table(plan, plan.best))
    for stage in plan.stages[-1:]:
        tables = (*rivals_table(stage), *reasons_table(stage), *front_table(stage))
        parts += [titled(title if len(plan.stages) == 1 else f"Last stage: {title.lower()}", table) for title, table in tables]
    if plan.question.assumptions:
        parts.append(section("Assumptions", [("-", sentence) for sentence in plan.question.assumptions]))
    return Group(*parts)


def options_table(plan: Plan) -> RenderableType:
    """One number of GPUs a line, with the columns that are known; those that were asked for and cannot be, too."""
    marks = [(plan.by_time, "fastest"), (plan.by_gpus, "fewest")]
    if plan.question.has_tokens:
        marks.insert(1, (plan.by_cost, "cheapest"))
    shown = _spread(plan.options, [option for option, _ in marks if option is not None])
    lines = {option.gpus: _cells(option) | {"": _mark(option, plan, marks)} for option in shown}
    if not plan.is_sized:
        without = [each for each in plan.searches if each.option is None and each.complete]
        lines |= {
            each.gpus: {"GPUs": f"{each.gpus:,}", "": "nothing fits" if each.results[-1].layouts else "no layout can exist"}
            for each in without
        }
    table, known = plain_table(), _columns(lines.values())
    for heading in known:
        table.add_column(heading, justify="right" if heading else "left", no_wrap=bool(heading))
    for gpus in sorted(lines):
        table.add_row(*(lines[gpus].get(heading, "") for heading in known))
    left_out = len(plan.options) - len(shown)
    return titled("Options" + (f" ({left_out} more were looked at)" if left_out else ""), table)


def _cells(option: SizeOption) -> dict[str, str]:
    """What is known of an option, by its heading; GPU-hours where no price makes dollars of them."""
    cells = {
        "GPUs": f"{option.gpus:,}",
        "batch": f"{option.workloads[-1].global_batch_size:,}",
        "iteration s": f"{option.iteration_time_s:.3f}",
    }
    if option.days:
        cells |= {"days": f"{option.calendar_days:,.2f}", "p90": f"{option.calendar_days_at(SURE):,.2f}"}
        limited = option.deadline_probability is not None or option.budget_probability is not None
        cells |= {"odds": short_odds(option.limits_probability)} if limited else {}
        paid = {} if option.dollars is None else {"cost $": dollars_text(option.dollars).removeprefix("$")}
        cells |= paid or {"GPU-hours": f"{option.gpu_hours:,.0f}"}
    return cells | {"GiB": f"{option.memory_bytes / GIBIBYTE:.1f}"}


def _columns(lines: Collection[Mapping[str, str]]) -> list[str]:
    """The headings, without a batch that is the same everywhere; the remark comes last."""
    names = list(dict.fromkeys(name for cells in lines for name in cells if name))
    if len({cells["batch"] for cells in lines if "batch" in cells}) < 2:
        names.remove("batch")
    return [*names, ""]


def _mark(option: SizeOption, plan: Plan, marks: Sequence[tuple[SizeOption | None, str]]) -> str:
    """What speaks for it or against it."""
    if all(option is not each for each in plan.allowed):
        return "odds too low"
    words = [word for marked, word in marks if marked is option]
    if not words and all(option is not each for each in plan.front):
        words = ["slower and dearer" if plan.question.has_tokens else "fewer are faster"]
    return ", ".join(words)


def _spread(options: Sequence[SizeOption], marked: Sequence[SizeOption]) -> list[SizeOption]:
    """At most so many lines: the marked ones, and others evenly between."""
    if len(options) <= MOST_OPTIONS:
        return list(options)
    places = {round(place) for place in np.linspace(0, len(options) - 1, MOST_OPTIONS - len(marked))}
    return [option for place, option in enumerate(options) if place in places or any(option is each for each in marked)]


def ramp_table(plan: Plan, option: SizeOption) -> RenderableType:
    """A stage a line; its days are those of training."""
    table, known = plain_table(), plan.question.has_tokens
    for heading in ("stage", "batch", "GPUs", "iteration s", "MFU %", "GiB", *(["days"] if known else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("layout", overflow="fold", ratio=1)
    iterations = plan.question.iterations(option.workloads)
    for number, (stage, work, steps) in enumerate(zip(plan.stages, option.workloads, iterations, strict=True), start=1):
        days = [f"{steps * stage.best.iteration_time_s / SECONDS_PER_DAY:.2f}"] if known else []
        table.add_row(
            *(f"{number}", f"{work.global_batch_size:,}", f"{work.gpus:,}", f"{stage.best.iteration_time_s:.3f}"),
            *(f"{100 * float(stage.prediction.mfu):.1f}", f"{stage.best.memory_bytes / GIBIBYTE:.1f}", *days),
            layout_text(stage.best.layout),
        )
    return titled(f"The ramp: {_switches_text(option)}", table)


def _switches_text(option: SizeOption) -> str:
    switches = option.chain.switches
    if not switches:
        return "one layout for all of it"
    times = "once" if switches == 1 else "twice" if switches == 2 else f"{switches} times"
    taken_s = option.days * SECONDS_PER_DAY - option.chain.training_s
    return f"the job starts anew {times}" + (f", which takes {seconds_text(taken_s)}" if option.days else "")


def rivals_table(stage: StagePlan) -> Iterator[tuple[str, RenderableType]]:
    """The best and the layouts next to it, under their title; none where there is no other."""
    if not stage.rivals:
        return
    table = plain_table()
    for heading in ("iteration s", "slower", "GiB", "first"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what differs from the best", overflow="fold", ratio=1)
    ranked = list(zip((stage.best, *stage.rivals), stage.robustness.first_share, strict=True))
    for candidate, share in ranked[: MOST_RIVALS + 1]:
        table.add_row(*_figures(candidate, stage.best), f"{100 * share:.0f} %", differing(stage.best, candidate))
    yield "The best and its nearest rivals (first: in so many of the draws)", table


def _figures(candidate: LayoutCandidate, best: LayoutCandidate) -> tuple[str, str, str]:
    slower = candidate.iteration_time_s / best.iteration_time_s - 1
    gibibytes = f"{candidate.memory_bytes / GIBIBYTE:.1f}"
    return f"{candidate.iteration_time_s:#.4g}", "" if candidate.settings == best.settings else percent_text(slower), gibibytes


def differing(best: LayoutCandidate, other: LayoutCandidate) -> str:
    """What is not as in the best; what follows from other changes is left out."""
    changes = setting_differences(best.settings, other.settings)
    if 1 in changes.get(TENSOR.name, ()):
        changes.pop("sequence_parallel", None)
    if changes.keys() & HOW_MUCH_AGAIN:
        changes["recompute"] = (None, None)
    words = [
        f"recompute {recompute_text(other.settings)}" if name == "recompute" else f"{SHORT[name]} {setting_text(value)}"
        for name, (_, value) in changes.items()
        if name not in HOW_MUCH_AGAIN
    ]
    return ", ".join(words) or THE_BEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Another layout that was not taken: what changes, by how much it is slower (None: it does not fit), and why, in words.

    `part` is the part of the iteration that loses most.
    """

    change: str
    slower_by: float | None
    part: str
    time: str
    because: str


def rejections(stage: StagePlan) -> list[Rejection]:
    """For each setting the nearest other values: what the best layout with that value costs, and where it loses.

    Several settings may lead to one layout: TP 4 in place of 8 is also a micro-batch of 2 in place of 1.
    """
    layouts: dict[Any, list[Alternative]] = {}
    for each in sorted(stage.alternatives, key=lambda one: one.slower_by):
        if each.candidate is None:
            layouts[each.setting, each.value] = [each]
        elif each.candidate.figures != stage.best.figures:
            layouts.setdefault(tuple(each.candidate.settings.items()), []).append(each)
    return [
        Rejection(
            change=", ".join(_change_text(each, stage.best.settings) for each in same),
            slower_by=None if same[0].candidate is None else same[0].slower_by,
            part=same[0].part,
            time="does not fit" if same[0].candidate is None else percent_text(same[0].slower_by),
            because=_because(same[0]),
        )
        for same in layouts.values()
    ]


def reasons_table(stage: StagePlan) -> Iterator[tuple[str, RenderableType]]:
    """What was rejected and why, under its title; none where nothing else can be."""
    rows = rejections(stage)
    if not rows:
        return
    table = plain_table()
    table.add_column("change", overflow="fold")
    table.add_column("time", justify="right", no_wrap=True)
    table.add_column("because", overflow="fold")
    for each in rows:
        table.add_row(each.change, each.time, each.because)
    yield "Rejected alternatives: one setting changed, all others chosen anew", table


def _change_text(each: Alternative, best: Mapping[str, Any]) -> str:
    old, new = setting_text(best.get(each.setting)), setting_text(each.value)
    if each.setting == "recompute" and each.candidate is not None:
        old, new = recompute_text(best), recompute_text(each.candidate.settings)
    return f"{SHORT[each.setting]} {old} -> {new}"


def _because(each: Alternative) -> str:
    if each.candidate is None:
        return f"needs {gibibytes_text(each.needed_bytes)} at least"
    return f"{LABELS[each.part]} {1e3 * each.part_s:+.0f} ms" if each.part_s > 0 else ""


def front_table(stage: StagePlan) -> Iterator[tuple[str, RenderableType]]:
    """What less memory costs in time."""
    near = [each for each in stage.front if each.iteration_time_s <= SLOWEST * stage.front[0].iteration_time_s]
    if len(near) < 2:
        return
    table = plain_table()
    for heading in ("iteration s", "slower", "GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what differs from the best", overflow="fold", ratio=1)
    places = sorted({round(place) for place in np.linspace(0, len(near) - 1, MOST_OF_FRONT)})
    for place in places:
        table.add_row(*_figures(near[place], stage.best), differing(stage.best, near[place]))
    shown = f"{len(places)} of {len(stage.front)} that no other beats in both"
    yield f"What less memory costs ({shown})", table
