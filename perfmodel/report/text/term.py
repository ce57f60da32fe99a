"""How one term looks on a terminal: its equations, its operators with their shapes, every number behind it with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, Operator
from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.terms import Equation, Term, TermNumber
from perfmodel.explanation.token_volumes import TokenVolume, token_volume
from perfmodel.report.text.explanation import TERM_LABELS, change_text, stage_name, step_text
from perfmodel.report.text.operators import operators_title, timed_operators
from perfmodel.report.text.terminal import Name, plain_table, section, titled, value_text
from perfmodel.spec.fields import plain
from perfmodel.timing.ledger import Entry
from perfmodel.units import seconds_text

MOST_NUMBERS: Final = 12  # unless all are asked for
WRAPPED: Final = 60  # a line of a docstring longer than this may go on in the next
EQUATION: Final = re.compile(r"\s|\S{1,12} +=|.*\S  +\S")  # a line that stands on its own: indented, x = .., or of a table


def term_report(explained: Explanation, term: Term, *, every: bool = False) -> Group:
    """What it takes, what decides about it, its equations, its operators, and the numbers behind it."""
    share = f"{100 * term.share:.1f} % of the iteration"
    first = Text(f"{stage_name(explained)}, {TERM_LABELS[term.name]}: {seconds_text(term.seconds)}, {share}.")
    parts: list[RenderableType] = [first, *_notes(explained, term)]
    if term.settings:
        parts.append(section("Settings behind it", [(path, value_text(value)) for path, value in term.settings]))
    parts += [titled(f"Equation: {each.name}", Padding(_text(each), (0, 0, 0, 2))) for each in term.equations]
    if term.entries:
        parts.append(operator_table(explained, term.entries))
    if term.numbers:
        parts += _number_tables(explained, term.numbers if every else term.numbers[:MOST_NUMBERS])
    if not every and len(term.numbers) > MOST_NUMBERS:
        parts.append(Text(f"{len(term.numbers) - MOST_NUMBERS} others move it less; --all lists them.", style="dim"))
    return Group(*parts)


def _notes(explained: Explanation, term: Term) -> Iterator[Text]:
    if term.entries and isinstance(term.entries[0].operator, Collective):
        alone_s = sum(float(entry.repeats * entry.seconds) for entry in term.entries)
        where = "" if explained.predicted.layout.pipeline_parallel == 1 else " on all pipeline stages together"
        yield Text(f"Its collectives take {seconds_text(alone_s)} alone{where}; what other work does not hide is exposed.")
    volume = token_volume(term.entries, explained.run.cluster)
    if volume is not None:
        yield Text(_volume_text(volume))
    if explained.predicted.layout.pipeline_parallel > 1 and term.name not in ("recompute", "pipeline_bubble", "optimizer"):
        yield Text("It is that of the slowest pipeline stage; the waterfall has the average.", style="dim")


def _volume_text(volume: TokenVolume) -> str:
    """Where the tokens of one rank go in one dispatch."""
    once, sent, far = (f"{each / 1e6:.4g} MB" for each in (volume.once_bytes, volume.sent_bytes, volume.network_bytes))
    met = f"{volume.ranks_met:.3g} of {volume.ranks:g} ranks" + (
        f" on {volume.nodes_met:.3g} of {volume.nodes:g} nodes" if volume.nodes > 1 else ""
    )
    network = f", {far} of it between nodes" if volume.nodes > 1 else ""
    return (
        f"In a dispatch the tokens of a rank are {once}; each meets {met} on average. In {volume.copies:.3g} copies of each a "
        f"rank sends {sent}{network}."
    )


def _text(equation: Equation) -> Text:
    """A docstring with its lines joined again where they were only too long for the source."""
    lines: list[str] = []
    for line in equation.text.splitlines():
        if lines and line and not EQUATION.match(line) and len(lines[-1]) > WRAPPED and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return Text("\n".join(lines))


def operator_table(explained: Explanation, entries: Sequence[Entry]) -> RenderableType:
    """Operators with their shapes, how often they run, how long each takes, and how sure that is."""
    table = timed_operators("operator and its shape", entries, name=lambda each: f"{each.name}\n  {shape_text(each)}")
    return titled(operators_title(explained.predicted), table)


def shape_text(operator: Operator) -> str:
    """The sizes that decide about the time of an operator: rows x inner x columns, sequences x queries x keys, bytes."""
    match operator:
        case Matmul():
            times = f"{plain(operator.batch)} of " if operator.batch != 1 else ""
            sizes = " x ".join(f"{float(size):.0f}" for size in (operator.rows, operator.inner, operator.columns))
            return f"{times}{sizes} {operator.precision}"
        case FusedAttention():
            lengths = f"{float(operator.sequences):.0f} x {float(operator.query_length):.0f} x {float(operator.key_length):.0f}"
            return f"{lengths}, {float(operator.heads):.0f} heads of {float(operator.head_size):.0f}"
        case MemoryBound():
            return f"{float(operator.moved_bytes) / 1e6:.4g} MB, kernels: {float(operator.kernels):.0f}"
        case Collective():
            kind, megabytes = operator.kind.replace("_", "-"), float(operator.payload_bytes) / 1e6
            return f"{kind} {megabytes:.4g} MB over {float(operator.group.ranks):.0f}"


def _number_tables(explained: Explanation, numbers: Sequence[TermNumber]) -> Iterator[RenderableType]:
    """The numbers, each with a mark that leads to its source."""
    sources = [explained.source(each.path) for each in numbers]
    distinct = list(dict.fromkeys(source for source in sources if source))
    table = plain_table()
    table.add_column("number", overflow="fold", ratio=1)
    for heading in ("value", "moved", "term", "iteration", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for each, source in zip(numbers, sources, strict=True):
        changes = (step_text(each.step), change_text(each.term_change), change_text(each.iteration_change))
        table.add_row(Name(each.path), f"{each.value:.4g}", *changes, f"[{distinct.index(source) + 1}]" if source else "")
    yield titled("Numbers behind it, in SI units", table)
    if distinct:
        yield section("Sources", [(f"[{place}]", source) for place, source in enumerate(distinct, start=1)])
