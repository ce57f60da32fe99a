"""Where a frozen value keeps what is worked out of it, for the many that ask: of a million layouts, each thing once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Remembers:
    """A place beside the fields of a frozen value; what it holds follows from the fields, and is no part of the value."""

    __slots__ = ("_known",)
    _known: dict[str, tuple[tuple[Any, ...], Any]]

    def remembered(self, what: str, work_out: Callable[[], T], *, of: tuple[Any, ...] = ()) -> T:
        """`work_out()`, or what it gave when it was last asked for, of these very objects."""
        try:
            known = self._known
        except AttributeError:
            known = {}
            object.__setattr__(self, "_known", known)
        last = known.get(what)
        if last is None or any(one is not other for one, other in zip(last[0], of, strict=True)):
            last = known[what] = (of, work_out())
        result: T = last[1]
        return result
