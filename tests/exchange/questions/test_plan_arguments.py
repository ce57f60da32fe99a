"""Does every way to ask for a plan become the right question, or one sentence that says what would work?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import cluster_preset, economics_preset, model_preset, stack_preset
from perfmodel.exchange.questions.plan_arguments import read_plan_request
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from tests.exchange.questions.plan_requests import MODEL, ask, refusal

RUN = "runs/nemotron-4-15b"
CONFIG = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
RUN_FILE: dict[str, Any] = {
    "name": "mine",
    "model": MODEL,
    "cluster": "dgx-h200",
    "stack": "torchtitan",
    "precision": "fp8",
    "sequence_length": 8192,
    "stages": [{"data_parallel": 64, "global_batch_size": 128, "tokens": "1T"}],
}


def test_a_preset_with_what_is_usual() -> None:
    """The usual stack, 4,096 tokens and about 4M tokens a batch, each said."""
    found = ask()
    question = found.question
    assert (question.model.name, question.cluster.name, question.stack.name) == (
        "Llama 3.1 8B",
        "DGX H100",
        "Megatron-Core (2024)",
    )
    assert (question.sequence_length, question.stages[0].global_batch_size, found.gpus) == (4096, 1024, (8,))
    assert not question.has_tokens
    assert [sentence.split(":")[0] for sentence in question.assumptions] == [
        "no stack is given",
        "no sequence length is given",
        "no global batch is given",
    ]


def test_what_is_given_is_not_assumed() -> None:
    """No sentence for it."""
    question = ask(stack="torchtitan", sequence_length=8192, global_batch_size="1k").question
    assert (question.stack.name, question.sequence_length, question.stages[0].global_batch_size) == (
        "torchtitan (compiled)",
        8192,
        1000,
    )
    assert question.assumptions == ()


def test_specs_and_mappings_stand_for_names() -> None:
    """The same question of names, of specs and of mappings."""
    by_name = ask(stack="megatron-core").question
    for model, cluster, stack in (
        (model_preset(MODEL), cluster_preset("dgx-h100"), stack_preset("megatron-core")),
        tuple(map(mapping_of, (model_preset(MODEL), cluster_preset("dgx-h100"), stack_preset("megatron-core")))),
        (MODEL, {"extends": "dgx-h100"}, {"extends": "megatron-core"}),
    ):
        question = ask(model, cluster=cluster, stack=stack).question
        for part in ("model", "cluster", "stack"):
            assert mapping_of(getattr(question, part)) == mapping_of(getattr(by_name, part))
        assert question.space == by_name.space


def test_a_config_of_ones_own(tmp_path: Path) -> None:
    """A config.json of Hugging Face, named by its folder."""
    path = tmp_path / "mine" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIG))
    question = ask(str(path)).question
    assert (question.model.name, question.names["model"]) == ("mine", str(path))


def test_a_sequence_is_no_longer_than_the_learned_positions() -> None:
    """GPT-3 has 2,048 of them."""
    assert ask("gpt-3-175b").question.sequence_length == 2048


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_run_file_says_what_nothing_else_does(tmp_path: Path, suffix: str) -> None:
    """Its cluster, stack, precision, lengths, batches and GPUs; JSON that has stages is no config.json."""
    path = tmp_path / f"run{suffix}"
    path.write_text(json.dumps(RUN_FILE))
    for source in (str(path), RUN_FILE, read_candidates(RUN_FILE)[0].run):
        found = read_plan_request(source)
        question = found.question
        assert (question.cluster.name, question.stack.name) == ("DGX H200", "torchtitan (compiled)")
        assert (question.space.precision, question.sequence_length, found.gpus) == (("fp8",), 8192, (64,))
        assert [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in question.stages] == [(128, 1e12, 64)]
        assert question.assumptions == ()
    assert read_plan_request(str(path), cluster="dgx-h100").question.cluster.name == "DGX H100"


def test_a_run_with_candidates_is_its_first() -> None:
    """Where a value is a list."""
    question = read_plan_request({**RUN_FILE, "cluster": ["dgx-h200", "dgx-b200"]}).question
    assert question.cluster.name == "DGX H200"
    assert question.names["cluster"]["gpu"]["name"] == question.cluster.gpu.name


def test_a_preset_run_keeps_its_ramp() -> None:
    """Batches, tokens and GPUs of each stage; what is asked for elsewhere goes before."""
    stages = read_plan_request(RUN).question.stages
    assert [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in stages] == [
        (384, 200e9, 768),
        (768, 200e9, 1536),
        (1152, 7.6e12, 2304),
    ]
    assert read_plan_request(RUN).gpus == (2304,)
    on_fewer = read_plan_request(RUN, gpus=256)
    assert on_fewer.gpus == (256,)
    assert [stage.gpus for stage in on_fewer.question.stages] == [None] * 3
    one = read_plan_request(RUN, tokens="1T", gpus=256).question.stages
    assert [(stage.global_batch_size, stage.tokens) for stage in one] == [(1152, 1e12)]
    assert [stage.tokens for stage in read_plan_request(RUN, global_batch_size=512, gpus=256).question.stages] == [8e12]


def test_a_limit_decides_the_gpus_of_a_run() -> None:
    """Those that it had are what is asked about."""
    found = read_plan_request(RUN, deadline="14d")
    assert found.gpus == ()
    assert {stage.gpus for stage in found.question.stages} == {None}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("lama-3.1-8b", "model: 'lama-3.1-8b' is not a preset of models; did you mean llama-3.1-8b?"),
        ("runs/lapto", "'lapto' is not a preset of runs; did you mean laptop?"),
        ("nowhere/config.json", "nowhere/config.json cannot be read: no such file or directory"),
        ("nowhere.yaml", "nowhere.yaml cannot be read: no such file or directory"),
        (3, "model: 3 where the settings of a transformer model are needed"),
        (
            {"name": "x"},
            (
                "model.layers: missing; a number is needed, and so are hidden_size, attention_heads, kv_heads, head_size,"
                " ffn_hidden_size, activation, norm, vocab_size"
            ),
        ),
    ],
)
def test_no_such_model(model: Any, sentence: str) -> None:
    """Named, with what is near."""
    assert refusal(model) == sentence


def test_no_such_cluster_or_stack() -> None:
    """Named, with what is near; without a cluster, how to name one."""
    assert refusal(cluster="dgx_h100") == "cluster: 'dgx_h100' is not a preset of clusters; did you mean dgx-h100?"
    assert refusal(stack="megatron").startswith("stack: 'megatron' is not a preset of stacks; did you mean")
    assert refusal(cluster={"gpu": "h100"}).endswith("h100-pcie-80gb, h100-sxm-80gb or h100-sxm-96gb-500w?")
    assert refusal(cluster=None) == "cluster: give a cluster, as in --cluster dgx-h100 (perfmodel list clusters)"


def test_an_unknown_key() -> None:
    """A slip in Python is no question that is silently another one."""
    assert refusal(token="8T") == "token: not an argument of a plan; did you mean tokens?"  # noqa: S106 - no password


def test_everything_that_the_stack_offers() -> None:
    """In bf16, where nothing is chosen."""
    choices, stack = ask().question.space, stack_preset("megatron-core")
    assert (choices.precision, choices.sharding) == (("bf16",), stack.offers.shardings)
    assert (choices.pipeline_schedule, choices.fixed) == (stack.offers.schedules, {})


@pytest.mark.parametrize(
    ("choose", "name", "values"),
    [
        ({"precision": "fp8, BF16"}, "precision", ("fp8", "bf16")),
        ({"precision": "all"}, "precision", ("bf16", "fp16", "fp8", "tf32", "fp32")),
        ({"sharding": "all"}, "sharding", ("none", "zero1", "zero2", "zero3", "hsdp")),
        ({"sharding": ["zero3", "zero3"]}, "sharding", ("zero3",)),
        ({"recompute": None}, "recompute", ("none",)),
        ({"sequence_parallel": True}, "sequence_parallel", (True,)),
        ({"sequence_parallel": "false"}, "sequence_parallel", (False,)),
        ({"pipeline_schedule": "zb-h1"}, "pipeline_schedule", ("zb-h1",)),
        ({"tensor_parallel": 8}, "fixed", {"tensor_parallel": (8,)}),
        ({"tensor_parallel": "2,4", "micro_batch_size": [1]}, "fixed", {"tensor_parallel": (2, 4), "micro_batch_size": (1,)}),
        ({"pipeline_parallel": "1..8"}, "fixed", {"pipeline_parallel": (1, 2, 4, 8)}),
        ({"tensor_parallel": "all"}, "fixed", {}),
    ],
)
def test_some_values(choose: dict[str, Any], name: str, values: Any) -> None:
    """Words, numbers, ranges, or all that this GPU and these rules know."""
    assert getattr(ask(choose=choose).question.space, name) == values


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        ({"tensor_paralel": 8}, "tensor_paralel: not a setting that a plan chooses; did you mean tensor_parallel?"),
        ({"data_parallel": 8}, "data_parallel: not a setting that a plan chooses; "),
        ({"sharding": "fsdp"}, "sharding: 'fsdp' is not one of them; it is called zero3 here"),
        ({"sharding": "zero4"}, "sharding: 'zero4' is not one of them; did you mean zero3?"),
        ({"precision": "fp7"}, "precision: 'fp7' is not one of them; did you mean fp8?"),
        ({"recompute": "full,some"}, "recompute: 'some' is not one of them; "),
        ({"sequence_parallel": "on"}, "sequence_parallel: 'on' is not one of them; known: false, true"),
        ({"tensor_parallel": "8,"}, "tensor_parallel: '8,' has no value between two commas"),
        ({"tensor_parallel": None}, "tensor_parallel: nothing is not a count; "),
        ({"micro_batch_size": 1.5}, "micro_batch_size: 1.5 is not a whole number"),
        ("precision=fp8", "choose: 'precision=fp8' is not a mapping of settings to values"),
    ],
)
def test_no_such_value(choose: Any, problem: str) -> None:
    """Typing errors and other names are led to the right one."""
    assert refusal(choose=choose).startswith(problem)


def test_a_precision_that_the_gpu_lacks() -> None:
    """Right, but not supported; `all` leaves it out."""
    with pytest.raises(NotSupportedError, match="precision: A100 SXM 80GB has no fp8 rate; it has bf16, fp16"):
        ask(cluster="dgx-a100", choose={"precision": "fp8"})
    assert ask(cluster="dgx-a100", choose={"precision": "all"}).question.space.precision == ("bf16", "fp16", "tf32", "fp32")


def test_memory_that_is_left_free() -> None:
    """A share of what the GPU has."""
    whole = ask().question.cluster.gpu.memory_bytes
    for share in ("5%", 0.05, "0.05"):
        assert ask(leave_free=share).question.cluster.gpu.memory_bytes == pytest.approx(0.95 * whole, rel=1e-12)
    assert ask(leave_free="5%").question.assumptions[-2] == "5 % of each GPU's memory is left free"
    for share in ("5", "100%", "-1%", "some", "5GB", 1, True):
        assert refusal(leave_free=share).endswith("is not a share of the memory; write it like 5%")


def test_terms() -> None:
    """The typical ones, changed by what the run has, changed by what is given."""
    typical = economics_preset("typical")
    assert mapping_of(ask().question.terms) == mapping_of(typical)
    changed = mapping_of(ask(economics={"dollars_per_gpu_hour": 2}).question.terms)
    assert changed == mapping_of(typical) | {"dollars_per_gpu_hour": 2}
    run = {**RUN_FILE, "economics": {"dollars_per_gpu_hour": 3, "detect_s": "1min"}}
    terms = read_plan_request(run, economics={"dollars_per_gpu_hour": 4}).question.terms
    assert (terms.dollars_per_gpu_hour, terms.detect_s) == (4, 60)
    assert read_plan_request(run, economics="typical").question.terms.detect_s == typical.detect_s
    assert ask(economics=terms).question.terms is terms


@pytest.mark.parametrize(
    ("economics", "problem"),
    [
        ({"failure_per_gpu_hour": 1}, "economics.failure_per_gpu_hour: unknown key; did you mean failures_per_gpu_hour?"),
        ({"failures_per_gpu_hour": "few"}, "economics.failures_per_gpu_hour: 'few' is not a number per hour; "),
        ({"dollars_per_gpu_hour": 0}, "economics.dollars_per_gpu_hour: 0 must be greater than 0"),
        ("usual", "economics: 'usual' is not a preset of economics; "),
        (5, "economics: 5 where the settings of a economics are needed"),
    ],
)
def test_no_such_terms(economics: Any, problem: str) -> None:
    """With the path of the key."""
    assert refusal(economics=economics).startswith(problem)


def test_errors_of_input_are_of_input() -> None:
    """Exit code 2 on the command line."""
    for wanted in ({"tokens": 0}, {"deadline": "2020-01-01"}, {"gpus": 0}, {"nothing": 1}):
        with pytest.raises(InputError):
            ask(**wanted)
