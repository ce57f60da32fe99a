"""Sliders of a page: what if a link, a rate or the micro-batch were another, and a GPU-hour cost something else?

The page carries the answer of every combination, worked out as any prediction is (variation/setting_grid.py); its script only
looks up which one the sliders stand at. Without a script there is a table of each setting alone in their place.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from perfmodel.count.memory.fit import FITS
from perfmodel.light_dataclass import dataclass
from perfmodel.report.html.blocks import as_html, escaped
from perfmodel.report.text.terminal import percent_text, plain_table
from perfmodel.units import gibibytes_text, seconds_text
from perfmodel.variation.setting_grid import MICRO_BATCH, GridAxis, GridPoint, SettingGrid

GIGA, TERA = 1e9, 1e12
BETWEEN: Final = "|"  # of the texts of one quantity; none of them has one
IMPOSSIBLE: Final = "cannot be"
HIGHEST_PRICE: Final = 10.0  # dollars of a GPU-hour, at the end of its slider
QUANTITIES: Final = {"Iteration": "time", "MFU": "mfu", "Days": "days", "GPU-hours": "hours", "Memory of one GPU": "memory"}
COST: Final = "Cost"
ALONE: Final = "Each setting alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTerms:
    """What the grid does not know: GPU-hours of changes between ramp stages, and the price of one (None where none is given).

    `is_priced` says that every hour costs the same, so that a slider can set the price.
    """

    switch_gpu_hours: float
    dollars_per_gpu_hour: float | None
    is_priced: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Slider:
    """What it sets, the text of each of its places, and the place that it stands at first."""

    name: str
    labels: tuple[str, ...]
    place: int


def live_html(grid: SettingGrid, terms: LiveTerms, capacity_bytes: float) -> str:
    """Sliders of a run, hidden until a script moves them, and a table that needs none; nothing where nothing can be moved."""
    if not grid.axes or grid.point(grid.here) is None:
        return ""
    sliders = [
        Slider(name=axis.name, labels=tuple(value_label(axis, value) for value in axis.values), place=axis.place)
        for axis in grid.axes
    ]
    return live_box(sliders, live_data(grid, terms, capacity_bytes), terms, (ALONE, as_html(_alone(grid))))


def live_box(sliders: Sequence[Slider], data: Mapping[str, Any], terms: LiveTerms, instead: tuple[str, str] | None) -> str:
    """Sliders with their data, and `instead`: the title and the HTML of what serves without a script."""
    told = escaped(json.dumps(data, separators=(",", ":"), sort_keys=True))
    labels = [*(_slider(each) for each in sliders), *([_price(terms)] if terms.is_priced else [])]
    table = (
        [] if instead is None else [f'<details class="alone" open><summary>{instead[0]}</summary>\n{instead[1]}\n</details>']
    )
    return "\n".join(
        [
            f'<div class="whatif">\n<div class="live" data-grid="{told}" hidden>\n<h2>What if</h2>',
            *labels,
            '<p class="now"><button type="button">As it is</button> <output class="quiet"></output></p>\n</div>',
            *table,
            "</div>",
        ]
    )


def live_data(grid: SettingGrid, terms: LiveTerms, capacity_bytes: float) -> dict[str, Any]:
    """The shape of the grid, and for each quantity the text of every point with what is said of it in small letters."""
    here = grid.point(grid.here)
    told = [{} if here is None or each is None else dict(_told(each, here, terms, capacity_bytes)) for each in grid.points]
    names = [name for name in QUANTITIES.values() if any(name in each for each in told)]
    return {
        "shape": grid.shape,
        "here": grid.here,
        "texts": {name: BETWEEN.join(each.get(name, (IMPOSSIBLE, ""))[0] for each in told) for name in names},
        "notes": {name: BETWEEN.join(each.get(name, ("", ""))[1] for each in told) for name in names},
    }


def _told(point: GridPoint, here: GridPoint, terms: LiveTerms, capacity_bytes: float) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each quantity as the numbers at a glance have it, and how far it is from the run as it is."""
    change = percent_text(point.iteration_time_s / here.iteration_time_s - 1.0)
    yield "time", (seconds_text(point.iteration_time_s), f"{change} of {seconds_text(here.iteration_time_s)}")
    points = f"{100.0 * (point.mfu - here.mfu):+.1f} points"
    yield "mfu", (mfu_text(point.mfu), f"{points}, {point.tokens_per_s_per_gpu:,.0f} tokens/s/GPU")
    if point.days is not None and here.days is not None:
        yield "days", (days_text(point.days), f"{percent_text(point.days / here.days - 1.0)} of {days_text(here.days)}")
    if point.calendar_gpu_hours is not None and here.calendar_gpu_hours is not None:
        hours, own = (each.calendar_gpu_hours + terms.switch_gpu_hours for each in (point, here))  # type: ignore[operator]
        yield "hours", (f"{hours:,.0f}", f"{percent_text(hours / own - 1.0)} of {own:,.0f}")
    fits = "" if point.verdict == FITS else f", {point.verdict}"
    yield "memory", (gibibytes_text(point.memory_bytes), f"of {gibibytes_text(capacity_bytes)}{fits}")


def mfu_text(share: float) -> str:
    """MFU in percent with one decimal.

    >>> mfu_text(0.31343)
    '31.3 %'
    """
    return f"{100.0 * share:.1f} %"


def days_text(days: float) -> str:
    """Days with one decimal, and with three digits where they are few.

    >>> days_text(12.887), days_text(0.04321)
    ('12.9', '0.0432')
    """
    return f"{days:,.1f}" if days >= 1.0 else f"{days:.3g}"


def value_label(axis: GridAxis, value: float) -> str:
    """A value of an axis in the unit that people use."""
    path = next(iter(axis.paths))
    if path == MICRO_BATCH:
        return f"{value:.0f}"
    return f"{value / TERA:,.4g} TFLOP/s" if "flop_per_s" in path else f"{value / GIGA:,.4g} GB/s"


def _slider(slider: Slider) -> str:
    return (
        f"<label><span>{escaped(slider.name)}</span> <output>{escaped(slider.labels[slider.place])}</output>"
        f'<input type="range" min="0" max="{len(slider.labels) - 1}" value="{slider.place}" data-axis '
        f'data-labels="{escaped(BETWEEN.join(slider.labels))}"></label>'
    )


def _price(terms: LiveTerms) -> str:
    own = terms.dollars_per_gpu_hour or 0.0
    shown = f"${own:g}" if own else "not given"
    most = max(HIGHEST_PRICE, 2.0 * own)
    return (
        f"<label><span>price of one GPU-hour</span> <output>{shown}</output>"
        f'<input type="range" min="0" max="{most:g}" step="0.01" value="{own:g}" data-price></label>'
    )


def _alone(grid: SettingGrid) -> Table:
    """A row for each value of each setting but the run's own, all others as they are."""
    table, has_days = plain_table("setting"), any(each is not None and each.days is not None for each in grid.points)
    for heading in ("value", "iteration", "change", "MFU", *(["days"] if has_days else []), "memory"):
        table.add_column(heading, justify="right")
    here = grid.point(grid.here)
    for number, axis in enumerate(grid.axes):
        for place, value in enumerate(axis.values):
            point = grid.point([place if other == number else at for other, at in enumerate(grid.here)])
            if place != axis.place and here is not None:
                table.add_row(axis.name, value_label(axis, value), *_cells(point, here, has_days=has_days))
    return table


def _cells(point: GridPoint | None, here: GridPoint, *, has_days: bool) -> Sequence[str]:
    if point is None:
        return (IMPOSSIBLE, *("" for _ in range(4 if has_days else 3)))
    time, change = seconds_text(point.iteration_time_s), percent_text(point.iteration_time_s / here.iteration_time_s - 1.0)
    days = [] if not has_days else ["" if point.days is None else days_text(point.days)]
    fits = "" if point.verdict == FITS else f", {point.verdict}"
    return (time, change, mfu_text(point.mfu), *days, f"{gibibytes_text(point.memory_bytes)}{fits}")
