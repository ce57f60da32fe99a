"""Logs of nanotron, whose numbers are written for people: three digits and a suffix."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine, field_of
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step

NAME: Final = "nanotron log"
MARKS: Final = (b"iteration: ",)
ITERATION: Final = re.compile(r"\biteration: (\d+) / \d+ \|")
MEMORY: Final = {"cuda_max_memory_reserved": "reserved", "cuda_max_memory_allocated": "allocated"}
ROUNDED: Final = "Its numbers have three digits: expect 1 %."


def _convert(document: Document) -> Conversion:
    return Conversion(format=NAME, record=steps_of(document, MARKS, _take).record(convention="full", notes=(ROUNDED,)))


def _take(line: LogLine, steps: SteadySteps) -> bool:
    iteration = ITERATION.search(line.text)
    if iteration is None:
        return False
    time_ms = field_of(line.text, "time_per_iteration_ms")
    if not time_ms:
        steps.broken()
        return True
    batch = field_of(line.text, "global_batch_size")
    steps.add(
        Step(
            iteration=int(iteration[1]),
            time_s=time_ms / 1e3,
            tokens_per_s_per_gpu=field_of(line.text, "tokens_per_sec_per_gpu"),
            tflop_per_s_per_gpu=field_of(line.text, "model_tflops_per_gpu"),
            batch=int(batch) if batch else None,
            rank=line.rank,
        )
    )
    for key, kind in MEMORY.items():
        if (size := field_of(line.text, key)) is not None:
            steps.holds(kind, size)
    return True


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
