"""How a what-if looks on a terminal: what each scenario does in a sentence, then before and after, number by number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.memory.fit import TIGHT
from perfmodel.economics.energy import J_PER_MWH
from perfmodel.report.text.before_after import MOST_COLUMNS, SIDE_BY_SIDE, IntervalLine, Line, table_of_changes
from perfmodel.report.text.prediction import most_memory_bytes, need_text, odds_text
from perfmodel.report.text.terminal import percent_text, titled
from perfmodel.report.words import LABELS, MEMORY
from perfmodel.timing.breakdown import PARTS
from perfmodel.units import GIBIBYTE, seconds_text
from perfmodel.variation.scenarios import Scenario, WhatIf

RESULTS: Final = (
    Line(name="gpus", label="GPUs"),
    Line(name="iteration_time_s", label="iteration time, ms", scale=1e3, decimals=1),
    IntervalLine(name="iteration_time_low_s", high="iteration_time_high_s", label="  90 % interval", scale=1e3),
    Line(name="mfu", label="MFU, %", scale=100, decimals=1, is_share=True),
    Line(name="tokens_per_s_per_gpu", label="tokens/s/GPU"),
    Line(name="total_days", label="days", decimals=2),
    Line(name="calendar_days", label="calendar days", decimals=2),
    IntervalLine(name="calendar_low_days", high="calendar_high_days", label="  90 % interval", decimals=1),
    Line(name="calendar_gpu_hours", label="calendar GPU-hours"),
    Line(name="dollars", label="cost, $"),
    Line(name="energy_j", label="energy, MWh", scale=1 / J_PER_MWH),
)
TIMES: Final = (
    *(Line(name=part, label=LABELS[part], scale=1e3, decimals=1) for part in PARTS),
    Line(name="iteration_time_s", label="total", scale=1e3, decimals=1),
)
BYTES: Final = (
    *(Line(name=part, label=label, scale=1 / GIBIBYTE, decimals=2) for part, label in MEMORY.items()),
    Line(name="memory_bytes", label="total", scale=1 / GIBIBYTE, decimals=2),
)


def whatif_report(result: WhatIf) -> Group:
    """What does not fit, a sentence a scenario, then results, parts of the iteration and memory before and after."""
    parts: list[RenderableType] = [*misfits(result), *sentences(result), *notes(result)]
    for first in range(0, len(result.scenarios), MOST_COLUMNS):
        parts += _tables(result, first)
    return Group(*parts)


def scenario_letter(place: int) -> str:
    """What a scenario is called in a table: A, B .. Z, AA, AB ..

    >>> scenario_letter(0), scenario_letter(25), scenario_letter(26)
    ('A', 'Z', 'AA')
    """
    return (scenario_letter(place // 26 - 1) if place >= 26 else "") + chr(ord("A") + place % 26)


def _called(result: WhatIf, place: int) -> str:
    """A letter where there are several scenarios, else the name itself."""
    return scenario_letter(place) if len(result.scenarios) > 1 else result.scenarios[place].name


def misfits(result: WhatIf) -> Iterator[Text]:
    """A sentence for each scenario that does not fit, or is tight."""
    for place, scenario in enumerate(result.scenarios):
        predicted, name = scenario.prediction, _called(result, place)
        need = need_text(most_memory_bytes(predicted), predicted.run.cluster)
        if not predicted.may_fit:
            yield Text(f"{name} does not fit in memory: needs {need}.", style="bold red")
        elif predicted.verdict == TIGHT:
            yield Text(f"{name} is tight in memory: {need}, {odds_text(predicted.fit_probability)}.", style="yellow")


def sentences(result: WhatIf) -> Iterator[Text]:
    """A sentence for each scenario: its time and days against those before."""
    for place, scenario in enumerate(result.scenarios):
        letter = f"{scenario_letter(place)}  " if len(result.scenarios) > 1 else ""
        yield Text(f"{letter}{scenario.name}: {_sentence(result, scenario)}")


def _sentence(result: WhatIf, scenario: Scenario) -> str:
    """611 ms an iteration instead of 621 ms, -1.6 % (90 %: -3 to +1 %); 12.7 days instead of 12.9."""
    before, after = (float(each.stage(result.place).iteration_time_s) for each in (result.before, scenario))
    low, high = (100 * (end - 1) for end in result.time_ratio_interval(scenario))
    sentence = f"{seconds_text(after)} an iteration"
    if low < high:
        change = f"{percent_text(after / before - 1)} (90 %: {rounded_percent(low)} to {rounded_percent(high)} %)"
        sentence += f" instead of {seconds_text(before)}, {change}"
    totals = [each.totals() for each in (result.before, scenario)]
    for name, shape in (("total_days", "{:.1f} days"), ("dollars", "${:,.0f}")):
        old, new = (total[name] for total in totals)
        if new is not None:
            sentence += f"; {shape.format(new)}" + ("" if old in (None, new) else f" instead of {shape.format(old).split()[0]}")
    return f"{sentence}."


def rounded_percent(percent: float) -> str:
    """A change with its sign, and never -0.

    >>> rounded_percent(-0.4), rounded_percent(2.6)
    ('0', '+3')
    """
    return f"{percent:+.0f}" if round(percent) else "0"


def notes(result: WhatIf) -> Iterator[Text]:
    """What a reader should know before comparing: which stage it is, and what else is not the same on both sides."""
    run = result.before.prediction.run
    if len(run.stages) > 1:
        number = len(run.stages) if result.place < 0 else result.place + 1
        whole = "" if result.before.prediction.total_days is None else "; days, GPU-hours and cost are of the whole run"
        yield Text(f"{run.name}, stage {number} of {len(run.stages)} (--stage N shows another){whole}.", style="dim")
    yield from (Text(f"{sentence}.", style="dim") for sentence in result.taken)
    before = result.before.stage(result.place).layout.gpus
    for place, scenario in enumerate(result.scenarios):
        after, called = scenario.stage(result.place).layout.gpus, _called(result, place)
        if after != before and not any(setting.startswith("stages") for setting in scenario.settings):
            yield Text(f"{called} runs on {after:,} GPUs, not {before:,}: --same-gpus would keep them.", style="yellow")
        peaks = [float(each.cluster.gpu.peak(each.precision)) / 1e12 for each in (run, scenario.prediction.run)]
        if peaks[0] != peaks[1]:
            yield Text(f"The MFU of {called} is of a peak of {peaks[1]:,.4g} TFLOP/s, not {peaks[0]:,.4g}.", style="dim")
        if _is_paid_alike(result.before, scenario):
            yield Text(f"{called} costs the same per GPU-hour; economics.dollars_per_gpu_hour is its price.", style="dim")


def _is_paid_alike(before: Scenario, after: Scenario) -> bool:
    """Whether other GPUs have the price of those before."""
    gpus = [each.prediction.run.cluster.gpu.name for each in (before, after)]
    prices = [each.outlook.terms.dollars_per_gpu_hour for each in (before, after)]
    return gpus[0] != gpus[1] and prices[0] is not None and prices[0] == prices[1]


def _tables(result: WhatIf, first: int) -> Iterator[RenderableType]:
    """The three tables of the scenarios from `first` on."""
    shown = result.scenarios[first : first + MOST_COLUMNS]
    before = result.quantities(result.before)
    headings = [scenario_letter(first + place) if len(result.scenarios) > 1 else "after" for place in range(len(shown))]
    after = {heading: result.quantities(each) for heading, each in zip(headings, shown, strict=True)}
    added = "" if len(shown) <= SIDE_BY_SIDE else ", and what each scenario adds"
    yield titled("What changes", table_of_changes(RESULTS, before, after, results=True))
    yield titled(f"Where an iteration goes, ms{added}", table_of_changes(TIMES, before, after, results=False))
    yield titled(f"Memory of one GPU, GiB{added}", table_of_changes(BYTES, before, after, results=False))
