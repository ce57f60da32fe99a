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
        ({"layer_kinds": {}}, "layer_kinds", "describes no kind of layer"),
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


def test_a_kind_has_the_sizes_of_its_model_but_those_of_its_own() -> None:
    """Heads of one do not have to divide those of another."""
    kinds = {"wide": LayerKind(kv_heads=32), "narrow": LayerKind(attention_heads=12, kv_heads=4, ffn_hidden_size=768)}
    model = replace(LLAMA, layer_kinds=kinds, layer_pattern=("wide", "narrow"))
    wide, narrow = (model.seen_in(model.kinds[name]) for name in kinds)
    assert (wide.attention_heads, wide.kv_heads, wide.ffn_hidden_size) == (32, 32, 14336)
    assert (narrow.attention_heads, narrow.kv_heads, narrow.ffn_hidden_size) == (12, 4, 768)
    assert not any(kind.own for seen in (wide, narrow) for kind in seen.kinds.values())
    assert LLAMA.seen_in(LLAMA.kinds[""]) is LLAMA


def test_heads_of_a_kind_that_do_not_divide_are_refused_by_their_key() -> None:
    """Against the heads of queries that the kind has, its own or the model's."""
    for kind, heads in ((LayerKind(kv_heads=5), 32), (LayerKind(attention_heads=20), 20)):
        with pytest.raises(InputError, match=f"{heads} attention heads") as refusal:
            replace(LLAMA, layer_kinds={"only": kind})
        assert refusal.value.key == "layer_kinds.only.kv_heads"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention": "latent", "kv_heads": 4}, "latent attention has no such size of its own"),
        ({"attention": "none", "sinks": True}, "none attention has no such size of its own"),
        ({"feed_forward": "experts", "ffn_hidden_size": 512}, "experts in place of an MLP have no such width"),
        ({"kv_heads": 0}, "must be at least 1"),
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
