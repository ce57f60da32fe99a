"""What people call the load of experts: `balanced` and `natural` for numbers that perfmodel/data/expert_loads.yaml holds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import numpy as np

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.syntax.key_paths import is_factor
from perfmodel.spec.fields import rule_of
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import Run
from perfmodel.units import parse_quantity

KEY: Final = "expert_load"


@cache
def load_words() -> Mapping[str, float]:
    """The load that each word stands for.

    >>> load_words()["balanced"]
    1.0
    """
    known, _ = separated(read_mapping(DATA / "expert_loads.yaml"))
    return {word: parse_quantity(value, "ratio") for word, value in known.items()}


def with_load_in_numbers(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a run whose load of experts is a number. Errors: InputError for a word that stands for none.

    >>> with_load_in_numbers({"expert_load": "balanced"})
    {'expert_load': 1.0}
    """
    if KEY not in mapping:
        return dict(mapping)
    try:
        return {**mapping, KEY: load_in_numbers(mapping[KEY])}
    except PerfmodelError as error:
        raise error.under(KEY) from None


def load_in_numbers(load: Any) -> Any:
    """The number that a word stands for; whatever else it is, as it is. Errors: InputError for a word that stands for none.

    >>> load_in_numbers("balanced"), load_in_numbers(1.2)
    (1.0, 1.2)
    """
    word = load.strip().lower() if isinstance(load, str) else ""
    if not word[:1].isalpha() or is_factor(word):
        return load
    if word not in load_words():
        raise InputError(f"{shown(load)} is no number of times the mean; {did_you_mean(word, load_words())}")
    return load_words()[word]


def load_text(load: float) -> str:
    """A load of experts in words, where it has some.

    >>> load_text(1.0), load_text(1.4)
    ('balanced (1)', '1.4')
    """
    word = next((word for word, value in load_words().items() if value == load), None)
    return f"{load:g}" if word is None else f"{word} ({load:g})"


def planned_load(run: Run | None, choose: Any) -> float:
    """How uneven the load of experts is in every layout of a plan: as chosen, else as in the run, else even.

    Errors: InputError for a choice that no run may have.
    """
    given = choose.get(KEY) if isinstance(choose, Mapping) else None
    if given is None:
        return 1.0 if run is None else float(np.max(run.expert_load))
    try:
        number = parse_quantity(load_in_numbers(given), "ratio")
        if problem := rule_of(Run.__dataclass_fields__[KEY]).problem(number):
            raise InputError(problem)
    except PerfmodelError as error:
        raise error.under(KEY) from None
    return number


def load_sentences(model: TransformerModel, load: float) -> list[str]:
    """What a plan of a mixture of experts takes for granted of its router; nothing of a dense model."""
    if model.mixture is None:
        return []
    other = "balanced" if load > 1 else "natural"
    return [f"{KEY} is {load_text(load)} in every layout; --choose {KEY}={other} takes another"]
