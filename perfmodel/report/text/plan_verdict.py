"""What a plan comes to, in sentences: the answer, whether it is robust, what the limits leave, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from perfmodel.count.fit import FITS
from perfmodel.report.text.prediction import layout_words, odds_text
from perfmodel.report.words import LABELS, SHORT_DEGREES
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan, StagePlan
from perfmodel.search.remedies import Obstacle
from perfmodel.spec.layout import Layout
from perfmodel.units import SECONDS_PER_DAY, dollars_text, gibibytes_text, gpus_text, seconds_text

ROBUST: Final = 0.9  # of the draws
CHEAP_LOSS: Final = 0.02  # of the time, in one draw of twenty


def verdict(plan: Plan) -> Iterator[Text]:
    """The answer first, then what supports it."""
    if plan.best is None:
        yield from _no_answer(plan)
        return
    if not plan.complete:
        yield Text("Stopped early: this is the best of what was looked at.", style="yellow")
    question, option, last = plan.question, plan.best, plan.stages[-1]
    where = f"{question.model.name} on {gpus_text(option.gpus)} of {question.cluster.name}"
    of_last = " of the last stage" if len(plan.stages) > 1 else ""
    batch = option.workloads[-1].global_batch_size
    yield Text(f"{where}: {_outcome(option, last, of_last)}.")
    yield Text(f"{'Last stage: ' if of_last else ''}{layout_text(last.best.layout)}; batch {batch:,}.", style="bold")
    used, have = last.best.memory_bytes, float(question.cluster.gpu.memory_bytes)
    searched = f"The fastest of {plan.layouts:,} layouts looked at, of which {plan.fitting:,} fit"
    if len(plan.options) > 1 or len(plan.stages) > 1:
        searched = f"{plan.layouts:,} layouts were looked at, of which {plan.fitting:,} fit"
    yield Text(f"{searched}; it needs {gibibytes_text(used)} of {gibibytes_text(have)}.")
    if last.prediction.verdict != FITS:
        odds = odds_text(float(last.prediction.fit_probability))
        yield Text(f"That is tight, with {odds}; --leave-free 5% plans with room.", style="yellow")
    yield from _robust(last)
    if option.days:
        lost = 100 * (1 - option.days / option.calendar_days)
        yield Text(f"Failures, restarts and checkpoints take {lost:.1f} % of the calendar.")
    yield from _limits(plan, option)


def layout_text(layout: Layout) -> str:
    """A layout in one line, without what is 1, off or bf16: TP 8, PP 12, VP 8, DP 32, micro-batch 1, zero1."""
    return ", ".join(word for word in layout_words(layout, SHORT_DEGREES) if word != "bf16")


def recompute_text(settings: Mapping[str, Any]) -> str:
    """What runs again: none, selective, full, or full in some layers of a stage.

    >>> recompute_text({"recompute": "full", "recompute_layers": 3})
    'full (3 a stage)'
    """
    number = settings.get("recompute_layers")
    layers = "" if number is None else f" ({number} a stage)"
    return f"{settings.get('recompute', 'none')}{layers}"


def days_text(days: float) -> str:
    """A duration for people.

    >>> days_text(13.94), days_text(0.12), days_text(0.001)
    ('13.9 days', '2.9 hours', '1.4 minutes')
    """
    for least, parts, unit in ((1.0, 1, "days"), (1 / 24, 24, "hours")):
        if days >= least:
            return f"{parts * days:,.1f} {unit}"
    return f"{1440 * days:.1f} minutes"


def _outcome(option: SizeOption, last: StagePlan, of_last: str) -> str:
    low, high = (f"{float(end):#.3g}".rstrip(".") for end in last.prediction.iteration_time_interval_s)
    words = [f"{seconds_text(option.iteration_time_s)} an iteration{of_last} ({low} to {high})"]
    words.append(f"MFU {100 * float(last.prediction.mfu):.1f} %")
    if option.days:
        words = [f"{days_text(option.calendar_days)} ({days_text(option.days)} of training)", *words]
        words.append(f"{option.gpu_hours:,.0f} GPU-hours")
    if option.dollars is not None and option.days:
        words.append(dollars_text(option.dollars))
    return ", ".join(words)


def _robust(stage: StagePlan) -> Iterator[Text]:
    """How sure the first place is."""
    if not stage.rivals:
        return
    share, found = stage.robustness.first_share[0], stage.robustness
    rivals = f"its {len(stage.rivals)} nearest rivals" if len(stage.rivals) > 1 else "its nearest rival"
    if share >= ROBUST:
        word = "Robust"
    else:
        word = "A close call that costs little" if found.regret_p95 <= CHEAP_LOSS else "A close call"
    first = f"{word}: against {rivals} it is the fastest in {100 * share:.0f} % of draws of the uncertain numbers"
    mean, most = 100 * found.mean_regret, 100 * found.regret_p95
    loses = f", and loses {mean:.1f} % to the fastest on average, {most:.1f} % in one draw of twenty"
    yield Text(f"{first}{loses if max(mean, most) >= 0.05 else ''}.")  # 0.0 % says nothing


def _limits(plan: Plan, option: SizeOption) -> Iterator[Text]:
    question = plan.question
    if question.deadline_s is not None:
        days = question.deadline_s / SECONDS_PER_DAY
        which = "The fewest GPUs that keep" if plan.is_sized and plan.complete else "It keeps"
        yield Text(f"{which} the deadline of {days_text(days)}, with {days_text(days - option.calendar_days)} to spare.")
        yield from _cheaper(plan, option)
    if question.budget_dollars is not None and option.dollars is not None:
        is_fastest = plan.is_sized and plan.complete and question.deadline_s is None
        which = "The fastest that costs at most" if is_fastest else "It costs at most"
        left = dollars_text(question.budget_dollars - option.dollars)
        yield Text(f"{which} {dollars_text(question.budget_dollars)}, with {left} to spare.")


def _cheaper(plan: Plan, option: SizeOption) -> Iterator[Text]:
    """More GPUs may divide better, and cost less."""
    other = plan.by_cost
    if other is None or other is option:
        return
    less = f"{option.gpu_hours - other.gpu_hours:,.0f} GPU-hours"
    if option.dollars is not None and other.dollars is not None:
        less = dollars_text(option.dollars - other.dollars)
    yield Text(f"More would cost less: {gpus_text(other.gpus)} are done in {days_text(other.calendar_days)}, for {less} less.")


def _no_answer(plan: Plan) -> Iterator[Text]:
    """Nothing fits, or what fits takes too long or costs too much."""
    question = plan.question
    if plan.obstacle is not None:
        yield from _obstacle(plan, plan.obstacle)
    elif not plan.complete:
        yield Text("Stopped early, before anything that fits and keeps the limits was found.", style="bold red")
    elif not plan.searches:
        least = f"even at the peak rate it takes {gpus_text(plan.least_gpus)}"
        yield Text(f"Nothing keeps the deadline: {least}, more than --most-gpus allows.", style="bold red")
    elif not plan.options:
        yield Text("Nothing that fits was found.", style="bold red")
    elif question.deadline_s is not None:
        fastest = min(plan.options, key=lambda option: option.calendar_days)
        most = f"the fastest looked at, on {gpus_text(fastest.gpus)}, takes {days_text(fastest.calendar_days)}"
        cost = "" if fastest.dollars is None else f" and costs {dollars_text(fastest.dollars)}"
        limit = "" if question.budget_dollars is None else f" and {dollars_text(question.budget_dollars)}"
        yield Text(f"Nothing keeps {days_text(question.deadline_s / SECONDS_PER_DAY)}{limit}: {most}{cost}.", style="bold red")
        if not plan.is_sized:
            yield Text("Without --gpus, the deadline decides how many.")
    elif question.budget_dollars is not None:
        cheapest = min(plan.options, key=lambda option: option.dollars or 0.0)
        least = f"the cheapest looked at, on {gpus_text(cheapest.gpus)}, costs {dollars_text(cheapest.dollars or 0.0)}"
        yield Text(f"Nothing costs at most {dollars_text(question.budget_dollars)}: {least}.", style="bold red")


def _obstacle(plan: Plan, found: Obstacle) -> Iterator[Text]:
    need, have = found.nearest.memory_bytes, float(found.workload.cluster.gpu.memory_bytes)
    name = f"{plan.question.model.name} does not fit on {gpus_text(found.workload.gpus)} of {plan.question.cluster.name}"
    nearest = f"of {plan.layouts:,} layouts, the one that needs least needs {gibibytes_text(need)}"
    yield Text(f"{name}: {nearest}; the GPU has {gibibytes_text(have)}.", style="bold red")
    share = float(getattr(found.prediction.memory, found.part))
    yield Text(f"That one is {layout_text(found.nearest.layout)}.")
    yield Text(f"Its largest part: {LABELS[found.part]}, {gibibytes_text(share)}.")
    for remedy in found.remedies:
        words = {
            "choice": "with all that the stack offers",
            "sharding": "with another sharding",
            "gpus": f"on {gpus_text(remedy.gpus)}",
        }
        time = seconds_text(remedy.candidate.iteration_time_s)
        yield Text(f"It fits {words[remedy.kind]}: {layout_text(remedy.candidate.layout)}; {time} an iteration.")
    if not found.remedies:
        yield Text("No other sharding helps, nor more GPUs; a GPU with more memory, or fp8, may.")
