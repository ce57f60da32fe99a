"""`perfmodel predict MODEL --gpu G --training T`, and `validate` of a table of fine-tuning runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence.tuning.rows import TUNING_METRICS
from perfmodel.exchange.tables.tuning_runs import TUNING_COLUMNS
from tests.commands.test_infer_command import ran

ROW = (
    "r1,a lab,meta-llama/Llama-2-7b-hf,a100-sxm-80gb,1,lora,16,q v,adamw,bf16,2048,2,4,yes,,none,none,,,20,"
    "torch max_memory_allocated,3000,per GPU,yes,"
)
MODEL = ("predict", "llama-3.1-8b", "--gpu", "rtx-4090", "--training", "qlora")


def test_the_first_line_answers() -> None:
    """Whether it fits, GiB of GiB, tokens/s and hours; every line in 80 columns."""
    code, output = ran(*MODEL, "--examples", "50000", "--example-length", "512")
    first = output.splitlines()[0]
    assert code == 0
    assert first.startswith("Fits: ")
    assert all(word in first for word in ("of 23.6 GiB", "tokens/s", "hours"))
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize(("gpu", "precision"), [("t4", "fp16"), ("l4", "bf16")])
def test_a_format_that_the_gpu_has_is_assumed(gpu: str, precision: str) -> None:
    """Tensor cores before Ampere know no bf16."""
    code, output = ran("predict", "llama-3.1-8b", "--gpu", gpu, "--training", "qlora")
    assert code == 0
    assert f", {precision}, micro-batch 1" in " ".join(output.split())
    assert f"no precision is given: {precision} is assumed" in output


def test_what_does_not_fit_is_said_and_exits_with_1() -> None:
    """70B parameters in 4 bits are more than 24 GB."""
    code, output = ran("predict", "llama-3.1-70b", "--gpu", "rtx-4090", "--training", "qlora")
    assert code == 1
    assert output.startswith("Does not fit: ")


def test_hours_are_those_of_the_tokens_of_all_examples() -> None:
    """Padded examples take whole sequences: as much longer as these are."""
    packed, padded = (
        json.loads(ran(*MODEL, "--examples", "1000", "--epochs", "2", "--example-length", "512", *more, "--json")[1])
        for more in ((), ("--padded",))
    )
    assert packed["total_tokens"] == 1000 * 2 * 512
    tokens_per_s = packed["stages"][0]["tokens_per_s"]
    assert packed["fine_tuning"]["hours"] == pytest.approx(packed["total_tokens"] / tokens_per_s / 3600)
    assert padded["fine_tuning"]["hours"] == pytest.approx(4 * packed["fine_tuning"]["hours"])


def test_a_config_json_is_a_model_too(tmp_path: Path) -> None:
    """Its adapters are r * (in + out) of every linear of attention and MLP."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 1024, "intermediate_size": 2816,
        "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 32000,
        "hidden_act": "silu", "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "max_position_embeddings": 4096,
    }  # fmt: skip
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    code, output = ran("predict", str(path), "--gpu", "rtx-4090", "--training", "lora", "--set", "adapter_rank=8", "--json")
    h, f, v = 1024, 2816, 256
    layer = 8 * (2 * (h + h) + 2 * (h + v) + 3 * (h + f))
    assert code == 0
    assert json.loads(output)["fine_tuning"]["trained_parameters"] == 4 * layer


def test_what_is_set_is_not_assumed() -> None:
    """Its sentence goes."""
    said, unsaid = (ran(*MODEL, *more)[1] for more in ((), ("--set", "optimizer=paged_adamw_8bit")))
    assert "no optimizer is given" in said
    assert "no optimizer is given" not in unsaid


def test_several_gpus_are_sharded_where_one_does_not_hold_the_model() -> None:
    """16-bit weights of 32B parameters on 80 GB are tight alone, and fit in halves."""
    words = ("predict", "llama-3.1-70b", "--gpu", "a100-sxm-80gb", "--gpus", "4", "--training", "lora", "--json")
    assert any("zero3" in sentence for sentence in json.loads(ran(*words)[1])["stages"][0]["assumptions"])


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("llama-3.1-8b", "--gpu", "rtx-4091"), 2, "did you mean rtx-4090?"),
        (("llama-3.1-8b", "--gpu", "a100"), 2, "did you mean a100-pcie-80gb, a100-sxm-40gb or a100-sxm-80gb?"),
        (("llama-3.1-8b", "--training", "qlor"), 2, "did you mean qlora?"),
        (("llama-3.1-8b", "--training", "lora", "--epochs", "2"), 2, "--examples"),
        (("llama-3.1-8b", "--training", "lora", "--cluster", "dgx-h100"), 2, "--gpu names the GPU"),
        (("nemotron-4-15b", "--gpu", "rtx-4090"), 2, "is a run"),
        (("llama-3.1-8c", "--gpu", "rtx-4090"), 2, "did you mean meta-llama/Llama-3.1-8B?"),
        (("llama-3.1-8b", "--gpu", "rtx-4090", "--set", "tensor_parallel=2"), 3, "tensor_parallel"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run: Any, words: tuple[str, ...], code: int, sentence: str) -> None:
    """With what would work, on standard error."""
    assert run("predict", *words).is_refused(code, sentence)


RUN_FILE = """
name: tuning
model: llama-3.1-8b
cluster: dgx-a100
stack: hf-peft
training: qlora
sharding: none
recompute: full
sequence_length: 2048
stages: [{data_parallel: 2, global_batch_size: 32, tokens: 50e6}]
"""


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("plan", "{run}", "--gpus", "8"), "layouts of a fine-tuning are not searched"),
        (("explain", "{run}", "--set", "offload=activations"), "waiting for the host is not explained"),
        (("timeline", "{run}", "--set", "offload=activations"), "waiting for the host is not drawn"),
        (("measure", "{run}", "--dry-run"), "the reference model trains adapters (lora)"),
        (("launch", "{run}"), ""),
    ],
)
def test_commands_that_do_not_cover_a_fine_tuning_refuse_it(
    run: Any, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    """None of them answers about another run."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE, encoding="utf-8")
    outcome = run(*(word.format(run=path) for word in words))
    assert outcome.code in (2, 3)
    assert sentence in outcome.err


def test_explanations_of_a_fine_tuning_add_up(run: Any, tmp_path: Path) -> None:
    """The steps from the peak lead to the predicted iteration."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN_FILE, encoding="utf-8")
    document = json.loads(run("explain", path, "--json").out)
    predicted = json.loads(run("predict", path, "--json").out)["stages"][0]
    steps = document["waterfall"]["steps"]
    total = document["waterfall"]["ideal_s"] + sum(step["seconds"] for step in steps)
    assert total == pytest.approx(predicted["iteration_time_s"])


def test_all_of_a_model_is_trained_in_what_its_software_holds_first(run: Any) -> None:
    """Pure bf16 without a word, as transformers load it: 10 bytes a parameter on one GPU, 75 GiB of 8.03B (fms: 74.8)."""
    found = json.loads(run("predict", "llama-3.1-8b", "--gpu", "a100-sxm-80gb", "--training", "full", "--json").out)
    assert found["fine_tuning"]["weights"] == "bf16"
    assert found["stages"][0]["memory"]["total_bytes"] / 2**30 == pytest.approx(74.8, rel=0.03)


def test_a_table_of_fine_tuning_runs_is_validated(run: Any, tmp_path: Path) -> None:
    """A row a metric, with its interval; verdicts are yes or no."""
    path = tmp_path / "finetune.csv"
    path.write_text(f"{','.join(TUNING_COLUMNS)}\n{ROW}\n", encoding="utf-8")
    rows = json.loads(run("validate", path, "--json").out)["rows"]
    assert [(row["run_id"], row["metric"]) for row in rows] == [("r1", name) for name in TUNING_METRICS]
    assert (rows[2]["measured"], rows[2]["predicted"]) == ("yes", "yes")
    for row in rows[:2]:
        low, high = row["interval"]
        assert low < row["predicted"] < high
    assert "peak memory" in run("validate", path, "--leave-source-out").out
