"""How far an operator's sizes are from what was measured, in one of four words (spec/machines/coefficients.py, Evidence)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.coefficients import Evidence

WORDS: Final = ("measured", "interpolated", "extrapolated", "datasheet")  # from the surest to the least sure


def confidence(evidence: Evidence, sizes: Mapping[str, Numeric]) -> str:
    """measured: every size is one of the table's; interpolated: all lie inside it; else extrapolated, or datasheet.

    `sizes` are those of one operator of one layout; a size that the table does not list counts for nothing.

    >>> from types import MappingProxyType
    >>> table = Evidence(basis="measured", sizes=MappingProxyType({"rows": (512.0, 1024.0)}))
    >>> [confidence(table, {"rows": rows}) for rows in (512, 700, 4096)]
    ['measured', 'interpolated', 'extrapolated']
    """
    if evidence.basis == "datasheet":
        return "datasheet"
    if evidence.basis == "transferred":
        return "extrapolated"
    listed = [(float(np.asarray(size)), evidence.sizes[name]) for name, size in sizes.items() if name in evidence.sizes]
    if all(size in values for size, values in listed):
        return "measured"
    return "interpolated" if all(values[0] <= size <= values[-1] for size, values in listed) else "extrapolated"


def least_sure(words: list[str]) -> str:
    """The least sure of several words."""
    return max(words, key=WORDS.index)
