"""Is a configuration of NeMo 1 read as NeMo reads it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.exchange.importers.registry import read_settings
from tests.exchange.importers.scripts import converted, run_of

NEMO = """
run: {name: llama}
trainer: {devices: 8, num_nodes: 4, precision: bf16, max_steps: 100}
model:
  micro_batch_size: 1
  global_batch_size: 128
  tensor_model_parallel_size: 4
  pipeline_model_parallel_size: 2
  virtual_pipeline_model_parallel_size: 5
  context_parallel_size: 1
  sequence_parallel: true
  encoder_seq_length: 8192
  num_layers: 80
  hidden_size: 8192
  ffn_hidden_size: 28672
  num_attention_heads: 64
  num_query_groups: 8
  hidden_dropout: 0.0
  attention_dropout: 0.0
  bias: false
  activation: fast-swiglu
  normalization: rmsnorm
  position_embedding_type: rope
  share_embeddings_and_output_weights: false
  tokenizer: {type: GPT2BPETokenizer}
  precision: ${trainer.precision}
  fp8: false
  ub_tp_comm_overlap: true
  overlap_p2p_comm: true
  cross_entropy_loss_fusion: true
  optim: {name: distributed_fused_adam, grad_sync_dtype: bf16, overlap_grad_sync: true, overlap_param_sync: true, lr: 1e-4}
"""


def test_its_keys_are_the_run(tmp_path: Path) -> None:
    """Virtual stages are pieces a rank, not layers a piece."""
    found = converted(tmp_path, NEMO, "llama.yaml")
    run = run_of(found)
    assert (found.format, run["name"], run["gpus"]) == ("NeMo 1 configuration", "llama", 32)
    assert (run["tensor_parallel"], run["pipeline_parallel"], run["virtual_pipeline"]) == (4, 2, 5)
    assert (run["sharding"], run["precision"], run["recompute"]) == ("zero1", "bf16", "none")
    assert run["stages"] == [{"global_batch_size": 128, "tokens": 100 * 128 * 8192}]
    assert (run["model"]["kv_heads"], run["model"]["norm"], run["model"]["dropout"]) == (8, "rmsnorm", False)


def test_with_all_overlaps_it_is_the_preset_of_its_time(tmp_path: Path) -> None:
    """Predictions of rows of published runs take that preset as it is."""
    path = tmp_path / "llama.yaml"
    path.write_text(NEMO)
    mapping = read_settings(path, "runs") | {"cluster": "dgx-h100"}
    one, other = api.predict(mapping), api.predict(mapping | {"stack": "megatron-core"})
    assert float(one.stages[0][1].iteration_time_s) == pytest.approx(float(other.stages[0][1].iteration_time_s), rel=1e-12)


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("ub_tp_comm_overlap: true", "ub_tp_comm_overlap: false", "overlap.tensor_parallel", "backward"),
        ("overlap_grad_sync: true, ", "", "overlap.data_parallel", False),
        ("grad_sync_dtype: bf16, ", "", "states.gradient_bytes", 4),
        ("overlap_p2p_comm: true", "overlap_p2p_comm: false", "overlap.pipeline", False),
        ("fp8: false", "fp8: true\n  fp8_hybrid: true\n  fp8_params: true", "low_precision.parameter_gather", True),
    ],
)
def test_what_is_switched_off_is_off(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """Nothing overlaps that is not asked to."""
    assert word in NEMO
    place: Any = run_of(converted(tmp_path, NEMO.replace(word, instead), "a.yaml"))["stack"]
    for step in key.split("."):
        place = place[step]
    assert place == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("moe: {size: 8}", "model.moe.size 8: a mixture of experts"),
        ("cpu_offloading: true", "model.cpu_offloading: offload"),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_name(tmp_path: Path, line: str, words: str) -> None:
    """As for scripts."""
    found = converted(tmp_path, NEMO.replace("  fp8: false", f"  {line}\n  made_up: 1"), "a.yaml")
    assert any(words.lower() in each.lower() for each in found.refused)
    assert "model.made_up: nobody here knows it; it is not read" in found.ignored
