"""What a field of a spec may hold: one declaration serves validation, reading files and showing presets.

    layers: Numeric = number("count", minimum=1, integer=True)

A numeric field holds a number or a NumPy array of any shape: arrays of one spec broadcast against those of the others
(DESIGN.md, idea 3). Categories (text, choices, flags) are always single values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, field, fields
from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.light_dataclass import dataclass

Numeric: TypeAlias = float | NDArray[Any]
Truth: TypeAlias = bool | np.bool_ | NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a dimension (a key of units.DIMENSIONS), between bounds."""

    dimension: str
    minimum: float
    above: float | None
    maximum: float
    integer: bool
    optional: bool
    derived: bool = False  # worked out from the layout: no file may give it

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        if (value is None and self.optional) or self._holds(value):
            return ""
        demand = self._broken_demand(np.asarray(value))
        return demand and f"{shown(float(f'{value:.12g}') if isinstance(value, float) else value)} {demand}"

    def _broken_demand(self, array: NDArray[Any]) -> str:
        """The first demand that some element does not meet, or ""."""
        if array.dtype.kind not in "iuf" or array.size == 0:
            return "is not a number"
        demands = (
            (np.isfinite(array), "is not finite"),
            (not self.integer or array == np.floor(array), "is not a whole number"),
            (self.above is None or array > self.above, f"must be greater than {self.above}"),
            (array >= self.minimum, f"must be at least {self.minimum:g}"),
            (array <= self.maximum, f"must be at most {self.maximum:g}"),
        )
        return next((demand for met, demand in demands if not np.all(met)), "")

    def _holds(self, value: Any) -> bool:
        """Whether `value` is one plain number, or an array of them, and right: the common cases, at the least cost."""
        if isinstance(value, np.ndarray) and value.dtype == np.float64 and value.size:
            inside = self._holds(float(value.min())) and self._holds(float(value.max()))
            return inside and (not self.integer or bool((value == np.floor(value)).all()))
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        inside = self.minimum <= value <= self.maximum and (self.above is None or value > self.above)
        return inside and (not self.integer or value == int(value))


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words; `other_names` are what people also call them."""

    options: tuple[str, ...]
    other_names: tuple[tuple[str, str], ...] = ()
    optional: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        if (isinstance(value, str) and value in self.options) or (value is None and self.optional):
            return ""
        known = dict(self.other_names).get(str(value).lower())
        hint = f"it is called {known} here" if known else did_you_mean(str(value), self.options)
        return f"{shown(value)} is not one of them; {hint}"


@dataclass(frozen=True, slots=True)
class Choices:
    """Some of a few words, each once; none only where that is the default."""

    options: tuple[str, ...]
    optional: bool = False
    other_names: tuple[tuple[str, str], ...] = ()

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        if value == () and self.optional:
            return ""
        if not isinstance(value, tuple) or not value or len(set(map(str, value))) != len(value):
            return f"{shown(value)} is not a list of different words, as in {' '.join(self.options[:2])}"
        return next((wrong for word in value if (wrong := Choice(self.options, self.other_names).problem(word))), "")


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    optional: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        return "" if isinstance(value, bool) or (value is None and self.optional) else f"{shown(value)} is not true or false"


@dataclass(frozen=True, slots=True)
class Text:
    """Printable words on one line."""

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        fits = isinstance(value, str) and value.isprintable() and value.strip()
        return "" if fits else f"{shown(value)} is not one line of text"


@dataclass(frozen=True, slots=True)
class Words:
    """A sequence of words, any number of times each."""

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        fits = isinstance(value, tuple) and all(isinstance(word, str) and word.isprintable() and word for word in value)
        return "" if fits else f"{shown(value)} is not a list of words"


@dataclass(frozen=True, slots=True)
class Part:
    """Another spec, a mapping of names to specs, or a list of specs; `preset` is the folder whose presets may stand for it.

    `optional` ones may have no entries; `nullable` ones may be None.
    """

    spec: type
    shape: str  # one | table | sequence
    preset: str
    optional: bool = False
    nullable: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        if value is None and (self.nullable or self.shape != "one"):
            return "" if self.nullable else f"{shown(value)} where a {self.shape} is needed"
        members = [value] if self.shape == "one" else list(value.values()) if self.shape == "table" else list(value)
        if self.shape != "one" and not members and not self.optional:
            return f"at least one {words_of(self.spec)} is needed"
        wrong = [member for member in members if not isinstance(member, self.spec)]
        return f"{shown(wrong[0])} is not a {words_of(self.spec)}" if wrong else ""


@dataclass(frozen=True, slots=True)
class NumberTable:
    """A mapping from names to numbers, each under one rule."""

    number: Number

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        return next((f"{name}: {wrong}" for name, entry in value.items() if (wrong := self.number.problem(entry))), "")


@dataclass(frozen=True, slots=True)
class Grid:
    """Names to a list of numbers each: the values at which something was measured in rising order, or `columns` of a table."""

    columns: tuple[str, ...] = ()

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, or ""."""
        for name, values in value.items():
            if self.columns and (len(values) != len(self.columns) or min(values) < 0):
                return f"{name}: {shown(values)} are not {len(self.columns)} numbers of at least 0: {', '.join(self.columns)}"
            if not self.columns and (not values or list(values) != sorted(set(values))):
                return f"{name}: {shown(values)} are not numbers in rising order"
        return ""


Rule: TypeAlias = Number | Choice | Choices | Flag | Text | Words | Part | NumberTable | Grid


def number(
    dimension: str,
    *,
    minimum: float = 0.0,
    above: float | None = None,
    maximum: float = 1e30,
    integer: bool = False,
    optional: bool = False,
    derived: bool = False,
    default: Any = MISSING,
) -> Any:
    """A numeric field; `optional` admits None, for what a source does not state; a `derived` one is no key of a file."""
    return _field(Number(dimension, minimum, above, maximum, integer, optional, derived), default)


def count(*, minimum: float = 1, maximum: float = 1e9, optional: bool = False, default: Any = MISSING) -> Any:
    """A whole number of things, small enough that products of a few stay exact; `optional` admits None."""
    return number("count", minimum=minimum, maximum=maximum, integer=True, optional=optional, default=default)


def choice(
    *options: str, default: Any = MISSING, optional: bool = False, other_names: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A field that holds one of `options`; `optional` admits None."""
    return _field(Choice(options, tuple(other_names.items()), optional), default)


def choices(*options: str, default: Any = MISSING, other_names: Mapping[str, str] = MappingProxyType({})) -> Any:
    """A field that holds some of `options`; a file gives them as one text, `none zero1`, or as a list."""
    return _field(Choices(options, default == (), tuple(other_names.items())), default)


def words(*, default: Any = MISSING) -> Any:
    """A field that holds a sequence of words; a file gives them as one text, `local local global`, or as a list."""
    return _field(Words(), default)


def flag(*, optional: bool = False, default: Any = MISSING) -> Any:
    """A field that holds true or false; `optional` admits None."""
    return _field(Flag(optional), default)


def text(*, default: Any = MISSING) -> Any:
    """A field that holds words."""
    return _field(Text(), default)


def part(spec: type, *, shape: str = "one", preset: str = "", optional: bool = False, default: Any = MISSING) -> Any:
    """A field that holds another spec; `optional` admits None, or a table without entries, which is its default."""
    nullable = optional and (shape == "one" or default is None)
    rule = Part(spec, shape, preset, optional, nullable)
    if optional and shape == "table" and default is MISSING:
        return field(default_factory=lambda: MappingProxyType({}), metadata={"rule": rule})
    return _field(rule, default)


def numbers(dimension: str, *, above: float = 0.0, optional: bool = False) -> Any:
    """A field that maps names to numbers; `optional` ones are empty unless they are given."""
    rule = NumberTable(Number(dimension, 0.0, above, 1e30, integer=False, optional=False))
    if optional:
        return field(default_factory=lambda: MappingProxyType({}), metadata={"rule": rule})
    return _field(rule, MISSING)


def spreads() -> Any:
    """The field `spread`: names of uncertain numbers beside it to the relative half widths of their 90 % intervals."""
    rule = NumberTable(Number("ratio", 0.0, None, 3.0, integer=False, optional=False))
    return field(default_factory=lambda: MappingProxyType({}), metadata={"rule": rule})


def grid(*columns: str) -> Any:
    """A field that maps sizes to the values at which they were measured, or the rows of a table to their `columns`."""
    return field(default_factory=lambda: MappingProxyType({}), metadata={"rule": Grid(columns)})


def _field(rule: Rule, default: Any) -> Any:
    return field(default=default, metadata={"rule": rule})


def words_of(spec: type) -> str:
    """The name of a spec as words.

    >>> class TransformerModel(Spec): ...
    >>> words_of(TransformerModel)
    'transformer model'
    """
    return re.sub(r"(?<!^)(?=[A-Z])", " ", spec.__name__).lower()


def rule_of(entry: Field[Any]) -> Rule:
    """The declaration of one dataclass field of a spec."""
    rule: Rule = entry.metadata["rule"]
    return rule


def is_derived(entry: Field[Any]) -> bool:
    """Whether a field is worked out from others, and no key of a file."""
    rule = rule_of(entry)
    return isinstance(rule, Number) and rule.derived


class Spec:
    """The root of all specs: a frozen value that checks its fields when it is made.

    A field `spread` (made by `spreads`) says how uncertain the numbers beside it are (spec/evidence/spread.py).

    Two specs are equal when all their fields are, arrays element by element (what dataclasses generate fails on arrays).
    """

    __slots__ = ()
    moved_keys: ClassVar[Mapping[str, str]] = MappingProxyType({})  # what files of earlier versions called a key -> its path

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in _names_of(self))
        return f"{type(self).__name__}({values})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(is_same(getattr(self, name), getattr(other, name)) for name in _names_of(self))

    def __hash__(self) -> int:
        return hash((type(self), getattr(self, "name", "")))  # arrays have none; equal specs share their name


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of a field are equal, arrays element by element."""
    if one is other:
        return True
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(is_same(value, other[key]) for key, value in one.items())
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return bool(np.array_equal(one, other))
    return bool(one == other)


def anywhere(truth: Truth | Numeric) -> bool:
    """np.any, without its cost for a single truth: of one layout there are a hundred.

    >>> anywhere(True), anywhere(np.array([False, False]))
    (True, False)
    """
    return bool(truth.any()) if isinstance(truth, np.ndarray) else bool(truth)


def everywhere(truth: Truth | Numeric) -> bool:
    """np.all, without its cost for a single truth: a layout is checked by forty rules.

    >>> everywhere(True), everywhere(np.array([True, False]))
    (True, False)
    """
    return bool(truth.all()) if isinstance(truth, np.ndarray) else bool(truth)


def chosen(condition: Truth, yes: Numeric, no: Numeric) -> Numeric:
    """np.where(condition, yes, no); of a single condition simply the one or the other, which is faster.

    >>> chosen(True, 1.0, 0.0), chosen(np.array([True, False]), 1.0, 0.0).tolist()
    (1.0, [1.0, 0.0])
    """
    if isinstance(condition, np.ndarray) and condition.ndim:
        return np.where(condition, yes, no)
    return yes if condition else no


def whole(value: Numeric) -> int:
    """A number of things, of one layout: a plain integer."""
    return round(float(value))


def plain(value: Numeric) -> str:
    """A number as a person writes it: 4 rather than 4.0; an array as NumPy has it."""
    return f"{float(value):.15g}" if np.ndim(value) == 0 else shown(value)


@cache
def rules_of(kind: type) -> Mapping[str, Rule]:
    """The rule of each field of a class: specs are made by the thousand, their classes once."""
    return {entry.name: rule_of(entry) for entry in fields(kind)}


def _names_of(spec: Any) -> Iterable[str]:
    kind: type = type(spec)
    return rules_of(kind)


def check_fields(spec: Any) -> None:
    """Raise InputError with the key of the first field of `spec` whose value breaks its declaration."""
    kind: type = type(spec)
    rules = rules_of(kind)
    for name, rule in rules.items():
        if wrong := rule.problem(getattr(spec, name)):
            raise InputError(wrong, key=name)
    for name in getattr(spec, "spread", ()):
        beside = [each for each, rule in rules.items() if isinstance(rule, Number) and not rule.integer]
        if name not in beside:
            raise InputError(f"no number beside it that can be uncertain; {did_you_mean(name, beside)}", key=f"spread.{name}")
