"""How measured passes of a served model look on a terminal: alone, and beside their forecast operator by operator."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.evidence.steps.pass_comparison import InferComparison, PassComparison
from perfmodel.evidence.steps.pass_records import InferRecord, PassRecord
from perfmodel.report.text.measured.step import (
    MEGABYTE,
    MOST,
    compared_cells,
    operator_table,
    percent_of,
    sum_of,
)
from perfmodel.report.text.terminal import Name, plain_table, section, titled
from perfmodel.units import seconds_text

LONGEST = 8  # operators of a pass that was not compared
LABELS = {"weights_bytes": "weights", "cache_bytes": "KV cache"}


def passes_report(record: InferRecord) -> Group:
    """What was measured: both passes, where their time went, memory, and what to doubt."""
    devices = f"{record.gpus} rank{'s' if record.gpus > 1 else ''} on {record.provenance.get('gpu', 'this machine')}"
    verdict = Text(
        f"{record.name}: {_load(record)}. Prefill {_time(record.prefill)}, decode {_time(record.decode)} a token, "
        f"{record.tokens_per_s:,.1f} tokens/s.\n{devices}."
    )
    tables = [_measured(name, part) for name, part in (("prefill", record.prefill), ("decode", record.decode))]
    sizes = (("weights", record.weight_bytes), ("KV cache", record.cache_bytes))
    memory = section("Memory of one rank, MB", [(name, f"{size / MEGABYTE:.1f}") for name, size in sizes])
    return Group(verdict, *tables, memory, *_doubts(record))


def _load(record: InferRecord) -> str:
    prompts = f"{record.sequences} prompt{'s' if record.sequences > 1 else ''} of {record.input_tokens:,} tokens"
    return f"{prompts}, {record.output_tokens:,} back of each"


def _time(part: PassRecord) -> str:
    return f"{seconds_text(part.seconds)} (median of {part.repeats}, spread {100 * part.spread:.1f} %)"


def _measured(name: str, part: PassRecord) -> RenderableType:
    table = operator_table(phases=False)
    for heading in ("ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in sorted(part.operators, key=lambda each: -each.seconds)[:LONGEST]:
        table.add_row(Name(each.name), f"{1e3 * each.seconds:.3f}", f"{100 * each.seconds / part.profiled_s:.0f} %")
    return titled(f"Longest operators of {name}", table)


def passes_comparison_report(comparison: InferComparison, *, every: bool = False) -> Group:
    """Forecast beside measurement: each pass, its operators (those of 90 % of it, or all), memory and messages."""
    record = comparison.record
    where = Text(
        f"{record.name}: {_load(record)}.\nMeasured on {record.provenance.get('gpu', 'an unnamed device')}, "
        f"{record.provenance.get('date', '')}."
    )
    parts: list[RenderableType] = [where, *(_verdict(name, each) for name, each in comparison.passes.items())]
    parts += [_operators(name, each, every=every) for name, each in comparison.passes.items()]
    parts.append(_memory(comparison))
    parts += [_messages(name, each) for name, each in comparison.passes.items() if each.calls]
    return Group(*parts, *_doubts(record))


def _verdict(name: str, found: PassComparison) -> Text:
    low, high = found.interval_s
    inside = "inside" if low <= found.whole.measured <= high else "outside"
    where = f"{inside} {seconds_text(low)} to {seconds_text(high)} (90 %)"
    times = f"{seconds_text(found.whole.predicted)} predicted, {seconds_text(found.whole.measured)} measured"
    return Text(f"{name}: {times} ({percent_of(found.whole)}); {where}, median of {found.record.repeats}.")


def _operators(name: str, found: PassComparison, *, every: bool) -> RenderableType:
    """Operators of both sides, what lies between them, and the pass; of all, or of most of it."""
    shown = [pair for pair in found.operators if pair.kind] if every else list(found.largest(MOST))
    others = [pair for pair in found.operators if pair.kind and pair not in shown]
    table = operator_table(phases=False)
    for heading in ("pred. ms", "meas. ms", "diff.", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    whole_s = found.record.seconds
    for pair in shown:
        table.add_row(Name(pair.name), *compared_cells(pair, whole_s, digits=3))
    table.add_section()
    if others:
        table.add_row(f"{len(others)} other operators", *compared_cells(sum_of(others), whole_s, digits=3))
    for pair in found.operators:
        if not pair.kind:
            table.add_row(pair.name, *compared_cells(pair, whole_s, digits=3))
    table.add_section()
    table.add_row("pass", *compared_cells(found.whole, whole_s, digits=3))
    return titled(f"Operators of {name}, predicted and measured", table)


def _memory(comparison: InferComparison) -> RenderableType:
    table = plain_table("part")
    for heading in ("pred. MB", "meas. MB", "diff."):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, pair in comparison.memory.items():
        table.add_row(LABELS[name], f"{pair.predicted / MEGABYTE:.2f}", f"{pair.measured / MEGABYTE:.2f}", percent_of(pair))
    return titled("Memory of one rank", table)


def _messages(name: str, found: PassComparison) -> RenderableType:
    table = plain_table("collective")
    for heading in ("ranks", "pred. calls", "seen", "pred. MB", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    for group, calls in found.calls.items():
        payload = found.payload_bytes[group]
        megabytes = (f"{each / MEGABYTE:.3f}" for each in (payload.predicted, payload.measured))
        table.add_row(group.kind, f"{group.ranks}", f"{calls.predicted:.0f}", f"{calls.measured:.0f}", *megabytes)
    return titled(f"Collectives of {name}, predicted and seen by torch", table)


def _doubts(record: InferRecord) -> list[RenderableType]:
    return [section("Warnings", [("-", warning) for warning in record.warnings])] if record.warnings else []
