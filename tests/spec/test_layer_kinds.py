"""Which kinds of layers can a model have, and how do they follow each other?"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.exchange.presets import model_preset
from perfmodel.spec.models.layer_kinds import LayerKind, layers_before

LLAMA = model_preset("llama-3.1-8b")
KINDS = MappingProxyType({"local": LayerKind(attention="sliding", window=1024), "global": LayerKind()})


@given(
    pattern=st.lists(st.sampled_from(["local", "global"]), min_size=1, max_size=7),
    layers=st.integers(0, 60),
)
def test_layers_of_a_kind_are_those_that_a_person_counts(pattern: list[str], layers: int) -> None:
    """One after the other, the pattern again from its start when it ends."""
    in_order = [pattern[layer % len(pattern)] for layer in range(layers)]
    for kind in ("local", "global"):
        assert layers_before(pattern, kind, layers) == in_order.count(kind)


@given(first=st.integers(0, 40), number=st.integers(0, 40))
def test_kinds_add_up_to_all_layers(first: int, number: int) -> None:
    """Wherever a stretch of layers begins."""
    model = replace(LLAMA, layer_kinds=KINDS, layer_pattern=("local", "local", "global"))
    assert sum(model.layers_of(kind, first, number) for kind in model.kinds) == number


def test_arrays_of_stretches_are_counted_one_by_one() -> None:
    """Numbers broadcast."""
    model = replace(LLAMA, layer_kinds=KINDS, layer_pattern=("local", "local", "global"))
    firsts, numbers = np.arange(6)[:, None], np.arange(5)
    together = model.layers_of("global", firsts, numbers)
    alone = [[int(model.layers_of("global", first, number)) for number in range(5)] for first in range(6)]
    assert np.array_equal(together, alone)


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"layer_pattern": ("local",)}, "layer_pattern", "layer_kinds describes none"),
        ({"layer_kinds": KINDS}, "layer_pattern", "in which order do layers of local, global follow each other"),
        ({"layer_kinds": KINDS, "layer_pattern": ("local", "globl")}, "layer_pattern", "did you mean global?"),
        ({"layer_kinds": KINDS, "layer_pattern": ("local",)}, "layer_kinds.global", "no layer is of this kind"),
    ],
)
def test_a_pattern_that_does_not_fit_its_kinds_is_refused(changes: dict[str, Any], key: str, words: str) -> None:
    """With the key that is wrong and what would work."""
    with pytest.raises(InputError) as refusal:
        replace(LLAMA, **changes)
    assert refusal.value.key == key
    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention": "sliding"}, "sliding attention needs the number of tokens"),
        ({"window": 128}, "full attention has no window"),
        ({"attention": "slidin", "window": 128}, "did you mean sliding?"),
        ({"attention": "sliding", "window": 0}, "must be at least 1"),
    ],
)
def test_a_kind_that_makes_no_sense_is_refused(changes: dict[str, Any], words: str) -> None:
    """A window belongs to sliding attention, and to nothing else."""
    with pytest.raises(InputError, match=words.replace("?", r"\?")):
        LayerKind(**changes)


def test_one_kind_needs_no_pattern() -> None:
    """Mistral 7B v0.1: all of its layers slide."""
    model = model_preset("mistral-7b-v0.1")
    assert [model.kind_at(layer) for layer in (0, 31)] == ["sliding", "sliding"]
    assert model.layers_of("sliding", 0, model.layers) == 32
