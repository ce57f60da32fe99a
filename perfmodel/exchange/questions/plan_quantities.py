"""How the quantities of a plan are typed: work, limits, numbers of GPUs and stages of the ramp.

tokens           8T                          and other counts: 1024, 4M
gpus             3072 | 1024,2048 | 512..4096 (doubling)
deadline         14d | 2 weeks | 2027-03-01     a time from now on, or the day by which it has to be over
budget           5M | $5M                    dollars
confidence       90% | 0.9                   the probability with which a plan meets its limits
ramp             384:200B:768, 768:200B      batch:tokens[:gpus] of each stage
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError, UnitError, shown
from perfmodel.exchange.questions.swept_axes import value_texts
from perfmodel.spec.fields import Number
from perfmodel.units import SECONDS_PER_DAY, parse_quantity

DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
LARGEST_COUNT: Final = 10_000_000  # of GPUs, ranks or sequences: more is taken for a typing error
COUNT: Final = Number("count", 1, None, LARGEST_COUNT, integer=True, optional=False)
MOST_DOLLARS: Final = 1e15  # of a budget: more than the world earns in a year
A_TIME: Final = "write a time from now on such as 14d or 36h, or a day such as 2027-03-01"


def positive_number(key: str, value: Any, dimension: str = "count") -> float:
    """The number above 0 that `value` says, of a dimension of units.py. Errors: InputError with the key."""
    try:
        number = parse_quantity(value, dimension)
    except PerfmodelError as error:
        raise error.under(key) from None
    if not number > 0:
        raise InputError(f"{shown(value)} must be greater than 0", key=key)
    return number


def whole_number(key: str, value: Any) -> int:
    """The whole number above 0 that `value` says. Errors: InputError with the key."""
    number = positive_number(key, value)
    if number != int(number):
        raise InputError(f"{shown(value)} is not a whole number", key=key)
    if number > LARGEST_COUNT:
        raise InputError(f"{shown(value)} must be at most {LARGEST_COUNT:,}", key=key)
    return int(number)


def whole_numbers(key: str, value: Any, *, multiple: int = 1) -> tuple[int, ...]:
    """The whole numbers in a number, a sequence, or a text such as 8, 2,4,8 or 1..8; each once, in their order.

    Numbers between the ends of a range are multiples of `multiple`.

    >>> whole_numbers("gpus", "512..2048"), whole_numbers("tensor_parallel", [8, "4"])
    ((512, 1024, 2048), (8, 4))
    """
    try:
        texts = value_texts(value, COUNT, whole=multiple) if isinstance(value, str) else _listed(value)
    except PerfmodelError as error:
        raise error.under(key) from None
    return tuple(dict.fromkeys(whole_number(key, text) for text in texts))


def deadline_s(value: Any) -> float:
    """Seconds from now to a deadline: a time, or the start of a day. Errors: InputError for a day that is not in the future."""
    if isinstance(value, str) and DAY.fullmatch(value.strip()):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            raise InputError(f"{shown(value)} is not a day of the calendar", key="deadline") from None
    if isinstance(value, date):
        return _until(value.date() if isinstance(value, datetime) else value)
    try:
        number = parse_quantity(value, "s")
    except UnitError:
        raise InputError(f"{shown(value)} is not a deadline; {A_TIME}", key="deadline") from None
    if isinstance(value, str) and value.strip()[-1] in "0123456789.":
        raise InputError(f"{shown(value)} has no unit; {A_TIME}", key="deadline")
    if not number > 0:
        raise InputError(f"{shown(value)} must be greater than 0", key="deadline")
    return number


def _until(day: date) -> float:
    today = datetime.now(tz=UTC).date()
    if day <= today:
        later = "give a later day, or a time from now on such as 14d"
        raise InputError(f"{day} is not after today, {today}; {later}", key="deadline")
    return (day - today).days * SECONDS_PER_DAY


def budget_dollars(value: Any) -> float:
    """The dollars of a budget. Errors: InputError for what is not a sum of dollars.

    >>> budget_dollars("$5M")
    5000000.0
    """
    try:
        dollars = positive_number("budget", value.strip().removeprefix("$") if isinstance(value, str) else value)
    except UnitError:
        raise InputError(f"{shown(value)} is not a sum of dollars; write it like 5M or 500k", key="budget") from None
    if dollars > MOST_DOLLARS:
        raise InputError(f"{shown(value)} must be at most {MOST_DOLLARS:g} dollars", key="budget")
    return dollars


def confidence(value: Any) -> float:
    """The probability with which limits are met. Errors: InputError for what is not between 0 and 1.

    >>> confidence("90%")
    0.9
    """
    try:
        probability = parse_quantity(value, "ratio")
    except PerfmodelError:
        probability = 1.0
    if not 0 < probability < 1:
        raise InputError(f"{shown(value)} is not a probability between 0 and 100 %; write it like 90%", key="confidence")
    return probability


def share_of_memory(value: Any) -> float:
    """The share of a GPU's memory that is left free. Errors: InputError for what is not a share."""
    try:
        share = parse_quantity(value, "ratio")
    except PerfmodelError:
        share = 1.0
    if not 0 <= share < 1:
        raise InputError(f"{shown(value)} is not a share of the memory; write it like 5%", key="leave_free")
    return share


def ramp_stages(value: Any) -> list[tuple[int, float, int | None]]:
    """Batch, tokens and GPUs (None where they are not stated) of each ramp stage. Errors: InputError.

    >>> ramp_stages("384:200B, 1152:7.6T:2304")
    [(384, 200000000000.0, None), (1152, 7600000000000.0, 2304)]
    """
    texts = value.split(",") if isinstance(value, str) else _listed(value)
    return [_ramp_stage(text) for text in texts]


def _ramp_stage(text: Any) -> tuple[int, float, int | None]:
    pieces = [piece.strip() for piece in text.split(":")] if isinstance(text, str) else []
    if len(pieces) not in (2, 3):
        stages = "write batch:tokens or batch:tokens:gpus of each stage, as in 384:200B,1152:7.6T"
        raise InputError(f"{shown(text)} is not a stage; {stages}", key="ramp")
    try:
        gpus = whole_number("gpus", pieces[2]) if len(pieces) == 3 else None
        return whole_number("batch", pieces[0]), positive_number("tokens", pieces[1]), gpus
    except PerfmodelError as error:
        raise error.under("ramp") from None


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) else [value]
