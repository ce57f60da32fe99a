"""How an axis of a sweep is read: `cluster=dgx-h100,dgx-h200`, `tensor_parallel=1..8`, `gpus=96..3072x6`.

a,b,c are values. lo..hi doubles from lo, and ends with hi. lo..hixN are N values evenly spaced on a log scale, with four
digits; counts are whole numbers, GPUs whole replicas. A value may be a factor (x0.5) of what the run has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.expert_loads import KEY as EXPERT_LOAD
from perfmodel.exchange.measured.expert_loads import load_in_numbers
from perfmodel.exchange.presets import expand_part
from perfmodel.exchange.questions.scenario_texts import split_outside_brackets
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.documents import parse_text
from perfmodel.exchange.syntax.key_paths import is_factor, steps_of, with_value
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Number, NumberTable, Part, Rule, rule_of
from perfmodel.spec.run import RampStage, Run
from perfmodel.units import parse_quantity, typed_text
from perfmodel.variation.points import GPUS

MOST_VALUES: Final = 1000
RANGE: Final = re.compile(r"(.+?)\.\.(.+?)(?:x(\d{1,9}))?")
LONGEST_RANGE: Final = 200  # characters
END: Final = re.compile(r"(x?)((?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAxis:
    """A key path with its values: as they are written, and as a setting takes them (numbers in SI units, but for factors).

    `name` is the key as seen from one ramp stage: without `stages[..]`, or gpus. `is_array` says that one prediction on arrays
    covers all values; other axes need a run for each value.
    """

    name: str
    key: str
    labels: tuple[str, ...]
    values: tuple[Any, ...]
    is_array: bool


def read_axis(key: str, values: str | Iterable[Any], run: Run, place: int) -> ParsedAxis:
    """The axis that `key` and its values make of the ramp stage at `place`. Errors: InputError with the key."""
    name, key = _names(key.strip(), run, place)
    rule, is_numeric = _declared(Run, steps_of(key), name)
    layout = run.layout(run.stages[place])
    whole = int(layout.gpus // layout.data_parallel) if name == GPUS else 1
    try:
        labels = value_texts(values, rule, whole=whole) if isinstance(values, str) else [typed_text(value) for value in values]
        given = [parse_text(label) for label in labels] if isinstance(values, str) else list(values)
        if not 1 <= len(given) <= MOST_VALUES:
            raise InputError(f"{len(given):,} values; at most {MOST_VALUES:,} can be swept" if given else "no values to sweep")
        checked = tuple(_checked(rule, load_in_numbers(value) if name == EXPERT_LOAD else value) for value in given)
    except PerfmodelError as error:
        raise error.under(name) from None
    is_array = is_numeric and all(isinstance(value, int | float) for value in checked)
    if name == GPUS and not is_array:
        raise InputError("give numbers of GPUs; factors are for keys of the run, as in data_parallel=x0.5,x1,x2", key=name)
    return ParsedAxis(name=name, key=key, labels=tuple(labels), values=checked, is_array=is_array)


def _names(key: str, run: Run, place: int) -> tuple[str, str]:
    """A key as seen from the ramp stage, and its path in the run. Errors: InputError for a key that leads nowhere."""
    here = f"stages[{place}]"
    if key == GPUS:
        return GPUS, f"{here}.data_parallel"
    if key in RampStage.__dataclass_fields__ and key not in Run.__dataclass_fields__:
        return key, f"{here}.{key}"
    with_value(mapping_of(run), key, None)
    steps = steps_of(key)
    if steps[0] != "stages" or len(steps) != 3:
        return key, key
    if steps[1] != "*" and int(steps[1]) % len(run.stages) != place:
        raise InputError(f"stage {place + 1} is swept; choose another with --stage N", key=key)
    return steps[2], f"{here}.{steps[2]}"


def _declared(spec: type, steps: Sequence[str], key: str) -> tuple[Rule, bool]:
    """The declaration of the field that the steps lead to, and whether it takes arrays. Errors: InputError."""
    entries = {entry.name: entry for entry in fields(spec)}
    if not steps or steps[0] not in entries:
        raise InputError(f"unknown key; {did_you_mean(steps[0] if steps else key, entries)}", key=key)
    rule = rule_of(entries[steps[0]])
    if len(steps) == 1:
        return rule, str(entries[steps[0]].type).startswith("Numeric")
    if isinstance(rule, Part):
        return _declared(rule.spec, steps[1 if rule.shape == "one" else 2 :], key)
    if isinstance(rule, NumberTable):
        return rule.number, False
    raise InputError(f"{steps[0]} has no keys below it", key=key)


def value_texts(text: str, rule: Rule, *, whole: int = 1) -> list[str]:
    """The values of an axis as they are written, between commas or of a range; counts in a range are multiples of `whole`."""
    match = RANGE.fullmatch(text.strip()) if len(text) <= LONGEST_RANGE else None
    if match is not None and isinstance(rule, Number):
        return _range(match[1].strip(), match[2].strip(), int(match[3]) if match[3] else 0, rule, whole)
    pieces = split_outside_brackets(text)
    if not all(pieces):
        raise InputError(f"{shown(text)} has no value between two commas" if any(pieces) else "no values to sweep")
    return pieces


def _range(low: str, high: str, number: int, rule: Number, whole: int = 1) -> list[str]:
    """The values from `low` to `high`: doubling, or `number` values evenly spaced on a log scale.

    >>> _range("1", "6", 0, Number("count", 1, None, 1e9, integer=True, optional=False))
    ['1', '2', '4', '6']
    >>> _range("200", "800Gb/s", 3, Number("bytes_per_s", 0, 0, 1e30, integer=False, optional=False))
    ['200Gb/s', '400Gb/s', '800Gb/s']
    """
    ends = [END.fullmatch(end) for end in (low, high)]
    if ends[0] is None or ends[1] is None or ends[0][1] != ends[1][1] or ends[0][3] not in ("", ends[1][3]):
        raise InputError(f"{low}..{high} is not a range; write two numbers and one unit, as in 1..8 or 200..800Gb/s")
    first, last, factor, unit = float(ends[0][2]), float(ends[1][2]), ends[0][1], ends[1][3]
    if not 0 < first <= last < math.inf:
        raise InputError(f"{low}..{high} is not a range of numbers above 0; write the smaller number first")
    if number == 1 or number > MOST_VALUES:
        raise InputError(f"{low}..{high}x{number}: a range has 2 to {MOST_VALUES:,} values")
    low_octave = math.log2(first)
    octaves = math.log2(last) - low_octave
    exponents = [octaves * step / (number - 1) for step in range(number - 1)] if number else range(math.ceil(octaves - 1e-9))
    spaced = [2.0 ** (low_octave + exponent) for exponent in exponents]
    is_counted = rule.integer and not unit and not factor
    texts = [f"{max(round(value / whole), 1) * whole}" if is_counted else f"{value:.4g}" for value in spaced[1:]]
    texts = [ends[0][2], *texts, *([ends[1][2]] if last > first else [])]
    return [f"{factor}{text}{unit}" for text in dict.fromkeys(texts)]


def _checked(rule: Rule, value: Any) -> Any:
    """The value as a setting takes it, numbers in SI units. Errors: InputError for a value that no run may have there."""
    if is_factor(value):
        return value
    if isinstance(rule, Part):
        if rule.shape != "one":
            raise InputError("this is a list; vary a key in it, as in stages[-1].data_parallel=96,192")
        build(rule.spec, expand_part(rule.spec, rule.preset, value))
        return value
    if isinstance(rule, Number) and value is not None:
        number = parse_quantity(value, rule.dimension)
        if problem := rule.problem(number):
            raise InputError(problem.replace(shown(number), shown(value), 1))
        return int(number) if rule.integer else number
    if problem := rule.problem(value):
        raise InputError(problem)
    return value
