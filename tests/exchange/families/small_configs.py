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
TYPED: Final = {
    "sliding_window": 96, "layer_types": ["full_attention", "sliding_attention", "sliding_attention"] + ["full_attention"] * 2,
}  # fmt: skip
BOTH_BIASES: Final = {"attention_bias": True, "mlp_bias": True}
DENSE: Final = [
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
    *_of("gemma4_text", GEMMA | {"sliding_window": 96, "global_head_dim": 64, "hidden_size_per_layer_input": 0},
         {"hidden_size_per_layer_input": 24, "vocab_size_per_layer_input": 700}, {},
         {"attention_k_eq_v": True, "num_global_key_value_heads": 2, "num_hidden_layers": 7, "attention_bias": True,
          "final_logit_softcapping": 30.0},
         {"num_kv_shared_layers": 6, "num_hidden_layers": 12, "use_double_wide_mlp": True},
         {"enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 72}),
    *_of("gemma4_unified_text", GEMMA | {"sliding_window": 96, "global_head_dim": 64, "final_logit_softcapping": 30.0}),
    *_of("granite_swa", SILU | TYPED, {}, {"embedding_multiplier": 12.0}),
    *_of("hyperclovax", WIDE, {}, {"use_post_norm": False, "logits_scaling": 8.0}),
    *_of("qwen2_5_omni_text", SILU, {}, {"use_sliding_window": True, "sliding_window": 96, "max_window_layers": 3}),
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

# Mixtures of experts, latent attention and other mixers.
EXPERTS: Final = SILU | {"num_experts": 6, "num_experts_per_tok": 2}
LOCAL: Final = SILU | {"num_local_experts": 6, "num_experts_per_tok": 2}
NARROW: Final = EXPERTS | {"moe_intermediate_size": 72}
ROUTED: Final = {key: value for key, value in NARROW.items() if key != "num_experts"} | {"n_routed_experts": 6}
LATENT: Final = ALL_HEADS | {
    "hidden_act": "silu", "q_lora_rank": 48, "kv_lora_rank": 32, "qk_nope_head_dim": 24, "qk_rope_head_dim": 8,
    "v_head_dim": 20,
}  # fmt: skip
INDEXED: Final = {"index_n_heads": 4, "index_head_dim": 16, "index_topk": 8}
LATENT_EXPERTS: Final = LATENT | {
    "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 2, "moe_intermediate_size": 72,
    "first_k_dense_replace": 2, "n_group": 4, "topk_group": 2,
}  # fmt: skip
LINEAR: Final = {
    "linear_conv_kernel_dim": 3, "linear_key_head_dim": 16, "linear_value_head_dim": 24, "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}  # fmt: skip
STEP: Final = {
    "head_dim": 40, "share_expert_dim": 104, "sliding_window": 96,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}  # fmt: skip
KDA: Final = {"linear_num_heads": 4, "linear_head_dim": 24, "linear_conv_kernel_dim": 3}
KIMI: Final = {key: value for key, value in LATENT_EXPERTS.items() if key != "n_routed_experts"} | {"num_experts": 8}
MAMBA: Final = {"mamba_n_heads": 8, "mamba_d_state": 16, "mamba_n_groups": 2, "mamba_d_conv": 3}
DBRX: Final = OLD | {
    "d_model": 192, "n_heads": 12, "n_layers": 2, "max_seq_len": 640, "attn_config": {"kv_n_heads": 4, "rope_theta": 10000.0},
    "ffn_config": {"ffn_hidden_size": 520, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 192},
}  # fmt: skip
NEMOTRON_H: Final = {key: value for key, value in SIZES.items() if key != "num_hidden_layers"} | {
    "hybrid_override_pattern": "ME-*EM", "mamba_num_heads": 6, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16,
    "n_routed_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 72, "moe_shared_expert_intermediate_size": 104,
}  # fmt: skip
PARTS: Final = [
    *_of("mixtral", EXPERTS, {}, {"sliding_window": 96}),
    *_of("phimoe", LOCAL, {"sliding_window": 96}, {"attention_bias": True, "lm_head_bias": True}),
    *_of("minimax_m2", EXPERTS | {"head_dim": 40}),
    *_of("minimax_m3_vl_text", EXPERTS | {"head_dim": 40, "dense_intermediate_size": 600, "shared_intermediate_size": 104,
                                          "intermediate_size": 72, "rotary_dim": 16}, {},
         {"layer_types": ["full_attention"] * 2 + ["minimax_m3_sparse"] * 3, "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3,
          "index_n_heads": 4, "index_head_dim": 24, "index_block_size": 16, "index_topk_blocks": 3},
         {"sparse_attention_config": {"sparse_num_index_heads": 4, "sparse_index_dim": 24, "sparse_block_size": 16,
                                      "sparse_topk_blocks": 3, "sparse_attention_freq": [0, 0, 1, 1, 1]},
          "moe_layer_freq": [0, 1, 1, 1, 1]}),
    *_of("dbrx", DBRX),
    *_of("olmoe", EXPERTS, {}, {"attention_bias": True}),
    *_of("flex_olmo", EXPERTS),
    *_of("gpt_oss", EXPERTS | {"head_dim": 40, "sliding_window": 96}, {}, {"attention_bias": False}),
    *_of("qwen2_moe", NARROW | {"shared_expert_intermediate_size": 104}, {},
         {"decoder_sparse_step": 2, "mlp_only_layers": [1]}, {"qkv_bias": False}),
    *_of("qwen3_moe", NARROW | {"head_dim": 40}, {}, {"mlp_only_layers": [0, 2], "attention_bias": True},
         {"use_sliding_window": True, "sliding_window": 96}),
    *_of("qwen3_next", NARROW | LINEAR | {"head_dim": 40, "shared_expert_intermediate_size": 104}, {},
         {"layer_types": ["full_attention", "linear_attention"] * 2 + ["linear_attention"], "decoder_sparse_step": 2}),
    *_of("kimi_linear", KIMI, KDA | {"q_lora_rank": None},
         KDA | {"layer_types": ["full_attention"] * 2 + ["linear_attention"] * 3, "first_k_dense_replace": 1},
         {"linear_attn_config": {"full_attn_layers": [2, 5], "kda_layers": [1, 3, 4], "num_heads": 6, "head_dim": 16,
                                 "short_conv_kernel_size": 2}}),
    *_of("qwen3_5_text", SILU | LINEAR | {"head_dim": 40}),
    *_of("qwen3_5_moe_text", NARROW | LINEAR | {"head_dim": 40, "shared_expert_intermediate_size": 104}),
    *_of("glm4_moe", ROUTED | {"head_dim": 40, "first_k_dense_replace": 2}, {}, {"use_qk_norm": True, "attention_bias": True}),
    *_of("dots1", ROUTED | {"n_shared_experts": 2, "first_k_dense_replace": 1}, {},
         {"sliding_window": 96, "max_window_layers": 3}),
    *_of("solar_open", {key: value for key, value in ROUTED.items() if key != "intermediate_size"} | {"head_dim": 40}),
    *_of("hy_v3", NARROW | {"head_dim": 40}),
    *_of("exaone_moe", NARROW | {"sliding_window": 96, "first_k_dense_replace": 2}),
    *_of("mimo_v2_flash", ROUTED | {"head_dim": 24, "v_head_dim": 16, "sliding_window": 96, "num_key_value_heads": 2}, {},
         {"attention_bias": True, "layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 2,
          "mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3}),
    *_of("step3p5", ROUTED | STEP, {"num_sliding_attention_heads": 16},
         {"moe_layers_enum": "2,4", "attention_other_setting": {"num_attention_heads": 8}}),
    *_of("mellum", NARROW | TYPED | {"head_dim": 40},
         {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3}),
    *_of("qwen3_omni_moe_text", NARROW | {"head_dim": 40}, {}, {"mlp_only_layers": [0, 2], "attention_bias": True}),
    *_of("sarvam_moe", ROUTED | {"head_dim": 40}, {}, {"use_qk_norm": False, "first_k_dense_replace": 2}),
    *_of("mistral4", LATENT_EXPERTS, {}, {"first_k_dense_replace": 0}),
    *_of("sarvam_mla", LATENT_EXPERTS, {"q_lora_rank": None}),
    *_of("afmoe", NARROW | {"head_dim": 40, "sliding_window": 96, "num_dense_layers": 2}, {}, {"mup_enabled": True}),
    *_of("ernie4_5_moe", SILU | {"moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 72}, {},
         {"moe_layer_start_index": 0, "moe_layer_end_index": 3, "moe_layer_interval": 2, "moe_num_shared_experts": 0}),
    *_of("hunyuan_v1_moe", SILU | {"num_experts": 6, "moe_topk": 2, "head_dim": 40}, {}, {"attention_bias": True}),
    *_of("cohere2_moe", EXPERTS | {"head_dim": 40, "sliding_window": 96, "num_shared_experts": 2}, {},
         {"mlp_layer_types": ["dense"] * 2 + ["sparse"] * 3, "prefix_dense_intermediate_size": 600}),
    *_of("granitemoe", LOCAL, {}, {"attention_bias": True, "embedding_multiplier": 12.0}),
    *_of("granitemoeshared", LOCAL, {}, {"shared_intermediate_size": 104, "residual_multiplier": 0.2}),
    *_of("granitemoehybrid",
         LOCAL | MAMBA | {"shared_intermediate_size": 104, "layer_types": ["mamba"] * 4 + ["attention"]}, {},
         {"num_local_experts": 0, "position_embedding_type": "rope", "logits_scaling": 8.0}),
    *_of("bamba", SILU | MAMBA | {"attn_layer_indices": [1, 3]}, {}, BOTH_BIASES),
    *_of("nemotron_h", NEMOTRON_H, {}, {"moe_latent_size": 64}),
    *_of("llama4_text", LOCAL | {"head_dim": 40, "intermediate_size_mlp": 600, "attention_chunk_size": 96}, {},
         {"interleave_moe_layer_step": 2, "attention_bias": True}, {"moe_layers": [1, 2]}),
    *_of("deepseek_v2", LATENT_EXPERTS, {}, {"q_lora_rank": None}, {"first_k_dense_replace": 0}),
    *_of("deepseek_v3", LATENT_EXPERTS, {}, {"tie_word_embeddings": True}),
    *_of("deepseek_v32", LATENT_EXPERTS | INDEXED, {}, {"index_n_heads": 3}),
    *_of("glm_moe_dsa", LATENT_EXPERTS | INDEXED, {}, {"index_head_dim": 24}),
    *_of("glm4_moe_lite", {key: value for key, value in LATENT_EXPERTS.items() if key != "first_k_dense_replace"}),
    *_of("youtu", LATENT),
    *_of("minicpm3", LATENT, {}, {"v_head_dim": None}),
    *_of("glm4v_text", WIDE),
    *_of("glm4v_moe_text", ROUTED | {"head_dim": 40, "first_k_dense_replace": 2}, {}, {"attention_bias": False}),
    *_of("qwen3_vl_moe_text", NARROW | {"tie_word_embeddings": False, "head_dim": 40, "mlp_only_layers": [1]}),
]  # fmt: skip
SMALL_CONFIGS: Final = [*DENSE, *PARTS]
