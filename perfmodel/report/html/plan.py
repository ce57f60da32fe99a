"""The page of a plan: the answer, the map of all layouts, the rivals and why they lost, and what other numbers of GPUs come to.

from perfmodel.report.html.plan import plan_page
plan_page(pm.plan("llama-3.1-70b", cluster="dgx-h200", deadline="14d", tokens="2T", price=2.5)).save("plan.html")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

from rich.console import Group
from rich.text import Text

from perfmodel.report.figures.plans.plan_front import plan_front_figure
from perfmodel.report.figures.plans.plan_map import plan_map_figure
from perfmodel.report.figures.plans.plan_options import plan_options_figure
from perfmodel.report.figures.plans.rivals import rejections_figure, rivals_figure
from perfmodel.report.html.blocks import as_html, as_table, beside
from perfmodel.report.html.deadlines import deadline_label, deadlines_days, deadlines_report, odds_by
from perfmodel.report.html.document import Page, PageHeader, Section, page
from perfmodel.report.html.drawn import Draw, Progress, drawn, quiet
from perfmodel.report.html.live import BETWEEN, COST, LiveTerms, Slider, days_text, live_box, mfu_text
from perfmodel.report.text.plans.plan import front_table, options_table, ramp_table, reasons_table, rivals_table
from perfmodel.report.text.plans.plan_odds import SURE, limits, short_odds
from perfmodel.report.text.plans.plan_verdict import layout_text, robustness_text, tightness, verdict
from perfmodel.report.text.terminal import section
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan
from perfmodel.search.plan_map import plan_map
from perfmodel.units import SECONDS_PER_DAY, dollars_text, gibibytes_text, gpus_text, seconds_interval_text, seconds_text

TITLES: Final = {
    "map": "Map of the layouts",
    "rejected": "Why not another setting",
    "rivals": "Nearest rivals",
    "front": "Time against memory",
    "options": "Other numbers of GPUs",
    "ramp": "Stages of the ramp",
    "assumptions": "Assumptions",
}
GISTS: Final = {
    "rivals": "where the iteration of each goes",
    "front": "what less memory costs in time",
    "options": "time against cost",
    "ramp": "the layout of each stage",
    "assumptions": "what was not said",
}
OPEN: Final = ("map", "rejected")
ALONE: Final = "The fewest GPUs for each deadline"
MOVED: Final = {
    "GPUs": "gpus",
    "Iteration": "time",
    "MFU": "mfu",
    "Days": "days",
    "GPU-hours": "hours",
    "Memory of one GPU": "memory",
    "Odds": "odds",
    COST: "cost",
}


def plan_page(plan: Plan, *, command: str = "", on_progress: Progress = quiet) -> Page:
    """The page of a plan, also of one that found nothing; `command` is the one that makes it again."""
    figures, shown = drawn(_figures(plan), TITLES.values(), on_progress)
    contents = _contents(plan, shown)
    sections = [
        Section(
            name=name,
            title=title,
            content=contents[name],
            gist=GISTS.get(name, ""),
            is_open=name in OPEN,
            is_half=name not in ("ramp", "assumptions"),
        )
        for name, title in TITLES.items()
        if contents.get(name)
    ]
    return page(_opening(plan), sections, command=command, figures=figures)


def _figures(plan: Plan) -> dict[str, Draw]:
    """Those that there is something to draw of."""
    wanted: dict[str, Draw] = {}
    if plan.best is not None:
        found = plan_map(plan.best.workloads[-1], plan.question.space)
        wanted |= {"map": partial(plan_map_figure, plan, found), "rejected": partial(rejections_figure, plan)}
        wanted |= {"rivals": partial(rivals_figure, plan), "front": partial(plan_front_figure, plan)}
    if len(plan.options) > 1:
        wanted["options"] = partial(plan_options_figure, plan)
    return wanted


def _contents(plan: Plan, shown: dict[str, str]) -> dict[str, str]:
    """The HTML of each section, by its name: a figure, and the table behind it."""
    found: dict[str, str] = {}
    if plan.stages:
        last = plan.stages[-1]
        tables = {"rejected": reasons_table(last), "rivals": rivals_table(last), "front": front_table(last)}
        found |= {
            name: beside(shown.get(name, ""), as_table("\n".join(as_html(table) for _, table in rows)))
            for name, rows in tables.items()
        }
        found["map"] = shown.get("map", "")
        found["rivals"] = beside(found["rivals"], as_html(Group(*robustness_text(last))))
    if len(plan.searches) > 1 or (plan.options and plan.best is None):
        found["options"] = beside(shown.get("options", ""), as_table(as_html(options_table(plan))))
    if plan.best is not None and len(plan.stages) > 1:
        found["ramp"] = as_html(ramp_table(plan, plan.best))
    if plan.question.assumptions:
        found["assumptions"] = as_html(section("What was assumed", [("-", each) for each in plan.question.assumptions]))
    return found


def _opening(plan: Plan) -> PageHeader:
    """The layout, whether it keeps the limits, and its numbers at a glance; where there is none, what is in the way."""
    question = plan.question
    return PageHeader(
        title=f"{question.model.name} on {question.cluster.name}",
        subtitle=f"The best layouts for {question.stack.name}, sequences of {question.sequence_length:,} tokens",
        answer=plan.best is not None,
        verdict=as_html(Group(*_sentences(plan))),
        glance={} if plan.best is None else dict(_glance(plan, plan.best)),
        live=sliders(plan),
        moved=MOVED,
    )


def _sentences(plan: Plan) -> Iterator[Text]:
    if plan.best is None:
        yield from verdict(plan)
        return
    last = plan.stages[-1]
    which = "Last stage: " if len(plan.stages) > 1 else ""
    yield Text(f"{which}{layout_text(last.best.layout)}; batch {plan.best.workloads[-1].global_batch_size:,}.", style="green")
    if not plan.complete:
        yield Text("Stopped early: this is the best of what was looked at.", style="yellow")
    yield from tightness(plan)
    yield from limits(plan, plan.best)


def _glance(plan: Plan, option: SizeOption) -> Iterator[tuple[str, tuple[str, str]]]:
    """The numbers that people ask for first, each with what is said of it."""
    last, gpu = plan.stages[-1], plan.question.cluster.gpu
    low, high = (float(end) for end in last.prediction.iteration_time_interval_s)
    told = dict(option_texts(option))
    yield "GPUs", (told["gpus"][0], gpu.name)
    if "days" in told:
        yield "Days", told["days"]
    yield "Iteration", (told["time"][0], f"90 %: {seconds_interval_text(low, high, around_s=option.iteration_time_s)}")
    rate = f"{float(last.prediction.tokens_per_s_per_gpu):,.0f} tokens/s/GPU"
    yield "MFU", (told["mfu"][0], rate)
    yield "Memory of one GPU", told["memory"]
    if "hours" in told:
        yield "GPU-hours", told["hours"]
        yield COST, told.get("cost", ("-", "no price is given"))
    if "odds" in told:
        yield "Odds", told["odds"]
    yield "Layouts looked at", (f"{plan.layouts:,}", f"{plan.fitting:,} of them fit")


def option_texts(option: SizeOption) -> Iterator[tuple[str, tuple[str, str]]]:
    """What a page says of a number of GPUs: quantity -> number, and what stands below it in small letters."""
    last = option.predictions[-1]
    capacity = float(option.question.cluster.gpu.memory_bytes)
    yield "gpus", (f"{option.gpus:,}", "")
    yield "time", (seconds_text(option.iteration_time_s), layout_text(option.chain.layouts[-1].layout))
    yield "mfu", (mfu_text(float(last.mfu)), f"{float(last.tokens_per_s_per_gpu):,.0f} tokens/s/GPU")
    yield "memory", (gibibytes_text(option.memory_bytes), f"of {gibibytes_text(capacity)}")
    if option.days:
        sure = f"calendar; at most {days_text(option.calendar_days_at(SURE))} with odds of {100 * SURE:.0f} %"
        yield "days", (days_text(option.calendar_days), sure)
        lost = 100.0 * (1.0 - option.days / option.calendar_days)
        yield "hours", (f"{option.gpu_hours:,.0f}", f"{lost:.1f} % of them do not train")
    if option.dollars is not None and option.days:
        at_most = option.dollars_at(SURE) or option.dollars
        yield "cost", (dollars_text(option.dollars), f"at most {dollars_text(at_most)} with those odds")
    if option.deadline_probability is not None or option.budget_probability is not None:
        yield "odds", (short_odds(option.limits_probability), "of keeping the limits")


def sliders(plan: Plan) -> str:
    """What if it were another number of GPUs that was searched, another deadline or another price; nothing where there is none.

    Where there are several numbers of GPUs, a table says which are the fewest for each deadline.
    """
    option, terms = plan.best, plan.question.terms
    if option is None:
        return ""
    own = None if terms.dollars_per_gpu_hour is None else float(terms.dollars_per_gpu_hour)
    live = LiveTerms(
        switch_gpu_hours=0.0, dollars_per_gpu_hour=own, is_priced=bool(option.days) and terms.billing == "on_demand"
    )
    sizes, deadlines = _sizes(plan), _slid_deadlines(plan)
    axes = [Slider(name="GPUs", labels=tuple(gpus_text(each.gpus) for each in sizes), place=sizes.index(option))]
    if deadlines:
        place = deadlines.index((plan.question.deadline_s or 0.0) / SECONDS_PER_DAY)
        axes.append(Slider(name="deadline", labels=tuple(map(deadline_label, deadlines)), place=place))
    axes = [each for each in axes if len(each.labels) > 1]
    if not axes and not live.is_priced:
        return ""
    table = (ALONE, as_html(deadlines_report(plan, deadlines_days(plan)))) if len(sizes) > 1 and option.days else None
    return live_box(axes, plan_data(plan), live, table)


def _sizes(plan: Plan) -> list[SizeOption]:
    """The options, the fewest GPUs first."""
    return sorted(plan.options, key=lambda each: each.gpus)


def _slid_deadlines(plan: Plan) -> tuple[float, ...]:
    """The deadlines of the slider [days]; none where the plan has no deadline of its own."""
    return () if plan.question.deadline_s is None else deadlines_days(plan)


def plan_data(plan: Plan) -> dict[str, object]:
    """What the script looks up: the texts of every number of GPUs, the fewest first, by each deadline."""
    sizes, deadlines = _sizes(plan), _slid_deadlines(plan)
    here = [sizes.index(plan.best)] if plan.best is not None else []
    here += [deadlines.index((plan.question.deadline_s or 0.0) / SECONDS_PER_DAY)] if deadlines else []
    shape = [len(sizes), *([len(deadlines)] if deadlines else [])]
    told = [texts for each in sizes for texts in _texts_by(each, deadlines)]
    names = [name for name in told[0] if all(name in each for each in told)]
    moved = [place for place, number in enumerate(shape) if number > 1]
    return {
        "shape": [shape[place] for place in moved],
        "here": [here[place] for place in moved],
        "texts": {name: BETWEEN.join(each[name][0] for each in told) for name in names},
        "notes": {name: BETWEEN.join(each[name][1] for each in told) for name in names},
    }


def _texts_by(option: SizeOption, deadlines: Sequence[float]) -> list[dict[str, tuple[str, str]]]:
    """The texts of an option by each deadline, or once where there is none."""
    texts = dict(option_texts(option))
    by = ((days, f"of being done in {deadline_label(days)}") for days in deadlines)
    return [texts | {"odds": (short_odds(odds_by(option, days)), note)} for days, note in by] or [texts]
