"""Does every family have the parameters, and the layers, that transformers gives it?"""

from __future__ import annotations

import pytest

from perfmodel.count.parameters import parameter_count
from perfmodel.exchange.families.table import family_table
from tests.exchange.families.small_configs import SMALL_CONFIGS, SmallConfig
from tests.exchange.families.transformers_networks import meta_network, network_config, read_config, read_small

WITHOUT_TRANSFORMERS = {  # whose code is beside their weights
    *("internlm", "internlm2", "baichuan", "chatglm", "minicpm", "qwen", "deepseek", "grok-1", "grok"),
    *("bailing_moe", "bailing_moe_v2", "nemotron-nas", "mimo"),
}
WINDOWED = ("sliding_attention", "chunked_attention")  # Llama 4's chunks are read as windows


@pytest.mark.parametrize("config", SMALL_CONFIGS, ids=str)
def test_parameters_are_those_of_transformers(config: SmallConfig) -> None:
    """From the keys as people write them, and from those that transformers of today writes down."""
    expected = sum(parameter.numel() for parameter in meta_network(config).parameters())
    assert parameter_count(read_small(config)).total == expected
    assert parameter_count(read_config(network_config(config).to_dict())).total == expected


@pytest.mark.parametrize("config", {each.family: each for each in SMALL_CONFIGS}.values(), ids=str)
def test_an_activation_that_is_left_out_is_that_of_transformers(config: SmallConfig) -> None:
    """As its class of configs has it, where the config.json has no key of any name for it."""
    names = family_table().aliases["hidden_act"]
    bare = {"model_type": config.family} | {key: value for key, value in config.keys.items() if key not in names}
    theirs = network_config(config._replace(keys={key: value for key, value in bare.items() if key != "model_type"}))
    stated = next((value for name in names if (value := getattr(theirs, name, None))), None)
    assert read_config(bare).activation == read_config(bare | ({"hidden_act": stated} if stated else {})).activation


@pytest.mark.parametrize("config", SMALL_CONFIGS, ids=str)
def test_layers_slide_where_those_of_transformers_do(config: SmallConfig) -> None:
    """Each layer, with or without layer_types in the config; where there is no list of them, all have the one window."""
    theirs = network_config(config)
    window = getattr(theirs, "sliding_window", None)
    window = getattr(theirs, "attention_chunk_size", window)
    types = getattr(theirs, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"] * 99
    if config.family == "gpt_neo":
        window, types = 96, [{"local": "sliding_attention"}.get(each, "full_attention") for each in theirs.attention_layers]
    for model in (read_small(config), read_config(theirs.to_dict())):
        kinds = [model.kinds[model.kind_at(layer)] for layer in range(int(model.layers))]
        expected = [window if types[layer] in WINDOWED else None for layer in range(len(kinds))]
        assert [kind.window for kind in kinds] == expected


def test_titles_say_what_some_model_of_a_family_has() -> None:
    """As perfmodel list shows them: windows, norms of queries and keys, parallel parts, caps, factors."""
    for family, title in family_table().titles.items():
        row = family_table().rows[family]
        models = [read_small(each) for each in SMALL_CONFIGS if family_table().rows[each.family] is row]
        has = {
            "windows": any(kind.window is not None for model in models for kind in model.kinds.values()),
            "QK norm": any(model.qk_norm != "none" for model in models),
            "parallel parts": any(model.parallel_residual != "none" for model in models),
            "soft caps": any(model.softcaps for model in models),
            "constant factors": any(model.scales for model in models),
            "not gated": any(not model.gated for model in models),
            "sinks": any(model.seen_in(kind).sinks for model in models for kind in model.kinds.values()),
            "a gate behind attention": any(model.attention_gate for model in models),
            "experts": any(model.mixture for model in models),
            "latent attention": any(model.latent for model in models),
            "an indexer": any(model.indexer for model in models),
            "Mamba-2": any(model.state_space for model in models),
            "gated delta": any(model.delta for model in models),
        }
        if models and family != "mpt":  # whose factor of logits is text in none of the small configs
            assert {words: words in title for words in has} == has, family
    assert "(also gemma3_text)" in family_table().titles["gemma3"]


def test_every_family_of_the_table_is_held_against_transformers() -> None:
    """But those whose code transformers does not have."""
    rows = {id(family_table().rows[config.family]) for config in SMALL_CONFIGS}
    untested = {family for family, row in family_table().rows.items() if id(row) not in rows}
    assert untested == WITHOUT_TRANSFORMERS
