"""Weights of transformers' networks under the names of the reference model, and how they get into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from perfmodel.model.transformer import VOCABULARY, Transformer
from perfmodel.spec.model import TransformerModel


def load(model: Transformer, whole: dict[str, torch.Tensor]) -> None:
    """Give this rank its part of whole tensors; rows that pad the vocabulary are zero."""
    with torch.no_grad():
        for name, parameter, cut in model.cuts():
            full = _padded(whole[name], model.padded) if name in VOCABULARY else whole[name]
            parameter.copy_(cut.part(full, model.groups.tensor_parallel))


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
    into = ("gate_proj", "up_proj") if model.gated else ("up_proj",)
    found = {"embedding.weight": value(network.model.embed_tokens.weight)} | _norm("norm", network.model.norm, value)
    if not model.tied_embeddings:
        found["head.weight"] = value(network.lm_head.weight)
    for index, layer in enumerate(network.model.layers):
        attention, place = layer.self_attn, f"layers.{index}"
        found |= _norm(f"{place}.attention_norm", layer.input_layernorm, value)
        found |= _norm(f"{place}.mlp_norm", layer.post_attention_layernorm, value)
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        found[f"{place}.qkv.weight"] = torch.cat([value(each.weight) for each in projections])
        if model.has_bias("qkv"):
            found[f"{place}.qkv.bias"] = torch.cat([value(each.bias) for each in projections])
        found[f"{place}.projection.weight"] = value(attention.o_proj.weight)
        found[f"{place}.fc1.weight"] = torch.cat([value(getattr(layer.mlp, name).weight) for name in into])
        found[f"{place}.fc2.weight"] = value(layer.mlp.down_proj.weight)
    return found


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
        found |= _norm(f"{place}.attention_norm", block.ln_1, value) | _norm(f"{place}.mlp_norm", block.ln_2, value)
        linears = {"qkv": block.attn.c_attn, "projection": block.attn.c_proj, "fc1": block.mlp.c_fc, "fc2": block.mlp.c_proj}
        for name, linear in linears.items():
            found[f"{place}.{name}.weight"], found[f"{place}.{name}.bias"] = value(linear.weight).T, value(linear.bias)
    return found
