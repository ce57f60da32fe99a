"""What flags of Megatron-LM say of experts, latent attention and windows, and which layers have them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.families.layers import ConfigLayer, kinds_in_order
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.megatron.layer_flags import flags_of_layers
from perfmodel.exchange.translation.run_drafts import RunDraft, number, whole
from perfmodel.spec.models.model import MOST_LAYERS

MIXTURE: Final = {  # fact -> key of the mixture, where it is given
    "expert_groups": "groups",
    "groups_per_token": "groups_per_token",
    "expert_latent": "latent_size",
    "shared_gate": "shared_gate",
}
USUAL: Final = "megatron"  # the format whose defaults dialects of it have, where they have no other
DISPATCHER: Final = "allgather"  # of Megatron-LM, unless another is given


def has_experts(facts: Mapping[str, Any]) -> bool:
    """Whether a model is a mixture: scripts of others may state one expert."""
    return (whole(facts.get("experts")) or 0) > 1


def add_parts(draft: RunDraft) -> None:
    """Put experts, latent attention and kinds of layers into a draft whose sizes and degrees are known. Errors: InputError."""
    settings, facts = draft.settings, draft.facts
    settings.setdefault("expert_parallel", 1)
    settings["expert_tensor_parallel"] = 1
    if has_experts(facts):
        _add_mixture(draft)
        _add_software(draft)
    if facts.get("latent"):
        _add_latent(draft)
    settings |= _orders(draft)


def _add_mixture(draft: RunDraft) -> None:
    settings, facts = draft.settings, draft.facts
    mixture = {"experts": facts["experts"], "ffn_hidden_size": facts.get("expert_width", settings["model.ffn_hidden_size"])}
    mixture |= {key: facts[fact] for fact, key in MIXTURE.items() if facts.get(fact) is not None}
    if "expert_width" not in facts:
        draft.silent("expert_width", "experts are as wide as an MLP (ffn_hidden_size)")
    if shared := facts.get("shared_width"):
        width = number(mixture["ffn_hidden_size"], "expert_width")
        mixture |= {"shared_experts": shared // width if shared % width == 0 else 1, "shared_ffn_hidden_size": shared}
    if facts.get("capacity"):
        mixture["capacity_factor"] = facts["capacity"]
        if not facts.get("pads_experts"):
            draft.silent("pads_experts", "experts are predicted as if they were padded to their capacity")
    settings |= {f"model.mixture.{key}": value for key, value in mixture.items()}
    _take(draft, "mixture", {"experts_per_token": "experts_per_token"})
    tensor = whole(facts.get("expert_tensor"))
    if tensor is None and settings["tensor_parallel"] > 1:
        draft.silent("expert_tensor", f"experts are shared like other products, by {settings['tensor_parallel']} ranks")
    settings["expert_tensor_parallel"] = tensor or settings["tensor_parallel"]
    if facts.get("balanced"):
        settings["expert_load"] = 1.0


def _add_software(draft: RunDraft) -> None:
    """Who sends tokens to experts, and whether that hides behind another micro-batch."""
    settings, facts = draft.settings, draft.facts
    name = str(facts.get("dispatcher", DISPATCHER))
    if "dispatcher" not in facts and number(settings["expert_parallel"], "expert_parallel") > 1:
        draft.silent("dispatcher", f"{DISPATCHER} is {draft.dialect.software}'s default")
    settings["stack.experts.dispatcher"] = facts.get("flexible_dispatcher", "deepep") if name == "flex" else name
    settings["stack.experts.overlap"] = "passes" if facts.get("overlaps_experts") else "none"
    if facts.get("shared_beside"):
        draft.ignored.append(f"{draft.said.names['shared_beside']}: shared experts are predicted on the compute path")
    if not facts.get("grouped_experts"):
        draft.silent("grouped_experts", "products of experts are predicted as grouped, where they would run one by one")


def _add_latent(draft: RunDraft) -> None:
    settings = draft.settings
    keys = ("kv_rank", "nope_head_size", "rotary_head_size", "value_head_size")
    settings["model.latent.query_rank"] = whole(draft.facts.get("query_rank")) or 0
    _take(draft, "latent", {key: key for key in keys})
    settings["model.kv_heads"] = settings["model.attention_heads"]
    settings["model.head_size"] = settings["model.latent.nope_head_size"] + settings["model.latent.rotary_head_size"]


def _take(draft: RunDraft, section: str, facts: Mapping[str, str]) -> None:
    """Keys of a section of the model from facts, or from defaults, which are said."""
    tables = (USUAL, draft.dialect.table)
    known = [each for table in tables for each in defaults_of(table, f"{section}.")]
    defaults = {each.key.removeprefix(f"{section}."): each for each in known}
    for fact, key in facts.items():
        value = draft.facts.get(fact)
        if value is None:
            value = defaults[key].value
            draft.assumed.append(defaults[key].says)
        draft.settings[f"model.{section}.{key}"] = value


def _orders(draft: RunDraft) -> dict[str, Any]:
    """The kinds of layers and their order; nothing where all are alike. Errors: InputError."""
    facts, layers = draft.facts, number(draft.settings["model.layers"], "--num-layers")
    if layers > MOST_LAYERS:
        raise InputError(f"{layers} layers are more than any model has", key=draft.words["model.layers"])
    window = _window(draft)
    experts = _listed(draft, "expert_layers", layers) if has_experts(facts) else [False] * layers
    windowed = [False] * layers if window is None else _listed(draft, "window_layers", layers)
    whole_kind = "latent" if facts.get("latent") else "full"
    if window is not None and facts.get("latent"):
        draft.refused.append(f"{draft.words['window']}: windows of latent attention cannot be expressed yet")
        return {}
    every = [
        ConfigLayer("sliding" if near else whole_kind, True, "experts" if sparse else "dense")
        for near, sparse in zip(windowed, experts, strict=True)
    ]
    return {f"model.{key}": value for key, value in kinds_in_order(every, window, ()).items()}


def _listed(draft: RunDraft, fact: str, layers: int) -> list[bool]:
    """Which layers a flag names. Every N-th has experts from the first on; every N-th has no window, the N-th first."""
    value = draft.facts.get(fact)
    if value is None:
        return [True] * layers
    try:
        flags = flags_of_layers(value)
    except InputError as error:
        raise error.under(draft.words[fact]) from None
    if isinstance(flags, int):
        is_window = fact == "window_layers"
        return [(place + 1) % flags != 0 if is_window else place % flags == 0 for place in range(layers)]
    if len(flags) != layers:
        raise InputError(f"{shown(value)} is for {len(flags)} layers, not {layers}", key=draft.words[fact])
    return [bool(each) for each in flags]


def _window(draft: RunDraft) -> int | None:
    """Tokens that a query sees, itself among them: those to the left that the flag counts, and one. Errors: InputError."""
    value = draft.facts.get("window")
    if value is None:
        return None
    words = re.findall(r"-?\d+", " ".join(map(str, value)) if isinstance(value, list) else str(value))
    if not 1 <= len(words) <= 2 or len(words[0]) > 9:
        raise InputError(f"{shown(value)} is no window; two numbers are, as in 4095,0", key=draft.words["window"])
    return None if int(words[0]) < 0 else int(words[0]) + 1
