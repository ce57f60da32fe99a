"""How a log beside a prediction looks: times, rates and memory, predicted and measured."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.exchange.questions.measured_logs import LogComparison, tokens_of_a_gpu
from perfmodel.report.text.measured.log_record import record_lines
from perfmodel.report.text.terminal import percent_text, plain_table, titled
from perfmodel.units import GIBIBYTE, seconds_text


def log_comparison_report(found: LogComparison) -> RenderableType:
    """The verdict, the figures beside each other, and what the log is made of."""
    table = plain_table("figure")
    for head in ("predicted", "measured", "predicted / measured"):
        table.add_column(head, justify="right")
    for row in _rows(found):
        table.add_row(*row)
    lines = [*(f"- {each}" for each in found.doubts), *(f"- {each}" for each in record_lines(found.record))]
    command = f"perfmodel diagnose RUN --measured-from {found.log} weighs what would explain it."
    way_on = [] if found.is_inside else [Text(command, style="dim")]
    return Group(Text(_verdict(found)), *way_on, table, titled(f"The log {found.log}", Text("\n".join(lines))))


def _verdict(found: LogComparison) -> str:
    low, high = found.interval_s
    where = "inside" if found.is_inside else "outside"
    side = "" if found.is_inside else (", faster than predicted" if found.measured_s < low else ", slower than predicted")
    ends = f"{seconds_text(low)} to {seconds_text(high)}"
    return f"{found.name}: measured {seconds_text(found.measured_s)}, {where} the 90 % interval of {ends}{side}."


def _rows(found: LogComparison) -> Iterator[tuple[str, str, str, str]]:
    predicted_s = float(found.predicted.iteration_time_s)
    rate = tokens_of_a_gpu(found.predicted) / predicted_s
    yield "iteration", seconds_text(predicted_s), seconds_text(found.measured_s), percent_text(found.relative_error)
    yield "tokens/s/GPU", f"{rate:,.0f}", f"{found.measured_rate:,.0f}", percent_text(rate / found.measured_rate - 1.0)
    memory, measured = found.predicted_memory_bytes, found.record.memory_bytes
    if memory is not None and measured:
        kind = found.record.memory_kind
        sizes = (f"{memory / GIBIBYTE:.1f} GiB", f"{measured / GIBIBYTE:.1f} GiB")
        yield f"memory, {kind}", *sizes, percent_text(memory / measured - 1.0)
