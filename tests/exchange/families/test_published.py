"""Do models of families that transformers has no code for have the parameters that their authors print?"""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.count.parameters import active_parameter_count, parameter_count
from tests.exchange.families.small_configs import SmallConfig
from tests.exchange.families.transformers_networks import meta_network, read_config

BAICHUAN_13B = {
    "model_type": "baichuan", "hidden_act": "silu", "hidden_size": 5120, "intermediate_size": 13696, "model_max_length": 4096,
    "num_attention_heads": 40, "num_hidden_layers": 40, "tie_word_embeddings": False,
}  # fmt: skip
MINICPM_2B = {
    "model_type": "minicpm", "hidden_act": "silu", "hidden_size": 2304, "intermediate_size": 5760, "num_attention_heads": 36,
    "num_key_value_heads": 36, "num_hidden_layers": 40, "vocab_size": 122753, "scale_emb": 12, "scale_depth": 1.4,
}  # fmt: skip
PRINTED: list[tuple[int, dict[str, Any]]] = [  # in the cards of the models
    (7_000_559_616, {
        "model_type": "baichuan", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 11008,
        "max_position_embeddings": 4096, "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 64000}),
    (13_264_901_120, BAICHUAN_13B | {"vocab_size": 64000}),
    (6_921_720_704, {
        "model_type": "RefinedWebModel", "alibi": False, "bias": False, "hidden_size": 4544, "multi_query": True, "n_head": 71,
        "n_layer": 32, "parallel_attn": True, "vocab_size": 65024}),
]  # fmt: skip
SMALL = {
    "hidden_act": "silu", "hidden_size": 192, "intermediate_size": 520, "num_attention_heads": 12, "num_hidden_layers": 3,
    "vocab_size": 1024, "tie_word_embeddings": False,
}  # fmt: skip
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SAME_PARTS: list[tuple[dict[str, Any], SmallConfig]] = [  # as a family that transformers has
    ({"model_type": "internlm", "bias": True} | SMALL, SmallConfig("granite", SMALL | IDS | {"attention_bias": True}, {})),
    ({"model_type": "internlm2", "bias": False, "num_key_value_heads": 4} | SMALL,
     SmallConfig("llama", SMALL | IDS | {"num_key_value_heads": 4}, {})),
    ({"model_type": "qwen", "kv_channels": 16, "no_bias": True} | SMALL | {"intermediate_size": 1040},
     SmallConfig("qwen2", SMALL | IDS | {"num_key_value_heads": 12}, {})),
    ({"model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True, "ffn_hidden_size": 520, "hidden_size": 192,
      "kv_channels": 40, "multi_query_attention": True, "multi_query_group_num": 2, "num_attention_heads": 12, "num_layers": 3,
      "padded_vocab_size": 1024, "rmsnorm": True},
     SmallConfig("glm", SMALL | IDS | {"head_dim": 40, "num_key_value_heads": 2}, {})),
]  # fmt: skip


def family_of(value: object) -> str:
    """Name a config in a test id."""
    return str(value.get("model_type")) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("printed", "config"), PRINTED, ids=family_of)
def test_parameters_are_those_that_are_printed(printed: int, config: dict[str, Any]) -> None:
    """All digits of them."""
    assert parameter_count(read_config(config)).total == printed


@pytest.mark.parametrize(("config", "same"), SAME_PARTS, ids=family_of)
def test_parameters_are_those_of_a_family_with_the_same_parts(config: dict[str, Any], same: SmallConfig) -> None:
    """InternLM has Llama's, with biases; Qwen has Qwen2's, and writes down twice the width of its MLP; ChatGLM has GLM's."""
    assert parameter_count(read_config(config)).total == sum(each.numel() for each in meta_network(same).parameters())


def test_minicpm_has_the_parameters_of_its_paper() -> None:
    """arXiv:2404.06395 prints 2,442,057,984 beside the embedding; everything that it scales is scaled."""
    model = read_config(MINICPM_2B)
    assert parameter_count(model).non_embedding == 2_442_057_984
    assert model.scales == ("embedding", "branches", "logits")


def test_positions_of_baichuan_follow_from_its_keys() -> None:
    """The 13B models have biases of scores, and only their config names no number of rotary positions."""
    assert read_config(BAICHUAN_13B | {"vocab_size": 64000}).position == "alibi"
    assert read_config(BAICHUAN_13B | {"vocab_size": 64000, "max_position_embeddings": 4096}).position == "rotary"


def test_the_first_deepseek_has_the_parameters_of_its_paper() -> None:
    """arXiv:2401.06066, section 5.1: 16.4 billion in all, 2.8 billion for each token."""
    model = read_config({
        "model_type": "deepseek", "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2048, "moe_layer_freq": 1,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
        "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28, "num_key_value_heads": 16,
        "tie_word_embeddings": False, "vocab_size": 102400})  # fmt: skip
    assert parameter_count(model).total == pytest.approx(16.4e9, rel=0.003)
    assert active_parameter_count(model) == pytest.approx(2.8e9, rel=0.02)  # two digits


FROM_HUGGING_FACE: list[tuple[int, dict[str, Any]]] = [  # numbers of model cards on the hub, keys of their config.json
    (1_235_814_400, {
        "model_type": "llama", "attention_bias": False, "head_dim": 64, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 8192, "max_position_embeddings": 131072, "mlp_bias": False, "num_attention_heads": 32,
        "num_hidden_layers": 16, "num_key_value_heads": 8, "rope_scaling": {"factor": 32.0, "rope_type": "llama3"},
        "tie_word_embeddings": True, "vocab_size": 128256}),
    (7_615_616_512, {
        "model_type": "qwen2", "hidden_act": "silu", "hidden_size": 3584, "intermediate_size": 18944, "max_window_layers": 28,
        "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "sliding_window": 131072,
        "tie_word_embeddings": False, "use_sliding_window": False, "vocab_size": 152064}),
    (4_022_468_096, {
        "model_type": "qwen3", "attention_bias": False, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2560,
        "intermediate_size": 9728, "max_window_layers": 36, "num_attention_heads": 32, "num_hidden_layers": 36,
        "num_key_value_heads": 8, "sliding_window": None, "tie_word_embeddings": True, "use_sliding_window": False,
        "vocab_size": 151936}),
    (8_537_680_896, {
        "model_type": "gemma", "head_dim": 256, "hidden_act": "gelu", "hidden_size": 3072, "intermediate_size": 24576,
        "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 16, "vocab_size": 256000}),
    (124_439_808, {
        "model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12,
        "n_positions": 1024, "vocab_size": 50257}),
    (11_846_072_320, {
        "model_type": "gpt_neox", "hidden_act": "gelu", "hidden_size": 5120, "intermediate_size": 20480, "rotary_pct": 0.25,
        "max_position_embeddings": 2048, "num_attention_heads": 40, "num_hidden_layers": 36, "tie_word_embeddings": False,
        "use_parallel_residual": True, "vocab_size": 50688}),
    (176_247_271_424, {
        "model_type": "bloom", "n_embed": 14336, "n_layer": 70, "num_attention_heads": 112, "vocab_size": 250880}),
    (8_028_033_024, {
        "model_type": "cohere2", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 14336, "logit_scale": 0.25,
        "num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "sliding_window": 4096,
        "sliding_window_pattern": 4, "vocab_size": 256000}),
]  # fmt: skip


@pytest.mark.parametrize(("total", "config"), FROM_HUGGING_FACE, ids=family_of)
def test_parameters_are_those_of_real_files(total: int, config: dict[str, Any]) -> None:
    """With the keys that real files have, and without those that they leave out."""
    assert parameter_count(read_config(config)).total == total


GEMMA_4 = {
    "attention_k_eq_v": True, "final_logit_softcapping": 30.0, "global_head_dim": 512, "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh", "hidden_size_per_layer_input": 0, "sliding_window": 1024, "vocab_size": 262144,
}  # fmt: skip
MIXTURES: list[tuple[str, str, dict[str, Any]]] = [  # digits of model cards, in all and active, and keys of config.json
    ("14.3", "2.7", {  # Qwen1.5-MoE-A2.7B
        "model_type": "qwen2_moe", "decoder_sparse_step": 1, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5632, "max_window_layers": 21, "moe_intermediate_size": 1408, "num_attention_heads": 16,
        "num_experts": 60, "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
        "shared_expert_intermediate_size": 5632, "sliding_window": 32768, "tie_word_embeddings": False,
        "use_sliding_window": False, "vocab_size": 151936}),
    ("41.9", "6.6", {  # Phi-3.5-MoE
        "model_type": "phimoe", "attention_bias": True, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 6400,
        "lm_head_bias": True, "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "num_local_experts": 16, "sliding_window": 131072, "vocab_size": 32064}),
    ("80", "13", {  # Hunyuan-A13B
        "model_type": "hunyuan_v1_moe", "head_dim": 128, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 3072,
        "moe_intermediate_size": [3072] * 32, "moe_topk": [8] * 32, "num_attention_heads": 32, "num_experts": 64,
        "num_hidden_layers": 32, "num_key_value_heads": 8, "num_shared_expert": [1] * 32, "tie_word_embeddings": True,
        "use_qk_norm": True, "vocab_size": 128167}),
    ("16.8", "2.75", {  # Ling-lite
        "model_type": "bailing_moe", "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048, "intermediate_size": 5632,
        "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_experts": 64, "num_experts_per_tok": 6,
        "num_hidden_layers": 28, "num_key_value_heads": 4, "num_shared_experts": 2, "vocab_size": 126464}),
    ("16.26", "1.43", {  # Ling-mini-2.0
        "model_type": "bailing_moe_v2", "first_k_dense_replace": 1, "head_dim": 128, "hidden_act": "silu", "hidden_size": 2048,
        "intermediate_size": 5120, "moe_intermediate_size": 512, "num_attention_heads": 16, "num_experts": 256,
        "num_experts_per_tok": 8, "num_hidden_layers": 20, "num_key_value_heads": 4, "num_shared_experts": 1,
        "use_qk_norm": True, "vocab_size": 157184}),
    ("9.78", "9.78", {  # Bamba 9B
        "model_type": "bamba", "attention_bias": False, "attn_layer_indices": [9, 18, 27], "hidden_act": "silu",
        "hidden_size": 4096, "intermediate_size": 14336, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 128, "num_attention_heads": 32, "num_hidden_layers": 32,
        "num_key_value_heads": 8, "vocab_size": 128256}),
    ("32", "9", {  # Granite 4.0 H Small
        "model_type": "granitemoehybrid", "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 768,
        "layer_types": (["mamba"] * 5 + ["attention"] + ["mamba"] * 4) * 4, "mamba_d_head": 64, "mamba_d_state": 128,
        "mamba_n_groups": 1, "mamba_n_heads": 128, "num_attention_heads": 32, "num_experts_per_tok": 10,
        "num_hidden_layers": 40, "num_key_value_heads": 8, "num_local_experts": 72, "position_embedding_type": "nope",
        "shared_intermediate_size": 1536, "tie_word_embeddings": True, "vocab_size": 100352}),
    ("309", "15", {  # MiMo-V2-Flash
        "model_type": "mimo_v2_flash", "add_full_attention_sink_bias": False, "add_swa_attention_sink_bias": True,
        "attention_bias": False, "head_dim": 192, "hidden_act": "silu", "hidden_size": 4096, "intermediate_size": 16384,
        "hybrid_layer_pattern": [0, *[1] * 4, *[0, *[1] * 5] * 7, 0], "moe_intermediate_size": 2048,
        "moe_layer_freq": [0] + [1] * 47, "n_routed_experts": 256, "num_attention_heads": 64, "num_experts_per_tok": 8,
        "num_hidden_layers": 48, "num_key_value_heads": 4, "sliding_window": 128, "sliding_window_size": 128,
        "swa_head_dim": 192, "swa_num_attention_heads": 64, "swa_num_key_value_heads": 8, "swa_v_head_dim": 128,
        "tie_word_embeddings": False, "v_head_dim": 128, "vocab_size": 152576}),
    ("49.1", "3.5", {  # Kimi Linear 48B A3B
        "model_type": "kimi_linear", "first_k_dense_replace": 1, "hidden_act": "silu", "hidden_size": 2304,
        "intermediate_size": 9216, "kv_lora_rank": 512, "linear_attn_config": {
            "full_attn_layers": [4, 8, 12, 16, 20, 24, 27], "head_dim": 128, "num_heads": 32, "short_conv_kernel_size": 4},
        "moe_intermediate_size": 1024, "num_attention_heads": 32, "num_experts": 256, "num_experts_per_token": 8,
        "num_hidden_layers": 27, "num_key_value_heads": 32, "num_shared_experts": 1, "q_lora_rank": None,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "tie_word_embeddings": False, "v_head_dim": 128,
        "vocab_size": 163840}),
    ("30.7", "30.7", {  # Gemma 4 31B
        "model_type": "gemma4_text", **GEMMA_4, "hidden_size": 5376, "intermediate_size": 21504, "num_attention_heads": 32,
        "num_global_key_value_heads": 4, "num_hidden_layers": 60, "num_key_value_heads": 16}),
    ("25.2", "3.8", {  # Gemma 4 26B A4B
        "model_type": "gemma4_text", **GEMMA_4, "enable_moe_block": True, "hidden_size": 2816, "intermediate_size": 2112,
        "moe_intermediate_size": 704, "num_attention_heads": 16, "num_experts": 128, "num_global_key_value_heads": 2,
        "num_hidden_layers": 30, "num_key_value_heads": 8, "top_k_experts": 8}),
]  # fmt: skip


@pytest.mark.parametrize(("total", "active", "config"), MIXTURES, ids=family_of)
def test_parameters_of_mixtures_are_those_of_their_cards(total: str, active: str, config: dict[str, Any]) -> None:
    """All and active ones, to the digits that are printed."""
    model = read_config(config)
    for digits, parameters in ((total, parameter_count(model).total), (active, active_parameter_count(model))):
        assert f"{parameters / 1e9:.{len(digits.partition('.')[2])}f}" == digits
