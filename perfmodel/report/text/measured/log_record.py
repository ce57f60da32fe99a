"""How the record of a log looks: its steady steps, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.exchange.translation.logs.log_records import LogRecord
from perfmodel.units import gibibytes_text, gpus_text, seconds_text

if TYPE_CHECKING:
    from perfmodel.exchange.translation.conversion import Conversion

CONVENTIONS = {
    "full": "attention counted in full",
    "causal": "causal attention counted half",
    "unknown": "its count is not known",
}


LEFT_OUT = {  # why steps are left out, in words
    "warm_up": "of a start",
    "evaluations": "after an evaluation",
    "checkpoints": "after a checkpoint",
    "other_ranks": "that other ranks print too",
    "other_batches": "of other batch sizes",
    "broken_lines": "cut or broken",
}


def log_report(found: Conversion, name: str) -> RenderableType:
    """What a log says, in a few lines."""
    lines = [f"{name} is a {found.format}.", *(record_lines(found.record) if found.record else ["It has no steps."])]
    described = "It says what run it is of; -o run.yaml writes that." if found.run is not None else ""
    return Group(*(Text(line) for line in (*lines, described) if line))


def record_lines(record: LogRecord) -> list[str]:
    """The figures of a record, a line each."""
    lines = [_time_line(record)]
    if record.tokens_per_s_per_gpu is not None:
        lines.append(f"{record.tokens_per_s_per_gpu:,.0f} tokens/s/GPU.")
    if record.memory_bytes is not None:
        lines.append(f"{gibibytes_text(record.memory_bytes)} {record.memory_kind} at most.")
    if record.printed_tflop_per_s_per_gpu is not None:
        convention = CONVENTIONS[record.tflop_convention]
        lines.append(f"It prints {record.printed_tflop_per_s_per_gpu:.4g} TFLOP/s/GPU ({convention}).")
    left_out = [f"{number:,} {LEFT_OUT[reason]}" for reason, number in record.left_out.items() if number]
    if left_out:
        lines.append(f"Left out: {', '.join(left_out)}.")
    if record.restarts:
        lines.append(f"The run was started {record.restarts + 1} times.")
    if record.gpus is not None:
        lines.append(f"On {gpus_text(record.gpus)}.")
    return [*lines, *record.notes]


def _time_line(record: LogRecord) -> str:
    if record.iteration_time_s is None:
        return f"{record.steps:,} steady steps, which do not say how long an iteration takes."
    ends = ""
    if record.interval_s is not None:
        low, high = record.interval_s
        ends = f", nine of ten between {seconds_text(low)} and {seconds_text(high)}"
    return f"An iteration takes {seconds_text(record.iteration_time_s)}, the median of {record.steps:,} steady steps{ends}."
