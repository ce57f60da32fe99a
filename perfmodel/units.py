"""How a quantity is read and written: SI base units inside, other units only at the two edges.

Reading: `80GB`, `80GiB`, `400Gb/s`, `989 TFLOP/s`, `8T` tokens, `14d`. A `b` is a bit and a `B` is a byte: a field that
wants bytes refuses bits, so that `400Gb` can never become 400 GB. Money, carbon and failures, which have no SI units, are kept
in dollars, kg per kWh and failures per hour. Writing: `seconds_text(0.57)`; every table and sentence writes numbers with the
functions at the end of this module.
"""

from __future__ import annotations

import math
import re
from typing import Final

from perfmodel.errors import UnitError, shown

SECONDS_PER_HOUR: Final = 3600.0
SECONDS_PER_DAY: Final = 86400.0
HOURS_PER_DAY: Final = 24.0
GIBIBYTE: Final = 2.0**30

DECIMAL_PREFIXES: Final = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
SHOWN_PREFIXES: Final = ("T", "B", "M")  # of counts, as they are written
_BINARY: Final = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_TIME: Final = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": SECONDS_PER_HOUR, "d": SECONDS_PER_DAY}
_SPELT_TIME: Final = {  # the words that people write, in any case, with or without an s behind them
    **dict.fromkeys(("sec", "second"), 1.0),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("hr", "hour"), SECONDS_PER_HOUR),
    "day": SECONDS_PER_DAY,
    **dict.fromkeys(("w", "week"), 7 * SECONDS_PER_DAY),
}
_UNITS: Final = {  # dimension -> all of its units
    "s": _TIME,
    "days": {"d": 1.0, "h": 1 / 24},
    "ratio": {"%": 0.01},
    "kg_per_kwh": {"kg/kWh": 1.0, "g/kWh": 1e-3},
    "dollars": {},
    "per_hour": {"/h": 1.0},
}
_NUMBER: Final = re.compile(r"\s*([-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")

# dimension -> (what it is called in an error, an example that works)
DIMENSIONS: Final = {
    "bytes": ("a memory size in bytes", "80GB or 80GiB"),
    "bytes_per_s": ("a bandwidth", "400Gb/s (bits) or 50GB/s (bytes)"),
    "flop": ("a number of floating-point operations", "1e11 or 100GFLOP"),
    "flop_per_s": ("a compute rate", "989TFLOP/s"),
    "s": ("a time", "0.57s, 20us or 14d"),
    "days": ("a number of days", "90 or 90d"),
    "W": ("a power", "700W or 10.2kW"),
    "kg_per_kwh": ("a carbon intensity", "0.4kg/kWh or 400g/kWh"),
    "dollars": ("a price in dollars", "2.5 or $2.5"),
    "per_hour": ("a number per hour", "2e-5"),
    "count": ("a count", "4096, 200e9 or 8T"),
    "ratio": ("a plain number or a percentage", "0.9 or 90%"),
}


def parse_quantity(value: object, dimension: str) -> float:
    """`value` in SI base units; a plain number is taken to be in SI base units already.

    Errors: UnitError for a text that is not a number, or whose unit is not one of `dimension` (a key of DIMENSIONS).

    >>> parse_quantity("400Gb/s", "bytes_per_s")
    50000000000.0
    >>> parse_quantity("80GiB", "bytes")
    85899345920.0
    >>> parse_quantity("8T", "count")
    8000000000000.0
    >>> parse_quantity("14 days", "s") == parse_quantity("2w", "s") == 14 * 86400
    True
    """
    what, example = DIMENSIONS[dimension]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, what)
    if dimension == "dollars" and isinstance(value, str):
        value = value.strip().removeprefix("$")
    match = _NUMBER.fullmatch(value) if isinstance(value, str) and len(value) < 80 else None
    if match is None:
        raise UnitError(f"{shown(value)} is not {what}; write it like {example}")
    number, unit = float(match[1].replace("_", "")), match[2]
    scale = _scale(unit, dimension)
    if scale is None:
        raise UnitError(f"{shown(value)} is not {what}{_bits_hint(number, unit, dimension)}; write it like {example}")
    return _finite(number * scale, what)


def _finite(value: float, what: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise UnitError(f"{number} is not {what}: it must be a finite number")
    return number


def _scale(unit: str, dimension: str) -> float | None:
    """The factor from `unit` to the SI base unit of `dimension`; None for a unit of another dimension."""
    if unit == "":
        return 1.0
    if dimension == "s" and unit not in _TIME:
        return _SPELT_TIME.get(unit.lower().removesuffix("s"))
    if dimension in _UNITS:
        return _UNITS[dimension].get(unit)
    if dimension == "count":
        return DECIMAL_PREFIXES.get(unit)
    suffixes = {
        "bytes": {"B": 1.0},
        "bytes_per_s": {"B/s": 1.0, "b/s": 0.125, "bit/s": 0.125},
        "flop": {"FLOP": 1.0},
        "flop_per_s": {"FLOP/s": 1.0},
        "W": {"W": 1.0},
    }[dimension]
    prefixes = DECIMAL_PREFIXES | _BINARY if dimension.startswith("bytes") else DECIMAL_PREFIXES
    for suffix, factor in suffixes.items():
        prefix = unit.removesuffix(suffix).strip() if unit.endswith(suffix) else None
        if prefix in prefixes and prefix != "B":
            return prefixes[prefix] * factor
    return None


def _bits_hint(number: float, unit: str, dimension: str) -> str:
    prefix = unit.removesuffix("bit").removesuffix("b")
    if dimension == "bytes" and prefix != unit and prefix in DECIMAL_PREFIXES | _BINARY:
        return f" (a small b means bits: {number:g}{unit} would be {number / 8:g}{prefix}B)"
    return ""


def seconds_text(value: float) -> str:
    """A time with three significant digits and the unit that suits.

    >>> seconds_text(0.5712), seconds_text(0.00042), seconds_text(960), seconds_text(3e5)
    ('0.571 s', '0.42 ms', '16 min', '3.47 d')
    """
    for least, unit_s, unit in ((SECONDS_PER_DAY, SECONDS_PER_DAY, "d"), (7200, SECONDS_PER_HOUR, "h"), (600, 60, "min")):
        if value >= least:
            return f"{value / unit_s:.3g} {unit}"
    if value >= 1 or value == 0:
        return f"{value:.4g} s"
    if value >= 0.1:
        return f"{value:.3f} s"
    return f"{value * 1e3:.3g} ms" if value >= 1e-4 else f"{value * 1e6:.3g} us"


def seconds_interval_text(low_s: float, high_s: float, *, around_s: float) -> str:
    """Both ends of an interval of times, with three digits in the unit in which `seconds_text` has the time between them.

    >>> seconds_interval_text(0.55038, 0.72811, around_s=0.62), seconds_interval_text(2e-4, 0.0042, around_s=0.001)
    ('0.550 to 0.728 s', '0.200 to 4.20 ms')
    >>> seconds_text(587.7), seconds_interval_text(533.07, 648.51, around_s=587.7)
    ('587.7 s', '533 to 649 s')
    """
    steps = ((SECONDS_PER_DAY, "d"), (SECONDS_PER_HOUR * 2, "h"), (600.0, "min"), (0.1, "s"), (1e-4, "ms"), (0.0, "us"))
    unit = next(name for least, name in steps if around_s >= least)
    ends = (end / _TIME[unit] for end in (low_s, high_s))
    low, high = (f"{end:,.0f}" if end >= 1000 else f"{end:#.3g}".rstrip(".") for end in ends)
    return f"{low} to {high} {unit}"


def gibibytes_text(value: float) -> str:
    """A memory size in GiB, with one decimal.

    >>> gibibytes_text(80 * 2**30), gibibytes_text(1.25 * 2**40)
    ('80.0 GiB', '1,280.0 GiB')
    """
    return f"{value / GIBIBYTE:,.1f} GiB"


def large_text(value: float) -> str:
    """A count with four significant digits, or as it is where it is whole; from a million on with a suffix.

    >>> large_text(8e12), large_text(15.6e9), large_text(1.16e6), large_text(2304)
    ('8T', '15.60B', '1.160M', '2,304')
    """
    for suffix in SHOWN_PREFIXES:
        scale = DECIMAL_PREFIXES[suffix]
        if abs(value) >= scale:
            number = value / scale
            digits = f"{number:,.0f}" if number == round(number) or abs(number) >= 1000 else f"{number:#.4g}".rstrip(".")
            return f"{digits}{suffix}"
    return f"{value:,.6g}"


def dollars_text(amount: float) -> str:
    """A sum of dollars, whole below a million.

    >>> dollars_text(1_294_700), dollars_text(208_455.2)
    ('$1.295M', '$208,455')
    """
    return f"${large_text(amount)}" if amount >= 1e6 else f"${amount:,.0f}"


def gpus_text(number: int) -> str:
    """A number of GPUs.

    >>> gpus_text(1), gpus_text(2304)
    ('1 GPU', '2,304 GPUs')
    """
    return f"{number:,} GPU{'' if number == 1 else 's'}"


def share_text(ratio: float) -> str:
    """A share as a percentage with four significant digits.

    >>> share_text(0.025), share_text(0.5)
    ('2.5 %', '50 %')
    """
    return f"{100 * ratio:.4g} %"


def typed_text(value: object) -> str:
    """The value of a setting as a run file may have it: exact, and short where it is a large round number.

    >>> typed_text(200e9), typed_text(4.0), typed_text(0.95), typed_text(True), typed_text("zero1")
    ('200B', '4', '0.95', 'true', 'zero1')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, int | float):
        return str(value)
    for suffix in SHOWN_PREFIXES:
        scale = DECIMAL_PREFIXES[suffix]
        if abs(value) >= scale and value % (scale / 100) == 0:
            return f"{value / scale:.15g}{suffix}"
    return str(value) if isinstance(value, int) else f"{value:.15g}"
