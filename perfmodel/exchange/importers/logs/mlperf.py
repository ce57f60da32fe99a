"""Results of MLPerf Training: `:::MLLOG` lines with the time of steps, and the batch."""

from __future__ import annotations

import json
from typing import Any, Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine
from perfmodel.exchange.translation.logs.steady_steps import EVALUATED, SteadySteps, Step

NAME: Final = "MLPerf log"
MARK: Final = ":::MLLOG"
MARKS: Final = (b":::MLLOG",)
TIMES: Final = ("train_step_time", "train_step_timing in s")
MEMORY: Final = "max_memory_usage"
STATED: Final = ("global_batch_size", "max_sequence_length", "gradient_accumulation_steps")
MOST: Final = 10**12  # of a batch or a length: more is no number of either
EVALUATION: Final = "eval_start"


def _convert(document: Document) -> Conversion:
    stated: dict[str, int] = {}
    steps = steps_of(document, MARKS, lambda line, into: _take(line, into, stated))
    if batch := stated.get("global_batch_size"):
        steps.state_batch(batch)
    return Conversion(format=NAME, record=steps.record(sequence_length=stated.get("max_sequence_length")))


def _take(line: LogLine, steps: SteadySteps, stated: dict[str, int]) -> bool:
    """Hand over what one line of JSON says; lines of other programs are none of its own."""
    _, mark, text = line.text.partition(MARK)
    if not mark:
        return False
    try:
        event: Any = json.loads(text)
    except (ValueError, RecursionError):
        steps.broken()
        return True
    key, value = (event.get(name) for name in ("key", "value")) if isinstance(event, dict) else (None, None)
    if key in STATED and isinstance(value, int | float) and 0 < value < MOST:
        stated[str(key)] = int(value)
    elif key == EVALUATION:
        steps.interrupted(EVALUATED)
    elif key == "tracked_stats" and isinstance(value, dict):
        _stats(value, steps, line.rank)
    return True


def _stats(value: dict[str, Any], steps: SteadySteps, rank: str) -> None:
    time_s = next((value[name] for name in TIMES if isinstance(value.get(name), int | float)), None)
    if time_s is not None and time_s > 0:
        steps.add(Step(time_s=float(time_s), rank=rank))
    if isinstance(value.get(MEMORY), int | float):
        steps.holds("allocated", float(value[MEMORY]) * 2.0**30)


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
