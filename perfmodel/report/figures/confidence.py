"""How much of the time of the operators rests on measurements of their very sizes, and how much on less."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.explanation.explanation import Explanation
from perfmodel.report.figures.drawing.bar_charts import Bar, Segment, bars_height, patches, stacked_bars
from perfmodel.report.figures.drawing.captions import source_text, stage_caption
from perfmodel.report.figures.drawing.palette import CONFIDENCE
from perfmodel.report.figures.drawing.style import Drawing, styled
from perfmodel.timing.confidence import WORDS
from perfmodel.timing.ledger import Entry, ledger, seconds_by_confidence
from perfmodel.units import seconds_text

KINDS: Final = {
    "matrix products": Matmul,
    "attention": FusedAttention,
    "memory-bound operators": MemoryBound,
    "collectives": Collective,
}
MILLI: Final = 1e3


def confidence_bars(entries: Iterable[Entry]) -> list[Bar]:
    """All operators, then each kind that is there: milliseconds by what they rest on, the surest first."""
    every = list(entries)
    groups = {"all operators": every}
    groups |= {name: [each for each in every if isinstance(each.operator, kind)] for name, kind in KINDS.items()}
    return [_bar(name, members) for name, members in groups.items() if members]


def _bar(name: str, entries: Iterable[Entry]) -> Bar:
    found = seconds_by_confidence(entries)
    segments = [(word, MILLI * found[word]) for word in WORDS if found.get(word)]
    return Bar(
        label=name,
        segments=tuple(Segment(label=word, value=value, colour=CONFIDENCE[word]) for word, value in segments),
        end=seconds_text(sum(found.values())),
    )


@styled
def confidence_figure(explained: Explanation) -> Drawing:
    """A bar for each kind of operator, each operator alone."""
    run, layout = explained.run, explained.predicted.layout
    bars = confidence_bars(ledger(explained.predicted.work, gpus=layout.gpus, cluster=run.cluster, stack=run.stack))
    shares = [f"{each.label} {100.0 * each.value / bars[0].total:.0f} %" for each in bars[0].segments]
    drawing = Drawing(
        title="What the time of the operators rests on",
        subtitle=stage_caption(run, explained.place),
        plot_height=bars_height(bars),
        description=f"Of the time of all operators: {', '.join(shares)}",
    )
    axes = drawing.subplots()
    stacked_bars(drawing, axes, bars, unit="ms")
    axes.set_xlabel("time of operators, each alone [ms]")
    drawing.key(patches(bars))
    drawing.source_line(source_text(run))
    return drawing
