"""Is a configuration that Megatron-Bridge dumped the run that it is?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.exchange.importers.scripts import converted, run_of

BRIDGE = """
model:
  num_layers: 32
  hidden_size: 4096
  ffn_hidden_size: 14336
  num_attention_heads: 32
  num_query_groups: 8
  activation_func: {_target_: torch.nn.functional.silu, _call_: false}
  gated_linear_unit: true
  normalization: RMSNorm
  position_embedding_type: rope
  share_embeddings_and_output_weights: false
  add_bias_linear: false
  attention_dropout: 0.0
  hidden_dropout: 0.0
  vocab_size: 128256
  seq_length: 8192
  tensor_model_parallel_size: 2
  pipeline_model_parallel_size: 2
  virtual_pipeline_model_parallel_size: 4
  sequence_parallel: true
train: {global_batch_size: 128, micro_batch_size: 1, train_iters: 10}
ddp: {use_distributed_optimizer: true, grad_reduce_in_fp32: false, overlap_grad_reduce: true, overlap_param_gather: true}
comm_overlap: {tp_comm_overlap: true}
mixed_precision: bf16_with_fp8_current_scaling_mixed
"""


def test_its_sections_are_the_run(tmp_path: Path) -> None:
    """With pieces a rank, and recipes by their names."""
    found = converted(tmp_path, BRIDGE, "bridge.yaml")
    run = run_of(found)
    assert (found.format, found.refused) == ("Megatron-Bridge configuration", ())
    assert (run["model"]["activation"], run["model"]["kv_heads"], run["model"]["dropout"]) == ("swiglu", 8, False)
    assert (run["virtual_pipeline"], run["sharding"], run["precision"]) == (4, "zero1", "fp8")
    assert run["stack"]["extends"] == "megatron-bridge"
    assert (run["stack"]["overlap"]["tensor_parallel"], run["stack"]["states"]["gradient_bytes"]) == ("pipelined", 2)
    assert run["stages"] == [{"global_batch_size": 128, "tokens": 10 * 128 * 8192}]


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("bf16_with_fp8_current_scaling_mixed", "bf16_mixed", "precision", "bf16"),
        ("bf16_with_fp8_current_scaling_mixed", "{bf16: true, fp8: hybrid, fp8_recipe: delayed}", "precision", "fp8"),
        ("in_fp32: false", "in_fp32: true", "stack.states.gradient_bytes", 4),
        ("overlap_grad_reduce: true, ", "", "stack.overlap.data_parallel", False),
        ("gated_linear_unit: true", "gated_linear_unit: false", "model.activation", "silu"),
    ],
)
def test_keys_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each; a function that no run has is refused."""
    assert word in BRIDGE
    found = converted(tmp_path, BRIDGE.replace(word, instead), "bridge.yaml")
    if key == "model.activation":
        assert any("model.activation 'silu' is not covered" in each for each in found.refused)
        return
    place: Any = run_of(found)
    for step in key.split("."):
        place = place[step]
    assert place == value


EXPERTS = """
  num_moe_experts: 64
  moe_router_topk: 6
  moe_ffn_hidden_size: 1408
  moe_layer_freq: [0, 1, 1, 1]
  moe_grouped_gemm: true
  moe_token_dispatcher_type: alltoall
  expert_model_parallel_size: 8
  expert_tensor_parallel_size: 1
  multi_latent_attention: true
  kv_lora_rank: 512
  qk_head_dim: 128
  qk_pos_emb_head_dim: 64
  v_head_dim: 128
  seq_length"""


@pytest.mark.parametrize(("beside", "parts"), [("false", "router shared_experts"), ("true", "router")])
def test_graphs_of_a_router_hold_shared_experts_that_are_not_beside_the_dispatch(
    tmp_path: Path, beside: str, parts: str
) -> None:
    """As in flags of Megatron-LM."""
    shared = f"  moe_shared_expert_intermediate_size: 64\n  moe_shared_expert_overlap: {beside}"
    graphs = "  cuda_graph_impl: transformer_engine\n  cuda_graph_modules: [moe_router]"
    text = BRIDGE.replace("num_layers: 32", "num_layers: 4").replace("  virtual_pipeline_model_parallel_size: 4\n", "")
    text = text.replace("\n  seq_length", EXPERTS.replace("\n  seq_length", f"\n{shared}\n{graphs}\n  seq_length"))
    assert run_of(converted(tmp_path, text, "bridge.yaml"))["stack"]["host"]["graphed"] == parts


def test_experts_and_latent_attention_are_read(tmp_path: Path) -> None:
    """They have the facts of Megatron-LM's flags."""
    text = BRIDGE.replace("num_layers: 32", "num_layers: 4").replace("  virtual_pipeline_model_parallel_size: 4\n", "")
    found = converted(tmp_path, text.replace("\n  seq_length", EXPERTS), "bridge.yaml")
    run = run_of(found)
    assert not found.refused
    assert (run["expert_parallel"], run["expert_tensor_parallel"]) == (8, 1)
    assert (run["model"]["mixture"]["experts"], run["model"]["latent"]["kv_rank"]) == (64, 512)
    assert run["model"]["first_layers"] == "dense"
