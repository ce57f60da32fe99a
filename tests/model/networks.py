"""The same models as transformers builds them, with numbers: independent implementations of every family."""

from __future__ import annotations

from typing import Any

import torch
import transformers  # its classes are imported where they are first asked for: seconds that no other test waits for

from perfmodel.spec.models.layer_parts import LatentAttention, Mixture
from perfmodel.spec.models.model import TransformerModel
from tests.model.small_mixtures import routing_of

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
    if model.mixture is not None:
        return _mixture(model, model.mixture, shared)
    if model.activation == "squared_relu":
        return transformers.NemotronForCausalLM(transformers.NemotronConfig(**shared, norm_eps=EPSILON))
    if model.biases_of == ("qkv",):
        del shared["head_dim"]  # of Qwen2 it is always the share of a head
        return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**shared, rms_norm_eps=EPSILON, hidden_act="silu"))
    if model.qk_norm == "head":
        windows = {name: kind.window for name, kind in model.kinds.items()}
        kinds = [windows[model.kind_at(index)] for index in range(int(model.layers))]
        shared["layer_types"] = ["full_attention" if each is None else "sliding_attention" for each in kinds]
        window = next((each for each in kinds if each is not None), None)
        config = transformers.Qwen3Config(**shared, rms_norm_eps=EPSILON, use_sliding_window=True, sliding_window=window)
        return transformers.Qwen3ForCausalLM(config)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shared, rms_norm_eps=EPSILON, hidden_act="silu"))


def _mixture(model: TransformerModel, mixture: Mixture, shared: dict[str, Any]) -> Any:
    """Qwen3-MoE has norms of queries and keys, DeepSeek-V3 latent attention; Mixtral neither."""
    shared |= {"hidden_act": "silu", "num_experts_per_tok": mixture.experts_per_token, "rms_norm_eps": EPSILON}
    if model.latent is not None:
        return _deepseek(model, mixture, model.latent, shared)
    if model.qk_norm == "head":
        experts = {"num_experts": mixture.experts, "moe_intermediate_size": mixture.ffn_hidden_size, "norm_topk_prob": True}
        return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**shared, **experts))
    (kind,) = model.kinds.values()
    shared |= {"intermediate_size": mixture.ffn_hidden_size, "num_local_experts": mixture.experts}
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**shared, sliding_window=kind.window))


def _deepseek(model: TransformerModel, mixture: Mixture, latent: LatentAttention, shared: dict[str, Any]) -> Any:
    routing = routing_of(model)
    config = transformers.DeepseekV3Config(
        **shared | {"head_dim": latent.rotary_head_size},
        q_lora_rank=latent.query_rank or None,
        kv_lora_rank=latent.kv_rank,
        qk_nope_head_dim=latent.nope_head_size,
        qk_rope_head_dim=latent.rotary_head_size,
        v_head_dim=latent.value_head_size,
        rope_interleave=False,
        n_routed_experts=mixture.experts,
        num_local_experts=mixture.experts,
        moe_intermediate_size=mixture.ffn_hidden_size,
        n_shared_experts=mixture.shared_experts,
        n_group=mixture.groups,
        topk_group=mixture.groups_per_token,
        first_k_dense_replace=len(model.first_layers),
        norm_topk_prob=routing.normalised,
        routed_scaling_factor=routing.scale,
    )
    network = transformers.DeepseekV3ForCausalLM(config)
    for layer in network.model.layers:  # two of its norms have an epsilon of their own
        for norm in (layer.self_attn.q_a_layernorm, layer.self_attn.kv_a_layernorm):
            norm.variance_epsilon = EPSILON
    return network


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
