"""Logs of NeMo 1 and 2: progress lines, and the JSON lines of its DLLogger."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step

NAME: Final = "NeMo log"
MARKS: Final = (b"train_step_timing in s",)
NUMBER: Final = r"[\"']?\s*[:=]\s*([\d.]+(?:e[-+]?\d+)?)(?=[\s,|}\]])"  # what is cut has no end
TIME: Final = re.compile(r"train_step_timing in s" + NUMBER)
ITERATION: Final = re.compile(r"(?:\bglobal_step|\"step\")" + NUMBER)
BATCH: Final = re.compile(r"\bglobal_batch_size" + NUMBER)
MEMORY: Final = re.compile(r"\bpeak_memory_usage" + NUMBER)


def _convert(document: Document) -> Conversion:
    return Conversion(format=NAME, record=steps_of(document, MARKS, _take).record())


def _take(line: LogLine, steps: SteadySteps) -> bool:
    text = line.text + line.end
    if "train_step_timing in s" not in text:
        return False
    time, iteration, batch, memory = (pattern.search(text) for pattern in (TIME, ITERATION, BATCH, MEMORY))
    if time is None or float(time[1]) <= 0:
        steps.broken()
        return True
    steps.add(
        Step(
            iteration=int(float(iteration[1])) if iteration else None,
            time_s=float(time[1]),
            batch=int(float(batch[1])) if batch else None,
            rank=line.rank,
        )
    )
    if memory:
        steps.holds("allocated", float(memory[1]))
    return True


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
