"""Are Megatron-LM's arguments in YAML the flags that they stand for?"""

from __future__ import annotations

from pathlib import Path

from tests.exchange.importers.scripts import SMALL, converted, run_of, script

CASE = """
ENV_VARS: {CUDA_DEVICE_MAX_CONNECTIONS: 1}
MODEL_ARGS:
  --num-layers: 4
  --hidden-size: 1024
  --num-attention-heads: 16
  --seq-length: 2048
  --micro-batch-size: 2
  --global-batch-size: 64
  --rampup-batch-size: "[16 16 3000]"
  --train-samples: 10000
  --tensor-model-parallel-size: 2
  --sequence-parallel: true
  --swiglu: true
  --disable-bias-linear: true
  --bf16: true
  --mock-data: true
"""
ARGUMENTS = """
language_model:
  num_layers: 4
  hidden_size: 1024
  num_attention_heads: 16
  num_query_groups: 4
  ffn_hidden_size: null
  add_bias_linear: False
  activation_func: swiglu
  apply_rope_fusion: False
  hidden_dropout: 0.0
  attention_dropout: 0.0
  num_moe_experts: null
  moe_router_topk: 2
model_parallel:
  tensor_model_parallel_size: 2
  sequence_parallel: True
  expert_model_parallel_size: 1
  bf16: True
  overlap_p2p_comm: False
micro_batch_size: 2
global_batch_size: 64
rampup_batch_size: [16, 16, 3000]
train_samples: 10000
seq_length: 2048
untie_embeddings_and_output_weights: True
swiglu: True
made_up_by_somebody: 7
overlap_grad_reduce: False
"""


def test_a_test_case_is_its_script(tmp_path: Path) -> None:
    """The same flags, with true for a bare one."""
    found = converted(tmp_path, CASE, "model_config.yaml")
    flags = "--global-batch-size 64 --rampup-batch-size 16 16 3000 --train-samples 10000 --tensor-model-parallel-size 2 "
    flags += "--sequence-parallel --swiglu --disable-bias-linear --bf16 --mock-data"
    same = dict(run_of(script(tmp_path, flags, SMALL.replace("--nproc-per-node 8", ""))))
    run = dict(run_of(found))
    assert run.pop("name") == tmp_path.name
    assert same.pop("name") == "train"
    assert {**run["model"], "name": ""} == {**same["model"], "name": ""}
    assert {key: run[key] for key in run if key != "model"} == {key: same[key] for key in same if key not in ("model", "gpus")}


def test_arguments_by_their_inner_names_are_read(tmp_path: Path) -> None:
    """A flag that switches something off is a false argument."""
    found = converted(tmp_path, ARGUMENTS, "gpt_config.yaml")
    run = run_of(found)
    assert (run["tensor_parallel"], run["sequence_parallel"], run["precision"]) == (2, True, "bf16")
    assert (run["model"]["activation"], run["model"]["biases"], run["model"]["ffn_hidden_size"]) == ("swiglu", False, 2688)
    assert run["stack"]["fusion"]["rotary"] is False
    assert len(run["stages"]) == 4
    assert not found.refused
    assert "--made-up-by-somebody: nobody here knows it; it is not read" in found.ignored
