"""How the outlook of a run looks on a terminal: calendar, cost and energy of each stage, then what stands behind them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table

from perfmodel.economics.energy import J_PER_MWH
from perfmodel.economics.outlook import PERCENTILES, IntervalEnds, Outlook, StageOutlook
from perfmodel.report.text.terminal import plain_table, section, titled
from perfmodel.timing.uncertainty import Estimate
from perfmodel.units import dollars_text, gpus_text, seconds_text

EXAMPLE: Final = "--set economics.dollars_per_gpu_hour=2.5"


def economics_section(outlook: Outlook) -> RenderableType:
    """A row a stage, the totals, and sentences: of how many GPUs, at which price, how often they fail and checkpoint."""
    parts: list[RenderableType] = []
    if outlook.calendar_days is not None:
        parts.append(titled("Calendar, energy and cost", _table(outlook)))
    parts.append(section("Terms" if parts else "Energy and cost", [("-", line) for line in economics_lines(outlook)]))
    return Group(*parts)


def economics_lines(outlook: Outlook) -> list[str]:
    """What stands behind the numbers of an outlook, a sentence each; failures and checkpoints are those of the last stage."""
    last = outlook.stages[-1]
    return [*_money(outlook), *_intervals(outlook), *_failures(last), *_checkpoints(last), _shares(last), *_power(last)]


def _table(outlook: Outlook) -> Table:
    with_dollars = outlook.dollars is not None
    with_energy = outlook.energy_j is not None
    table = plain_table()
    headings = ["GPUs", "days", "calendar", "90 % interval", "train %", "failures"]
    headings += ["MWh", "t CO2"] if with_energy else []
    headings += ["$"] if with_dollars else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in outlook.stages:
        table.add_row(f"{stage.gpus:,}", *_cells(stage, with_energy, with_dollars))
    if len(outlook.stages) > 1 or outlook.dollars != outlook.stages[0].dollars:  # reserved for longer than it is used
        table.add_section()
        table.add_row("total", *_cells(outlook, with_energy, with_dollars))
    return table


def _cells(part: StageOutlook | Outlook, with_energy: bool, with_dollars: bool) -> Iterator[str]:
    """The numbers of one stage, or of all."""
    calendar = part.calendar_days or 0.0
    decimals = next(number for least, number in ((1000, 0), (100, 1), (0, 2)) if calendar >= least)
    yield _number(part.days, decimals)
    yield _number(part.calendar_days, decimals)
    yield _ends(part.calendar_interval_days, decimals)
    yield _number(None if part.effective_share is None else 100 * part.effective_share, 1)
    yield _number(part.failures, 1 if (part.failures or 0.0) < 1000 else 0)
    if with_energy:
        yield _number(None if part.energy_j is None else part.energy_j / J_PER_MWH, 0)
        yield _number(None if part.carbon_kg is None else part.carbon_kg / 1e3, 0)
    if with_dollars:
        yield "" if part.dollars is None else dollars_text(part.dollars).removeprefix("$")


def _number(value: float | None, decimals: int) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _ends(interval: IntervalEnds | None, decimals: int) -> str:
    return "" if interval is None else "-".join(f"{end:.{decimals}f}" for end in interval)


def _money(outlook: Outlook) -> Iterator[str]:
    terms = outlook.terms
    billed = "on demand" if terms.billing == "on_demand" else "reserved"
    if terms.reserved_days is not None:
        billed += f", at least {float(terms.reserved_days):g} days"
    if terms.dollars_per_gpu_hour is None:
        yield f"no price is given, so there are no dollars; give yours with {EXAMPLE}"
    elif outlook.gpu_hours is None or outlook.dollars is None:
        yield f"${float(terms.dollars_per_gpu_hour):g} a GPU-hour, {billed}; days are not known without tokens"
    else:
        price = float(terms.dollars_per_gpu_hour)
        paid = f", {outlook.dollars / price:,.0f} are paid" if terms.billing == "reserved" else ""
        yield f"${price:g} a GPU-hour, {billed}; {outlook.gpu_hours:,.0f} GPU-hours are used{paid}"


def _intervals(outlook: Outlook) -> Iterator[str]:
    words = []
    if outlook.dollars_interval is not None and len(set(outlook.dollars_interval)) > 1:
        words.append("${:,.0f} to ${:,.0f}".format(*outlook.dollars_interval))
    if outlook.energy_interval_j is not None:
        words.append("{:,.0f} to {:,.0f} MWh".format(*(end / J_PER_MWH for end in outlook.energy_interval_j)))
    if words:
        yield f"90 % intervals of the totals: {', '.join(words)}"
    yield from _percentiles(outlook)


def _percentiles(outlook: Outlook) -> Iterator[str]:
    """What the calendar and the bill come to at most, with even odds and with nine in ten."""
    days, paid = outlook.calendar_odds, outlook.dollars_odds
    if days is not None:
        calendar = "calendar p50 {:,.2f} days, p90 {:,.2f} days".format(*_at(days))
        yield calendar + ("" if paid is None else "; cost p50 ${:,.0f}, p90 ${:,.0f}".format(*_at(paid)))


def _at(odds: Estimate) -> list[float]:
    return [float(odds.quantile(percent / 100)) for percent in PERCENTILES]


def _failures(stage: StageOutlook) -> Iterator[str]:
    if stage.failure_interval_s is None:
        yield "nothing fails: failures_per_gpu_hour is 0"
    else:
        every, restart = seconds_text(stage.failure_interval_s), seconds_text(stage.restart_s)
        yield f"{gpus_text(stage.gpus)} fail every {every} on average, a restart takes {restart}"


def _checkpoints(stage: StageOutlook) -> Iterator[str]:
    write, stall = seconds_text(stage.checkpoint_s), seconds_text(stage.checkpoint_stall_s)
    if stage.checkpoint_interval_s is not None:
        every = seconds_text(stage.checkpoint_interval_s)
        yield f"a checkpoint is written in {write}, of which training stalls {stall}, every {every}"


def _shares(stage: StageOutlook) -> str:
    shares = {name: 100 * float(getattr(stage.shares, name)) for name in ("training", "restarting", "lost", "stalled")}
    return (
        "of the calendar {training:.1f} % is training that counts, {restarting:.2f} % restarts, {lost:.2f} % is lost to "
        "failures, {stalled:.2f} % stalled by checkpoints".format(**shares)
    )


def _power(stage: StageOutlook) -> Iterator[str]:
    if stage.power_w is None:
        yield "the cluster states no node_power_w, so there is no energy"
    else:
        yield f"the site draws {stage.power_w / 1e6:.2f} MW on average, {stage.power_w / stage.gpus:,.0f} W for each GPU"
