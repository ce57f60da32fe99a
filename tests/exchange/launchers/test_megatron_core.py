"""Is a run that is written as a launch script of Megatron-LM, and read again, the same run?"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from perfmodel import api
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.launchers.registry import launch_file, launched_stages, launcher_named
from perfmodel.spec.run import Run
from tests.exchange.launchers.megatron_arguments import parsed
from tests.exchange.launchers.round_trips import BASE, DEEPSEEK, assert_same, read_again

RUNS: Final[Mapping[str, Mapping[str, Any]]] = {
    "Llama 8B": {"model": "llama-3.1-8b", "context_parallel": 2},
    "Llama 8B, recomputed blocks": {
        "model": "llama-3.1-8b",
        "pipeline_parallel": 2,
        "virtual_pipeline": 4,
        "recompute": "full",
        "recompute_layers": 8,
    },
    "Llama 8B without a flag of kernels": {
        "model": "llama-3.1-8b",
        "stack": {
            "extends": "megatron-core",
            "overlap": {"tensor_parallel": "backward", "data_parallel": False},
            "fusion": {"loss_forward_bytes": 30, "loss_peak_bytes": 6},
        },
    },
    "Llama 70B": {"model": "llama-3.1-70b", "tensor_parallel": 4, "pipeline_parallel": 4, "virtual_pipeline": 5},
    "Llama 405B": {"model": "llama-3.1-405b", "tensor_parallel": 8, "pipeline_parallel": 8, "virtual_pipeline": 8},
    "Llama 405B in 16 stages": {"model": "llama-3.1-405b", "tensor_parallel": 8, "pipeline_parallel": 16, "precision": "fp8"},
    "Mixtral": {
        "model": "mixtral-8x7b",
        "tensor_parallel": 2,
        "expert_parallel": 8,
        "expert_tensor_parallel": 1,
        "recompute": "selective",
    },
    "DeepSeek-V3": DEEPSEEK,
    "GPT-3": {
        "model": "gpt-3-175b",
        "sequence_length": 2048,
        "tensor_parallel": 8,
        "pipeline_parallel": 8,
        "recompute": "full",
    },
    "a ramp": {
        "model": "llama-3.1-8b",
        "stages": [
            {"data_parallel": 8, "global_batch_size": 32, "tokens": "100G"},
            {"data_parallel": 8, "global_batch_size": 64, "tokens": "1T"},
        ],
    },
}
ONLY_ROUTER: Final = {"stack.host.graphed": "router"}  # which shared experts are not in: they run beside an all-to-all alone


def run_named(name: str, settings: Mapping[str, Any] | None = None) -> Run:
    """One of the runs above, with settings."""
    return api.load({**BASE, **RUNS[name]}, dict(settings or {}))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("software", ["megatron-core", "slurm"])
def test_a_run_that_is_written_and_read_again_is_the_same(tmp_path: Path, name: str, software: str) -> None:
    """Time, MFU and memory of it too."""
    run = run_named(name)
    assert_same(run, read_again(run, tmp_path, software=software))


def test_pieces_that_are_not_even_are_written_down(tmp_path: Path) -> None:
    """61 layers on 32 pieces, as NVIDIA writes them down: as many of each stage, and the same time."""
    settings = {"pipeline_layout": "even", "pipeline_parallel": 16, "virtual_pipeline": 2}
    run = run_named("DeepSeek-V3", settings)
    again = read_again(run, tmp_path)
    assert again.pipeline_layout == "Et|(tt|)*30mL"
    one, other = (float(api.predict(each).stages[0][1].iteration_time_s) for each in (run, again))
    assert other == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_each_stage_of_a_ramp_over_other_gpus_is_a_script(tmp_path: Path, stage: int) -> None:
    """As of Nemotron-4 15B; without a stage it is the last."""
    run = api.load("nemotron-4-15b")
    assert_same(run, read_again(run, tmp_path, stage=stage), slice(stage, stage + 1))
    assert launched_stages(run, launcher_named("megatron-core")) == run.stages[-1:]
    assert "stage 3 of 3" in launch_file(run, "megatron-core")


@pytest.mark.parametrize("name", RUNS)
def test_the_script_is_what_a_shell_and_megatron_take(tmp_path: Path, name: str) -> None:
    """A shell that only prints what torchrun gets, and a parser of the documented flags with their types."""
    text = launch_file(run_named(name), "megatron-core")
    path = tmp_path / "train.sh"
    path.write_text(text.replace("#!/bin/bash", '#!/bin/bash\ntorchrun() { printf "%s\\n" "$@"; }'))
    done = subprocess.run(["bash", str(path)], capture_output=True, text=True, check=True)  # noqa: S607 - any bash
    words = done.stdout.splitlines()
    found = parsed(words[words.index("pretrain_gpt.py") + 1 :])
    assert found["num_layers"]
    assert found["global_batch_size"]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("Llama 8B", {"stack": "torchtitan"}, "stack: torchtitan"),
        ("Llama 8B", {"model": "gemma-2-9b", "context_parallel": 1}, "cannot be said in flags of Megatron-LM"),
        ("Llama 8B", {"precision": "tf32", "context_parallel": 1}, "precision: tf32 cannot be said"),
        ("Llama 70B", {"stack.overlap.tensor_parallel": "none"}, "stack.overlap.tensor_parallel: none cannot be said"),
        ("Llama 70B", {"virtual_pipeline": 1, "pipeline_schedule": "zb-h1"}, "pipeline_schedule: zb-h1 cannot be said"),
        ("Llama 8B", {"stack.states.optimizer_bytes": 7}, "stack.states.optimizer_bytes: 7 cannot be said"),
        ("Llama 8B", {"model.embedding_norm": True}, "model.embedding_norm: true cannot be said"),
        ("Llama 8B, recomputed blocks", {"recompute_layers": 6}, "recompute_layers: 6 cannot be said"),
        ("DeepSeek-V3", {"model.mixture.router_bias": True}, "model.mixture.router_bias: true cannot be said"),
        ("DeepSeek-V3", ONLY_ROUTER | {"stack.experts.overlap": "none"}, "stack.host.graphed: router cannot be said"),
        ("DeepSeek-V3", ONLY_ROUTER | {"stack.experts.dispatcher": "alltoall"}, "stack.host.graphed: router cannot be said"),
        ("DeepSeek-V3", {"stack.host.graphed": "shared_experts"}, "stack.host.graphed: shared_experts cannot be said"),
    ],
)
def test_what_no_flag_says_is_refused_by_name(name: str, settings: Mapping[str, Any], words: str) -> None:
    """With the key of the run."""
    with pytest.raises(NotSupportedError) as caught:
        launch_file(run_named(name, settings), "megatron-core")
    assert words.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({"sharding": "zero3"}, "--use-megatron-fsdp --data-parallel-sharding-strategy optim_grads_params"),
        ({"precision": "mxfp8", "cluster": "dgx-b200"}, "--fp8-format e4m3 --fp8-recipe mxfp8"),
        ({"stack.fusion.rotary": False}, "--no-rope-fusion"),
        ({"stack.states.optimizer_bytes": 8}, "--use-precision-aware-optimizer --exp-avg-dtype bf16 --exp-avg-sq-dtype bf16"),
        ({"stack.host.cuda_graphs": True}, "--cuda-graph-impl full_iteration"),
        ({"stack": "megatron-core-2025"}, "--ddp-bucket-size 134217728"),
        ({"cluster": "dgx-b200"}, "CUDA_DEVICE_MAX_CONNECTIONS=32"),
    ],
)
def test_settings_of_a_run_have_their_flags(settings: Mapping[str, Any], flags: str) -> None:
    """Those of sharding, formats, software and hardware."""
    text = " ".join(launch_file(run_named("Llama 8B", settings), "megatron-core").split())
    assert flags in text


@pytest.mark.parametrize(
    ("graphed", "scope", "beside"),
    [
        ("router shared_experts", "moe_router", False),
        ("router", "moe_router", True),
        ("experts preprocess router shared_experts", "moe", False),
        ("dense mixer preprocess router shared_experts", "mlp moe_router moe_preprocess mamba", False),
        ("attention", "attn", False),
    ],
)
def test_graphs_of_a_router_without_shared_experts_let_them_run_beside_the_dispatch(
    graphed: str, scope: str, beside: bool
) -> None:
    """Which an all-to-all can have beside it, where it does not overlap otherwise."""
    settings = {"stack.host.graphed": graphed, "stack.experts.dispatcher": "alltoall", "stack.experts.overlap": "none"}
    text = " ".join(launch_file(run_named("DeepSeek-V3", settings), "megatron-core").split())
    assert f"--cuda-graph-impl transformer_engine --cuda-graph-scope {scope} --" in text
    assert ("--moe-shared-expert-overlap" in text) is beside


def test_a_mixture_without_shared_experts_has_none_beside_the_dispatch() -> None:
    """Mixtral's graphs of the router alone."""
    mixtral = {"model": "mixtral-8x7b", "context_parallel": 1, "expert_parallel": 8, "stack.experts.dispatcher": "alltoall"}
    text = launch_file(run_named("Llama 8B", mixtral | ONLY_ROUTER), "megatron-core")
    assert "--cuda-graph-scope moe_router" in text
    assert "--moe-shared-expert-overlap" not in text


def test_another_format_gets_a_suggestion() -> None:
    """In one sentence."""
    with pytest.raises(InputError, match="--for: 'megatron_core' is no format of launch files; did you mean megatron-core"):
        launch_file(run_named("Llama 8B"), "megatron_core")
