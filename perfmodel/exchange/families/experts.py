"""Which layers of a model have experts in place of an MLP: what mlp_layer_types or a list says, or the rule of a family.

`experts_in` of a row names conditions that all have to hold for a layer, counted from 0; those whose key says nothing hold:
    behind: n         it is not one of the first n
    until: n          it is the n-th or one before it; -1: any
    every: n          it is the n-th, the 2n-th ..
    multiples_of: n   its place is a multiple of n
    but: list         it is not listed
    among: list       it is listed; what a config lists so decides alone
    marked: list      its place in the list has a 1; decides alone, where the config has a list there
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked

TYPES: Final = {"sparse": "experts", "dense": "dense"}
CONDITIONS: Final[Mapping[str, tuple[int, Callable[[int, int], bool]]]] = {  # the least number, whether it holds
    "behind": (0, lambda layer, number: layer >= number),
    "until": (-1, lambda layer, number: number < 0 or layer <= number),
    "every": (1, lambda layer, number: (layer + 1) % number == 0),
    "multiples_of": (1, lambda layer, number: layer % number == 0),
}


def feed_forward_parts(config: FamilyConfig, row: Mapping[str, Any], layers: int) -> list[str]:
    """The feed-forward part of each layer: experts or dense. Errors: InputError, NotSupportedError."""
    if not has_experts(config, row):
        return ["dense"] * layers
    key, types = config.found("mlp_layer_types")
    if types is not None:
        if not (isinstance(types, list) and len(types) == layers and {str(each) for each in types} <= set(TYPES)):
            raise NotSupportedError(f"{shown(types)} is not covered; one of {' and '.join(TYPES)} for each layer is", key=key)
        return [TYPES[each] for each in types]
    return ["experts" if each else "dense" for each in _chosen_layers(config, row["experts_in"], layers)]


def has_experts(config: FamilyConfig, row: Mapping[str, Any]) -> bool:
    """Whether the family may have a mixture of experts, and this config says that there are some."""
    return row.get("mixture") is not None and bool(config.decided(row["mixture"]["experts"]))


def _chosen_layers(config: FamilyConfig, rule: Mapping[str, Any], layers: int) -> list[bool]:
    """Whether every condition of a rule holds for each layer."""
    if "among" in rule and config.decided(rule["among"]) is not None:
        listed = config.places(rule["among"])
        return [layer in listed for layer in range(layers)]
    marks = config.decided(rule.get("marked"))
    if isinstance(marks, list):
        if len(marks) != layers or not set(map(str, marks)) <= {"0", "1"}:
            problem = f"{shown(marks)} is no list of a 0 or a 1 for each of {layers} layers"
            raise InputError(problem, key=config.key_of(rule["marked"]))
        return [bool(mark) for mark in marks]
    chosen = [True] * layers
    for name, (least, holds) in CONDITIONS.items():
        if name in rule and (number := config.decided(rule[name])) is not None:
            checked(config.key_of(rule[name]), number, int, least=least)
            chosen = [each and holds(layer, number) for layer, each in enumerate(chosen)]
    left_out = config.places(rule["but"]) if "but" in rule else ()
    return [each and layer not in left_out for layer, each in enumerate(chosen)]
