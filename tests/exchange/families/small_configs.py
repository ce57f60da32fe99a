"""Small models of every family that transformers has, as their config.json says them: real parts, few and odd numbers."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

SIZES: Final = {
    "vocab_size": 1024, "hidden_size": 192, "intermediate_size": 520, "num_hidden_layers": 5, "num_attention_heads": 12,
    "num_key_value_heads": 4, "max_position_embeddings": 640, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OLD: Final = {"vocab_size": 1024, "bos_token_id": 1, "eos_token_id": 2}  # of families with words of their own
GPT: Final = OLD | {"n_embd": 192, "n_layer": 3, "n_head": 12, "n_positions": 640}
NEO: Final = OLD | {"num_layers": 4, "num_heads": 12, "hidden_size": 192, "max_position_embeddings": 640}
FALCON: Final = OLD | {"hidden_size": 192, "num_hidden_layers": 3, "num_attention_heads": 12}
ALL_HEADS: Final = SIZES | {"num_key_value_heads": 12}
WITHOUT_KV: Final = {key: value for key, value in SIZES.items() if key != "num_key_value_heads"}
WITHOUT_LAYERS: Final = {key: value for key, value in SIZES.items() if key != "num_hidden_layers"}


class SmallConfig(NamedTuple):
    """A config.json of a family."""

    family: str
    keys: dict[str, Any]  # of its config.json, beside model_type
    variant: dict[str, Any]  # that makes it another one of its family

    def __str__(self) -> str:
        return "-".join((self.family, *map(str, self.variant)))


def _of(family: str, base: dict[str, Any], *variants: dict[str, Any]) -> list[SmallConfig]:
    return [SmallConfig(family, base | variant, variant) for variant in variants or ({},)]


SILU: Final = SIZES | {"hidden_act": "silu"}
WIDE: Final = SILU | {"head_dim": 40}
WINDOWS: Final = WIDE | {"sliding_window": 96}
GEMMA: Final = SIZES | {"head_dim": 40, "hidden_activation": "gelu_pytorch_tanh"}
BOTH_BIASES: Final = {"attention_bias": True, "mlp_bias": True}
SMALL_CONFIGS: Final = [
    *_of("llama", WIDE, {}, BOTH_BIASES, {"mlp_bias": True, "tie_word_embeddings": True},
         {"num_key_value_heads": None}),
    *_of("exaone", WITHOUT_LAYERS | {"num_layers": 2, "activation_function": "silu"}),
    *_of("internlm3", WIDE, {"qkv_bias": True, "bias": True}),
    *_of("arcee", WIDE | {"hidden_act": "relu2"}, BOTH_BIASES),
    *_of("helium", ALL_HEADS | {"hidden_act": "silu", "head_dim": 16}, {"attention_bias": True}),
    *_of("seed_oss", WIDE, {}, {"attention_out_bias": True, "attention_bias": False, "mlp_bias": True}),
    *_of("ernie4_5", WIDE, {}, {"use_bias": True, "tie_word_embeddings": False}),
    *_of("hunyuan_v1_dense", WIDE, {}, {"attention_bias": True}),
    *_of("jais2", ALL_HEADS | {"hidden_act": "relu2", "head_dim": 16}, {}, {"mlp_bias": False}),
    *_of("smollm3", SILU,
         {}, BOTH_BIASES | {"use_sliding_window": True, "sliding_window": 96, "no_rope_layer_interval": 2}),
    *_of("cwm", WINDOWS),
    *_of("mistral", SILU, {}, {"sliding_window": 96, "head_dim": 40}, {"sliding_window": None}),
    *_of("ministral", WINDOWS, {},
         {"layer_types": ["sliding_attention", "full_attention"] * 2 + ["sliding_attention"]}),
    *_of("phi3", SILU, {"sliding_window": 96}, {"tie_word_embeddings": True}),
    *_of("starcoder2", SIZES | {"hidden_act": "gelu_pytorch_tanh"}, {"sliding_window": 96}, {"use_bias": False}),
    *_of("qwen2", SILU, {}, {"use_sliding_window": True, "sliding_window": 96, "max_window_layers": 3},
         {"tie_word_embeddings": True}),
    *_of("qwen3", WIDE, {}, {"attention_bias": True, "tie_word_embeddings": True},
         {"use_sliding_window": True, "max_window_layers": 0}),
    *_of("gemma", SIZES | {"head_dim": 40, "hidden_act": "gelu"}, {}, {"attention_bias": True}),
    *_of("gemma2", GEMMA, {}, {"sliding_window": 96, "final_logit_softcapping": None}),
    *_of("vaultgemma", GEMMA, {"sliding_window": 96}),
    *_of("gemma3_text", GEMMA, {"sliding_window": 96, "sliding_window_pattern": 3},
         {"attention_bias": True, "final_logit_softcapping": 30.0}),
    *_of("olmo", SILU, {}, {"attention_bias": True}),
    *_of("olmo2", SILU, {}, {"attention_bias": True, "tie_word_embeddings": True}),
    *_of("olmo3", SILU, {"sliding_window": 96}),
    *_of("exaone4", WIDE, {"sliding_window": 96, "sliding_window_pattern": 3}),
    *_of("granite", SILU,
         {}, BOTH_BIASES | {"embedding_multiplier": 12.0, "residual_multiplier": 0.2, "logits_scaling": 8.0}),
    *_of("cohere", SILU, {}, {"use_qk_norm": True, "attention_bias": True}),
    *_of("cohere2", SILU, {"sliding_window": 96, "sliding_window_pattern": 2}),
    *_of("glm", WIDE, {}, {"attention_bias": False}),
    *_of("glm4", WIDE),
    *_of("stablelm", SILU, {}, {"use_parallel_residual": True, "qk_layernorm": True}, {"use_qkv_bias": True}),
    *_of("nemotron", WIDE | {"hidden_act": "relu2"}, {}, BOTH_BIASES),
    *_of("persimmon", WITHOUT_KV | {"hidden_act": "relu2"}, {}, {"qk_layernorm": False}),
    *_of("gpt2", GPT, {}, {"n_inner": 520}),
    *_of("gpt_bigcode", GPT, {}, {"multi_query": False}),

            *_of("gpt_neo", NEO | {"attention_types": [[["global", "local"], 2]], "window_size": 96}),
    *_of("opt", WITHOUT_KV | {"ffn_dim": 520, "word_embed_proj_dim": 192}, {}, {"enable_bias": False},
         {"layer_norm_elementwise_affine": False}),
    *_of("bloom", OLD | {"n_embed": 192, "n_layer": 3, "n_head": 12}),
    *_of("mpt", OLD | {"d_model": 192, "n_layers": 3, "n_heads": 12}),
    *_of("falcon", FALCON, {}, {"multi_query": False, "alibi": True, "parallel_attn": False, "bias": True}),
    *_of("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 4}, {},
         {"num_ln_in_parallel_attn": 1, "ffn_hidden_size": 520}),
    *_of("gpt_neox", WITHOUT_KV | {"hidden_act": "gelu"}, {},
         {"use_parallel_residual": False, "attention_bias": False, "rotary_pct": 1.0}),
    *_of("gptj", GPT | {"rotary_dim": 8}, {}, {"n_inner": 520}),
    *_of("codegen", GPT | {"rotary_dim": 8}),
    *_of("phi", SIZES | {"hidden_act": "gelu_new"}, {}, {"qk_layernorm": True, "partial_rotary_factor": 0.25}),
]  # fmt: skip
