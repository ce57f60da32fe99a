"""Is a configuration that NeMo 2 writes of a recipe the run that it is?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.presets import model_preset
from tests.exchange.importers.scripts import converted, run_of

NEMO_2 = """
_partial_: true
_target_: nemo.collections.llm.api.pretrain
data: {_target_: nemo.collections.llm.MockDataModule, global_batch_size: 512, micro_batch_size: 1, seq_length: 8192}
log: {_target_: nemo.lightning.nemo_logger.NeMoLogger, name: default}
model:
  _target_: nemo.collections.llm.gpt.model.llama.LlamaModel
  config: {_target_: nemo.collections.llm.gpt.model.llama.Llama31Config70B}
optim:
  _target_: nemo.lightning.pytorch.optim.megatron.MegatronOptimizerModule
  config: {_target_: megatron.core.optimizer.OptimizerConfig, bf16: true, lr: 0.0003, use_distributed_optimizer: true}
trainer:
  _target_: nemo.lightning.pytorch.trainer.Trainer
  callbacks:
    - {_target_: nemo.lightning.pytorch.callbacks.MegatronCommOverlapCallback, tp_comm_overlap: true}
  devices: 8
  max_steps: 100
  num_nodes: 16
  plugins: {_target_: x.MegatronMixedPrecision, precision: bf16-mixed, fp8: hybrid, fp8_recipe: delayed,
            grad_reduce_in_fp32: false}
  strategy:
    _target_: nemo.lightning.pytorch.strategies.MegatronStrategy
    ddp: {_target_: x.DistributedDataParallelConfig, overlap_grad_reduce: true, overlap_param_gather: true}
    tensor_model_parallel_size: 4
    pipeline_model_parallel_size: 4
    virtual_pipeline_model_parallel_size: 5
    sequence_parallel: true
"""


def test_a_model_stands_by_its_class(tmp_path: Path) -> None:
    """And is the shipped one, in the layout of the strategy."""
    found = converted(tmp_path, NEMO_2, "recipe.yaml")
    run = run_of(found)
    assert (found.format, found.refused) == ("NeMo 2 configuration", ())
    assert (run["gpus"], run["tensor_parallel"], run["pipeline_parallel"], run["virtual_pipeline"]) == (128, 4, 4, 5)
    assert (run["precision"], run["sharding"], run["sequence_parallel"], run["sequence_length"]) == ("fp8", "zero1", True, 8192)
    assert (run["stack"]["overlap"]["tensor_parallel"], run["stack"]["overlap"]["data_parallel"]) == ("pipelined", True)
    assert run["stack"]["states"] == {"gradient_bytes": 2, "reduced_gradient_bytes": 2}
    assert run["stages"] == [{"global_batch_size": 512, "tokens": 100 * 512 * 8192}]
    assert not [each for each in found.ignored if "nobody" in each]
    loaded = api.load(str(tmp_path / "recipe.yaml"), ["cluster=dgx-h100"])
    assert loaded.model == model_preset("llama-3.1-70b")


def test_sizes_of_its_own_count(tmp_path: Path) -> None:
    """Where a configuration changes those of its class, or has no class that is known."""
    shorter = NEMO_2.replace("Llama31Config70B}", "Llama31Config70B, vocab_size: 32000}")
    assert run_of(converted(tmp_path, shorter, "recipe.yaml"))["model"]["vocab_size"] == 32000
    with pytest.raises(InputError, match="'OtherConfig9B' does not say its sizes; known are Llama3Config8B"):
        converted(tmp_path, NEMO_2.replace("Llama31Config70B", "OtherConfig9B"), "recipe.yaml")
