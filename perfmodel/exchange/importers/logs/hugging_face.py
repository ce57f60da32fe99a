"""Logs of the Hugging Face Trainer: the rates of the whole run, which it prints at its end."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_formats import recogniser
from perfmodel.exchange.translation.logs.log_lines import lines_of
from perfmodel.exchange.translation.logs.log_records import LogRecord

NAME: Final = "Hugging Face Trainer log"
MARKS: Final = (b"train_runtime",)
VALUE: Final = r"['\"]: ['\"]?([\d.]+(?:e[-+]?\d+)?)['\"]?[,}\s]"
STEPS: Final = re.compile(r"['\"]train_steps_per_second" + VALUE)
SAMPLES: Final = re.compile(r"['\"]train_samples_per_second" + VALUE)
RUNTIME: Final = re.compile(r"['\"]train_runtime" + VALUE)
LEAST, MOST = 1e-9, 1e12
WHOLE: Final = "These are means of the whole run: its start, evaluations and checkpoints are in them."


def _convert(document: Document) -> Conversion:
    record = None
    for line in lines_of(document.path, MARKS) if document.path else ():
        text = line.text + line.end
        steps, samples, runtime = (pattern.search(text) for pattern in (STEPS, SAMPLES, RUNTIME))
        rate = _number(steps)
        if rate:
            record = LogRecord(
                iteration_time_s=1.0 / rate,
                interval_s=None,
                steps=round(rate * _number(runtime)),
                global_batch_size=round(_number(samples) / rate) or None,
                notes=(WHOLE,),
            )
    return Conversion(format=NAME, record=record)


def _number(found: re.Match[str] | None) -> float:
    """The number that was found; 0 for none, and for one that no run has."""
    try:
        value = float(found[1]) if found else 0.0
    except ValueError:
        return 0.0
    return value if LEAST < value < MOST else 0.0


IMPORTER: Final = log_importer(name=NAME, recognises=recogniser(NAME), convert=_convert)
