"""Which software wrote a log, by what a line of a step looks like; and what interrupts steps, in all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from perfmodel.exchange.translation.logs.log_lines import LogLine, lines_of, plain
from perfmodel.exchange.translation.logs.steady_steps import EVALUATED, SAVED, SteadySteps

if TYPE_CHECKING:
    from perfmodel.exchange.importers.registry import Document

FORMATS: Final = {  # the first that fits counts: logs of one often have lines of those below it; each in linear time
    "MLPerf log": r":::MLLOG",
    "Megatron-LM log": r"elapsed time per iteration \(ms\):|(?<!-)-{10,} arguments -{10,}|Step Time : [\d.]+s GPU utilization:",
    "NeMo log": r"train_step_timing in s",
    "nanotron log": r"\biteration: \d+ / \d+ \|.{0,500}\b(?:time_per_iteration_ms|tokens_per_sec)",
    "torchtitan log": r"\bstep:\s*\d+\s.{0,300}\b(?:tps|wps):",
    "MaxText log": r"completed step: \d+, seconds:",
    "DeepSpeed log": r"RunningAvgSamplesPerSec=|\[Rank \d+\] step=\d+, skipped=",
    "Hugging Face Trainer log": r"['\"]train_runtime['\"]",
}
PATTERNS: Final = {name: re.compile(pattern) for name, pattern in FORMATS.items()}
EVALUATION: Final = re.compile(r"(?i)validation loss|running evaluation|evaluating|\bvalidate step:|eval_loss")
CHECKPOINT: Final = re.compile(r"(?i)sav(?:ing|ed)[^|]{0,40}checkpoint")
INTERRUPTIONS: Final = (b"validation loss", b"valuati", b"validate step:", b"eval_loss", b"heckpoint")  # in lines of both


@lru_cache(maxsize=4)
def log_format(text: str) -> str:
    """What wrote a log; empty for a text that is none."""
    bare = plain(text)
    return next((name for name, pattern in PATTERNS.items() if pattern.search(bare)), "")


def recogniser(name: str) -> Callable[[Document], bool]:
    """Whether a document is a log of this format."""
    return lambda document: document.path is not None and log_format(document.text) == name


def steps_of(document: Document, marks: Sequence[bytes], take: Callable[[LogLine, SteadySteps], bool]) -> SteadySteps:
    """The steady steps of a log: `take` hands over what a line says, and says whether it was one of its own.

    A line whose numbers are none, as 25.1.4 or one of more digits than Python reads, is broken.
    """
    steps = SteadySteps()
    if document.path is None:
        return steps
    for line in lines_of(document.path, (*marks, *INTERRUPTIONS)):
        try:
            is_own = take(line, steps)
        except (ValueError, OverflowError):
            steps.broken()
            continue
        if is_own:
            continue
        if EVALUATION.search(line.text):
            steps.interrupted(EVALUATED)
        elif CHECKPOINT.search(line.text):
            steps.interrupted(SAVED)
    return steps
