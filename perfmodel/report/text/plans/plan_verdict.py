"""What a plan comes to, in sentences: the answer, whether it is robust, what the limits leave, or why there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.text import Text

from perfmodel.count.memory.fit import FITS
from perfmodel.exchange.syntax.slips import slips_of_a_stage
from perfmodel.report.text.plans.plan_odds import days_text, limits, limits_missed, percentiles
from perfmodel.report.text.prediction import layout_words, odds_text
from perfmodel.report.words import LABELS, SHORT_DEGREES
from perfmodel.search.option import SizeOption
from perfmodel.search.plan import Plan, StagePlan
from perfmodel.search.remedies import Obstacle
from perfmodel.spec.layout import Layout
from perfmodel.units import dollars_text, gibibytes_text, gpus_text, seconds_interval_text, seconds_text, share_text

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
    yield from tightness(plan)
    yield from (Text(f"Note: {sentence}.", style="yellow") for sentence in slips_of_a_stage(last.prediction))
    yield from robustness_text(last)
    if option.days:
        lost = 100 * (1 - option.days / option.calendar_days)
        yield Text(f"Failures, restarts and checkpoints take {lost:.1f} % of the calendar.")
    yield from percentiles(option, question.confidence)
    yield from limits(plan, option)


def tightness(plan: Plan) -> Iterator[Text]:
    """Whether the best layout may run out of memory, and what would help."""
    predicted, free = plan.stages[-1].prediction, plan.question.leave_free
    if predicted.verdict != FITS:
        odds = odds_text(float(predicted.fit_probability))
        advice = f", with {share_text(free)} of the GPU left free as asked" if free else "; --leave-free 5% plans with room"
        yield Text(f"That is tight, with {odds}{advice}.", style="yellow")


def layout_text(layout: Layout) -> str:
    """A layout in one line, without what is 1, off or bf16: TP 8, PP 12, VP 8, DP 32, micro-batch 1, zero1."""
    return ", ".join(word for word in layout_words(layout, SHORT_DEGREES) if word != "bf16")


def recompute_text(settings: Mapping[str, Any]) -> str:
    """What runs again: none, selective, full, or full in some layers of a stage.

    >>> recompute_text({"recompute": "full", "recompute_layers": 3})
    'full (3 a stage)'
    >>> recompute_text({"recompute": "selective", "recompute_modules": ("layernorm", "moe_act")})
    'selective (layernorm, moe_act)'
    """
    number, modules = settings.get("recompute_layers"), settings.get("recompute_modules", ())
    layers = "" if number is None else f" ({number} a stage)"
    return f"{settings.get('recompute', 'none')}{layers}" + (f" ({', '.join(modules)})" if modules else "")


def _outcome(option: SizeOption, last: StagePlan, of_last: str) -> str:
    low_s, high_s = map(float, last.prediction.iteration_time_interval_s)
    ends = seconds_interval_text(low_s, high_s, around_s=option.iteration_time_s)
    words = [f"{seconds_text(option.iteration_time_s)} an iteration{of_last} (90 %: {ends})"]
    words.append(f"MFU {100 * float(last.prediction.mfu):.1f} %")
    if option.days:
        words = [f"{days_text(option.calendar_days)} ({days_text(option.days)} of training)", *words]
        words.append(f"{option.gpu_hours:,.0f} GPU-hours")
    if option.dollars is not None and option.days:
        words.append(dollars_text(option.dollars))
    return ", ".join(words)


def robustness_text(stage: StagePlan) -> Iterator[Text]:
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


def _no_answer(plan: Plan) -> Iterator[Text]:
    """Nothing fits, or what fits takes too long or costs too much."""
    if plan.obstacle is not None:
        yield from _obstacle(plan, plan.obstacle)
    elif not plan.complete:
        yield Text("Stopped early, before anything that fits and keeps the limits was found.", style="bold red")
    elif not plan.searches:
        least = f"even at the peak rate it takes {gpus_text(plan.least_gpus)}"
        yield Text(f"Nothing keeps the deadline: {least}, more than --most-gpus allows.", style="bold red")
    elif not plan.options:
        yield Text("Nothing that fits was found.", style="bold red")
    elif plan.likeliest is not None:
        yield from limits_missed(plan, plan.likeliest)


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
