"""What a table of measured runs says of experts, latent attention, and what runs around them; columns that most tables lack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.expert_loads import load_words
from perfmodel.exchange.presets import read_preset
from perfmodel.exchange.translation.megatron.graph_scopes import graphed_parts
from perfmodel.spec.axes import EXPERT, EXPERT_TENSOR, TENSOR
from perfmodel.spec.layout import RECOMPUTE_MODULES
from perfmodel.spec.models.model import TransformerModel

WINDOW: Final = re.compile(r"(\d+) on every other layer")
MOST: Final = 1e9  # of anything that is counted
WRITTEN_LAYOUT: Final = re.compile(r"pp layout (E[^\s,;]*L)")
LATENT: Final = {  # column -> key of the section
    "q_lora_rank": "query_rank",
    "kv_lora_rank": "kv_rank",
    "qk_nope_head_dim": "nope_head_size",
    "qk_rope_head_dim": "rotary_head_size",
    "v_head_dim": "value_head_size",
}
SAME_IN_PRESET: Final = {  # column -> key of a model that a row must agree with
    **{name: name for name in ("layers", "hidden_size", "attention_heads", "kv_heads", "head_size", "vocab_size")},
    "experts": "mixture.experts",
    "experts_per_token": "mixture.experts_per_token",
    "moe_ffn_hidden_size": "mixture.ffn_hidden_size",
    "shared_ffn_hidden_size": "mixture.shared_ffn_hidden_size",
}
GRAPH_SCOPES: Final = ("", "none", "full_iteration", "transformer_engine", "local", "yes")


def has_experts(cells: Mapping[str, str]) -> bool:
    """Whether a row is of a mixture of experts."""
    return bool(cells.get("experts")) and _number(cells, "experts") > 1


def mixture_model(cells: Mapping[str, str], model: Mapping[str, Any], presets: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a model with the experts, attention and pattern of layers that its row states.

    Errors: NotSupportedError for mixers that are not counted.
    """
    attention = cells.get("attention_type", "gqa")
    if attention.startswith("hybrid"):
        return _hybrid(cells, presets)
    if attention not in ("gqa", "mha", "mla", ""):
        raise NotSupportedError(f"{attention} is not counted from a table", key="attention_type")
    known = next(each for each in presets["mixtures"] if re.search(each["model"], cells["model"]))
    result = {**model, "mixture": _mixture(cells, known.get("mixture", {})), **known.get("parts", {})}
    result["multi_token_layers"] = _number(cells, "mtp_layers")
    if cells.get("head_size"):
        result["head_size"] = _number(cells, "head_size")
    if attention == "mla":
        result["latent"] = {key: _number(cells, column) for column, key in LATENT.items()}
        result["head_size"] = result["latent"]["nope_head_size"] + result["latent"]["rotary_head_size"]
        result["kv_heads"] = result["attention_heads"]
    if not cells.get("ffn_hidden_size"):
        result["ffn_hidden_size"] = result["mixture"]["ffn_hidden_size"]
    return result | _layers(cells, "latent" if attention == "mla" else "full")


def _hybrid(cells: Mapping[str, str], presets: Mapping[str, Any]) -> dict[str, Any]:
    """The preset that has the mixers of a row's model, with which the row must agree where it states a number.

    Errors: NotSupportedError for a model whose mixers are not known, InputError for a number that is not that of its preset.
    """
    known = next((each for each in presets["hybrids"] if re.search(each["model"], cells["model"])), None)
    if known is None:
        raise NotSupportedError(f"the mixers of {cells['model']} are not known; no column states them", key="attention_type")
    model = {**read_preset("models", known["preset"])[0], **known.get("parts", {})}
    for column, key in SAME_IN_PRESET.items():
        section, _, name = key.rpartition(".")
        there = (model[section] if section else model).get(name)
        if _number(cells, column) and _number(cells, column) != there:
            raise InputError(f"{cells[column]} is not the {there} of {known['preset']} ({key})", key=column)
    sparse = _sparse_layers(model)
    if _number(cells, "moe_layers") not in (0, sparse):
        raise InputError(f"{cells['moe_layers']} is not the {sparse} of {known['preset']}", key="moe_layers")
    further = _number(cells, "mtp_layers")
    return model | ({"multi_token_layers": further} if cells.get("mtp_layers") else {})


def _sparse_layers(model: Mapping[str, Any]) -> int:
    """Layers with experts of a model whose pattern and kinds of layers are written down."""
    described = build(TransformerModel, dict(model))
    kinds = [name for name, kind in described.kinds.items() if kind.feed_forward == "experts"]
    return sum(int(described.layers_of(name, 0, described.layers)) for name in kinds)


def _mixture(cells: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    shared = _number(cells, "shared_ffn_hidden_size")
    mixture = {
        "experts": _number(cells, "experts"),
        "experts_per_token": _number(cells, "experts_per_token"),
        "ffn_hidden_size": _number(cells, "moe_ffn_hidden_size"),
        "shared_experts": max(_number(cells, "shared_experts"), 1) if shared else 0,
        "shared_ffn_hidden_size": shared,
        **known,
    }
    capacity = re.match(r"\d+(\.\d+)?", cells.get("capacity_factor", ""))
    return mixture | ({"capacity_factor": float(capacity[0])} if capacity else {})


def _layers(cells: Mapping[str, str], attention: str) -> dict[str, Any]:
    """The kinds of layers and their pattern: dense ones first, every n-th one sparse, or every other one with a window."""
    layers, sparse, first = (_number(cells, name) for name in ("layers", "moe_layers", "first_k_dense"))
    sparse = sparse or layers
    window = WINDOW.search(cells.get("sliding_window", ""))
    kinds: dict[str, Any] = {"sparse": {"attention": attention, "feed_forward": "experts"}}
    if window:
        kinds["local"] = {"attention": "sliding", "window": int(window[1]), "feed_forward": "experts"}
        return {"layer_kinds": kinds, "layer_pattern": ["local", "sparse"]}
    if sparse == layers:
        return {"layer_kinds": kinds, "layer_pattern": ["sparse"]}
    kinds["dense"] = {"attention": attention, "feed_forward": "dense"}
    if sparse + first == layers:
        return {"layer_kinds": kinds, "layer_pattern": ["sparse"], "first_layers": ["dense"] * first}
    if layers % sparse:
        raise InputError(f"{sparse} of {layers} layers have experts, in an order that is not stated", key="moe_layers")
    return {"layer_kinds": kinds, "layer_pattern": ["dense"] * (layers // sparse - 1) + ["sparse"]}


def mixture_settings(cells: Mapping[str, str], presets: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a layout that its row states for experts: mesh, load, what runs again, how pieces are dealt."""
    tensor = cells.get(EXPERT_TENSOR.name) or next(
        str(each[EXPERT_TENSOR.name])
        for each in presets["expert_tensors"]
        if re.search(each.get("source", ""), cells["source"])
    )
    settings: dict[str, Any] = {
        EXPERT.name: max(_number(cells, EXPERT.name), 1),
        EXPERT_TENSOR.name: _number(cells, TENSOR.name)
        if tensor == TENSOR.name
        else _number({EXPERT_TENSOR.name: tensor}, EXPERT_TENSOR.name),
        "expert_load": next(
            load_words()[str(each["load"])]
            for each in presets["loads"]
            if re.search(each.get("router_load", ""), cells.get("router_load", ""))
        ),
    }
    named = [presets["modules"].get(name.strip(), name.strip()) for name in cells.get("recompute_modules", "").split(",")]
    if cells["recompute"] == "selective" and any(named):
        unknown = [name for name in named if name not in RECOMPUTE_MODULES]
        if unknown:
            raise InputError(f"{shown(unknown[0])} is no module that runs again", key="recompute_modules")
        settings["recompute_modules"] = tuple(dict.fromkeys(named))
    written = WRITTEN_LAYOUT.search(cells.get("notes", ""))
    return settings | ({"pipeline_layout": written[1]} if written and _number(cells, "pipeline_parallel") > 1 else {})


def mixture_stack(cells: Mapping[str, str], presets: Mapping[str, Any]) -> dict[str, Any]:
    """Sections of a stack as far as the row tells what ran: the dispatcher, its overlap, CUDA graphs, moments in 16 bits."""
    experts: dict[str, Any] = {}
    dispatcher = next(
        (each["dispatcher"] for each in presets["dispatchers"] if re.search(each["words"], cells.get("dispatcher", ""))), None
    )
    if dispatcher:
        experts["dispatcher"] = dispatcher
    elif cells.get("dispatcher"):
        raise InputError(f"{shown(cells['dispatcher'])} is none of alltoall, allgather, deepep and hybridep", key="dispatcher")
    if cells.get("ep_overlap"):
        if not cells["ep_overlap"].startswith(("yes", "no")):
            raise InputError(f"{shown(cells['ep_overlap'])} is not yes or no", key="ep_overlap")
        experts["overlap"] = "passes" if cells["ep_overlap"].startswith("yes") else "none"
    stack: dict[str, Any] = {"experts": experts} if experts else {}
    scope, _, parts = cells.get("cuda_graphs", "").partition(":")
    if scope not in GRAPH_SCOPES:
        raise InputError(f"{shown(scope)} is none of {', '.join(GRAPH_SCOPES[1:])}", key="cuda_graphs")
    if scope.startswith("full"):
        stack["host"] = {"cuda_graphs": True}
    elif parts and scope != "none":
        held = next(each["graphed"] for each in presets["shared_experts"] if _fits(each, cells))
        has_shared = bool(_number(cells, "shared_ffn_hidden_size"))
        stack["host"] = {"graphed": sorted(graphed_parts(parts.split(","), shared_experts=has_shared and held))}
    elif scope == "none":
        stack["host"] = {"cuda_graphs": False}
    moments = next(each for each in presets["moments"] if _fits(each, cells))
    return stack | ({"states": {"optimizer_bytes": moments["optimizer_bytes"]}} if "optimizer_bytes" in moments else {})


def _fits(entry: Mapping[str, Any], cells: Mapping[str, str]) -> bool:
    return all(re.search(str(pattern), cells.get(column, "")) for column, pattern in entry.items() if column in cells)


def _number(cells: Mapping[str, str], column: str) -> int:
    text = cells.get(column, "") or "0"
    try:
        number = float(text)
    except ValueError:
        raise InputError(f"{shown(text)} is not a number", key=column) from None
    if not abs(number) <= MOST:
        raise InputError(f"{shown(text)} must be at most {MOST:g}", key=column)
    return int(number)
