"""Golden values of Megatron-LM's tests: times and memory of iterations as JSON, in lists or by iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from perfmodel.exchange.importers.registry import Document, log_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.steady_steps import MOST_COUNTED, SteadySteps, Step

NAME: Final = "Megatron-LM golden values"
TIMES: Final = "iteration-time"
MEMORY: Final = "mem-max-allocated-bytes"
VALUES: Final = "values"
MOST_DIGITS: Final = 15  # of an iteration


def _is_golden(document: Document) -> bool:
    series = document.mapping.get(TIMES)
    return isinstance(series, Mapping) and isinstance(series.get(VALUES), Mapping | list)


def _convert(document: Document) -> Conversion:
    steps = SteadySteps()
    for iteration, time_s in _numbers(document.mapping.get(TIMES)):
        steps.add(Step(iteration=iteration, time_s=time_s))
    for _, size in _numbers(document.mapping.get(MEMORY)):
        steps.holds("allocated", size)
    return Conversion(format=NAME, record=steps.record())


def _numbers(series: Any) -> Iterator[tuple[int, float]]:
    """Iterations with their values; text such as nan is none."""
    values = series.get(VALUES) if isinstance(series, Mapping) else None
    start, interval = (series.get(key, 1) for key in ("start_step", "step_interval")) if isinstance(series, Mapping) else (1, 1)
    if isinstance(values, list) and all(isinstance(each, int) for each in (start, interval)):
        values = {start + interval * place: value for place, value in enumerate(values)}
    for iteration, value in values.items() if isinstance(values, Mapping) else ():
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MOST_COUNTED
        if is_number and (text := str(iteration)).isdecimal() and len(text) <= MOST_DIGITS:
            yield int(text), float(value)


IMPORTER: Final = log_importer(name=NAME, recognises=_is_golden, convert=_convert)
