"""`dataclass` of the standard library, in which a frozen class takes a third of the time to make.

The standard one compiles six methods for each frozen class, and the hundred and forty classes of a prediction were a quarter
of what `perfmodel predict` took. Here one method is compiled, `__init__`; what compares, hashes, shows and refuses is shared.
The classes are dataclasses all the same (`fields`, `asdict`), and a type checker sees the standard decorator alone.

All of perfmodel/ takes `dataclass` and `replace` from here, which ruff checks; model/, benchmarks/ and tests/ take the others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, Field, FrozenInstanceError
from functools import cache
from operator import attrgetter
from reprlib import recursive_repr
from types import MemberDescriptorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

__all__ = ["changed", "dataclass", "light", "replace"]

Fields: TypeAlias = Sequence[Field[Any]]
Method: TypeAlias = Callable[..., Any]


def light(
    cls: type | None = None,
    /,
    *,
    frozen: bool = False,
    eq: bool = True,
    repr: bool = True,
    slots: bool = False,
    kw_only: bool = False,
) -> Any:
    """The decorator, with the arguments of the standard one that this project uses.

    >>> @light(frozen=True, kw_only=True)
    ... class Link:
    ...     bandwidth: float
    ...     latency: float = 0.0
    >>> Link(bandwidth=4.5e11)
    Link(bandwidth=450000000000.0, latency=0.0)
    """
    if cls is None:
        return lambda each: light(each, frozen=frozen, eq=eq, repr=repr, slots=slots, kw_only=kw_only)
    if not frozen:
        return dataclasses.dataclass(cls, eq=eq, repr=repr, slots=slots, kw_only=kw_only)
    own = {name for name, value in cls.__dict__.items() if value is not None}  # __hash__ is None beside an own __eq__
    made: type = dataclasses.dataclass(init=False, eq=False, repr=False, slots=slots, kw_only=kw_only)(cls)
    for method in _methods(dataclasses.fields(made), eq=eq, shows=repr, slots=slots):
        if method.__name__ not in own:
            method.__qualname__ = f"{made.__qualname__}.{method.__name__}"
            setattr(made, method.__name__, method)
    if "__init__" not in own:
        setattr(made, "__init__", _Init(made))  # noqa: B010 - to a type checker it is the method that it becomes
    return made


class _Init:
    """`__init__` of a class, which is compiled when the first object is made: many classes of a program never have one."""

    def __init__(self, cls: type) -> None:
        self.cls = cls

    def __get__(self, one: object, owner: type | None = None) -> Any:
        method = _init(self.cls, dataclasses.fields(self.cls))
        method.__qualname__ = f"{self.cls.__qualname__}.__init__"
        setattr(self.cls, "__init__", method)  # noqa: B010
        return method if one is None else method.__get__(one, owner)


def changed(one: Any, /, **changes: Any) -> Any:
    """`replace` of the standard library, in a third of its time: one evaluation of operators makes hundreds of them anew.

    >>> from fractions import Fraction
    >>> @light(frozen=True, slots=True)
    ... class Ring:
    ...     ranks: int
    ...     share: Fraction = Fraction(1, 2)
    >>> changed(Ring(8), ranks=4)
    Ring(ranks=4, share=Fraction(1, 2))
    """
    names, values = _fields_of(one.__class__)
    return one.__class__(**{**dict(zip(names, values(one), strict=True)), **changes})


@cache
def _fields_of(cls: type) -> tuple[list[str], Callable[[Any], tuple[Any, ...]]]:
    names = [entry.name for entry in dataclasses.fields(cls)]
    return names, _values(names)


if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    dataclass, replace = light, changed


def _methods(entries: Fields, *, eq: bool, shows: bool, slots: bool) -> Iterator[Method]:
    """What a frozen class gets, but for what it has of its own."""
    names = [entry.name for entry in entries]
    values = _values(names)

    def __eq__(self: Any, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: Any) -> int:
        return hash(values(self))

    @recursive_repr()
    def __repr__(self: Any) -> str:
        shown = (f"{entry.name}={getattr(self, entry.name)!r}" for entry in entries if entry.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def __setattr__(self: Any, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self: Any, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __getstate__(self: Any) -> tuple[Any, ...]:
        return values(self)

    def __setstate__(self: Any, state: tuple[Any, ...]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    yield from (__setattr__, __delattr__)
    yield from (__eq__, __hash__) if eq else ()
    yield from (__repr__,) if shows else ()
    yield from (__getstate__, __setstate__) if slots else ()


def _values(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """A function of an object: the tuple of its fields."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda each: tuple(getattr(each, name) for name in names)


def _init(cls: type, entries: Fields) -> Method:
    """`__init__`, which checks nothing but the names of its arguments, and calls `__post_init__` where there is one."""
    known: dict[str, Any] = {"_set": object.__setattr__, "_missing": MISSING}
    arguments, lines = ["self"], []
    for entry in sorted(entries, key=lambda each: bool(each.kw_only)):
        name = value = argument = entry.name
        if entry.default_factory is not MISSING:
            known[f"_of_{name}"] = entry.default_factory
            argument, value = f"{name}=_missing", f"_of_{name}() if {name} is _missing else {name}"
        elif entry.default is not MISSING:
            known[f"_of_{name}"] = entry.default
            argument = f"{name}=_of_{name}"
        arguments += ["*"] if entry.kw_only and "*" not in arguments else []
        arguments.append(argument)
        slot = getattr(cls, name, None)
        if isinstance(slot, MemberDescriptorType):  # which sets it in half of the time
            known[f"_set_{name}"] = slot.__set__
            lines.append(f" _set_{name}(self, {value})")
        else:
            lines.append(f" _set(self, {name!r}, {value})")
    lines += [" self.__post_init__()"] if hasattr(cls, "__post_init__") else []
    found: dict[str, Any] = {}
    exec("\n".join([f"def __init__({', '.join(arguments)}):", *(lines or [" pass"])]), known, found)  # names of fields alone
    method: Method = found["__init__"]
    method.__annotations__ = {entry.name: entry.type for entry in entries} | {"return": None}
    return method
