"""How long a run takes on the calendar, where the calendar goes, and what that costs where there is a price."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Final, NamedTuple

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator

from perfmodel.economics.goodput import TimeShares
from perfmodel.economics.outlook import IntervalEnds, Outlook, StageOutlook
from perfmodel.light_dataclass import replace
from perfmodel.prediction import Prediction
from perfmodel.report.figures.drawing.bar_charts import Bar, Segment, bars_height, number_text, patches, stacked_bars
from perfmodel.report.figures.drawing.captions import run_caption, source_text, stage_labels
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import CALENDAR, GREEN, INK
from perfmodel.report.figures.drawing.style import SMALL, Drawing, styled
from perfmodel.units import HOURS_PER_DAY, SECONDS_PER_DAY, large_text

LABELS: Final = {
    "training": "training that counts",
    "lost": "done again after failures",
    "stalled": "waiting for checkpoints",
    "restarting": "restarting",
    "switching": "changing between stages",
}
ALL: Final = "all stages"
TERMS: Final = 150.0  # points of the name of the terms
MOST_TICKS: Final = 6


class Panel(NamedTuple):
    """Bars, what their axis is called, and their unit."""

    bars: list[Bar]
    name: str
    unit: str


def stage_days(stage: StageOutlook) -> dict[str, float]:
    """Calendar days of one stage by what they go to; they sum to its calendar days, or to 1 where no tokens are known."""
    switching = 0.0 if stage.calendar_days is None else stage.switch_s / SECONDS_PER_DAY
    rest = 1.0 if stage.calendar_days is None else stage.calendar_days - switching
    return {entry.name: rest * float(getattr(stage.shares, entry.name)) for entry in fields(TimeShares)} | {
        "switching": switching
    }


def calendar_bars(outlook: Outlook, labels: Sequence[str]) -> list[Bar]:
    """A bar for each stage in days with its interval, and of several their sum; without tokens, shares in percent."""
    has_days = outlook.calendar_days is not None
    days = [stage_days(stage) for stage in outlook.stages]
    intervals = [stage.calendar_interval_days for stage in outlook.stages]
    if has_days and len(days) > 1:
        labels = [*labels, ALL]
        days.append({name: sum(each[name] for each in days) for name in LABELS})
        intervals.append(outlook.calendar_interval_days)
    return [
        Bar(label=label, segments=_segments(each, LABELS, 1.0 if has_days else 100.0), end=_end(each, has_days), interval=ends)
        for label, each, ends in zip(labels, days, intervals, strict=True)
    ]


def _end(days: Mapping[str, float], has_days: bool) -> str:
    return number_text(sum(days.values())) if has_days else f"{100.0 * days['training']:.1f} % trains"


def _segments(values: Mapping[str, float], names: Iterable[str], scale: float) -> tuple[Segment, ...]:
    shown = {name: scale * values[name] for name in names if values[name] > 0.0}
    return tuple(Segment(label=LABELS[name], value=value, colour=CALENDAR[name]) for name, value in shown.items())


def other_bars(outlook: Outlook, labels: Sequence[str]) -> list[Bar]:
    """What does not train: the same bars without training, in hours, or in percent."""
    scale, training = (HOURS_PER_DAY if outlook.calendar_days is not None else 1.0), LABELS["training"]
    found = []
    for bar in calendar_bars(outlook, labels):
        others = tuple(replace(each, value=scale * each.value) for each in bar.segments if each.label != training)
        found.append(Bar(label=bar.label, segments=others, end=number_text(sum(each.value for each in others))))
    return found


def cost_bars(outlook: Outlook, labels: Sequence[str]) -> list[Bar]:
    """Dollars of each stage, and of several their sum, with its interval; none without a price."""
    rows: list[tuple[str, float | None, IntervalEnds | None]] = [
        (label, stage.dollars, None) for label, stage in zip(labels, outlook.stages, strict=True)
    ]
    whole = outlook.dollars, outlook.dollars_interval
    rows = [*rows, (ALL, *whole)] if len(rows) > 1 else [(labels[0], *whole)]
    return [_cost_bar(label, dollars, ends) for label, dollars, ends in rows if dollars is not None]


def _cost_bar(label: str, dollars: float, interval: IntervalEnds | None) -> Bar:
    segment = Segment(label="cost", value=dollars, colour=GREEN)
    return Bar(label=label, segments=(segment,), end=rounded_dollars(dollars), interval=interval)


def rounded_dollars(value: float) -> str:
    """Three digits of a price.

    >>> rounded_dollars(1704484.0), rounded_dollars(40157.8)
    ('$1.700M', '$40.2k')
    """
    return f"${number_text(value / 1e3)}k" if 1e3 <= value < 1e6 else f"${large_text(float(f'{value:.3g}'))}"


def _panels(outlook: Outlook, labels: Sequence[str]) -> list[Panel]:
    if outlook.calendar_days is None:
        shares = Panel(calendar_bars(outlook, labels), "share of the calendar [%]", "%")
        return [shares, Panel(other_bars(outlook, labels), "not training [%]", "%")]
    days = Panel(calendar_bars(outlook, labels), "calendar [days]", "days")
    others, costs = Panel(other_bars(outlook, labels), "not training [hours]", "hours"), cost_bars(outlook, labels)
    return [days, others, *([Panel(costs, "cost [$]", "$")] if costs else [])]


@styled
def calendar_figure(prediction: Prediction, outlook: Outlook) -> Drawing:
    """Panels with a row for each stage: the calendar, what of it does not train, and dollars where there is a price."""
    panels = _panels(outlook, stage_labels(prediction.run))
    bars = panels[0].bars
    drawing = Drawing(
        title=_title(outlook),
        subtitle=run_caption(prediction.run),
        plot_height=bars_height(bars) * len(panels),
        description=_description(outlook),
    )
    every = drawing.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, panel in zip(every, panels, strict=True):
        stacked_bars(drawing, axes, panel.bars, unit=panel.unit)
        axes.set_xlabel(panel.name)
        axes.xaxis.set_major_locator(MaxNLocator(MOST_TICKS))
    if panels[-1].unit == "$":
        every[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    entries: list[tuple[Artist, str]] = [*patches(bars)]
    if any(bar.interval for panel in panels for bar in panel.bars):
        entries.append((Line2D([], [], color=INK, linewidth=1.2, marker="|", markersize=7), "90 % interval"))
    drawing.key(entries)
    drawing.source_line(source_text(prediction.run), f"terms: {shortened(outlook.terms.name, TERMS, SMALL)}")
    return drawing


def _title(outlook: Outlook) -> str:
    if outlook.calendar_days is None:
        return "Where the calendar goes"
    price = "" if outlook.dollars is None else f", {rounded_dollars(outlook.dollars)}"
    return f"Calendar{' and cost' if price else ''}: {number_text(outlook.calendar_days)} days{price}"


def _description(outlook: Outlook) -> str:
    if outlook.calendar_days is None or outlook.calendar_interval_days is None or outlook.days is None:
        return "; ".join(f"{100.0 * stage.effective_share:.1f} % of the calendar trains" for stage in outlook.stages)
    low, high = outlook.calendar_interval_days
    return (
        f"{number_text(outlook.calendar_days)} days on the calendar ({number_text(low)} to {number_text(high)}), "
        f"of which {number_text(outlook.days)} train"
    )
