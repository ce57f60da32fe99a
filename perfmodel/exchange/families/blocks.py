"""Layers that a config.json describes block by block, as a search over architectures found them (DeciLM, Llama-Nemotron).

Each block says how many heads share a key, how wide its MLP is, or that it has none of either. A block without both is the
identity, and is left out. Source: configuration_decilm.py, block_config.py and modeling_decilm.py beside the weights of
nvidia/Llama-3_3-Nemotron-Super-49B-v1, and vLLM's model_executor/models/nemotron_nas.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.families.cells import FamilyConfig, checked
from perfmodel.exchange.families.layers import ConfigLayer, kinds_in_order

WIDEST: Final = 1000.0  # of an MLP, in widths of the stream
MLP_MULTIPLE: Final = 256  # columns, up to a multiple of which the width of an MLP is rounded
UNCOVERED: Final = {  # what a block may have that is not counted, by its part
    "attention": ("window_length", "num_sink_tokens", "mamba", "llama4"),
    "ffn": ("replace_with_linear", "moe"),
}


class Block(NamedTuple):
    """What one block has; None for a part that it has not. A linear in the place of attention has no heads."""

    kv_heads: int | None
    ffn: int | None
    is_linear: bool = False

    @property
    def attention(self) -> str:
        """The kind of its attention."""
        return "linear" if self.is_linear else "full" if self.kv_heads else "none"


def block_settings(config: FamilyConfig, row: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Layers, KV heads and MLP of a model, and the kinds of layers that its blocks make.

    The model has the KV heads of most layers and the width of its widest MLPs; layers of other sizes have theirs of their own.

    Errors: InputError, NotSupportedError.
    """
    blocks = [block for block in _blocks(config, row, sizes) if any(block)]
    heads = [block.kv_heads for block in blocks if block.kv_heads]
    widths = [block.ffn for block in blocks if block.ffn]
    if not heads or not widths:
        raise InputError("no block has attention, or none an MLP", key=config.key_of(row["blocks"]))
    common = {"layers": len(blocks), "kv_heads": max(set(heads), key=heads.count), "ffn_hidden_size": max(widths)}
    return common | kinds_in_order([_layer(block, common) for block in blocks], None, ())


def identities(listed: Any) -> int:
    """How many of some blocks have neither attention nor an MLP; 0 of what is no list of blocks.

    >>> identities([{"attention": {"no_op": True}, "ffn": {"no_op": True}}, {"attention": {"no_op": True}, "ffn": {}}])
    1
    """
    blocks = [block for block in listed if isinstance(block, Mapping)] if isinstance(listed, list) else []
    parts = [[block.get(part) for part in UNCOVERED] for block in blocks]
    return sum(all(isinstance(part, Mapping) and part.get("no_op") for part in each) for each in parts)


def _layer(block: Block, common: Mapping[str, Any]) -> ConfigLayer:
    """A block as a layer, with what it has otherwise than the model."""
    given = {"kv_heads": block.kv_heads, "ffn_hidden_size": block.ffn}
    own = tuple((name, value) for name, value in given.items() if value and value != common[name])
    return ConfigLayer(block.attention, True, "dense" if block.ffn else "none", own)


def _blocks(config: FamilyConfig, row: Mapping[str, Any], sizes: Mapping[str, Any]) -> list[Block]:
    key, listed = config.key_of(row["blocks"]), config.decided(row["blocks"])
    if not isinstance(listed, list) or not all(isinstance(each, Mapping) for each in listed):
        raise InputError(f"{shown(listed)} is no list of a block for each of {sizes['layers']} layers", key=key)
    if len(listed) != sizes["layers"]:
        raise InputError(f"{len(listed)} blocks, but {sizes['layers']} layers; keep the right number", key=key)
    return [_block(block, f"{key}.{place}", sizes) for place, block in enumerate(listed)]


def _block(block: Mapping[str, Any], key: str, sizes: Mapping[str, Any]) -> Block:
    """What one block has. Errors: InputError, NotSupportedError."""
    for part, uncovered in UNCOVERED.items():
        for name in uncovered:
            if (value := _part(block, part, key).get(name)) not in (None, False):
                raise NotSupportedError(f"{shown(value)} is not covered; only null is", key=f"{key}.{part}.{name}")
    heads = ffn = None
    is_linear, is_none = (_says(block["attention"], name, f"{key}.attention") for name in ("replace_with_linear", "no_op"))
    if is_linear and is_none:
        raise InputError("true, but no_op is true; keep the right one", key=f"{key}.attention.replace_with_linear")
    if not is_linear and not is_none:
        heads = _kv_heads(block["attention"], f"{key}.attention.n_heads_in_group", sizes["attention_heads"])
    if not _says(block["ffn"], "no_op", f"{key}.ffn"):
        ffn = _width(block["ffn"], f"{key}.ffn", sizes["hidden_size"])
    return Block(heads, ffn, is_linear)


def _kv_heads(attention: Mapping[str, Any], key: str, heads: int) -> int:
    """Heads of keys, each of which so many of queries share. Errors: InputError."""
    group = checked(key, attention.get("n_heads_in_group"), int)
    if heads % group:
        raise InputError(f"{group} does not divide {heads} attention heads", key=key)
    return heads // int(group)


def _part(block: Mapping[str, Any], part: str, key: str) -> Mapping[str, Any]:
    found = block.get(part)
    if not isinstance(found, Mapping):
        raise InputError(f"{shown(found)} does not say what the block has of it", key=f"{key}.{part}")
    return found


def _says(part: Mapping[str, Any], name: str, key: str) -> bool:
    """Whether a part of a block says that something is so; what it does not mention is not. Errors: InputError."""
    said = part.get(name)
    if said is not None and not isinstance(said, bool):
        raise InputError(f"{shown(said)} is not true or false", key=f"{key}.{name}")
    return bool(said)


def _width(ffn: Mapping[str, Any], key: str, hidden_size: int) -> int:
    """Columns of an MLP: stated, or 2/3 of ffn_mult times the stream's, up to a multiple of 256.

    >>> _width({"ffn_mult": 5.25}, "ffn", 8192), _width({"ffn_mult": 1.0}, "ffn", 8192)
    (28672, 5632)
    """
    if ffn.get("intermediate_size") is not None:
        return int(checked(f"{key}.intermediate_size", ffn["intermediate_size"], int))
    times = checked(f"{key}.ffn_mult", ffn.get("ffn_mult"), float)
    if not 0 < times <= WIDEST:
        raise InputError(f"{shown(times)} must be above 0 and at most {WIDEST:g}", key=f"{key}.ffn_mult")
    return -(-int(2 * times * hidden_size / 3) // MLP_MULTIPLE) * MLP_MULTIPLE
