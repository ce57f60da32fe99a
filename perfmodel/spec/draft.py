"""A run whose layouts may not exist: what many settings are tried on, one after the other or as arrays."""

from __future__ import annotations

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Spec
from perfmodel.spec.run import Run


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Draft(Run):
    """Every field is right on its own; whether the layouts can exist is for spec/refusals.py to say."""

    def __post_init__(self) -> None:
        Spec.__post_init__(self)
