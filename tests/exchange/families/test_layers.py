"""Which layers slide and which are rotated, for every rule that a family may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.families.cells import FamilyConfig
from perfmodel.exchange.families.layers import layer_settings, repeated
from perfmodel.exchange.families.table import family_table
from tests.exchange.families.small_configs import INDEXED, LATENT_EXPERTS, WIDE, WINDOWS, SmallConfig
from tests.exchange.families.transformers_networks import read_config, read_small


def pattern(slides: Any, keys: dict[str, Any], *, rotates: str = "all", layers: int = 6) -> list[str]:
    """The kind of each layer under a rule."""
    row = {**family_table().rows["llama"], "slides": slides, "rotates": rotates}
    return kinds_of(row, keys, layers=layers)


def kinds_of(row: Mapping[str, Any], keys: dict[str, Any], *, layers: int = 6) -> list[str]:
    """The kind of each layer, by a row of the table of families."""
    settings = layer_settings(FamilyConfig(mapping=keys, defaults={"no_rope_layer_interval": 4}), row, {"layers": layers})
    first, words = settings.get("first_layers", "").split(), settings.get("layer_pattern", "full").split()
    return [*first, *(words[layer % len(words)] for layer in range(layers - len(first)))]


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
        ("rotated", [S] * 6),
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


@pytest.mark.parametrize("word", ["indexed_attention", "deepseek_sparse_attention"])
def test_attention_behind_an_indexer_has_two_names(word: str) -> None:
    """Configurations of GLM-5.2 write the second, where those of GLM-5 name no types."""
    small = LATENT_EXPERTS | INDEXED | {"model_type": "glm_moe_dsa"}
    named = read_config(small | {"layer_types": [word]})
    assert named == read_config(small)


def test_the_last_layer_may_be_of_a_type_of_its_own() -> None:
    """Gemma 4's sees all tokens, as transformers has it, whatever the list says."""
    row = family_table().rows["gemma4"]
    keys = {"sliding_window": 64, "global_head_dim": 64, "hidden_size_per_layer_input": 0}
    assert kinds_of(row, keys) == [S] * 5 + [F]
    assert kinds_of(row, keys, layers=4) == [S] * 3 + [F]
    assert kinds_of(row, keys | {"layer_types": ["sliding_attention"] * 4}, layers=4) == [S] * 3 + [F]


def test_sizes_of_layers_are_numbers_of_the_config() -> None:
    """A word in their place is refused by its key."""
    keys = {"model_type": "mimo_v2_flash", **WIDE, "v_head_dim": 20, "sliding_window": 64}
    with pytest.raises(InputError, match="swa_num_key_value_heads: 'eight' is not a whole number"):
        read_config(keys | {"swa_num_key_value_heads": "eight"})
    gemma = {"model_type": "gemma4_text", **WIDE, "sliding_window": 64, "hidden_size_per_layer_input": 0}
    with pytest.raises(InputError, match="num_kv_shared_layers: '2' is not a whole number"):
        read_config(gemma | {"num_kv_shared_layers": "2"})
    with pytest.raises(InputError, match="all layers with attention borrow"):
        read_config(gemma | {"num_kv_shared_layers": 5})


def test_sizes_layer_by_layer_take_the_place_of_those_of_types() -> None:
    """Of all layers, as transformers writes them: one that per_layer_config leaves out has the model's."""
    keys = {"model_type": "mimo_v2_flash", **WIDE, "v_head_dim": 20, "sliding_window": 64, "swa_num_key_value_heads": 6}
    own, listed = (read_config(keys | more) for more in ({}, {"per_layer_config": {"0": {"num_key_value_heads": 2}}}))
    heads = [[int(model.seen_in(model.kinds[model.kind_at(at)]).kv_heads) for at in range(5)] for model in (own, listed)]
    assert heads == [[4, 6, 6, 6, 6], [2, 4, 4, 4, 4]]


def test_all_but_the_first_and_each_nth_slide() -> None:
    """MiMo-V2-Flash."""
    assert pattern({"all_but_first_and_every": 3}, {"sliding_window": 64}, layers=7) == [F, S, F, S, S, F, S]


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


D, E = "dense", "experts"
EXPERTS: Mapping[str, Any] = {"num_experts": 8, "num_experts_per_tok": 2, "intermediate_size": 64}


def sparse(rule: dict[str, Any], keys: Mapping[str, Any] = EXPERTS) -> list[str]:
    """Which layers have experts under a rule."""
    row = {**family_table().rows["mixtral"], "experts_in": rule}
    return kinds_of(row, {**keys})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"behind": 2}, [D, D, E, E, E, E]),
        ({"behind": 0, "until": 4}, [E, E, E, E, E, D]),
        ({"until": -1, "every": 2}, [D, E, D, E, D, E]),
        ({"multiples_of": 3}, [E, D, D, E, D, D]),
        ({"behind": {"key": "first"}, "every": 2, "but": {"key": "without"}}, [D, D, D, D, D, E]),
        ({"among": {"key": "listed"}, "every": 2}, [E, D, D, D, D, E]),
        ({"among": {"key": "written"}, "every": 2}, [D, D, E, D, E, D]),
        ({"marked": {"key": "marks"}, "every": 2}, [E, D, D, E, E, D]),
        ({"marked": {"key": "interval"}, "every": 2}, [D, E, D, E, D, E]),
        ({"among": {"key": "unsaid"}, "every": 2}, [D, E, D, E, D, E]),
    ],
)
def test_a_rule_says_which_layers_have_experts(rule: dict[str, Any], expected: list[str]) -> None:
    """All conditions hold together; a list of layers with experts decides alone, where the config has one."""
    keys = {"first": 2, "without": [3], "listed": [0, 5], "written": "2, 4", "marks": [1, 0, 0, 1, 1, 0], "interval": 1}
    assert sparse(rule, {**EXPERTS, **keys}) == expected


@pytest.mark.parametrize("marks", [[1, 0], [1, 2, 0, 0, 0, 0], [True] * 6])
def test_marks_of_layers_are_a_0_or_a_1_for_each(marks: Any) -> None:
    """By the key of the config."""
    with pytest.raises(InputError, match=r"marks: .* is no list of a 0 or a 1 for each of 6 layers"):
        sparse({"marked": {"key": "marks"}}, {**EXPERTS, "marks": marks})


def test_types_of_feed_forward_parts_win_over_the_rule() -> None:
    """One for each layer; other words, and another number of them, are not covered."""
    types = ["dense", "sparse", "sparse"] * 2
    assert sparse({"behind": 2}, {**EXPERTS, "mlp_layer_types": types}) == [D, E, E] * 2
    for wrong in (types[:5], ["sparse", "hash"] * 3, "sparse"):
        with pytest.raises(NotSupportedError, match="mlp_layer_types"):
            sparse({"behind": 2}, {**EXPERTS, "mlp_layer_types": wrong})


@pytest.mark.parametrize("listed", ["1", [True], [1.5], {"1": 2}])
def test_a_list_of_layers_has_their_places(listed: Any) -> None:
    """Whole numbers."""
    with pytest.raises(InputError, match=r"mlp_only_layers: .* is no list of layers"):
        sparse({"but": {"key": "mlp_only_layers"}}, {**EXPERTS, "mlp_only_layers": listed})


def test_a_model_whose_layers_are_all_alike_has_no_kinds() -> None:
    """Experts in all layers need no name; a mixture that no layer has is no part of the model."""
    mixtral = read_small(SmallConfig("mixtral", {**WIDE, **EXPERTS}, {}))
    assert (mixtral.layer_kinds, mixtral.kinds[""].feed_forward) == (None, "experts")
    dense = read_small(SmallConfig("deepseek_v3", WIDE | {"first_k_dense_replace": 5}, {}))
    assert (dense.layer_kinds, dense.mixture, dense.kinds[""].attention) == (None, None, "latent")


def test_a_family_with_experts_may_have_none() -> None:
    """Where no key says how many, or says 0; where there are some, a number that is missing is refused by the config's key."""
    dense = WIDE | {"intermediate_size": 64}
    assert read_small(SmallConfig("deepseek", dense, {})).mixture is None
    assert read_small(SmallConfig("deepseek", dense | {"n_routed_experts": 0}, {})).mixture is None
    with pytest.raises(InputError, match="num_experts_per_tok: missing; the model needs it"):
        read_small(SmallConfig("deepseek", dense | {"n_routed_experts": 8}, {}))


def test_first_layers_come_before_those_that_are_repeated() -> None:
    """As few words as say it; a pattern that begins with the model has none before it."""
    assert repeated([D, D, D, *[E] * 58]) == ([D, D, D], [E])
    assert repeated([S, S, F] * 4 + [S]) == ([], [S, S, F])
    assert repeated([D, *[S, F] * 3]) == ([D], [S, F])
    words = [D, E, S, F, F]
    assert repeated(words) == ([D, E, S], [F])
    assert repeated([S]) == ([], [S])


def test_kinds_are_called_by_the_parts_in_which_they_differ() -> None:
    """Llama 4 has windows in the layers that are rotated, and experts in every second one."""
    keys = WIDE | {"num_hidden_layers": 4, "interleave_moe_layer_step": 2, "attention_chunk_size": 96, "num_local_experts": 4}
    model = read_small(SmallConfig("llama4_text", keys, {}))
    assert model.layer_pattern == ("sliding_dense", "sliding_experts", "sliding_dense", "full_unrotated_experts")
    hybrid = read_config(
        {"model_type": "nemotron_h", "hybrid_override_pattern": "MEM*-", "hidden_size": 64, "num_attention_heads": 4,
         "num_key_value_heads": 4,
         "intermediate_size": 128, "vocab_size": 512}
    )  # fmt: skip
    assert hybrid.layers == 5
    assert [hybrid.kind_at(layer) for layer in range(5)] == ["mamba2", "experts", "mamba2", "full", "dense"]


def test_what_predicts_further_tokens_is_of_kinds_that_the_model_has() -> None:
    """Nemotron 3: attention and experts, unless the config says so otherwise; of a model without experts nothing is said."""
    keys = WIDE | {"hybrid_override_pattern": "ME*-", "hidden_act": "relu2"}
    for more, kinds in (
        ({}, ("full", "experts")),
        ({"mtp_hybrid_override_pattern": "*-"}, ("full", "dense")),
        ({"mtp_layers_block_type": ["attention", "moe"]}, ("full", "experts")),
        ({"mtp_layers_block_type": ["attention", "hash"]}, ()),
        ({"hybrid_override_pattern": "M*-"}, ()),
    ):
        assert read_small(SmallConfig("nemotron_h", keys | more, {})).multi_token_kinds == kinds


def test_numbers_that_are_listed_for_each_layer_are_one_where_all_are_equal() -> None:
    """Hunyuan writes them so; different ones are no number."""
    keys = WIDE | {"num_experts": 8, "moe_topk": [2] * 5}
    mixture = read_small(SmallConfig("hunyuan_v1_moe", keys, {})).mixture
    assert mixture is not None
    assert mixture.experts_per_token == 2
    with pytest.raises(InputError, match=r"moe_topk: .* is not a whole number"):
        read_small(SmallConfig("hunyuan_v1_moe", keys | {"moe_topk": [2, 4, 2, 2, 2]}, {}))


@pytest.mark.parametrize("given", [1e30, "sparse", [0, 0, 1], True])
def test_a_section_that_is_no_mapping_is_refused_by_its_key(given: Any) -> None:
    """A model whose indexer it describes would be read without one."""
    mapping = {"model_type": "minimax_m3_vl_text", **WIDE, "sparse_attention_config": given}
    with pytest.raises(InputError, match=r"sparse_attention_config: .* is no mapping"):
        read_config(mapping)
