"""Is a run that is written for Megatron-Bridge, torchtitan, nanotron, DeepSpeed or MaxText, and read again, the same run?"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from perfmodel import api
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.importers.registry import document_of
from perfmodel.exchange.launchers.registry import known_launchers, launch_file, launch_files
from perfmodel.exchange.translation.launch_texts import files_in_script
from perfmodel.spec.run import Run
from tests.exchange.launchers.round_trips import BASE, DEEPSEEK, assert_same, read_again

SOFTWARE: Final[Mapping[str, Mapping[str, Any]]] = {  # format -> the settings that all its runs here have
    "megatron-bridge": {"stack": "megatron-bridge", "model": "llama-3.1-8b"},
    "torchtitan": {"stack": "torchtitan", "model": "llama-3.1-8b", "sharding": "zero3"},
    "nanotron": {"stack": "nanotron", "model": "llama-3.1-8b"},
    "deepspeed": {"stack": "deepspeed-zero", "model": "llama-3.1-8b", "sharding": "zero3"},
    "maxtext": {"stack": "maxtext", "model": "llama-3.1-8b", "sharding": "zero3"},
}
LLAMA_70B: Final = {"model": "llama-3.1-70b", "tensor_parallel": 8, "pipeline_parallel": 4}
LLAMA_405B: Final = {"model": "llama-3.1-405b", "tensor_parallel": 8, "context_parallel": 2}
MANY: Final = [{"data_parallel": 64, "global_batch_size": 512, "tokens": "1T"}]
BESIDE_DISPATCH: Final = {"stack.experts.dispatcher": "alltoall", "stack.host.graphed": "router"}  # shared experts run there
ROUND_TRIPS: Final[tuple[tuple[str, Mapping[str, Any]], ...]] = (
    ("megatron-bridge", {"stack.fusion.loss_forward_bytes": 30, "stack.fusion.loss_peak_bytes": 6}),
    ("megatron-bridge", {**LLAMA_70B, "virtual_pipeline": 5}),
    ("megatron-bridge", {**LLAMA_405B, "pipeline_parallel": 8, "precision": "fp8"}),
    ("megatron-bridge", {"model": "nemotron-4-15b", "tensor_parallel": 8}),
    ("megatron-bridge", {"model": "gpt-3-175b", "tensor_parallel": 8, "sequence_length": 2048, "recompute": "full"}),
    ("megatron-bridge", {"model": "mixtral-8x7b", "tensor_parallel": 2, "expert_parallel": 8, "recompute": "selective"}),
    ("megatron-bridge", {**DEEPSEEK, "stack": {**DEEPSEEK["stack"], "extends": "megatron-bridge"}}),
    ("megatron-bridge", {**DEEPSEEK, "stack": {"extends": "megatron-bridge"}, **BESIDE_DISPATCH}),
    ("megatron-bridge", {"sharding": "zero3", "stack.states.optimizer_bytes": 8, "stack.fusion.activation": False}),
    ("torchtitan", {"recompute": "selective", "stack": "torchtitan-2025"}),
    ("torchtitan", {"stack": "torchtitan-eager", "sharding": "hsdp", "data_parallel_replicas": 4}),
    ("torchtitan", {**LLAMA_70B, "stack": "torchtitan-async-tp", "recompute": "full", "pipeline_parallel": 1}),
    ("torchtitan", {**LLAMA_405B, "pipeline_parallel": 4, "virtual_pipeline": 4}),
    ("torchtitan", {"precision": "fp8", "sharding": "none", "stack.fusion.loss_chunks": 8, "stack.host.cuda_graphs": True}),
    ("torchtitan", {"model": "deepseek-v3", "expert_parallel": 64, "stages": MANY}),
    ("torchtitan", {"pipeline_parallel": 4, "pipeline_schedule": "zb-h1", "recompute": "none"}),
    ("nanotron", {**LLAMA_70B, "recompute": "full"}),
    ("nanotron", {"sharding": "none", "sequence_parallel": False, "tensor_parallel": 2, "stack.states.gradient_bytes": 4}),
    ("deepspeed", {"recompute": "full", "sequence_length": 8192}),
    ("deepspeed", {"model": "nemotron-4-15b", "sharding": "zero2", "micro_batch_size": 2}),
    ("deepspeed", {"model": "gemma-2-9b", "sharding": "none", "precision": "fp16"}),
    ("deepspeed", {"model": "qwen3-8b", "sharding": "zero1"}),
    ("maxtext", {**LLAMA_405B, "precision": "fp8", "recompute": "full", "sequence_parallel": True}),
    ("maxtext", {"sharding": "hsdp", "data_parallel_replicas": 2, "tensor_parallel": 4, "stages": MANY}),
    ("maxtext", {"model": "mistral-nemo", "pipeline_parallel": 2, "sharding": "none", "recompute": "selective"}),
)  # fmt: skip


def run_for(software: str, settings: Mapping[str, Any]) -> Run:
    """A run with the stack of some software, with settings: keys with dots change what these make."""
    parts = {key: value for key, value in settings.items() if "." not in key}
    return api.load({**BASE, **SOFTWARE[software], **parts}, {key: settings[key] for key in settings if "." in key})


@pytest.mark.parametrize(("software", "settings"), ROUND_TRIPS)
def test_a_run_that_is_written_and_read_again_is_the_same(tmp_path: Path, software: str, settings: Mapping[str, Any]) -> None:
    """Time, MFU and memory of it too."""
    run = run_for(software, settings)
    assert_same(run, read_again(run, tmp_path, software=software))


@pytest.mark.parametrize(
    ("software", "settings", "words"),
    [
        ("deepspeed", {"tensor_parallel": 2}, "tensor_parallel: 2 cannot be said in DeepSpeed's JSON"),
        ("deepspeed", {"pipeline_parallel": 2}, "pipeline_parallel: 2 cannot be said"),
        ("deepspeed", {"precision": "fp8"}, "precision: fp8 cannot be said"),
        ("deepspeed", {"recompute": "selective"}, "recompute: selective cannot be said"),
        ("deepspeed", {"model": "mixtral-8x7b"}, "model.mixture: a mixture of experts cannot be said"),
        ("deepspeed", {"model": "gpt-3-175b", "sequence_length": 2048}, "model.position: learned cannot be said"),
        ("deepspeed", {"stack": "megatron-core"}, "stack: Megatron-Core (2024) is not the software that deepspeed files"),
        ("nanotron", {"sharding": "zero3"}, "sharding: zero3 cannot be said in keys of nanotron's YAML"),
        ("nanotron", {"model": "mistral-nemo"}, "model.head_size: 128 cannot be said"),
        ("nanotron", {"stack.overlap.data_parallel": False}, "stack.overlap.data_parallel: false cannot be said"),
        ("torchtitan", {"sharding": "zero1"}, "sharding: zero1 cannot be said"),
        ("torchtitan", {"model": "nemotron-4-15b"}, "model: Nemotron-4 15B cannot be said"),
        ("torchtitan", {"model": "qwen3-32b", "tensor_parallel": 2}, "model.vocab_padding_multiple: 128 cannot be said"),
        ("torchtitan", {"precision": "fp16"}, "precision: fp16 cannot be said"),
        ("maxtext", {"sharding": "zero2"}, "sharding: zero2 cannot be said"),
        ("maxtext", {"model": "nemotron-4-15b"}, "model.activation: squared_relu cannot be said"),
        ("maxtext", {"recompute": "full", "recompute_layers": 4}, "recompute_layers: 4 cannot be said"),
        ("megatron-bridge", {"model": "gpt-oss-20b"}, "model.sinks: true cannot be said"),
        ("megatron-bridge", {"tensor_parallel": 2, "stack.overlap.tensor_parallel": "none"}, "it would be backward"),
    ],
)  # fmt: skip
def test_what_no_word_says_is_refused_by_its_key(software: str, settings: Mapping[str, Any], words: str) -> None:
    """In one sentence with the key path and the value."""
    with pytest.raises(NotSupportedError) as caught:
        launch_file(run_for(software, settings), software)
    assert words in str(caught.value)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_each_stage_of_nemotron_is_a_script_of_bridge(tmp_path: Path, stage: int) -> None:
    """The central run, whose stages have other numbers of GPUs."""
    run = api.load("nemotron-4-15b", {"stack": "megatron-bridge"})
    assert_same(run, read_again(run, tmp_path, software="megatron-bridge", stage=stage), slice(stage, stage + 1))


def test_another_stack_of_the_same_software_is_said_in_the_head() -> None:
    """Its switches are keys, its kernels are not; buckets that grow with the replicas are those of this run."""
    text = launch_file(run_for("megatron-bridge", {"stack": "megatron-core"}), "megatron-bridge")
    assert "Predicted with stack Megatron-Core (2024); read again, kernels are those of megatron-bridge." in text
    assert "bucket_size: 40000000" in text


@pytest.mark.parametrize("software", SOFTWARE)
def test_stages_of_a_ramp_are_a_file_each(software: str) -> None:
    """Where the format has one batch; without a stage it is the last."""
    stages = [{"data_parallel": 8, "global_batch_size": batch, "tokens": "1T"} for batch in (32, 64)]
    run = run_for(software, {"stages": stages})
    files = launch_files(run, software)
    assert (len(files), files[1]) == (2, launch_file(run, software))
    assert "stage 1 of 2" in files[0]


@pytest.mark.parametrize("software", [*SOFTWARE, "slurm"])
def test_the_head_says_what_the_file_is(software: str) -> None:
    """The run, the version that its words are for, and how it is started."""
    settings = SOFTWARE.get(software, {"model": "llama-3.1-8b"})
    text = launch_file(api.load({**BASE, **settings}), software)
    head = " ".join(line.lstrip("# ") for line in text.splitlines()[:12])
    assert "Some run: Llama 3.1 8B on 8 GPUs of DGX H100" in head
    assert known_launchers()[software].version.partition(",")[0] in text
    assert "Start it with:" in head


def test_keys_are_those_that_the_software_has() -> None:
    """nanotron refuses a key that it does not know, and a dataclass of torchtitan a field: both lists are from their code."""
    nanotron = document_of(launch_file(run_for("nanotron", {}), "nanotron")).mapping
    known = {
        "parallelism": "dp tp pp expert_parallel_size context_parallel_size pp_engine tp_mode tp_linear_async_communication "
        "recompute_layer tp_recompute_allgather",
        "tokens": "sequence_length micro_batch_size batch_accumulation_per_replica train_steps",
        "model": "dtype ddp_bucket_cap_mb make_vocab_size_divisible_by model_config init_method",
        "optimizer": "zero_stage accumulate_grad_in_fp32 clip_grad weight_decay learning_rate_scheduler optimizer_factory",
    }
    for section, names in known.items():
        assert set(nanotron[section]) <= set(names.split())
    tree = ast.parse(launch_file(run_for("torchtitan", {"precision": "fp8"}), "torchtitan"))
    made = {
        ast.unparse(call.func): {each.arg for each in call.keywords} for call in ast.walk(tree) if isinstance(call, ast.Call)
    }
    fields = (
        "num_tokens_per_microbatch_per_dp_rank num_tokens_per_train_step max_context_length steps mixed_precision_param "
        "mixed_precision_reduce disable_cuda_graphs"
    )
    assert made["TrainingConfig"] == set(fields.split())
    assert made["CompileConfig"] == {"enable", "enable_async_tensor_parallel", "components"}
    imported = {each.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for each in node.names}
    assert {name.partition(".")[0] for name in made} <= imported


def test_files_inside_a_script_are_what_it_needs() -> None:
    """A shell would write them before torchrun starts the program that reads them."""
    deepspeed, bridge = (launch_file(run_for(name, {}), name) for name in ("deepspeed", "megatron-bridge"))
    assert [*files_in_script(deepspeed)] == ["ds_config.json", "config.json"]
    inside = files_in_script(bridge)
    assert [*inside] == ["config.yaml", "pretrain.py"]
    ast.parse(inside["pretrain.py"])
    assert "&id" not in inside["config.yaml"]


def test_the_mesh_of_maxtext_fills_nodes_first() -> None:
    """The product of the axes inside a node is the GPUs of one, that of the others the nodes."""
    settings = {"tensor_parallel": 4, "sharding": "hsdp", "data_parallel_replicas": 2, "stages": MANY}
    mapping = document_of(launch_file(run_for("maxtext", settings), "maxtext")).mapping
    inside, between = 1, 1
    for key, value in mapping.items():
        inside *= value if key.startswith("ici_") else 1
        between *= value if key.startswith("dcn_") else 1
    assert (inside, between) == (8, 32)
