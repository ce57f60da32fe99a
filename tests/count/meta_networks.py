"""The models as transformers builds them, on the meta device: shapes without numbers, the oracle of exact counts."""

from __future__ import annotations

from typing import Any

import torch
import transformers  # its classes are imported where they are first asked for: seconds that no other test waits for
from torch.utils.flop_counter import FlopCounterMode

from perfmodel.spec.models.model import TransformerModel


def meta_network(model: TransformerModel) -> Any:
    """Build the network that `model` describes; its activation says which family of transformers has it."""
    with torch.device("meta"):
        if model.activation == "gelu":
            return transformers.GPT2LMHeadModel(_gpt2_config(model))
        if model.activation == "squared_relu":
            rotary = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": model.rotary_fraction}
            return transformers.NemotronForCausalLM(
                transformers.NemotronConfig(**_shared_fields(model), rope_parameters=rotary)
            )
        gate = {"swiglu": "silu", "geglu": "gelu"}[model.activation]
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_shared_fields(model), hidden_act=gate))


def _shared_fields(model: TransformerModel) -> dict[str, Any]:
    return {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.ffn_hidden_size,
        "max_position_embeddings": 4096,
        "attention_bias": model.biases,
        "mlp_bias": model.biases,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": model.tied_embeddings,
        "attn_implementation": "eager",  # products that FlopCounterMode can see
    }


def _gpt2_config(model: TransformerModel) -> transformers.GPT2Config:
    return transformers.GPT2Config(
        n_layer=model.layers,
        n_embd=model.hidden_size,
        n_head=model.attention_heads,
        n_inner=model.ffn_hidden_size,
        n_positions=model.max_positions,
        vocab_size=model.vocab_size,
        tie_word_embeddings=model.tied_embeddings,
        attn_implementation="eager",
    )


def network_parameters(network: Any) -> int:
    """Count the parameters of a network, tied ones once."""
    return sum(int(parameter.numel()) for parameter in network.parameters())


def network_flop(network: Any, *, sequences: int, sequence_length: int, masks_tokens: bool = False) -> int:
    """Count with torch one forward and backward pass, without what forms the rotary tables.

    Those are constants of the sequence length that no training step forms again: transformers 5.8 multiplies positions by
    frequencies as matrices, s * d FLOPs for d rotated columns, and 5.23 element by element, none. The mask is given because
    transformers would look at the values of a mask of its own making, and meta tensors have none; networks that bias their
    scores by position want one of tokens.
    """
    tokens = torch.zeros(sequences, sequence_length, dtype=torch.long, device="meta")
    shape = (sequences, sequence_length) if masks_tokens else (sequences, 1, sequence_length, sequence_length)
    mask = torch.zeros(shape, device="meta")
    with FlopCounterMode(display=False) as counter:
        network(input_ids=tokens, attention_mask=mask, use_cache=False).logits.sum().backward()
    by_module = counter.get_flop_counts()
    tables = sum(sum(flop.values()) for name, flop in by_module.items() if name.endswith(".rotary_emb"))
    return int(counter.get_total_flops()) - tables
