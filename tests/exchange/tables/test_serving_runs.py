"""What rows of a table of serving runs say of the engine: its version, how its source ran it, what was learned of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence.serving.rows import MeasuredServing
from perfmodel.exchange.questions.serving.served_models import engine_preset
from perfmodel.exchange.tables.serving_runs import SERVING_COLUMNS, read_serving_runs
from perfmodel.serving.measurements import Workload

ROW = {
    **dict.fromkeys(SERVING_COLUMNS, ""),
    "run_id": "r",
    "source": "a lab",
    "model": "meta-llama/Llama-3.1-70B-Instruct",
    "gpu": "h200-sxm-141gb",
    "gpus": "8",
    "engine": "vllm",
    "engine_version": "0.15.0",
    "weights": "fp8",
    "isl": "1024",
    "osl": "1024",
    "concurrency": "32",
    "load": "closed loop",
    "metric": "ttft_s",
    "value": "0.1",
}


def measured(folder: Path, *, without_own: bool = False, **cells: Any) -> MeasuredServing:
    """One row as it is read."""
    table = folder / "serving.csv"
    row = {key: str(value) for key, value in (ROW | cells).items()}
    table.write_text(",".join(SERVING_COLUMNS) + "\n" + ",".join(row[column] for column in SERVING_COLUMNS) + "\n")
    (found,) = read_serving_runs(table, without_own=without_own).rows
    return found


def workload(folder: Path, **settings: Any) -> Workload:
    """The load of one row."""
    found = measured(folder, **settings).workload
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("0.4.2", "vLLM 0.4 and 0.5"),
        ("0.6.4", "vLLM 0.6 and 0.7 (V0)"),
        ("0.7.3", "vLLM 0.6 and 0.7 (V0)"),
        ("0.8.5", "vLLM 0.8 to 0.9.1 (V1)"),
        ("0.9.1", "vLLM 0.8 to 0.9.1 (V1)"),
        ("0.9.2", "vLLM 0.9.2 to 0.13 (V1)"),
        ("0.11.0", "vLLM 0.9.2 to 0.13 (V1)"),
        ("0.19.0", "vLLM 0.14 to 0.20"),
        ("0.20.1+transformers-5.8.1", "vLLM 0.14 to 0.20"),
        ("0.21.0", "vLLM (from 0.21)"),
        ("nightly-5b8c30d", "vLLM (from 0.21)"),
    ],
)
def test_a_version_has_its_engine(version: str, name: str, tmp_path: Path) -> None:
    """Versions differ in what they hand on, launch and hold."""
    assert workload(tmp_path, engine_version=version).setup.engine.name == name


def test_a_source_runs_its_engine_as_its_scripts_say(tmp_path: Path) -> None:
    """InferenceX admits no more sequences than there are clients, keeps caches in 8 bits and launches vLLM 0.11 ahead."""
    plain, theirs = (workload(tmp_path, engine_version="0.11.0", source=source).setup for source in ("a lab", "InferenceX"))
    assert (plain.engine.schedule.max_sequences, theirs.engine.schedule.max_sequences) == (1024, 32)
    assert (plain.cache.bytes, theirs.cache.bytes) == (2, 1)
    assert theirs.engine.host.sequence_s == 12e-6 < plain.engine.host.sequence_s


@pytest.mark.parametrize(("clients", "passes"), [(4, 10), (16, 30)])
def test_a_setting_may_hang_on_the_number_of_clients(clients: int, passes: int, tmp_path: Path) -> None:
    """The last rule that fits counts."""
    cells: dict[str, Any] = {
        "engine": "sglang",
        "engine_version": "0.5.9",
        "gpu": "b200-sxm-180gb",
        "model": "deepseek-ai/DeepSeek-R1",
    }
    engine = workload(tmp_path, **cells, source="InferenceX", concurrency=clients).setup.engine
    assert engine.schedule.receive_passes == passes
    assert (engine.schedule.chunk_tokens, engine.memory.fraction) == (32768, 0.82)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"model": "openai/gpt-oss-120b", "engine_version": "0.15.1"}, (2048, 8192)),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "engine_version": "0.17.0"}, (512, 8192)),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "engine_version": "0.19.0"}, (2048, 2 * 1024)),
        ({"model": "moonshotai/Kimi-K2.5", "weights": "nvfp4", "notes": "measured 2026-03-11"}, (512, 8192)),
        ({"model": "moonshotai/Kimi-K2.5", "weights": "nvfp4", "notes": "measured 2026-04-20"}, (2048, 2 * 1024)),
    ],
)
def test_scripts_capture_graphs_for_prompts(cells: dict[str, Any], expected: tuple[int, int], tmp_path: Path) -> None:
    """Tokens of graphs and of a pass in InferenceX's scripts for vLLM, which changed between two dates for Kimi."""
    engine = workload(tmp_path, source="InferenceX", gpu="b200-sxm-180gb", **cells).setup.engine
    assert (engine.host.graph_tokens, engine.schedule.chunk_tokens) == expected


@pytest.mark.parametrize(
    ("cells", "fused"),
    [
        ({"engine": "trtllm", "model": "openai/gpt-oss-120b", "gpu": "b200-sxm-180gb"}, True),
        ({"engine": "trtllm", "model": "openai/gpt-oss-120b"}, False),
        ({"engine": "sglang", "model": "deepseek-ai/DeepSeek-R1", "gpu": "b200-sxm-180gb"}, True),
        ({"engine": "sglang", "model": "deepseek-ai/DeepSeek-R1"}, False),
    ],
)
def test_scripts_choose_who_launches_experts(cells: dict[str, Any], fused: bool, tmp_path: Path) -> None:
    """One custom operator, but Triton's kernels on Hopper."""
    host = workload(
        tmp_path,
        source="InferenceX",
        weights="nvfp4" if "b200" in str(cells) else "fp8",
        **{"engine_version": "1.2.0", **cells},
    ).setup.engine.host
    assert host.fused_experts == fused
    assert host.triton_s == pytest.approx(180e-6 if not fused and cells["engine"] == "trtllm" else 100e-6)


@pytest.mark.parametrize(("source", "sequence_s"), [("a gap analysis", 18e-6), ("InferenceX", 15e-6), ("a lab", 17e-6)])
def test_without_a_source_the_other_one_counts(source: str, sequence_s: float, tmp_path: Path) -> None:
    """What SGLang learned of two sources is what the other one gives alone; sources that taught nothing have all of it."""
    cells: dict[str, Any] = {"engine": "sglang", "engine_version": "0.5.9", "source": source}
    assert workload(tmp_path, **cells, without_own=True).setup.engine.host.sequence_s == pytest.approx(sequence_s)
    assert workload(tmp_path, **cells).setup.engine.host.sequence_s == pytest.approx(17e-6)


def test_tokens_of_a_pass_may_follow_from_a_row(tmp_path: Path) -> None:
    """The gap analysis lets passes of vLLM have a prompt, a token of each of 32 clients and 1,500 more; SGLang's no clients."""
    theirs = workload(tmp_path, engine_version="0.12.0", source="NVIDIA gap analysis").setup.engine
    assert (theirs.schedule.chunk_tokens, theirs.memory.profiled_tokens) == (1024 + 32 + 1500, 1024 + 32 + 1500)
    assert theirs.schedule.max_sequences == 32
    cells: dict[str, Any] = {"engine": "sglang", "source": "NVIDIA gap analysis"}
    found = [workload(tmp_path, **cells, engine_version=each).setup.engine.schedule for each in ("0.5.1.post1", "0.5.6.post2")]
    assert [each.chunk_tokens for each in found] == [1024 + 1500] * 2
    assert [each.mixes for each in found] == [False, True]


def test_a_row_that_is_listed_again_is_of_the_source_that_made_it(tmp_path: Path) -> None:
    """The gap analysis has runs of Qwen3.5 from InferenceX, whose lengths differ; those of other models are its own."""
    cells: dict[str, Any] = {"engine": "sglang", "engine_version": "0.5.9", "source": "NVIDIA gap analysis"}
    again, own = (workload(tmp_path, **cells, model=model) for model in ("Qwen/Qwen3.5-397B-A17B", "Qwen/Qwen3-32B"))
    assert (again.length_spread, own.length_spread) == (0.2, 0.0)
    assert "InferenceX" in measured(tmp_path, **cells, model="Qwen/Qwen3.5-397B-A17B").source
    assert measured(tmp_path, **cells, model="Qwen/Qwen3-32B").source == "NVIDIA gap analysis"


MIXTURE: dict[str, Any] = {
    "engine": "sglang",
    "engine_version": "0.5.9",
    "model": "deepseek-ai/DeepSeek-R1",
    "source": "InferenceX",
}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"gpus": 64, "tensor_parallel": 64, "notes": "moe_tp 8 moe_ep 8"}, (1, 8, 1, 8)),
        ({"gpus": 64, "tensor_parallel": 1, "data_parallel_attention": 64, "notes": "moe_tp 8 moe_ep 8"}, (1, 8, 8, 8)),
        ({"gpus": 16, "tensor_parallel": 4, "data_parallel_attention": 4, "notes": "moe_tp 1 moe_ep 16"}, (1, 4, 1, 4)),
        ({"gpus": 4, "tensor_parallel": 2, "data_parallel_attention": 2, "notes": "moe_tp 1 moe_ep 4"}, (1, 2, 1, 2)),
        ({"gpus": 8, "tensor_parallel": 8, "notes": "moe_tp 1 moe_ep 8"}, (1, 8, 1, 8)),
        ({"gpus": 8, "tensor_parallel": 8, "notes": "moe_tp 8 moe_ep 1"}, (1, 8, 1, 1)),
        ({"gpus": 8, "tensor_parallel": 1, "data_parallel_attention": 8, "notes": "moe_tp 1 moe_ep 8"}, (1, 8, 8, 8)),
    ],
)
def test_ranks_that_are_counted_twice_are_one_server(
    cells: dict[str, Any], expected: tuple[float, int, int, int], tmp_path: Path
) -> None:
    """Attention's GPUs times the experts' are the square of the GPUs that there are: replicas, GPUs, attention's, experts'."""
    found = workload(tmp_path, **MIXTURE, **cells)
    setup = found.setup
    assert (found.replicas, setup.tensor_parallel, setup.attention_replicas, setup.expert_parallel) == expected


def test_another_source_may_split_experts_both_ways(tmp_path: Path) -> None:
    """Four GPUs whose experts are split over pairs are four GPUs, where nobody counts them twice."""
    cells = {**MIXTURE, "source": "a lab", "gpus": 4, "tensor_parallel": 4, "notes": "moe_tp 2 moe_ep 2"}
    assert (workload(tmp_path, **cells).setup.tensor_parallel, workload(tmp_path, **cells).setup.expert_parallel) == (4, 2)


@pytest.mark.parametrize(
    ("gpu", "version", "expected"),
    [
        ("b200-sxm-180gb", "0.17.0", (4, 1, 4, "triton")),
        ("b200-sxm-180gb", "0.19.0", (4, 1, 1, "")),
        ("h200-sxm-141gb", "0.18.0", (4, 1, 4, "")),
        ("h200-sxm-141gb", "0.16.0", (4, 1, 1, "")),
    ],
)
def test_what_a_script_starts_stands_above_what_its_row_says(
    gpu: str, version: str, expected: tuple[int, int, int, str], tmp_path: Path
) -> None:
    """MiniMax-M2.5 in vLLM with its experts whole where a script says so whatever is asked; in Triton where others are off."""
    cells: dict[str, Any] = {"engine": "vllm", "engine_version": version, "model": "MiniMaxAI/MiniMax-M2.5", "weights": "fp8"}
    row = {**cells, "source": "InferenceX", "gpu": gpu, "gpus": 4, "tensor_parallel": 4, "notes": "moe_tp 4 moe_ep 1"}
    found = workload(tmp_path, **row).setup
    kernels = "triton" if found.engine.expert_kernels == "triton" else ""
    assert (found.tensor_parallel, found.attention_replicas, found.expert_parallel, kernels) == expected


@pytest.mark.parametrize("gpus", [-1, 0, 0.5])
def test_a_row_needs_a_gpu(gpus: float, tmp_path: Path) -> None:
    """Where it states how many there are."""
    assert measured(tmp_path, gpus=gpus).reason == f"gpus: '{gpus}' must be at least 1"


@pytest.mark.parametrize(
    ("date", "version", "is_scored"),
    [("2026-01-14", "1.1.0rc2.post2", False), ("2025-12-15", "1.1.0rc2.post2", True), ("2026-01-14", "1.2.0rc6.post2", True)],
)
def test_a_row_is_suspect_where_all_of_a_rule_fits(date: str, version: str, is_scored: bool, tmp_path: Path) -> None:
    """The series with drafted tokens is known by version and date together."""
    table = tmp_path / "serving.csv"
    cells = {**ROW, **MIXTURE, "engine": "trtllm", "engine_version": version, "notes": f"measured {date}; moe_tp 8 moe_ep 1"}
    table.write_text(",".join(SERVING_COLUMNS) + "\n" + ",".join(cells[column] for column in SERVING_COLUMNS) + "\n")
    (measured,) = read_serving_runs(table).rows
    assert (measured.context == "") is is_scored


@pytest.mark.parametrize(
    ("model", "weights", "name"),
    [
        ("MiniMaxAI/MiniMax-M2.5", "fp8", "fp8_block"),
        ("deepseek-ai/DeepSeek-R1", "fp8", "fp8_block"),
        ("openai/gpt-oss-120b", "nvfp4", "mxfp4"),
        ("moonshotai/Kimi-K2.5", "int4_wo", "int4_experts"),
        ("meta-llama/Llama-3.1-70B-Instruct", "fp8", "fp8"),
        ("deepseek-ai/DeepSeek-R1", "nvfp4", "nvfp4"),
    ],
)
def test_a_checkpoint_has_its_own_format(model: str, weights: str, name: str, tmp_path: Path) -> None:
    """Tables call scales of blocks fp8 and mxfp4 nvfp4; Kimi's int4 is that of its routed experts."""
    assert workload(tmp_path, model=model, weights=weights).setup.weights.name == name


@pytest.mark.parametrize(
    ("cells", "held"),
    [
        ({"model": "MiniMaxAI/MiniMax-M2.5", "gpu": "b300-sxm-288gb", "engine_version": "0.18.0"}, 1),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "gpu": "b200-sxm-180gb", "engine_version": "0.19.0"}, 1),
        ({"model": "MiniMaxAI/MiniMax-M2.5", "gpu": "b200-sxm-180gb", "engine_version": "0.17.0"}, 2),
        ({"model": "openai/gpt-oss-120b", "gpu": "b200-sxm-180gb", "engine": "trtllm", "weights": "nvfp4"}, 1),
        ({"model": "openai/gpt-oss-120b", "gpu": "h200-sxm-141gb", "engine": "trtllm", "weights": "nvfp4"}, 2),
    ],
)
def test_a_source_holds_caches_as_its_scripts_say(cells: dict[str, Any], held: int, tmp_path: Path) -> None:
    """Bytes of a number of the cache in InferenceX's runs, by model, GPU and the recipe of the time."""
    assert workload(tmp_path, source="InferenceX", **cells).setup.cache.bytes == held


def test_a_source_may_ask_for_a_library_of_experts(tmp_path: Path) -> None:
    """InferenceX asks vLLM for Marlin with gpt-oss on Hopper; on Blackwell, and elsewhere, the engine chooses."""
    cells = {"model": "openai/gpt-oss-120b", "weights": "nvfp4", "source": "InferenceX"}
    assert workload(tmp_path, **cells).setup.engine.expert_kernels == "marlin"
    for other in ({"gpu": "b200-sxm-180gb"}, {"source": "a lab"}):
        assert workload(tmp_path, **cells | other).setup.engine.expert_kernels == "own"


def test_a_source_may_start_kernels_early(tmp_path: Path) -> None:
    """InferenceX turns programmatic launches on for gpt-oss in TensorRT-LLM, and for nothing else."""
    cells = {"model": "openai/gpt-oss-120b", "weights": "nvfp4", "source": "InferenceX", "engine": "trtllm"}
    cells |= {"engine_version": "1.2.0rc2", "gpu": "b200-sxm-180gb"}
    for gpu in ("b200-sxm-180gb", "h200-sxm-141gb"):
        assert workload(tmp_path, **cells | {"gpu": gpu}).setup.engine.early_launches
    assert not workload(tmp_path, **cells | {"model": "deepseek-ai/DeepSeek-R1"}).setup.engine.early_launches


OF_TENSORRT: dict[str, Any] = {
    "engine": "trtllm",
    "model": "deepseek-ai/DeepSeek-R1",
    "gpu": "b200-sxm-180gb",
    "source": "InferenceX",
    "tensor_parallel": 8,
    "gpus": 8,
}


OF_FEBRUARY = "measured 2026-02-03"
AT_8192: dict[str, Any] = {"weights": "fp8", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY, "isl": 8192}


@pytest.mark.parametrize(
    ("cells", "chunk_tokens", "graph_tokens", "wait_passes"),
    [
        ({"weights": "fp8", "engine_version": "1.1.0rc2.post2", "notes": "measured 2026-01-14"}, 1024 + 64 + 96, 0, 0),
        ({"weights": "fp8", "engine_version": ""}, 1024 + 64 + 96, 0, 0),
        ({"weights": "fp8", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY}, 8192, 8192, 40),
        ({"weights": "fp8", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY, "concurrency": 32}, 8192, 0, 0),
        ({"weights": "fp8", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY, "osl": 8192}, 8192, 0, 0),
        (
            {"weights": "fp8", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY, "osl": 8192, "concurrency": 128},
            8192,
            8192,
            0,
        ),
        (AT_8192, 8192 + 64 + 96, 8192 + 64 + 96, 0),
        (AT_8192 | {"concurrency": 256}, 8192 + 256 + 96, 0, 0),
        ({"weights": "nvfp4", "engine_version": "1.2.0rc6.post2", "notes": OF_FEBRUARY}, 8192, 0, 0),
        (
            {
                "weights": "nvfp4",
                "engine_version": "1.2.0rc6.post2",
                "notes": "measured 2026-02-03; moe_tp 1 moe_ep 8 moe nvfp4",
            },
            8192,
            8192,
            0,
        ),
        ({"model": "openai/gpt-oss-120b", "weights": "nvfp4", "engine_version": "1.2.0rc2"}, 20000, 0, 0),
    ],
)
def test_scripts_say_what_a_pass_of_tensorrt_holds(
    cells: dict[str, Any], chunk_tokens: int, graph_tokens: int, wait_passes: int, tmp_path: Path
) -> None:
    """Its tokens, those of its CUDA graphs, and how long prompts wait for others, by version, lengths and clients."""
    engine = workload(tmp_path, **OF_TENSORRT | {"concurrency": 64} | cells).setup.engine
    assert (engine.schedule.chunk_tokens, engine.host.graph_tokens, engine.schedule.wait_passes) == (
        chunk_tokens,
        graph_tokens,
        wait_passes,
    )
    assert not engine.host.one_door


def test_replicas_wait_for_each_other_as_long_as_a_script_says(tmp_path: Path) -> None:
    """60 passes with DeepSeek, and no more where all have a prompt; TensorRT-LLM's own 50 and 10 with gpt-oss."""
    spread = OF_TENSORRT | {"engine_version": "1.2.0rc2", "data_parallel_attention": 8, "notes": "moe_tp 1 moe_ep 8"}
    found = [
        workload(tmp_path, **spread | each).setup.engine.schedule
        for each in ({"weights": "fp8"}, {"model": "openai/gpt-oss-120b", "weights": "nvfp4"})
    ]
    assert [(each.balances, each.balance_passes, each.gather_passes) for each in found] == [(True, 60, 0), (True, 50, 10)]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ({"model": "deepseek-ai/DeepSeek-R1", "gpu": "b200-sxm-180gb", "weights": "nvfp4"}, (16384, 0.85, 256)),
        ({"model": "deepseek-ai/DeepSeek-R1", "gpu": "h200-sxm-141gb", "weights": "fp8"}, (32768, 0.82, 2048)),
        ({"model": "Qwen/Qwen3.5-397B-A17B", "gpu": "h200-sxm-141gb", "weights": "fp8"}, (16384, 0.8, 128)),
        ({"model": "zhipuai/GLM-5", "gpu": "b200-sxm-180gb", "weights": "fp8"}, (32768, 0.85, 32)),
        ({"model": "zhipuai/GLM-5", "gpu": "h200-sxm-141gb", "weights": "fp8"}, (8192, 0.85, 2048)),
    ],
)
def test_scripts_say_what_a_pass_of_sglang_holds(cells: dict[str, Any], expected: tuple[float, ...], tmp_path: Path) -> None:
    """Its tokens, the share of memory and the sequences at once, by model and GPU."""
    row = {"engine": "sglang", "engine_version": "0.5.9", "source": "InferenceX", "tensor_parallel": 8, "gpus": 8}
    engine = workload(tmp_path, **row, **cells).setup.engine
    assert (engine.schedule.chunk_tokens, engine.memory.fraction, engine.schedule.max_sequences) == expected


@pytest.mark.parametrize(("version", "times"), [("0.5.9", 1.0), ("0.5.10.post1", 5.03)])
def test_prompts_may_reach_an_engine_longer_than_they_were_made(version: str, times: float, tmp_path: Path) -> None:
    """DeepSeek's prompts were cut otherwise by a client with transformers 5 than by SGLang."""
    cells = {"engine": "sglang", "engine_version": version, "source": "InferenceX", "model": "deepseek-ai/DeepSeek-V3"}
    cells |= {"gpu": "b300-sxm-288gb", "weights": "nvfp4"}
    assert workload(tmp_path, **cells).request.input_tokens == pytest.approx(0.9 * 1024 * times)
    assert workload(tmp_path, **cells | {"model": "zhipuai/GLM-5"}).request.input_tokens == pytest.approx(0.9 * 1024)


@pytest.mark.parametrize(("weights", "fraction", "most", "looks"), [("fp8", 0.85, 64, 1), ("nvfp4", 0.9, None, 10)])
def test_scripts_of_one_model_differ_by_its_weights(
    weights: str, fraction: float, most: int | None, looks: int, tmp_path: Path
) -> None:
    """GLM-5 in SGLang: as many sequences as clients with fp8; SGLang's own number, looked for every ten passes, with nvfp4."""
    cells = {"engine": "sglang", "model": "zai-org/GLM-5", "gpu": "b200-sxm-180gb", "source": "InferenceX", "concurrency": 64}
    engine = workload(tmp_path, **cells, tensor_parallel=8, gpus=8, weights=weights).setup.engine
    assert (engine.memory.fraction, engine.schedule.max_sequences, engine.schedule.receive_passes) == (
        fraction,
        most or engine_preset("sglang").schedule.max_sequences,
        looks,
    )
