"""What a config.json says of one part of a model: the cells of data/model_families.yaml, which say what decides a part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.table import family_table
from perfmodel.light_dataclass import dataclass

ASKS: Final = frozenset({"key", "length", "if"})  # one of these is in every cell that asks the config
_KINDS: Final = {str: "text", int: "a whole number", float: "a number"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyConfig:
    """The keys of a config.json as a family understands them: other names of a key, and what a missing one stands for."""

    mapping: Mapping[str, Any]
    defaults: Mapping[str, Any]

    def found(self, key: str) -> tuple[str, Any]:
        """What the config calls `key`, and its value: of several names the first that has one; the default where none is there.

        Errors: InputError where two names have different numbers.
        """
        names = family_table().aliases.get(key, (key,))
        there = {name: value for name in names if (value := self._at(name)) is not None}
        numbers = {name: value for name, value in there.items() if isinstance(value, int | float)}
        if len(set(numbers.values())) > 1:
            (first, one), (second, other) = list(numbers.items())[:2]
            raise InputError(f"{shown(other)}, but {first} is {shown(one)}; keep the right one", key=second)
        if there:
            return next(iter(there.items()))
        is_null = any(self._has(name) for name in names)
        return key, None if is_null else self.defaults.get(key)

    def _at(self, path: str) -> Any:
        value: Any = self.mapping
        for depth, step in enumerate(steps := path.split(".")):
            if value is not None and not isinstance(value, Mapping):
                raise InputError(f"{shown(value)} is no mapping", key=".".join(steps[:depth]))
            value = None if value is None else value.get(step)
        return value

    def _has(self, path: str) -> bool:
        *above, last = path.split(".")
        place = self._at(".".join(above)) if above else self.mapping
        return isinstance(place, Mapping) and last in place

    def decided(self, cell: Any) -> Any:
        """The value of a cell. Errors: InputError for a key whose value is of another type than the cell needs."""
        if isinstance(cell, Mapping) and "key" in cell:
            return self._of_key(cell)
        if isinstance(cell, Mapping) and "length" in cell:
            return self._length(cell)
        if isinstance(cell, Mapping) and "if" in cell:
            holds = self._is_so(cell)
            return self.decided(cell["then"] if holds else cell["else"]) if "then" in cell else holds
        return cell

    def _of_key(self, cell: Mapping[str, Any]) -> Any:
        name, value = self.found(cell["key"])
        if value is None:
            return self.decided(cell.get("or"))
        if not cell.keys() & {"times", "over", "plus"}:
            return value
        times, over, plus = (self.needed(cell.get(name, other)) for name, other in (("times", 1), ("over", 1), ("plus", 0)))
        return checked(name, one_of(value), int) * times // over + plus

    def _length(self, cell: Mapping[str, Any]) -> Any:
        """How many entries a list has, or letters a pattern."""
        _, value = self.found(cell["length"])
        return len(value) if isinstance(value, list | str) and value else self.decided(cell.get("or"))

    def _is_so(self, cell: Mapping[str, Any]) -> bool:
        name, value = self.found(cell["if"])
        value = one_of(value)
        if "is" in cell:
            return bool(value == cell["is"])
        if value is not None and not isinstance(value, bool | int | float):
            raise InputError(f"{shown(value)} is neither true or false nor a number", key=name)
        return bool(value)

    def number(self, cell: Any, kind: type = int) -> Any:
        """The number that a cell decides, None where the config has none. Errors: InputError, with the config's own key."""
        value = one_of(self.decided(cell))
        return None if value is None else checked(self.key_of(cell), value, kind)

    def needed(self, cell: Any, kind: type = int) -> Any:
        """The value of a cell that a model cannot be without. Errors: InputError."""
        value = one_of(self.decided(cell))
        if value is None:
            raise InputError("missing; the model needs it", key=self.key_of(cell))
        key = self.key_of(cell)
        return checked(key, value, kind) if key else value  # what the table says itself may be none of a thing

    def section(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        """The value of each cell of a part of layers: true or false, none, a number that the config needs, or parts of it."""
        return {name: self._of_section(cell) for name, cell in cells.items()}

    def _of_section(self, cell: Any) -> Any:
        if isinstance(cell, Mapping) and not ASKS & cell.keys():
            return self.section(cell)
        value = self.decided(cell)
        is_none = value is None and not self.key_of(cell)  # as the table says
        return value if isinstance(value, bool) or is_none else self.needed(cell)

    def places(self, cell: Any) -> list[int]:
        """The layers that a cell lists, counted from 0, as a list or with commas; none without any. Errors: InputError."""
        listed = self.decided(cell)
        if isinstance(listed, str) and re.fullmatch(r"\s*\d+(\s*,\s*\d+)+\s*", listed):
            listed = [int(place) for place in listed.replace(",", " ").split()]
        if listed is None:
            return []
        if not isinstance(listed, list) or not all(isinstance(each, int) and not isinstance(each, bool) for each in listed):
            raise InputError(f"{shown(listed)} is no list of layers, counted from 0", key=self.key_of(cell))
        return listed

    def key_of(self, cell: Any) -> str:
        """What the config calls the key that a cell asks for first, or whose answer it takes."""
        while isinstance(cell, Mapping) and "then" in cell:
            cell = cell["then"] if self._is_so(cell) else cell["else"]
        asked = cell.get("key", cell.get("length")) if isinstance(cell, Mapping) else None
        return "" if asked is None else self.found(asked)[0]

    def check_only(self, allowed: Mapping[str, Any]) -> None:
        """Raise NotSupportedError for a key that has another value than the one that is covered."""
        for key, cell in allowed.items():
            name, value = self.found(key)
            covered = self.decided(cell)
            if value is not None and one_of(value) != covered:
                raise NotSupportedError(f"{shown(value)} is not covered; only {shown(covered)} is", key=name)


def one_of(value: Any) -> Any:
    """The entry of a list whose entries are all the same, one for each layer; any other value itself.

    >>> one_of([8, 8, 8]), one_of([8, 4])
    (8, [8, 4])
    """
    return value[0] if isinstance(value, list) and value and all(each == value[0] for each in value) else value


def checked(key: str, value: Any, kind: type, *, least: int = 1) -> Any:
    """The value itself. Errors: InputError where it is not of its kind, or a size below the least that it may be."""
    kinds = (float, int) if kind is float else (kind,)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise InputError(f"{shown(value)} is not {_KINDS[kind]}", key=key)
    if isinstance(value, int) and kind is int and value < least:
        raise InputError(f"{value} must be at least {least}", key=key)
    return value
