"""Which numbers of a spec are uncertain, and the same spec with each of them moved in turn.

A spec that carries uncertain numbers has a field `spread`: the name of a number to the relative half width of its 90 %
interval. A number c of spread s lies between c / (1 + s) and c * (1 + s). Numbers move one at a time and independently;
what moves many operators together (clocks, the health of the network) is one number of the cluster.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Number, Numeric, Part, Spec, anywhere, rule_of, rules_of

S = TypeVar("S", bound=Spec)

DEVIATIONS: Final = 1.6448536269514722  # from the middle of a normal distribution to either end of its 90 % interval
_ERF: Final = np.frompyfunc(math.erf, 1, 1)


def share_below(deviations: Numeric) -> Numeric:
    """Phi(z) = (1 + erf(z / sqrt(2))) / 2: the share of a normal distribution below z standard deviations from its middle.

    >>> [round(float(share_below(z)), 3) for z in (-DEVIATIONS, 0.0, DEVIATIONS)]
    [0.05, 0.5, 0.95]
    """
    share: Numeric = 0.5 * (1.0 + np.asarray(_ERF(np.asarray(deviations) / math.sqrt(2.0)), dtype=float))
    return share


def deviations_at(share: Numeric) -> Numeric:
    """Phi^-1(p): how many standard deviations from the middle of a normal distribution the share p lies below; 0 < p < 1.

    >>> [round(float(deviations_at(share)), 3) for share in (0.05, 0.5, 0.95)]
    [-1.645, 0.0, 1.645]
    """
    from statistics import NormalDist  # takes 8 ms to load, and no prediction asks for it

    quantile = np.frompyfunc(NormalDist().inv_cdf, 1, 1)
    deviations: Numeric = np.asarray(quantile(share), dtype=float)
    return deviations


def uncertain_numbers(spec: Spec, path: str = "") -> Iterator[tuple[str, Numeric]]:
    """(key path, spread) of every number of `spec`, and of the specs in it, whose spread is not 0."""
    for name, spread in getattr(spec, "spread", {}).items():
        if anywhere(spread):
            yield f"{path}{name}", spread
    kind: type = type(spec)
    for name in _uncertain_parts(kind):
        for step, member in _members(getattr(spec, name)):
            yield from uncertain_numbers(member, f"{path}{name}{step}.")


@cache
def _uncertain_parts(kind: type) -> tuple[str, ...]:
    """The fields of a kind of spec that hold specs with spreads, at any depth."""
    parts = [(entry.name, rule_of(entry)) for entry in fields(kind)]
    return tuple(name for name, rule in parts if isinstance(rule, Part) and _has_spread(rule.spec))


def _has_spread(kind: type) -> bool:
    return "spread" in kind.__dataclass_fields__ or bool(_uncertain_parts(kind))  # type: ignore[attr-defined]


def _members(value: Any) -> list[tuple[str, Spec]]:
    """The specs that a field holds, each with what its key path adds to that of the field."""
    if isinstance(value, Mapping):
        return [(f".{name}", member) for name, member in value.items()]
    if isinstance(value, tuple):
        return [(f"[{index}]", member) for index, member in enumerate(value)]
    return [("", value)] if value is not None else []


def moved(spec: S, factors: Mapping[str, Numeric], path: str = "") -> S:
    """`spec` with the number at each key path times its factor, but no further than its declaration admits.

    An efficiency does not exceed 1 at the end of its interval, nor a share of the operands. The result is not validated again.
    """
    return _moved(spec, {key.removeprefix(path): factor for key, factor in factors.items() if key.startswith(path)})


def _moved(spec: S, factors: Mapping[str, Numeric]) -> S:
    """A copy of `spec` with the numbers at these key paths, counted from `spec`, multiplied."""
    kind: type = type(spec)
    rules, changes = rules_of(kind), dict[str, Any]()
    for name in {key.partition(".")[0].partition("[")[0] for key in factors}:
        value, rule = getattr(spec, name), rules[name]
        if isinstance(rule, Number) and name in factors:
            changes[name] = np.minimum(np.maximum(value * factors[name], rule.minimum), rule.maximum)
        elif isinstance(rule, Part):
            below = {key[len(name) :]: factor for key, factor in factors.items() if key.startswith((f"{name}.", f"{name}["))}
            changes[name] = _with_members(value, below)
    return with_numbers(spec, changes)


def _with_members(value: Any, factors: Mapping[str, Numeric]) -> Any:
    """The specs that a field holds, with the numbers of each moved."""
    of_members = ((member, _below(f"{step}.", factors)) for step, member in _members(value))
    changed = [_moved(member, below) if below else member for member, below in of_members]
    if isinstance(value, Mapping):
        return MappingProxyType(dict(zip(value, changed, strict=True)))
    return tuple(changed) if isinstance(value, tuple) else changed[0]


def _below(step: str, factors: Mapping[str, Numeric]) -> dict[str, Numeric]:
    return {key.removeprefix(step): factor for key, factor in factors.items() if key.startswith(step)}


def with_numbers(spec: S, numbers: Mapping[str, Any]) -> S:
    """A copy of `spec` with other numbers, or parts with others, worked out from its own: they are not validated again."""
    kind: type = type(spec)
    copy: S = object.__new__(kind)
    for name in rules_of(kind):
        object.__setattr__(copy, name, numbers[name] if name in numbers else getattr(spec, name))
    return copy


def both_ends(spreads: Mapping[str, Numeric], dimensions: int) -> dict[str, Numeric]:
    """A factor for each key path on a new first axis of length 1 + 2 * K, before `dimensions` other axes.

    Place 0 is the number as it stands; place 1 + 2*i holds 1 + s of the i-th path, place 2 + 2*i its 1 / (1 + s);
    everywhere else the factor is 1.

    >>> both_ends({"a": 0.25, "b": 1.0}, 0)["b"].tolist()
    [1.0, 1.0, 1.0, 2.0, 0.5]
    """
    factors: dict[str, Numeric] = {}
    for index, (path, spread) in enumerate(spreads.items()):
        shape = np.shape(spread)
        factor = np.ones((1 + 2 * len(spreads), *(1,) * (dimensions - len(shape)), *shape))
        factor[1 + 2 * index], factor[2 + 2 * index] = 1.0 + spread, 1.0 / (1.0 + spread)
        factors[path] = factor
    return factors


def arrays_of(spec: Spec) -> dict[str, NDArray[Any]]:
    """The numbers of `spec` itself that are arrays, by name."""
    values = ((name, getattr(spec, name)) for name in spec.__dataclass_fields__)  # type: ignore[attr-defined]
    return {name: value for name, value in values if isinstance(value, np.ndarray)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingPlaces:
    """Numbers at place 0 of their first axis and wherever some of them differ from it; `axes` is how many axes they have."""

    numbers: Mapping[str, Numeric]
    found_at: NDArray[np.intp]  # for each place of the whole axis, its own place in these
    axes: int

    def at_every_place(self, value: Numeric) -> Numeric:
        """What was worked out from these numbers, on the whole axis."""
        whole: Numeric = np.take(value, self.found_at, axis=-self.axes)
        return whole


def moving_places(numbers: Mapping[str, Numeric]) -> MovingPlaces | None:
    """The places of the first axis where some of `numbers` move; None where there is no axis, or where most places do.

    Of the ends of an interval, which move one number at a time, a law that reads a few numbers has a few of its own.

    >>> ends = both_ends({"a": 0.25, "b": 1.0, "c": 1.0, "d": 1.0}, 0)
    >>> moving = moving_places({"a": 8.0 * ends["a"], "certain": 3.0})
    >>> moving.numbers["a"].tolist(), moving.at_every_place(1.0 / moving.numbers["a"]).tolist()
    ([8.0, 10.0, 6.4], [0.125, 0.1, 0.15625, 0.125, 0.125, 0.125, 0.125, 0.125, 0.125])
    """
    axes = max((np.ndim(number) for number in numbers.values()), default=0)
    along = {name: value for name, value in numbers.items() if isinstance(value, np.ndarray) and value.ndim == axes > 0}
    table = [value.reshape(len(value), -1) for value in along.values() if len(value) > 1]
    if not table:
        return None
    columns = np.hstack(table)
    differs = (columns != columns[0]).any(axis=1)
    kept = np.concatenate([[0], np.flatnonzero(differs)])
    if 2 * len(kept) > len(differs):
        return None
    fewer = {name: value[kept] if len(value) > 1 else value for name, value in along.items()}
    return MovingPlaces(numbers={**numbers, **fewer}, found_at=np.where(differs, np.cumsum(differs), 0), axes=axes)


def most_dimensions(*specs: Spec) -> int:
    """The largest number of axes of any number in `specs`: how many axes a result over all of them can have."""
    return max((_dimensions(spec) for spec in specs), default=0)


def _dimensions(spec: Spec) -> int:
    """Most axes of any array in `spec` or in the specs that it holds."""
    members = [member for name in _parts_of(spec) for _, member in _members(getattr(spec, name))]
    return max(_own_dimensions(spec), most_dimensions(*members))


def _parts_of(spec: Spec) -> tuple[str, ...]:
    kind: type = type(spec)
    return _parts(kind)


@cache
def _parts(kind: type) -> tuple[str, ...]:
    return tuple(entry.name for entry in fields(kind) if isinstance(rule_of(entry), Part))


def _own_dimensions(spec: Spec) -> int:
    """The largest number of axes of any number of `spec` itself, whatever the specs in it hold."""
    most, parts = 0, _parts_of(spec)
    for name in spec.__dataclass_fields__:  # type: ignore[attr-defined]
        value = getattr(spec, name)
        if name not in parts and not isinstance(value, int | float | str):
            numbers = value.values() if isinstance(value, Mapping) else (value,)
            most = max(most, *(number.ndim for number in numbers if isinstance(number, np.ndarray)), 0)
    return most
