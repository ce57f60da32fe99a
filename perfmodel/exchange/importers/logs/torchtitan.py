"""Logs of torchtitan: tokens/s a GPU, reserved memory, TFLOP/s; how long a step takes follows from dates or from the batch."""

from __future__ import annotations

import re
from datetime import datetime
from math import prod
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine, plain
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step
from perfmodel.units import GIBIBYTE

NAME: Final = "torchtitan log"
MARKS: Final = (b"tps:", b"wps:")
STEP: Final = re.compile(
    r"\bstep:\s*(?P<step>\d+)\s.{0,300}?(?:memory:\s*(?P<memory>[\d.]+)GiB\S*\s+)?(?:tps|wps):\s*(?P<tps>[\d,]+)\s+"
    r"(?:tflops:\s*(?P<tflops>[\d.]+)\s+)?mfu:\s*\S+"
)
DATE: Final = re.compile(r"\b(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:[,.](\d{3,6}))?")
BATCH: Final = re.compile(r"global batch size (\d{1,12})\b.{0,2000}?sequence length (\d{1,12})\b", re.DOTALL)
MESH: Final = re.compile(r"Building \d-D device mesh with .{0,300}?, \[((?:\d{1,7}(?:, ?)?){1,9})\]")


def _convert(document: Document) -> Conversion:
    timed = _Times()
    steps = steps_of(document, MARKS, lambda line, into: _take(line, into, timed))
    head = plain(document.text)
    batch, mesh = BATCH.search(head), MESH.search(head)
    gpus = prod(int(each) for each in mesh[1].split(",") if each.strip()) if mesh else None
    if batch:
        steps.state_batch(int(batch[1]))
    length = int(batch[2]) if batch else None
    return Conversion(format=NAME, record=steps.record(convention="full", sequence_length=length, gpus=gpus))


class _Times:
    """The date of the last line of each rank's steps, from which the time of the next ones follows."""

    def __init__(self) -> None:
        self.last: tuple[int, datetime] | None = None

    def since(self, step: int, text: str) -> float | None:
        """Seconds a step since the last line; None where a line has no date, or steps begin again."""
        found = DATE.search(text)
        date = datetime.fromisoformat(f"{found[1]}.{found[2] or '0'}") if found else None  # naive: differences only
        last, self.last = self.last, None if date is None else (step, date)
        if last is None or date is None or step <= last[0]:
            return None
        seconds = (date - last[1]).total_seconds() / (step - last[0])
        return seconds if seconds > 0 else None


def _take(line: LogLine, steps: SteadySteps, timed: _Times) -> bool:
    found = STEP.search(line.text)
    if found is None:
        if "step:" in line.text and ("tps:" in line.text or "wps:" in line.text):
            steps.broken()
            return True
        return False
    step = int(found["step"])
    if steps.is_anothers(line.rank, step):
        steps.of_another_rank()
        return True
    steps.add(
        Step(
            iteration=step,
            time_s=timed.since(step, line.text),
            tokens_per_s_per_gpu=float(found["tps"].replace(",", "")),
            tflop_per_s_per_gpu=float(found["tflops"]) if found["tflops"] else None,
            rank=line.rank,
        )
    )
    if found["memory"]:
        steps.holds("reserved", float(found["memory"]) * GIBIBYTE)
    return True


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
