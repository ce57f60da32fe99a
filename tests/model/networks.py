"""The same models as transformers builds them, with numbers: independent implementations of every family."""

from __future__ import annotations

from typing import Any

import torch
import transformers  # its classes are imported where they are first asked for: seconds that no other test waits for

from perfmodel.spec.model import TransformerModel

EPSILON = 1e-5
ROTARY_BASE = 10_000.0


def network_of(model: TransformerModel, *, attention: str = "eager") -> Any:
    """Build it with random weights, norms and biases among them."""
    torch.manual_seed(7)
    network = _built(model, attention)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1:  # their initial numbers, 0 and 1, would hide what they do
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif "lm_head" not in name and "embed" not in name:
                parameter.mul_(3.0)
    return network


def _built(model: TransformerModel, attention: str) -> Any:
    if model.position == "learned":
        return transformers.GPT2LMHeadModel(_gpt2_config(model, attention))
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE, "partial_rotary_factor": model.rotary_fraction}
    shared: dict[str, Any] = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.ffn_hidden_size,
        "vocab_size": model.vocab_size,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": model.tied_embeddings,
        "rope_parameters": rotary,
        "attn_implementation": attention,
        "pad_token_id": None,
    }
    if model.activation == "squared_relu":
        return transformers.NemotronForCausalLM(transformers.NemotronConfig(**shared, norm_eps=EPSILON))
    if model.biases_of == ("qkv",):
        del shared["head_dim"]  # of Qwen2 it is always the share of a head
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shared, rms_norm_eps=EPSILON, hidden_act="silu"))
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, rms_norm_eps=EPSILON, hidden_act="silu"))


def _gpt2_config(model: TransformerModel, attention: str) -> transformers.GPT2Config:
    return transformers.GPT2Config(
        n_layer=model.layers,
        n_embd=model.hidden_size,
        n_head=model.attention_heads,
        n_inner=model.ffn_hidden_size,
        n_positions=model.max_positions,
        vocab_size=model.vocab_size,
        activation_function="gelu",
        layer_norm_epsilon=EPSILON,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=model.tied_embeddings,
        attn_implementation=attention,
    )
