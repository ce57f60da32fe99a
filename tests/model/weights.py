"""Weights of transformers' networks under the names of the reference model, and how they get into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from perfmodel.model.transformer import VOCABULARY, Transformer
from perfmodel.spec.models.model import TransformerModel


def load(model: Transformer, whole: dict[str, torch.Tensor]) -> None:
    """Give this rank its part of whole tensors; rows that pad the vocabulary are zero."""
    with torch.no_grad():
        for name, parameter, cut in model.cuts():
            full = _padded(whole[name], model.padded) if name in VOCABULARY else whole[name]
            parameter.copy_(cut.part(full, model.groups))


def _padded(table: torch.Tensor, rows: int) -> torch.Tensor:
    return torch.cat((table, table.new_zeros(rows - len(table), table.shape[1])))


def gradients(model: Transformer) -> dict[str, torch.Tensor]:
    """What the backward pass added up, without the rows of padding."""
    rows = int(model.spec.vocab_size)
    found = {name: parameter.main_grad for name, parameter, _ in model.cuts()}
    return {name: gradient[:rows] if name in VOCABULARY else gradient for name, gradient in found.items()}


def weights_of(network: Any, model: TransformerModel) -> dict[str, torch.Tensor]:
    """The weights of a network of transformers, under our names and joined as ours are."""
    found = _renamed(network, model, lambda parameter: parameter.detach())
    if model.position == "learned":  # the weights of its norms are ours + 1
        found |= {name: weight - 1.0 for name, weight in found.items() if name.endswith("norm.weight")}
    return found


def gradients_of(network: Any, model: TransformerModel) -> dict[str, torch.Tensor]:
    """Their gradients in the same way."""
    return _renamed(network, model, lambda parameter: parameter.grad)


def _renamed(network: Any, model: TransformerModel, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    return _gpt2(network, value) if model.position == "learned" else _rotary(network, model, value)


def _rotary(network: Any, model: TransformerModel, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    found = {"embedding.weight": value(network.model.embed_tokens.weight)} | _norm("norm", network.model.norm, value)
    if not model.tied_embeddings:
        found["head.weight"] = value(network.lm_head.weight)
    for index, layer in enumerate(network.model.layers):
        place = f"layers.{index}"
        found |= _norm(f"{place}.attention.norm", layer.input_layernorm, value)
        found |= _norm(f"{place}.mlp.norm", layer.post_attention_layernorm, value)
        attended = _grouped_queries if model.latent is None else _latent
        found |= attended(f"{place}.attention", layer.self_attn, value)
        has_experts = hasattr(layer.mlp, "experts")
        found |= _experts(f"{place}.mlp", layer.mlp, value) if has_experts else _mlp(f"{place}.mlp.", layer.mlp, value)
    return found


def _grouped_queries(place: str, attention: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    found = {f"{place}.qkv.weight": torch.cat([value(each.weight) for each in projections])}
    if attention.q_proj.bias is not None:
        found[f"{place}.qkv.bias"] = torch.cat([value(each.bias) for each in projections])
    if hasattr(attention, "q_norm"):
        found[f"{place}.query_norm"] = value(attention.q_norm.weight)
        found[f"{place}.key_norm"] = value(attention.k_norm.weight)
    return found | {f"{place}.projection.weight": value(attention.o_proj.weight)}


def _latent(place: str, attention: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    names = {"kv_down": "kv_a_proj_with_mqa", "kv_norm": "kv_a_layernorm", "kv_up": "kv_b_proj", "projection": "o_proj"}
    if attention.q_proj is None:
        names |= {"query_down": "q_a_proj", "query_norm": "q_a_layernorm", "query": "q_b_proj"}
    else:
        names |= {"query": "q_proj"}
    return {f"{place}.{ours}.weight": value(getattr(attention, theirs).weight) for ours, theirs in names.items()}


def _experts(place: str, mlp: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    found = {f"{place}.router.weight": value(mlp.gate.weight)}
    found |= {f"{place}.fc1.weight": value(mlp.experts.gate_up_proj), f"{place}.fc2.weight": value(mlp.experts.down_proj)}
    shared = getattr(mlp, "shared_experts", None)
    return found if shared is None else found | _mlp(f"{place}.shared.", shared, value)


def _mlp(prefix: str, mlp: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    into = [getattr(mlp, name).weight for name in ("gate_proj", "up_proj") if hasattr(mlp, name)]
    return {
        f"{prefix}fc1.weight": torch.cat([value(each) for each in into]),
        f"{prefix}fc2.weight": value(mlp.down_proj.weight),
    }


def _norm(name: str, norm: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    found = {f"{name}.weight": value(norm.weight)}
    return found | {f"{name}.bias": value(norm.bias)} if getattr(norm, "bias", None) is not None else found


def _gpt2(network: Any, value: Callable[[Any], Any]) -> dict[str, torch.Tensor]:
    """GPT-2 keeps its matrices as (inner, columns)."""
    body = network.transformer
    found = {"embedding.weight": value(body.wte.weight), "embedding.positions": value(body.wpe.weight)}
    found |= _norm("norm", body.ln_f, value)
    for index, block in enumerate(body.h):
        place = f"layers.{index}"
        found |= _norm(f"{place}.attention.norm", block.ln_1, value) | _norm(f"{place}.mlp.norm", block.ln_2, value)
        linears = {
            "attention.qkv": block.attn.c_attn,
            "attention.projection": block.attn.c_proj,
            "mlp.fc1": block.mlp.c_fc,
            "mlp.fc2": block.mlp.c_proj,
        }
        for name, linear in linears.items():
            found[f"{place}.{name}.weight"], found[f"{place}.{name}.bias"] = value(linear.weight).T, value(linear.bias)
    return found
