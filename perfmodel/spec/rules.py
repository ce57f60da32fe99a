"""What a rule of layouts is, and the commonest one: a degree divides a size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Truth, plain
from perfmodel.spec.models.model import divisors


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What one rule says of one layout, or of each of many: whether it may be, and a sentence about those that may not.

    `error` tells what cannot exist from what could, but is not covered yet.
    """

    key: str
    allows: Truth
    sentence: Callable[[], str]
    error: type[PerfmodelError] = InputError


def divides(degree: Numeric, size: Numeric, what: str, *, key: str) -> Rule:
    """A degree must divide a size, `what` of it; the sentence says which degrees would."""
    return Rule(
        key=key,
        allows=is_multiple(size, degree),
        sentence=lambda: f"{plain(degree)} does not divide {plain(size)} {what}{would(size, size)}",
    )


def is_multiple(size: Numeric, degree: Numeric) -> Truth:
    """Whether a size is a whole number of degrees: a whole quotient says so of whole numbers far below 2^52, as all here are.

    >>> [bool(is_multiple(4096, degree)) for degree in (8, 7)]
    [True, False]
    """
    ratio = size / degree
    return ratio == np.floor(ratio)


def would(size: Numeric, shown: Numeric) -> str:
    """What divides a single size, or nothing to say of several."""
    return f"; {', '.join(map(str, divisors(float(size))[:24]))} would" if np.ndim(size) == np.ndim(shown) == 0 else ""
