"""Logs of DeepSpeed's engine: samples/s of all GPUs; how long a step takes follows from the batch that the head states."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine, line_of
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step

NAME: Final = "DeepSpeed log"
MARKS: Final = (b"CurrSamplesPerSec=",)
RATE: Final = re.compile(r"CurrSamplesPerSec=([\d.]+)(?=,)")
ITERATION: Final = re.compile(r"\bglobal_step=(\d+)")
MEMORY: Final = re.compile(r"MaxMemAllocated=([\d.]+)\s*GB")
BATCH: Final = re.compile(r"\btrain_batch_size \.{3,} (\d{1,12})\b")
WORLD: Final = re.compile(r"\b(?:world_size|dp_world_size)[ =:]+\.*\s*(\d+)")
GIGABYTE: Final = 2.0**30  # what DeepSpeed calls GB
NO_BATCH: Final = "It does not state train_batch_size: samples/s of all GPUs do not say how long a step takes."


def _convert(document: Document) -> Conversion:
    head = "\n".join(line_of(each).text for each in document.text.splitlines()[:20000])
    found = BATCH.search(head)
    batch = int(found[1]) if found else None
    steps = steps_of(document, MARKS, lambda line, into: _take(line, into, batch))
    return Conversion(format=NAME, record=steps.record(notes=() if batch else (NO_BATCH,)))


def _take(line: LogLine, steps: SteadySteps, batch: int | None) -> bool:
    if "CurrSamplesPerSec=" not in line.text:
        return False
    rate, iteration, memory = RATE.search(line.text), ITERATION.search(line.text), MEMORY.search(line.text)
    if rate is None or float(rate[1]) <= 0:
        steps.broken()
        return True
    steps.add(
        Step(
            iteration=int(iteration[1]) if iteration else None,
            time_s=batch / float(rate[1]) if batch else None,
            samples_per_s=float(rate[1]),
            batch=batch,
            rank=line.rank,
        )
    )
    if memory:
        steps.holds("allocated", float(memory[1]) * GIGABYTE)
    return True


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
