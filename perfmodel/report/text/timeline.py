"""How a timeline is told on a terminal: what was drawn, and how busy each pipeline stage is."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.events.timeline import Timeline
from perfmodel.report.text.terminal import bar_text, plain_table, section, titled
from perfmodel.report.trace.facts import notes
from perfmodel.report.trace.timeline import layers_text
from perfmodel.units import seconds_text

VIEWERS: Final = "The trace opens in ui.perfetto.dev and in chrome://tracing."


def timeline_report(timeline: Timeline) -> Group:
    """The iteration, how busy its pipeline stages are, and what a reader should know of it."""
    total_s = float(timeline.predicted.iteration_time_s)
    what = f"{timeline.run.name}, stage {timeline.stage + 1}: an iteration of {seconds_text(total_s)}"
    verdict = Text(f"{what} in {len(timeline.spans):,} spans.\n{VIEWERS}")
    parts: list[RenderableType] = [verdict, titled("Pipeline stages, share of the iteration", _stages(timeline))]
    known = [("-", note) for note in notes(timeline)]
    return Group(*parts, *([section("How it is drawn", known)] if known else []))


def _stages(timeline: Timeline) -> RenderableType:
    total_s, optimizer_s = float(timeline.predicted.iteration_time_s), float(timeline.predicted.breakdown.optimizer_s)
    table = plain_table()
    table.add_column("stage", justify="right", no_wrap=True)
    table.add_column("layers", overflow="fold", ratio=1)
    for heading in ("passes", "optimizer", "waiting"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for stage, (pieces, passes_s) in enumerate(zip(timeline.layers, timeline.passes_s, strict=True)):
        shares = [passes_s / total_s, optimizer_s / total_s, 1.0 - (passes_s + optimizer_s) / total_s]
        layers = layers_text(pieces).removeprefix("layers ")
        table.add_row(str(stage + 1), layers, *(f"{100 * share:.1f} %" for share in shares), bar_text(shares[0]))
    return table
