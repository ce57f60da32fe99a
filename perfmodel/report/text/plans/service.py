"""How a plan of a service looks on a terminal: the cheapest servers in a sentence, the others, and what the rest lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.report.text.plans.plan_odds import confidence_text, odds_text, short_odds
from perfmodel.report.text.serving import short_seconds
from perfmodel.report.text.terminal import plain_table, section, titled
from perfmodel.serving.service_plan import RejectedServer, ServerChoice, ServerOption, ServerPlan, rounded_up
from perfmodel.units import gibibytes_text, gpus_text

MOST_SHOWN: Final = 12
MOST_REJECTED: Final = 20
NAMED: Final[Mapping[str, Callable[[ServerChoice], str]]] = {  # shown where options differ in it
    "weights": lambda choice: choice.precision,
    "KV": lambda choice: choice.kv_precision,
    "EP": lambda choice: f"{choice.expert_parallel}",
}
LACKS: Final = ("gpus", "ttft", "tpot", "memory", "support")  # nearest to what is asked for first


def service_report(plan: ServerPlan) -> Group:
    """The answer, a line for each kind of replica that keeps the promise, and for each that does not what it lacks."""
    parts: list[RenderableType] = [*_answer(plan)]
    if plan.options:
        parts.append(_options(plan))
    if plan.rejected:
        parts.append(_rejected(plan))
    parts.append(section("Assumptions", [("-", each) for each in _assumptions(plan)]))
    return Group(*parts)


def promise_text(plan: ServerPlan) -> str:
    """20 requests/s of 2,000 + 500 tokens, TTFT within 1 s, TPOT within 30 ms."""
    target, request = plan.target, plan.request
    tokens = f"{int(np.asarray(request.input_tokens)):,} + {int(np.asarray(request.output_tokens)):,} tokens"
    limits = [
        f"{name} within {short_seconds(limit)}"
        for name, limit in (("TTFT", target.ttft_s), ("TPOT", target.tpot_s))
        if limit is not None
    ]
    return ", ".join([f"{target.requests_per_s:g} requests/s of {tokens}", *limits])


def _answer(plan: ServerPlan) -> Iterator[Text]:
    best, asked = plan.best, f"{confidence_text(plan.target.confidence)} asked for"
    if best is None:
        yield Text(f"Nothing keeps {promise_text(plan)} with {confidence_text(plan.target.confidence)} odds.", style="bold red")
        yield from _remedy(plan)
        return
    paid = best.dollars_per_million_tokens
    cost = f"{best.gpu_hours_per_million_tokens:.3g} GPU-hours" if paid is None else f"${paid:.3g}"
    choice = best.choice
    replicas = "1 replica" if best.replicas == 1 else f"{best.replicas:,} replicas"
    sentence = f"{gpus_text(best.gpus)} ({choice.gpu}) as {replicas} of TP {choice.tensor_parallel} in {choice.precision}"
    yield Text(f"{sentence} serve at least cost: {cost} a million tokens.", style="bold")
    yield Text(f"Keep {promise_text(plan)} with {odds_text(best.odds)} odds ({asked}).")


def _remedy(plan: ServerPlan) -> Iterator[Text]:
    """Limits that the nearest choice would keep."""
    nearest = plan.nearest
    if nearest is None:
        yield Text("None of these servers runs the model at all.")
        return
    target, where = plan.target, _choice_text(nearest.choice)
    if nearest.lack == "gpus":
        yield Text(f"--most-gpus {nearest.gpus} would do, with {where}.")
        return
    limits = [
        f"--{name} {_limit_text(kept)}"
        for name, kept, asked in (("ttft", nearest.ttft_s, target.ttft_s), ("tpot", nearest.tpot_s, target.tpot_s))
        if asked is not None and kept > asked
    ]
    yield Text(f"{' '.join(limits)} would do, with {where}.")
    if nearest.odds >= 0.01:
        yield Text(f"As asked, its odds are {odds_text(nearest.odds)}: --confidence {int(100 * nearest.odds)}% would do.")


def _limit_text(limit_s: float) -> str:
    """A limit as the command takes it, not less than it is: 12.4ms, 1.51s."""
    return f"{rounded_up(1e3 * limit_s):g}ms" if limit_s < 1.0 else f"{rounded_up(limit_s):g}s"


def _choice_text(choice: ServerChoice) -> str:
    experts = f", EP {choice.expert_parallel}" if choice.expert_parallel > 1 else ""
    return f"{choice.gpu}, {choice.precision}, TP {choice.tensor_parallel}{experts}"


def _options(plan: ServerPlan) -> RenderableType:
    table, dollars = plain_table("GPU"), plan.has_prices
    several = [heading for heading, cell in NAMED.items() if len({cell(each.choice) for each in plan.options}) > 1]
    for heading in several:
        table.add_column(heading, no_wrap=True)
    for heading in ("TP", "repl.", "GPUs", "each", "TTFT", "TPOT", "odds", "$/M" if dollars else "GPU-h/M"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in plan.options[:MOST_SHOWN]:
        table.add_row(each.choice.gpu, *(NAMED[heading](each.choice) for heading in several), *_figures(each, dollars=dollars))
    more = len(plan.options) - MOST_SHOWN
    title = "Servers that keep it, cheapest first" + (f" ({more} more are dearer)" if more > 0 else "")
    note = "each: requests at once in a replica at most, where TTFT and TPOT are these (medians)."
    return titled(title, Group(table, Text(note)))


def _figures(option: ServerOption, *, dollars: bool) -> Iterator[str]:
    yield f"{option.choice.tensor_parallel}"
    yield f"{option.replicas:,}"
    yield f"{option.gpus:,}"
    yield f"{option.concurrency:,}"
    yield short_seconds(float(option.ttft.median))
    yield short_seconds(float(option.tpot.median))
    yield short_odds(option.odds)
    paid = option.dollars_per_million_tokens if dollars else option.gpu_hours_per_million_tokens
    yield f"{paid:.3g}"


def _rejected(plan: ServerPlan) -> RenderableType:
    ranked = sorted(plan.rejected, key=lambda each: (LACKS.index(each.lack), -each.odds))
    lines = [(_choice_text(each.choice), _lack_text(each, plan)) for each in ranked[:MOST_REJECTED]]
    more = len(ranked) - len(lines)
    return section("Rejected" + (f" ({more} more)" if more else ""), lines)


def _lack_text(rejected: RejectedServer, plan: ServerPlan) -> str:
    target = plan.target
    match rejected.lack:
        case "support":
            return rejected.choice.refusal
        case "memory":
            left = rejected.cache_bytes
            missing = f"{gibibytes_text(-left)} too much" if left < 0 else f"{gibibytes_text(left)} for the KV cache"
            return f"memory: {missing}, and a request takes {gibibytes_text(rejected.request_bytes)}"
        case "gpus":
            return f"needs {gpus_text(rejected.gpus)}, more than --most-gpus {target.most_gpus:,}"
        case _:
            limits = (("TTFT", rejected.ttft_s, target.ttft_s), ("TPOT", rejected.tpot_s, target.tpot_s))
            kept = [f"{name} {short_seconds(kept)}" for name, kept, asked in limits if asked is not None and kept > asked]
            return f"keeps {' and '.join(kept)}, for one request at once; odds {odds_text(rejected.odds)}"


def _assumptions(plan: ServerPlan) -> Iterator[str]:
    yield "requests come evenly, and go to the replica with least to do; bursts need more replicas"
    yield "TTFT and TPOT are means over requests, not their slowest hundredth"
    if not plan.has_prices:
        several = len({each.choice.gpu for each in plan.options}) > 1
        alike = "GPU-hours of all GPUs count alike" if several else "no price is given"
        yield f"{alike}; --price 2.5, or --price {_example(plan)}, ranks by dollars"


def _example(plan: ServerPlan) -> str:
    """h100-sxm-80gb=2.5,b200=5."""
    choices = [*(each.choice for each in plan.options), *(each.choice for each in plan.rejected)]
    names = list(dict.fromkeys(choice.gpu for choice in choices))[:2]
    return ",".join(f"{name}={price:g}" for name, price in zip(names, (2.5, 5.0), strict=False))
