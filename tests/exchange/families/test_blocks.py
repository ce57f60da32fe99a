"""Layers that a config.json describes block by block, and sizes of layers that transformers writes down one by one."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from perfmodel.count.parameters import parameter_count
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.importers.huggingface import IMPORTER
from perfmodel.exchange.importers.registry import Document
from perfmodel.exchange.presets import model_preset
from perfmodel.spec.models.model import TransformerModel
from tests.exchange.families.small_configs import WIDE
from tests.exchange.families.transformers_networks import read_config


def block(group: int | None, multiple: float | None) -> dict[str, Any]:
    """One entry of block_configs, as NVIDIA writes it."""
    attention = {"n_heads_in_group": group, "no_op": group is None, "replace_with_linear": False, "window_length": None}
    return {"attention": attention, "ffn": {"ffn_mult": multiple, "no_op": multiple is None, "replace_with_linear": False}}


def config(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A config.json with these blocks: a stream of 768, 12 heads of 64."""
    return {
        "model_type": "nemotron-nas", "architectures": ["DeciLMForCausalLM"], "hidden_size": 768, "num_attention_heads": 12,
        "num_hidden_layers": len(blocks), "num_key_value_heads": None, "intermediate_size": None, "hidden_act": "silu",
        "vocab_size": 1000, "tie_word_embeddings": False, "block_configs": list(blocks), **changes,
    }  # fmt: skip


BLOCKS = (block(4, 2.0), block(4, 3.0), block(None, 1.0), block(2, None), block(4, 3.0))


def parts(model: TransformerModel) -> list[tuple[str, str, Any, Any]]:
    """Attention, feed-forward part, heads of keys and width of each layer."""
    kinds = [model.kinds[model.kind_at(layer)] for layer in range(int(model.layers))]
    seen = [model.seen_in(kind) for kind in kinds]
    return [
        (kind.attention, kind.feed_forward, each.kv_heads, each.ffn_hidden_size) for kind, each in zip(kinds, seen, strict=True)
    ]


def test_each_block_is_a_layer_of_its_own_sizes() -> None:
    """12 heads in groups of 4 and 2; 2/3 of 768 times 2, 3 and 1 are 1024, 1536 and 512 columns."""
    model = read_config(config(*BLOCKS))
    assert parts(model) == [
        ("full", "dense", 3, 1024),
        ("full", "dense", 3, 1536),
        ("none", "dense", 3, 512),
        ("full", "none", 6, 1536),
        ("full", "dense", 3, 1536),
    ]
    attention = {heads: 768 * 64 * (12 + 2 * heads + 12) for heads in (3, 6)}
    mlp = 3 * 768 * (1024 + 1536 + 512 + 1536)
    assert parameter_count(model).total == 3 * attention[3] + attention[6] + mlp + (8 + 1) * 768 + 2 * 1000 * 768


def test_widths_are_rounded_up_to_multiples_of_256() -> None:
    """2/3 of 768 times 1.1 are 563; a width that is stated is taken as it is."""
    stated = block(4, None)
    stated["ffn"] = {"intermediate_size": 700, "no_op": False}
    model = read_config(config(block(4, 1.1), stated))
    assert [each[3] for each in parts(model)] == [768, 700]


def test_one_matrix_may_stand_in_the_place_of_attention() -> None:
    """h*h parameters, and tokens do not meet."""
    linear = block(None, 3.0)
    linear["attention"] = {"n_heads_in_group": None, "no_op": False, "replace_with_linear": True}
    model = read_config(config(*BLOCKS, linear))
    assert parts(model)[-1] == ("linear", "dense", 3, 1536)
    more = parameter_count(model).total - parameter_count(read_config(config(*BLOCKS))).total
    assert more == 768 * 768 + 3 * 768 * 1536 + 2 * 768


def test_a_block_without_parts_is_no_layer() -> None:
    """What it is given passes as it is; the assumption says how many such blocks there are."""
    mapping = config(*BLOCKS[:3], block(None, None), block(None, None), *BLOCKS[3:])
    assert parts(read_config(mapping)) == parts(read_config(config(*BLOCKS)))
    said = IMPORTER.assumes(Document(path=None, text="", mapping=mapping))
    assert said["layers"].startswith("2 blocks without attention and MLP are no layers")
    assert "layers" not in IMPORTER.assumes(Document(path=None, text="", mapping=config(*BLOCKS)))


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("ffn", {"replace_with_linear": True}, r"block_configs\.1\.ffn\.replace_with_linear: true is not covered"),
        ("attention", {"window_length": 512}, r"block_configs\.1\.attention\.window_length: 512 is not covered"),
        ("ffn", {"moe": {"num_local_experts": 8}}, r"block_configs\.1\.ffn\.moe: .* is not covered"),
        ("ffn", {"ffn_mult": float("inf")}, r"block_configs\.1\.ffn\.ffn_mult: .* must be above 0 and at most 1000"),
        ("ffn", {"ffn_mult": -1.0}, r"block_configs\.1\.ffn\.ffn_mult: .* must be above 0"),
        ("attention", {"n_heads_in_group": 5}, r"block_configs\.1\.attention\.n_heads_in_group: 5 does not divide 12"),
        ("ffn", {"no_op": "false"}, r"block_configs\.1\.ffn\.no_op: 'false' is not true or false"),
        ("attention", {"no_op": 1}, r"block_configs\.1\.attention\.no_op: 1 is not true or false"),
        ("attention", {"no_op": True, "replace_with_linear": True}, r"1\.attention\.replace_with_linear: true, but no_op is"),
        ("ffn", {"ffn_mult": "5.25"}, r"block_configs\.1\.ffn\.ffn_mult: '5.25' is not a number"),
        (
            "attention",
            {"n_heads_in_group": None},
            r"1\.attention\.n_heads_in_group: nothing is not a whole number",
        ),
    ],
)
def test_what_blocks_have_beside_that_is_refused_by_its_key(part: str, changes: dict[str, Any], words: str) -> None:
    """It would be another layer."""
    blocks = deepcopy(BLOCKS)
    blocks[1][part].update(changes)
    with pytest.raises((InputError, NotSupportedError), match=words):
        read_config(config(*blocks))


@pytest.mark.parametrize(
    "listed", [None, [], "blocks", [1, 2], list(BLOCKS[:2]), [{"attention": None}] * 5, [{"attention": {}}] * 5]
)
def test_blocks_that_are_none_are_refused(listed: Any) -> None:
    """One for each layer, each with both parts."""
    with pytest.raises(InputError, match="block_configs"):
        read_config(config(*BLOCKS, block_configs=listed))


@pytest.mark.parametrize("layers", [4, 6])
def test_as_many_blocks_as_layers_are_needed(layers: int) -> None:
    """Which of two numbers is wrong, the config alone does not say."""
    with pytest.raises(InputError, match=f"block_configs: 5 blocks, but {layers} layers"):
        read_config(config(*BLOCKS, num_hidden_layers=layers))


def test_the_preset_is_what_the_config_of_its_model_says() -> None:
    """80 blocks, 49 of them with attention, and the parameters of its checkpoint."""
    whole, narrow = [(8, 5.25)], [(8, 2.625)]
    middle = (1.3125, 2.625, 2.625, 1.3125, 5.25, 1.3125, 2.625, *[1.3125] * 3)
    late = (1.3125, 1.0, 1.0, 1.3125, *[1.0] * 3, *[1.3125] * 2, *[0.5] * 2, *[1.0] * 2, *[0.5] * 2, 1.0, *[0.5] * 2)
    every: list[tuple[int | None, float]] = [
        *narrow, *whole * 5, *[(None, 2.625)] * 2, *whole * 3, (None, 3.28125), *whole * 30, *((None, each) for each in middle),
        *whole, *((None, each) for each in late), *whole * 9,
    ]  # fmt: skip
    sizes = {"hidden_size": 8192, "num_attention_heads": 64, "vocab_size": 128256}
    read, preset = read_config(config(*(block(*each) for each in every), **sizes)), model_preset("nemotron-super-49b")
    assert parts(read) == parts(preset)
    assert sum(attention == "full" for attention, *_ in parts(preset)) == 49
    assert parameter_count(read).total == parameter_count(preset).total == 49_867_145_216


def test_sizes_that_transformers_writes_layer_by_layer_are_those_of_the_layers() -> None:
    """In per_layer_config, by the place of a layer; equal ones are no sizes of their own."""
    overrides = {"01": {"num_key_value_heads": 2, "head_dim": 64}, "3": {"intermediate_size": 260}, "4": {"head_dim": 40}}
    model = read_config({"model_type": "llama", **WIDE, "per_layer_config": overrides})
    assert [each[2:] for each in parts(model)] == [(4, 520), (2, 520), (4, 520), (4, 260), (4, 520)]
    assert [model.seen_in(model.kinds[model.kind_at(layer)]).head_size for layer in range(5)] == [40, 64, 40, 40, 40]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"5": {"head_dim": 64}}, "no mapping from some of 5 layers"),
        ([{"head_dim": 64}], "no mapping from some of 5 layers"),
        ({"1": {"skip": ["mlp"]}}, r"per_layer_config\.1: .* is not covered; num_attention_heads, num_key_value_heads"),
        ({"1": {"head_dim": "64"}}, r"per_layer_config\.1\.head_dim: '64' is not a whole number"),
    ],
)
def test_other_overrides_of_layers_are_refused(given: Any, words: str) -> None:
    """By the key of the config."""
    with pytest.raises((InputError, NotSupportedError), match=words):
        read_config({"model_type": "llama", **WIDE, "per_layer_config": given})
