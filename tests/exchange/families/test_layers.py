"""Which layers slide and which are rotated, for every rule that a family may have."""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.errors import InputError
from perfmodel.exchange.families.cells import FamilyConfig
from perfmodel.exchange.families.layers import layer_settings
from tests.exchange.families.small_configs import WIDE, WINDOWS, SmallConfig
from tests.exchange.families.transformers_networks import read_config, read_small


def pattern(slides: Any, keys: dict[str, Any], *, rotates: str = "all", layers: int = 6) -> list[str]:
    """The kind of each layer under a rule."""
    row = {"slides": slides, "rotates": rotates, "window": {"key": "sliding_window"}, "position": "rotary"}
    settings = layer_settings(FamilyConfig(mapping=keys, defaults={"no_rope_layer_interval": 4}), row, layers)
    words = settings["layer_pattern"].split() if settings else ["full"]
    return [words[layer % len(words)] for layer in range(layers)]


S, F = "sliding", "full"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("all", [S] * 6),
        ({"all_but_every": 3}, [S, S, F, S, S, F]),
        ({"all_but_every": {"key": "sliding_window_pattern"}}, [S, F, S, F, S, F]),
        ({"all_but_first_of": 4}, [F, S, S, S, F, S]),
        ({"from": 4}, [F, F, F, F, S, S]),
        ({"from": 0}, [S] * 6),
        ("listed", [F, S, F, S, F, S]),
    ],
)
def test_a_rule_says_which_layers_slide(rule: Any, expected: list[str]) -> None:
    """Counted from the first layer on."""
    assert pattern(rule, {"sliding_window": 64, "sliding_window_pattern": 2}) == expected


@pytest.mark.parametrize("rule", ["none", "all", {"all_but_every": 3}, {"from": 0}, "unrotated"])
def test_without_a_window_all_layers_are_full(rule: Any) -> None:
    """Whatever the rule."""
    assert pattern(rule, {"sliding_window": None}) == [F] * 6


def test_more_layers_than_any_model_has_are_refused() -> None:
    """They are listed one by one: a slip must not fill the memory."""
    with pytest.raises(InputError, match="num_hidden_layers: 1000000000000 layers are more than any model has"):
        read_small(SmallConfig("llama", WIDE | {"num_hidden_layers": 10**12}, {}))


def test_types_of_layers_win_over_the_rule() -> None:
    """They are what transformers reads first."""
    assert pattern("all", {"sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}) == [F, S] * 3


def test_sliding_layers_need_a_window() -> None:
    """A list of types without a number of tokens says too little."""
    with pytest.raises(InputError, match="sliding_window: missing; layer_types has sliding layers"):
        pattern("all", {"layer_types": ["sliding_attention"]})


@pytest.mark.parametrize("types", [[], "global", [["global"]], [[["global", "near"], 3]], None])
def test_types_of_attention_that_say_nothing_are_refused(types: Any) -> None:
    """GPT-Neo's list of lists."""
    with pytest.raises(InputError, match="attention_types"):
        pattern("listed", {"sliding_window": 64, "attention_types": types})


def test_layers_without_rotation_are_a_kind_of_their_own() -> None:
    """SmolLM3 lists them, Cohere 2 and EXAONE 4 rotate the sliding ones; without a window Cohere 2 rotates none."""
    listed = pattern("unrotated", {"no_rope_layers": [1, 0, 1, 0, 1, 1]}, rotates="listed")
    assert listed == [F, "full_unrotated", F, "full_unrotated", F, F]
    every_fourth = pattern("unrotated", {"sliding_window": 64}, rotates="listed")
    assert every_fourth == [F, F, F, "sliding_unrotated", F, F]
    windows = {"sliding_window": 64}
    assert pattern({"all_but_every": 3}, windows, rotates="sliding") == [S, S, "full_unrotated"] * 2
    assert pattern({"all_but_every": 3}, {}, rotates="sliding") == ["full_unrotated"] * 6
    assert pattern({"all_but_every": 3}, {}, rotates="sliding_or_all") == [F] * 6


@pytest.mark.parametrize("given", [[1, 0], [1, 2, 1, 0, 1, 1], "1", [True] * 7])
def test_a_list_of_rotated_layers_has_a_number_for_each(given: Any) -> None:
    """A zero or a one."""
    with pytest.raises(InputError, match="no_rope_layers"):
        pattern("unrotated", {"no_rope_layers": given}, rotates="listed")


def test_a_pattern_that_is_no_number_is_refused_by_its_key() -> None:
    """EXAONE 4 may write LLLG, always beside layer_types."""
    keys = WINDOWS | {"sliding_window_pattern": "LLLG"}
    with pytest.raises(InputError, match="sliding_window_pattern: 'LLLG' is not a whole number"):
        read_small(SmallConfig("exaone4", keys, {}))
    types = ["sliding_attention"] * 3 + ["full_attention"]
    assert read_config({"model_type": "exaone4"} | keys | {"layer_types": types}).layer_pattern == (S, S, S, "full_unrotated")


def test_rotation_of_layers_is_that_of_transformers() -> None:
    """The third layer of SmolLM3 in three is not rotated; other families rotate all of theirs."""
    model = read_small(SmallConfig("smollm3", WIDE | {"no_rope_layer_interval": 3}, {}))
    assert [model.kinds[model.kind_at(layer)].rotary for layer in range(5)] == [True, True, False, True, True]
    assert read_small(SmallConfig("llama", WIDE, {})).layer_kinds is None
