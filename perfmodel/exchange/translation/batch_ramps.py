"""How the batch ramps of training software become the stages of a run.

Megatron-LM: `--rampup-batch-size START INCREMENT SAMPLES` raises the batch by INCREMENT up to the global batch, each step of it
for as many samples as all others; `--step-batch-size-schedule "0:384 200B:768"` names each batch and where it begins.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.translation.conversion import stage
from perfmodel.units import DECIMAL_PREFIXES

MOST_STAGES: Final = 1000
LONGEST: Final = 15  # digits of a batch or a number of samples
STEP: Final = re.compile(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)([KMBT]?):(\d{1,15})")


def linear_ramp(value: Any, *, batch: int, length: int, tokens: float | None) -> list[dict[str, Any]]:
    """The stages of START INCREMENT SAMPLES and, after them, that of the whole `batch`; `tokens` are those of the whole run.

    >>> linear_ramp("2 2 8", batch=4, length=10, tokens=200.0)
    [{'global_batch_size': 2, 'tokens': 80.0}, {'global_batch_size': 4, 'tokens': 120.0}]
    """
    numbers = _whole_numbers(value)
    if len(numbers) != 3 or numbers[0] < 1 or numbers[1] < 1 or numbers[0] > batch:
        raise InputError(f"{shown(value)} is no ramp; a first batch of at most {batch}, an increment and samples are needed")
    start, increment, samples = numbers
    steps, rest = divmod(batch - start, increment)
    if rest or steps > MOST_STAGES:
        raise InputError(f"{shown(value)} does not lead to a global batch of {batch} in whole steps")
    each = samples / steps if steps else 0.0
    rising = [stage(start + increment * index, each * length) for index in range(steps)]
    left = None if tokens is None else tokens - samples * length * bool(steps)
    if left is not None and left <= 0:
        return _cut(rising, tokens or 0.0)
    return [*rising, stage(batch, left)]


def named_steps(value: Any, *, length: int, tokens: float | None) -> list[dict[str, Any]]:
    """The stages of a list of THRESHOLD:BATCH; thresholds with a suffix are tokens, without one they are samples.

    >>> named_steps("0:384 200B:768", length=4096, tokens=1e12)
    [{'global_batch_size': 384, 'tokens': 200000000000.0}, {'global_batch_size': 768, 'tokens': 800000000000.0}]
    """
    words = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    found = [STEP.fullmatch(word) for word in re.split(r"[\s,]+", words.strip("[]'\" "))]
    if not found or not all(found) or len(found) > MOST_STAGES:
        raise InputError(f"{shown(value)} is no schedule of batches; write it like 0:384 200B:768")
    starts = [float(each[1]) * (DECIMAL_PREFIXES[each[2]] if each[2] else length) for each in found if each]
    if starts != sorted(set(starts)) or starts[0]:
        raise InputError(f"{shown(value)} is no schedule of batches: thresholds begin with 0 and rise")
    ends = [*starts[1:], tokens]
    stages = [
        stage(int(each[3]), None if end is None else end - start)
        for each, start, end in zip(found, starts, ends, strict=True)
        if each
    ]
    return stages if tokens is None or tokens > starts[-1] else _cut(stages[:-1], tokens)


def rounded_down(stages: Sequence[dict[str, Any]], multiple: int) -> list[dict[str, Any]]:
    """The stages with batches that divide over the replicas, as --decrease-batch-size-if-needed makes them."""
    return [{**each, "global_batch_size": max(each["global_batch_size"] // multiple, 1) * multiple} for each in stages]


def _cut(stages: Sequence[dict[str, Any]], tokens: float) -> list[dict[str, Any]]:
    """The stages as far as the tokens of a run that ends before its ramp does."""
    kept = []
    for each in stages:
        if tokens <= 0:
            break
        kept.append({**each, "tokens": min(each["tokens"], tokens)})
        tokens -= each["tokens"]
    return kept


def _whole_numbers(value: Any) -> list[int]:
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value) if "," in value else value.strip("[]() ").split()
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    words = [str(each).strip("'\"") for each in value] if isinstance(value, list | tuple) else []
    words = [each.replace("_", "") for each in words]
    return [int(each) for each in words] if all(each.isdecimal() and len(each) <= LONGEST for each in words) else []
