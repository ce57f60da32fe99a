"""Are configurations of nanotron, DeepSpeed, accelerate and MaxText the runs that they are?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.exchange.questions.asked_runs import asked_run
from perfmodel.exchange.run_files import read_candidates
from tests.exchange.importers.scripts import converted, run_of

CONFIG: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 2,
    "vocab_size": 1024, "hidden_act": "silu",
}  # fmt: skip
NANOTRON = """
general: {project: p, run: tiny}
parallelism: {dp: 4, tp: 2, pp: 1, pp_engine: 1f1b, tp_mode: REDUCE_SCATTER, tp_linear_async_communication: true}
tokens: {sequence_length: 2048, micro_batch_size: 2, batch_accumulation_per_replica: 8, train_steps: 10}
model:
  dtype: bfloat16
  model_config: {hidden_size: 1024, intermediate_size: 2048, num_attention_heads: 8, num_hidden_layers: 2, vocab_size: 1000,
    hidden_act: silu, is_llama_config: true}
optimizer: {zero_stage: 1, accumulate_grad_in_fp32: true}
"""
DEEPSPEED: dict[str, Any] = {
    "train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4, "bf16": {"enabled": True},
    "zero_optimization": {"stage": 3, "overlap_comm": True, "offload_optimizer": {"device": "none"}},
}  # fmt: skip
ACCELERATE = """
distributed_type: FSDP
mixed_precision: bf16
num_machines: 2
num_processes: 16
fsdp_config: {fsdp_sharding_strategy: FULL_SHARD, fsdp_offload_params: false}
"""
MAXTEXT = """
base_config: base.yml
model_name: llama3.1-70b
dcn_data_parallelism: 4
dcn_fsdp_parallelism: 8
ici_fsdp_parallelism: 8
per_device_batch_size: 2
max_target_length: 8192
remat_policy: full
"""


def place_of(run: Any, key: str) -> Any:
    """What stands at a key path."""
    for step in key.split("."):
        run = run[int(step)] if isinstance(run, list) else run.get(step)
    return run


def test_nanotron_is_read(tmp_path: Path) -> None:
    """The batch is replicas times micro-batch times accumulation; the vocabulary is padded to nothing."""
    found = converted(tmp_path, NANOTRON, "config.yaml")
    run = run_of(found)
    assert (found.format, run["name"], run["gpus"], run["sharding"]) == ("nanotron YAML", "tiny", 8, "zero1")
    assert (run["sequence_parallel"], run["stack"]["overlap"]["tensor_parallel"]) == (True, "backward")
    assert run["stages"] == [{"global_batch_size": 64, "tokens": 10 * 64 * 2048}]
    assert (run["model"]["vocab_size"], run["model"]["vocab_padding_multiple"]) == (1000, 1)


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("REDUCE_SCATTER", "ALL_REDUCE", "sequence_parallel", False),
        ("zero_stage: 1", "zero_stage: 0", "sharding", "none"),
        ("async_communication: true", "async_communication: false", "stack.overlap.tensor_parallel", "none"),
        ("in_fp32: true", "in_fp32: false", "stack.states.gradient_bytes", 2),
        ("in_fp32: true", "in_fp32: false", "stack.overlap.blocking_zero1", False),
        ("pp: 1,", "pp: 1, recompute_layer: true,", "recompute", "full"),
        ("dtype: bfloat16", "dtype: bfloat16\n  ddp_bucket_cap_mb: 50", "stack.overlap.bucket_parameters", 50 * 2**20 / 2),
    ],
)
def test_keys_of_nanotron_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each."""
    assert word in NANOTRON
    assert place_of(run_of(converted(tmp_path, NANOTRON.replace(word, instead), "a.yaml")), key) == value


def test_deepspeed_takes_the_model_beside_it(tmp_path: Path) -> None:
    """And says what only the training program knows."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    found = converted(tmp_path, json.dumps(DEEPSPEED), "ds.json")
    run = run_of(found)
    assert (found.format, run["sharding"], run["micro_batch_size"]) == ("DeepSpeed JSON", "zero3", 2)
    assert run["model"]["hidden_size"] == 1024
    assert run["stages"] == [{"micro_batches": 4}]
    assert any("length of sequences" in each for each in found.assumed)
    stage = api.load(asked_run(str(tmp_path / "ds.json"), cluster="dgx-a100", gpus=16)).stages[0]
    assert (int(stage.data_parallel), int(stage.global_batch_size)) == (16, 128)


def test_deepspeed_takes_a_model_that_is_named(tmp_path: Path) -> None:
    """Where none is beside it."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(DEEPSPEED))
    assert api.load(asked_run(str(path), model="llama-3.1-8b", cluster="dgx-h100", gpus=8)).model.name == "Llama 3.1 8B"


def test_what_is_given_beside_it_is_no_longer_assumed(tmp_path: Path) -> None:
    """The model of --model and the length of a setting, not those that the file would have had."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(DEEPSPEED))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (plain,) = read_candidates(asked_run(str(path), cluster="dgx-h100", gpus=8))
    assert len([each for each in plain.assumptions if "config.json beside it" in each or "length of sequences" in each]) == 2
    asked = asked_run(str(path), model="llama-3.1-8b", cluster="dgx-h100", gpus=8)
    (found,) = read_candidates(asked, ["sequence_length=8192"])
    assert found.run.model.name == "Llama 3.1 8B"
    assert not [each for each in found.assumptions if "config.json beside it" in each or "length of sequences" in each]


def test_without_any_model_the_option_is_named(tmp_path: Path) -> None:
    """As for the cluster."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(DEEPSPEED))
    with pytest.raises(InputError, match=r"model: missing; give one, as in --model llama-3\.1-8b"):
        api.load(asked_run(str(path), cluster="dgx-h100", gpus=8))


def test_three_numbers_of_a_batch_say_how_many_gpus(tmp_path: Path) -> None:
    """The whole batch over that of one GPU."""
    run = run_of(converted(tmp_path, json.dumps(DEEPSPEED | {"train_batch_size": 256}), "ds.json"))
    assert (run["gpus"], run["stages"]) == (32, [{"global_batch_size": 256}])
    with pytest.raises(InputError, match="train_batch_size: 255 is not 2 x 4 sequences of some GPUs"):
        converted(tmp_path, json.dumps(DEEPSPEED | {"train_batch_size": 255}), "ds.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offload_optimizer": {"device": "cpu"}}, "offload to the CPU"),
        ({"zero_quantized_weights": True}, "zero_quantized_weights"),
        ({"zero_hpz_partition_size": 8}, "zero_hpz_partition_size 8"),
    ],
)
def test_what_of_zero_is_not_covered_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    """By its key."""
    config = DEEPSPEED | {"zero_optimization": {"stage": 3, **changes}}
    assert any(words in each for each in converted(tmp_path, json.dumps(config), "ds.json").refused)


def test_auto_is_the_training_programs(tmp_path: Path) -> None:
    """It stands for no value."""
    config = {"train_batch_size": "auto", "zero_optimization": {"stage": 2}, "bf16": {"enabled": "auto"}}
    found = converted(tmp_path, json.dumps(config), "ds.json")
    assert (run_of(found)["precision"], run_of(found)["sharding"]) == ("bf16", "zero2")
    assert "train_batch_size: filled in by the training program (auto)" in found.ignored


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("FULL_SHARD", "FULL_SHARD", "sharding", "zero3"),
        ("FULL_SHARD", "SHARD_GRAD_OP", "sharding", "zero2"),
        ("FULL_SHARD", "HYBRID_SHARD", "data_parallel_replicas", 2),
        ("FULL_SHARD", "3", "sharding", "none"),
        ("fsdp_sharding_strategy: FULL_SHARD", "fsdp_version: 2, fsdp_reshard_after_forward: false", "sharding", "zero2"),
        ("fsdp_offload_params: false", "fsdp_activation_checkpointing: true", "recompute", "full"),
        ("mixed_precision: bf16", "mixed_precision: fp8", "precision", "fp8"),
        ("distributed_type: FSDP", "distributed_type: MULTI_GPU", "sharding", "none"),
        ("distributed_type: FSDP", "distributed_type: DEEPSPEED\ndeepspeed_config: {zero_stage: 2}", "sharding", "zero2"),
        ("num_machines: 2", "parallelism_config: {tp_size: 4}", "tensor_parallel", 4),
    ],
)
def test_keys_of_accelerate_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each."""
    assert word in ACCELERATE
    found = converted(tmp_path, ACCELERATE.replace(word, instead), "accelerate.yaml")
    assert (found.format, found.refused) == ("accelerate YAML", ())
    assert place_of(run_of(found), key) == value


SCRIPT = (
    "torchrun --nnodes 2 --nproc-per-node 8 run_clm.py --deepspeed ds.json --config_name config.json --block_size 2048 "
    "--per_device_train_batch_size 2 --gradient_accumulation_steps 4 --gradient_checkpointing --max_steps 100 --do_train\n"
)


def test_a_script_says_what_the_json_leaves_to_the_program(tmp_path: Path) -> None:
    """The length, the GPUs, what runs again and for how long; files lie beside it."""
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "ds.json").write_text(json.dumps(DEEPSPEED | {"train_micro_batch_size_per_gpu": "auto"}))
    found = converted(tmp_path, SCRIPT, "train.sh")
    run = run_of(found)
    assert (found.format, run["gpus"], run["recompute"], run["micro_batch_size"]) == ("DeepSpeed script", 16, "full", 2)
    assert run["stages"] == [{"global_batch_size": 128, "tokens": 100 * 128 * 2048}]
    assert (run["model"]["hidden_size"], run["sequence_length"]) == (1024, 2048)


def test_a_script_without_its_json_is_refused(tmp_path: Path) -> None:
    """In one sentence."""
    with pytest.raises(InputError, match=r"--deepspeed: 'ds\.json' is neither written by this script nor beside it"):
        converted(tmp_path, SCRIPT, "train.sh")


def test_steps_of_maxtext_are_tokens(tmp_path: Path) -> None:
    """Where the mesh says how many GPUs there are."""
    stage = run_of(converted(tmp_path, f"{MAXTEXT}steps: 10\n", "m.yaml"))["stages"][0]
    assert stage == {"global_batch_size": 512, "tokens": 10 * 512 * 8192}


def test_the_mesh_of_maxtext_is_copies_of_shards(tmp_path: Path) -> None:
    """Batches are those of a device."""
    found = converted(tmp_path, MAXTEXT, "m.yaml")
    run = run_of(found)
    assert (found.format, run["gpus"], run["sharding"]) == ("MaxText YAML", 256, "hsdp")
    assert (run["data_parallel_replicas"], run["micro_batch_size"]) == (4, 2)
    assert int(api.load(asked_run(str(tmp_path / "m.yaml"), cluster="dgx-h100")).stages[0].global_batch_size) == 512


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("ici_fsdp_parallelism: 8", "ici_fsdp_parallelism: -1", "gpus", None),
        ("dcn_data_parallelism: 4", "dcn_data_parallelism: 1", "sharding", "zero3"),
        ("dcn_data_parallelism: 4", "ici_tensor_parallelism: 2", "micro_batch_size", 4),
        ("remat_policy: full", "remat_policy: minimal", "recompute", "selective"),
        ("remat_policy: full", "quantization: fp8", "precision", "fp8"),
    ],
)
def test_keys_of_maxtext_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each; sequences of a device are shared by the ranks that hold one."""
    assert word in MAXTEXT
    assert place_of(run_of(converted(tmp_path, MAXTEXT.replace(word, instead), "m.yaml")), key) == value


def test_sizes_of_maxtext_are_a_model(tmp_path: Path) -> None:
    """Where no model is named."""
    sizes = "base_emb_dim: 1024\nbase_num_query_heads: 8\nbase_num_kv_heads: 8\nbase_mlp_dim: 2048\nbase_num_decoder_layers: 2"
    model = run_of(converted(tmp_path, MAXTEXT.replace("model_name: llama3.1-70b", sizes), "m.yaml"))["model"]
    assert (model["layers"], model["hidden_size"], model["head_size"]) == (2, 1024, 128)


@pytest.mark.parametrize(
    "text", [NANOTRON, json.dumps(DEEPSPEED), ACCELERATE, MAXTEXT], ids=["nanotron", "ds", "accelerate", "maxtext"]
)
def test_a_key_that_nobody_knows_is_listed(tmp_path: Path, text: str) -> None:
    """Never dropped in silence."""
    more = text.replace("{", '{"made_up": 3, ', 1) if text.startswith("{") else f"{text}made_up: 3\n"
    assert "made_up: nobody here knows it; it is not read" in converted(tmp_path, more, "a.yaml").ignored
