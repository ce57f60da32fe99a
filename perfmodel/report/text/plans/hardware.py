"""How plans for several clusters look on a terminal: which is fastest and cheapest, then all of them side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.report.text.plans.plan_odds import days_text
from perfmodel.report.text.plans.plan_verdict import layout_text
from perfmodel.report.text.terminal import plain_table, section, titled
from perfmodel.search.hardware import HardwarePlans
from perfmodel.units import GIBIBYTE, seconds_text

PERCENT: Final = 100.0
LEAST: Final = 0.5  # percent that are a difference
COSTS: Final = {  # headings and decimals by column
    "calendar_days": ("days", 1),
    "calendar_p90_days": ("days p90", 1),
    "gpu_hours": ("GPU-hours", 0),
    "dollars_per_gpu_hour": ("$/GPU-hour", 2),
    "dollars": ("cost $", 0),
    "dollars_per_billion_tokens": ("$/B tokens", 0),
}


def hardware_report(found: HardwarePlans) -> Group:
    """The verdict, a line of figures for each cluster, the layout on each, and what was assumed."""
    parts: list[RenderableType] = [*_verdict(found)]
    if found.answers:
        parts += [titled("Side by side, the best layout on each", _figures(found)), *_costs(found)]
        parts.append(titled("Layouts", _layouts(found)))
    reasons = [(f"{row['cluster']}:", row["refusal"]) for row in found.rows() if row["refusal"]]
    if reasons:
        parts.append(section("Without an answer", reasons))
    shared = _assumptions(found)
    return Group(*parts, *([section("Assumptions", [("-", sentence) for sentence in shared])] if shared else []))


def _verdict(found: HardwarePlans) -> Iterator[Text]:
    if found.fastest is None:
        yield Text("No cluster has an answer.", style="bold red")
        return
    option = found.answers[found.fastest]
    model = option.question.model.name
    takes = f"{days_text(option.calendar_days)}" if option.days else f"{seconds_text(option.iteration_time_s)} an iteration"
    yield Text(f"{model}: fastest on {found.fastest}, {takes}{_ahead(found, found.fastest)}.", style="bold")
    if found.as_fast:
        names = " and ".join(found.as_fast)
        yield Text(f"{names} may be as fast: the 90 % intervals meet.", style="yellow")
    if found.cheapest is not None:
        cost = next(row["dollars_per_billion_tokens"] for row in found.rows() if row["cluster"] == found.cheapest)
        yield Text(f"Cheapest on {found.cheapest}: ${cost:,.0f} for a billion tokens.")


def _ahead(found: HardwarePlans, fastest: str) -> str:
    """How much longer the next one takes."""
    others = sorted((found.times(name)[0], name) for name in found.answers if name != fastest)
    if not others:
        return ""
    after, name = others[0]
    longer = PERCENT * (after / found.times(fastest)[0] - 1)
    return f"; {name} takes {longer:.0f} % longer" if longer >= LEAST else f"; {name} takes as long"


def _figures(found: HardwarePlans) -> RenderableType:
    table = plain_table("cluster")
    for heading in ("GPUs", "iteration s", "90 % interval", "MFU %", "tokens/s/GPU", "GiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in _answered(found):
        low, high = (f"{row[f'iteration_time_{end}_s']:#.3g}" for end in ("low", "high"))
        times = (f"{row['gpus']:,}", f"{row['iteration_time_s']:#.4g}", f"{low}-{high}", f"{PERCENT * row['mfu']:.1f}")
        table.add_row(row["cluster"], *times, f"{row['tokens_per_s_per_gpu']:,.0f}", f"{row['memory_bytes'] / GIBIBYTE:.1f}")
    return table


def _answered(found: HardwarePlans) -> list[dict[str, Any]]:
    return [row for row in found.rows() if not row["refusal"]]


def _costs(found: HardwarePlans) -> Iterator[RenderableType]:
    """Days and dollars, where the question has tokens or a price."""
    rows = _answered(found)
    shown = {name: text for name, text in COSTS.items() if any(row[name] is not None for row in rows)}
    if not shown:
        return
    table = plain_table("cluster")
    for heading, _ in shown.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = ("" if row[name] is None else f"{row[name]:,.{decimals}f}" for name, (_, decimals) in shown.items())
        table.add_row(row["cluster"], *cells)
    yield titled("What it takes (p90: not exceeded with odds of 90 %)" if "calendar_days" in shown else "What it costs", table)


def _layouts(found: HardwarePlans) -> RenderableType:
    table = plain_table("cluster")
    table.add_column("layout", overflow="fold", ratio=1)
    for name, option in found.answers.items():
        table.add_row(name, layout_text(option.chain.layouts[-1].layout))
    return table


def _assumptions(found: HardwarePlans) -> list[str]:
    """Those of every cluster once, those of one under its name."""
    every = {name: plan.question.assumptions for name, plan in found.plans.items()}
    sentences = dict.fromkeys(sentence for own in every.values() for sentence in own)
    return [
        sentence if len(owners) == len(every) else f"{', '.join(owners)}: {sentence}"
        for sentence in sentences
        for owners in ([name for name, own in every.items() if sentence in own],)
    ]
