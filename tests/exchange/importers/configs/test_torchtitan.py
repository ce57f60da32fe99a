"""Are torchtitan's TOML files and command lines the run that torchtitan makes of them?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError
from tests.exchange.importers.scripts import converted, run_of

TOML = """
[model]
name = "llama3"
flavor = "8B"
[training]
local_batch_size = 2
seq_len = 8192
steps = 100
[parallelism]
data_parallel_shard_degree = 8
tensor_parallel_degree = 2
[activation_checkpoint]
mode = "selective"
selective_ac_option = "op"
[compile]
enable = true
"""
PIPELINE = 'pipeline_parallel_degree = 2\npipeline_parallel_schedule = "Interleaved1F1B"'
TENSOR = "tensor_parallel_degree = 2"
COMMAND = (
    "torchrun --nproc_per_node=8 -m torchtitan.train --module llama3 --config llama3_8b "
    "--training.num_tokens_per_microbatch_per_dp_rank=16384 --training.max_context_length 8192 "
    "--parallelism.tensor_parallel_degree 2"
)


def toml(folder: Path, *changes: tuple[str, str]) -> Any:
    """The conversion of the TOML with words changed."""
    text = TOML
    for word, instead in changes:
        assert word in text
        text = text.replace(word, instead)
    return converted(folder, text, "llama3_8b.toml")


def test_a_toml_is_a_run(tmp_path: Path) -> None:
    """With fully sharded data parallelism, and a batch of the local one in every replica."""
    found = toml(tmp_path)
    run = run_of(found)
    assert (found.format, run["gpus"], run["sharding"], run["tensor_parallel"]) == ("torchtitan TOML", 16, "zero3", 2)
    assert (run["sequence_parallel"], run["recompute"], run["micro_batch_size"]) == (True, "selective", 2)
    assert run["stages"] == [{"global_batch_size": 16, "tokens": 100 * 16 * 8192}]
    assert (run["model"]["name"], run["stack"]["extends"]) == ("Llama 3.1 8B", "torchtitan-2025")


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ("shard_degree = 8", "shard_degree = 8\ndata_parallel_replicate_degree = 2", "sharding", "hsdp"),
        ("shard_degree = 8", "shard_degree = 1\ndata_parallel_replicate_degree = 8", "sharding", "none"),
        ("shard_degree = 8", "shard_degree = -1", "gpus", None),
        ("shard_degree = 8", "shard_degree = 8\ndata_parallel_replicate_degree = 2", "gpus", 32),
        ("enable = true", "enable = false", "stack.extends", "torchtitan-eager"),
        ("enable = true", 'enable = true\ncomponents = ["model"]', "stack.extends", "torchtitan"),
        ('"op"', '"2"', "recompute_layers", 16),
        ('mode = "selective"', 'mode = "full"', "recompute", "full"),
        ("tensor_parallel_degree = 2", "pipeline_parallel_degree = 2", "stack.states.regathers_parameters", False),
        ("tensor_parallel_degree = 2", "pipeline_parallel_degree = 2", "micro_batch_size", 1),
        (
            "tensor_parallel_degree = 2",
            f"{PIPELINE}\npipeline_parallel_layers_per_stage = 4",
            "virtual_pipeline",
            4,
        ),
        ('flavor = "8B"', 'flavor = "8B"\nconverters = ["float8"]', "precision", "fp8"),
        ("steps = 100", 'mixed_precision_reduce = "bfloat16"', "stack.states.reduced_gradient_bytes", 2),
        (TENSOR, f"{TENSOR}\nenable_async_tensor_parallel = true", "stack.overlap.tensor_parallel", "pipelined"),
        ("local_batch_size = 2", "local_batch_size = 2\nglobal_batch_size = 64", "stages.0.global_batch_size", 64),
    ],
)  # fmt: skip
def test_keys_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each."""
    place: Any = run_of(toml(tmp_path, (word, instead)))
    for step in key.split("."):
        place = place[int(step)] if isinstance(place, list) else place.get(step)
    assert place == value


def test_older_names_are_read(tmp_path: Path) -> None:
    """Of 2024."""
    old = [("local_batch_size", "batch_size"), ("data_parallel_shard_degree", "data_parallel_degree")]
    text = TOML.replace("[parallelism]\n", "")
    for word, instead in old:
        text = text.replace(word, instead)
    run = run_of(converted(tmp_path, text + "[experimental]\npipeline_parallel_degree = 2\n", "old.toml"))
    assert (run["gpus"], run["tensor_parallel"], run["pipeline_parallel"]) == (32, 2, 2)


def test_batches_in_tokens_are_sequences(tmp_path: Path) -> None:
    """On the command line of the Python configurations."""
    found = converted(tmp_path, COMMAND, "run.sh")
    run = run_of(found)
    assert (found.format, run["gpus"], run["micro_batch_size"]) == ("torchtitan command line", 8, 2)
    assert run["stages"] == [{"global_batch_size": 8}]
    assert run["stack"]["host"]["cuda_graphs"] is True
    off = run_of(converted(tmp_path, f"{COMMAND} --training.disable_cuda_graphs", "run.sh"))
    assert off["stack"]["host"]["cuda_graphs"] is False


def test_a_command_takes_its_file_from_beside_it(tmp_path: Path) -> None:
    """Its flags count before the file."""
    (tmp_path / "llama.toml").write_text(TOML)
    text = 'CONFIG_FILE="./llama.toml" ./run_train.sh --training.seq_len 4096 --metrics.log_freq 1'
    script = f"# torchtitan\ntorchrun --nproc-per-node 16 train.py --job.config_file llama.toml {text.partition('sh ')[2]}"
    run = run_of(converted(tmp_path, script, "run.sh"))
    assert (run["sequence_length"], run["tensor_parallel"], run["gpus"]) == (4096, 2, 16)


def test_unknown_flavors_and_mixtures_are_told_apart(tmp_path: Path) -> None:
    """One is a typing error, the other is not covered."""
    with pytest.raises(InputError, match="'9B' is no flavor of llama3; known: 405b, 70b, 8b"):
        toml(tmp_path, ('"8B"', '"9B"'))
    found = toml(tmp_path, ('"llama3"', '"glm5"'))
    assert found.refused == ("model glm5: a mixture of experts is known but not supported yet",)


def test_experts_and_their_degrees_are_read(tmp_path: Path) -> None:
    """Of a mixture that is shipped as a model."""
    text = "NGPU=64 torchrun --nnodes 8 --nproc-per-node 8 -m torchtitan.train --model.name deepseek_v3 --model.flavor 671B "
    text += "--parallelism.expert_parallel_degree 16 --parallelism.expert_tensor_parallel_degree 1 --training.seq_len 4096\n"
    found = converted(tmp_path, text, "run.sh")
    run = run_of(found)
    assert not found.refused
    assert (run["expert_parallel"], run["expert_tensor_parallel"], run["gpus"]) == (16, 1, 64)
    assert run["model"]["mixture"]["experts"] == 256


PYTHON = """
from torchtitan.components.quantization import Float8LinearConverter
from torchtitan.config import CompileConfig, ParallelismConfig, TrainingConfig
from torchtitan.distributed.activation_checkpoint import FullAC
from torchtitan.models.llama3 import model_registry
from torchtitan.trainer import Trainer

def mine() -> Trainer.Config:
    model_spec = model_registry("70B")
    return Trainer.Config(
        loss=ChunkedLossWrapper.Config(loss_fn=CrossEntropyLoss.Config(global_vocab_size=decoder_vocab_size(model_spec))),
        model_spec=model_spec,
        optimizer=default_adamw(lr=1.5e-4),
        training=TrainingConfig(num_tokens_per_microbatch_per_dp_rank=2 * 8192, max_context_length=8192, steps=1000),
        parallelism=ParallelismConfig(data_parallel_shard_degree=8, tensor_parallel_degree=8),
        activation_checkpoint=FullAC.Config(),
        compile=CompileConfig(enable=True),
    )
"""
DERIVED = """
from torchtitan.models.llama3.config_registry import llama3_8b
from torchtitan.trainer import Trainer

def mine() -> Trainer.Config:
    config = llama3_8b()
    config.parallelism.context_parallel_degree = 4
    config.training.num_tokens_per_train_step = 64 * 8192
    config.activation_checkpoint = None
    return config
"""


def test_a_python_configuration_is_a_run(tmp_path: Path) -> None:
    """Its syntax is read: sections, classes, and products of numbers."""
    found = converted(tmp_path, PYTHON, "mine.py")
    run = run_of(found)
    assert (found.format, found.refused, run["gpus"]) == ("torchtitan Python configuration", (), 64)
    assert (run["model"]["name"], run["micro_batch_size"], run["recompute"]) == ("Llama 3.1 70B", 2, "full")
    assert run["stages"] == [{"global_batch_size": 16, "tokens": 1000 * 16 * 8192}]
    assert (run["stack"]["extends"], run["stack"]["fusion"]["loss_chunks"]) == ("torchtitan-2025", 8)
    assert not [each for each in found.ignored if "nobody here knows it" in each]


@pytest.mark.parametrize(
    ("word", "instead", "key", "value"),
    [
        ('registry("70B")', 'registry("70B", converters=[Float8LinearConverter.Config()])', "precision", "fp8"),
        ("FullAC.Config()", "SelectiveAC.Config()", "recompute", "selective"),
        ("FullAC.Config()", "None", "recompute", "none"),
        ("CompileConfig(enable=True)", "CompileConfig(enable=True, components=['model'])", "stack.extends", "torchtitan"),
        ("tensor_parallel_degree=8", "tensor_parallel_degree=8, enable_sequence_parallel=False", "sequence_parallel", False),
        ("tensor_parallel_degree=8", "pipeline_parallel_degree=8, num_pp_microbatches=16", "micro_batch_size", 2),
        ("tensor_parallel_degree=8", "pipeline_parallel_degree=8, num_pp_microbatches=16", "stages.0.global_batch_size", 256),
    ],
)  # fmt: skip
def test_arguments_change_the_run(tmp_path: Path, word: str, instead: str, key: str, value: Any) -> None:
    """One setting each; tokens are those of one forward pass, of which a pipeline makes several."""
    assert word in PYTHON
    place: Any = run_of(converted(tmp_path, PYTHON.replace(word, instead), "mine.py"))
    for step in key.split("."):
        place = place[int(step)] if isinstance(place, list) else place[step]
    assert place == value


def test_a_configuration_over_another_is_read(tmp_path: Path) -> None:
    """By its name, and what is assigned to it."""
    run = run_of(converted(tmp_path, DERIVED, "mine.py"))
    assert (run["model"]["name"], run["context_parallel"], run["recompute"]) == ("Llama 3.1 8B", 4, "none")
    assert run["stages"][0]["global_batch_size"] == 64 * 8192 // run["sequence_length"]


def test_one_configuration_a_file_is_read(tmp_path: Path) -> None:
    """Which of two is meant nobody can tell."""
    with pytest.raises(InputError, match="this file has mine, other: keep the one that is meant"):
        converted(tmp_path, PYTHON + PYTHON.replace("mine", "other"), "mine.py")


def test_no_checkpointing_is_not_the_default(tmp_path: Path) -> None:
    """The word none is a mode here, where it stands for no value elsewhere."""
    assert run_of(toml(tmp_path, ('mode = "selective"', 'mode = "none"')))["recompute"] == "none"


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A command line names its TOML, which may have stayed behind."""
    text = "torchrun --nproc-per-node 8 -m torchtitan.train --job.config_file llama3_8b.toml "
    text += "--model.name llama3 --model.flavor 8B "
    found = converted(tmp_path, text + "--training.seq_len 8192 --parallelism.tensor_parallel_degree 2\n", "run.sh")
    assert "llama3_8b.toml: it does not lie beside this file, so that defaults stand for its keys" in found.assumed
    (tmp_path / "llama3_8b.toml").write_text("[training]\nlocal_batch_size = 4\n")
    found = converted(tmp_path, text + "--training.seq_len 8192\n", "run.sh")
    assert (run_of(found)["micro_batch_size"], [each for each in found.assumed if "lie beside" in each]) == (4, [])
