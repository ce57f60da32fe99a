"""Logs of MaxText: seconds, TFLOP/s and tokens/s of a device, and the tokens of a step."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser, steps_of
from perfmodel.exchange.translation.logs.log_lines import LogLine
from perfmodel.exchange.translation.logs.steady_steps import SteadySteps, Step

NAME: Final = "MaxText log"
MARKS: Final = (b"completed step:",)
STEP: Final = re.compile(
    r"completed step: (\d+), seconds: ([\d.]+), TFLOP/s/device: ([\d.]+), Tokens/s/device: ([\d.]+)"
    r"(?:, total_weights: (\d+))?(?=,)"  # what is cut ends without
)
CONVENTION: Final = "Causal attention counts half in its TFLOP/s since July 2025, and in full before."
NEAR: Final = 0.02  # of a whole number of devices


def _convert(document: Document) -> Conversion:
    weights: dict[str, float] = {}
    steps = steps_of(document, MARKS, lambda line, into: _take(line, into, weights))
    record = steps.record(gpus=_devices(weights), notes=(CONVENTION,))
    return Conversion(format=NAME, record=record)


def _take(line: LogLine, steps: SteadySteps, weights: dict[str, float]) -> bool:
    found = STEP.search(line.text)
    if found is None:
        if "completed step:" in line.text:
            steps.broken()
            return True
        return False
    time_s, tokens = float(found[2]), float(found[4])
    steps.add(
        Step(
            iteration=int(found[1]),
            time_s=time_s,
            tokens_per_s_per_gpu=tokens,
            tflop_per_s_per_gpu=float(found[3]),
            rank=line.rank,
        )
    )
    if found[5] and tokens > 0 and time_s > 0:
        weights["devices"] = float(found[5]) / (tokens * time_s)
    return True


def _devices(weights: dict[str, float]) -> int | None:
    """Tokens of a step over those of a device: the devices, where that is near a whole number."""
    ratio = weights.get("devices", 0.0)
    return round(ratio) if ratio >= 1 and abs(ratio - round(ratio)) <= NEAR * ratio else None


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
