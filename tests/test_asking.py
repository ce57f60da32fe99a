"""Does every way to ask for a plan become the right question, or one sentence that says what would work?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perfmodel.asking import Asked, asked
from perfmodel.errors import InputError, NotSupportedError, PerfmodelError
from perfmodel.exchange.plan_texts import deadline_s
from perfmodel.exchange.presets import cluster_preset, economics_preset, model_preset, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of

MODEL = "llama-3.1-8b"
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
DAY_S = 86400.0


def ask(model: Any = MODEL, **wanted: Any) -> Asked:
    """A question of a small model on one node, where nothing else is said."""
    defaults: dict[str, Any] = {"cluster": "dgx-h100", "gpus": 8}
    return asked(model, **(defaults | wanted))


def refusal(model: Any = MODEL, **wanted: Any) -> str:
    """The sentence that a question is refused with."""
    with pytest.raises(PerfmodelError) as caught:
        ask(model, **wanted)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


# What is trained


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
        assert question.choices == by_name.choices


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
        found = asked(source)
        question = found.question
        assert (question.cluster.name, question.stack.name) == ("DGX H200", "torchtitan (compiled)")
        assert (question.choices.precision, question.sequence_length, found.gpus) == (("fp8",), 8192, (64,))
        assert [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in question.stages] == [(128, 1e12, 64)]
        assert question.assumptions == ()
    assert asked(str(path), cluster="dgx-h100").question.cluster.name == "DGX H100"


def test_a_run_with_candidates_is_its_first() -> None:
    """Where a value is a list."""
    question = asked({**RUN_FILE, "cluster": ["dgx-h200", "dgx-b200"]}).question
    assert question.cluster.name == "DGX H200"
    assert question.names["cluster"]["gpu"]["name"] == question.cluster.gpu.name


def test_a_preset_run_keeps_its_ramp() -> None:
    """Batches, tokens and GPUs of each stage; what is asked for elsewhere goes before."""
    stages = asked(RUN).question.stages
    assert [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in stages] == [
        (384, 200e9, 768),
        (768, 200e9, 1536),
        (1152, 7.6e12, 2304),
    ]
    assert asked(RUN).gpus == (2304,)
    on_fewer = asked(RUN, gpus=256)
    assert on_fewer.gpus == (256,)
    assert [stage.gpus for stage in on_fewer.question.stages] == [None] * 3
    one = asked(RUN, tokens="1T", gpus=256).question.stages
    assert [(stage.global_batch_size, stage.tokens) for stage in one] == [(1152, 1e12)]
    assert [stage.tokens for stage in asked(RUN, global_batch_size=512, gpus=256).question.stages] == [8e12]


def test_a_limit_decides_the_gpus_of_a_run() -> None:
    """Those that it had are what is asked about."""
    found = asked(RUN, deadline="14d")
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
        ({"name": "x"}, "model.layers: missing; a number is needed"),
    ],
)
def test_no_such_model(model: Any, sentence: str) -> None:
    """Named, with what is near."""
    assert refusal(model) == sentence


def test_no_such_cluster_or_stack() -> None:
    """Named, with what is near; without a cluster, how to name one."""
    assert refusal(cluster="dgx-h10") == "cluster: 'dgx-h10' is not a preset of clusters; did you mean dgx-h100?"
    assert refusal(stack="megatron").startswith("stack: 'megatron' is not a preset of stacks; did you mean")
    assert refusal(cluster={"gpu": "h100"}).startswith("cluster.gpu: 'h100' is not a preset of gpus; known: ")
    assert refusal(cluster=None) == "cluster: say on which cluster, as in --cluster dgx-h100 (perfmodel list clusters)"


def test_an_unknown_key() -> None:
    """A slip in Python is no question that is silently another one."""
    assert refusal(token="8T") == "token: a plan is not asked for it; did you mean tokens?"  # noqa: S106 - no password


# How much


@pytest.mark.parametrize(
    ("tokens", "number"), [("8T", 8e12), ("200e9", 2e11), (200e9, 2e11), ("8 T", 8e12), ("500_000", 5e5), ("1B", 1e9)]
)
def test_tokens(tokens: Any, number: float) -> None:
    """With the usual suffixes."""
    assert ask(tokens=tokens).question.stages[0].tokens == number


@pytest.mark.parametrize("tokens", ["0", 0, "-1", -5, "8TB", "8Tb", "nan", "1e400", "", "many", True, "8,000"])
def test_no_tokens(tokens: Any) -> None:
    """Nothing, less than nothing, bytes and bits are none."""
    assert refusal(tokens=tokens).startswith("tokens: ")


@pytest.mark.parametrize("key", ["global_batch_size", "sequence_length"])
def test_whole_numbers(key: str) -> None:
    """Sizes are whole, above nothing, and no slip of the hand."""
    assert refusal(**{key: "1.5"}) == f"{key}: '1.5' is not a whole number"
    assert refusal(**{key: 0}) == f"{key}: 0 must be greater than 0"
    assert refusal(**{key: "8T"}) == f"{key}: '8T' must be at most 10,000,000"
    assert refusal(**{key: "many"}).startswith(f"{key}: 'many' is not a count")


@pytest.mark.parametrize(("nodes", "batch"), [(21, 1008), (384, 1152), (4096, 1024), (128, 1024), (1, 1024)])
def test_a_batch_of_nobodys_wish_suits_the_nodes(nodes: int, batch: int) -> None:
    """Near 4M tokens, a multiple of the nodes or of a part of them; one that is asked for stays."""
    free = ask(gpus=8 * nodes).question.workloads(8 * nodes)[0]
    assert free.global_batch_size == batch
    assert ask(gpus=8 * nodes, global_batch_size=1000).question.workloads(8 * nodes)[0].global_batch_size == 1000


def test_one_long_sequence() -> None:
    """A batch is at least one."""
    question = ask(sequence_length=10_000_000).question
    assert question.stages[0].global_batch_size == 1
    assert "about 4M tokens (one sequence)" in question.assumptions[-1]


# How many GPUs


@pytest.mark.parametrize(
    ("gpus", "numbers"),
    [
        (64, (64,)),
        ("64", (64,)),
        ("1024, 256", (256, 1024)),
        ([64, "128", 64], (64, 128)),
        ("512..3000", (512, 1024, 2048, 3000)),
        ("512..4096x4", (512, 1024, 2048, 4096)),
        ("100..1000x3", (100, 320, 1000)),
    ],
)
def test_numbers_of_gpus(gpus: Any, numbers: tuple[int, ...]) -> None:
    """One, several, a range; each once, rising, between the ends in whole nodes."""
    assert ask(gpus=gpus).gpus == numbers


@pytest.mark.parametrize(
    ("gpus", "problem"),
    [
        ("0", "'0' must be greater than 0"),
        (-8, "-8 must be greater than 0"),
        (1.5, "1.5 is not a whole number"),
        ("1e12", "'1e12' must be at most 10,000,000"),
        ("64,", "'64,' has no value between two commas"),
        ("512..64", "512..64 does not rise from above 0; write the smaller number first"),
        ("many", "'many' is not a count; write it like 4096, 200e9 or 8T"),
        ([None], "nothing is not a count; write it like 4096, 200e9 or 8T"),
    ],
)
def test_no_numbers_of_gpus(gpus: Any, problem: str) -> None:
    """One sentence."""
    assert refusal(gpus=gpus) == f"gpus: {problem}"


def test_nothing_says_how_many() -> None:
    """Three ways to say it are offered."""
    ways = "--gpus 1024, --deadline 14d, --budget 5M"
    assert refusal(gpus=None) == f"gpus: say how many GPUs, or a deadline or a budget that decides: {ways}"


@pytest.mark.parametrize(("deadline", "seconds"), [("14d", 14 * DAY_S), ("36h", 1.5 * DAY_S), (86400, DAY_S), ("90 min", 5400)])
def test_a_time_from_now_on(deadline: Any, seconds: float) -> None:
    """With its unit; a number from Python is in seconds."""
    found = ask(gpus=None, tokens="1T", deadline=deadline)
    assert (found.question.deadline_s, found.gpus) == (seconds, ())


def test_a_day_is_a_deadline() -> None:
    """As text, as a date and as a date with a time: the days until it begins."""
    day = datetime.now(tz=UTC) + timedelta(days=20)
    for value in (day.date().isoformat(), day.date(), day):
        assert deadline_s(value) == pytest.approx(20 * DAY_S, abs=DAY_S)  # midnight may pass meanwhile


@pytest.mark.parametrize(
    ("deadline", "problem"),
    [
        ("2020-01-01", "2020-01-01 is not after today"),
        ("2027-02-30", "'2027-02-30' is no day of the calendar"),
        ("2027-13-01", "'2027-13-01' is no day of the calendar"),
        ("0d", "'0d' must be greater than 0"),
        ("-3d", "'-3d' must be greater than 0"),
        ("14", "'14' has no unit; write a time from now on such as 14d or 36h, or a day such as 2027-03-01"),
        ("14 days", "'14 days' is not a deadline; write a time from now on such as 14d or 36h, or a day"),
        ("tomorrow", "'tomorrow' is not a deadline; "),
        ("", "'' is not a deadline; "),
        (True, "true is not a deadline; "),
    ],
)
def test_no_deadline(deadline: Any, problem: str) -> None:
    """Days that are over or do not exist, and times that could be anything."""
    assert refusal(gpus=None, tokens="1T", deadline=deadline).startswith(f"deadline: {problem}")


@pytest.mark.parametrize("budget", ["5M", "$5M", 5e6, "5000k"])
def test_a_budget(budget: Any) -> None:
    """In dollars, with or without their sign."""
    terms = {"dollars_per_gpu_hour": "$2.5"}
    question = ask(gpus=None, tokens="1T", budget=budget, economics=terms).question
    assert (question.budget_dollars, question.terms.dollars_per_gpu_hour) == (5e6, 2.5)


def test_no_budget() -> None:
    """Nothing, words, and one without a price or without tokens."""
    terms = {"dollars_per_gpu_hour": 2.5}
    assert refusal(budget="0", tokens="1T", economics=terms) == "budget: '0' must be greater than 0"
    assert refusal(budget="5 million", tokens="1T", economics=terms).startswith("budget: '5 million' is not a sum of dollars; ")
    assert refusal(budget="5M", tokens="1T") == "price: a budget needs a price: --price 2.5 dollars per GPU-hour"
    for limit in ({"budget": "5M", "economics": terms}, {"deadline": "14d"}):
        assert refusal(**limit) == "tokens: a deadline or a budget needs to know how long it trains: --tokens 8T"


# The ramp


def test_a_ramp() -> None:
    """Batch, tokens and perhaps GPUs of each stage; as one text or as several."""
    for ramp in ("384:200B:768, 1152:7.6T:2304", ["384:200B:768", "1152:7.6T:2304"]):
        found = ask(gpus=None, ramp=ramp)
        stages = [(stage.global_batch_size, stage.tokens, stage.gpus) for stage in found.question.stages]
        assert stages == [(384, 200e9, 768), (1152, 7.6e12, 2304)]
        assert found.gpus == (2304,)
    some = ask(gpus=512, ramp="384:200B:256,768:1T")
    assert [stage.gpus for stage in some.question.stages] == [256, None]
    assert [work.gpus for work in some.question.workloads(512)] == [256, 512]


@pytest.mark.parametrize(
    ("ramp", "problem"),
    [
        ("384", "ramp: '384' is not a stage; write batch:tokens or batch:tokens:gpus"),
        ("384:1T:8:8", "ramp: '384:1T:8:8' is not a stage; "),
        ("384:1T,", "ramp: '' is not a stage; "),
        (384, "ramp: 384 is not a stage; "),
        ("a:1T", "ramp.batch: 'a' is not a count; "),
        ("384:0", "ramp.tokens: '0' must be greater than 0"),
        ("384:200Gb", "ramp.tokens: '200Gb' is not a count; "),
        ("1.5:1T", "ramp.batch: '1.5' is not a whole number"),
        ("384:1T:0", "ramp.gpus: '0' must be greater than 0"),
    ],
)
def test_no_ramp(ramp: Any, problem: str) -> None:
    """Which piece of which stage is wrong."""
    assert refusal(ramp=ramp).startswith(problem)


def test_a_ramp_contradicts() -> None:
    """Two answers to one question: tokens, batches, or GPUs."""
    ramp = "ramp: a ramp has its own batches and tokens; leave out --tokens and --global-batch-size"
    assert refusal(ramp="384:1T", tokens="1T") == refusal(ramp="384:1T", global_batch_size=8) == ramp
    twice = "gpus: every stage of the ramp has its own GPUs; leave out one of the two"
    assert refusal(ramp="384:1T:8", gpus=16) == twice
    some = "gpus: some stages of the ramp have no number of GPUs: --gpus 1024 gives it to them"
    assert refusal(ramp="384:1T:8,768:1T", gpus=None, deadline="9d") == some


# What may be chosen, and the terms


def test_everything_that_the_stack_offers() -> None:
    """In bf16, where nothing is chosen."""
    choices, stack = ask().question.choices, stack_preset("megatron-core")
    assert (choices.precision, choices.sharding) == (("bf16",), stack.offered_shardings)
    assert (choices.pipeline_schedule, choices.fixed) == (stack.offered_schedules, {})


@pytest.mark.parametrize(
    ("choose", "name", "values"),
    [
        ({"precision": "fp8, BF16"}, "precision", ("fp8", "bf16")),
        ({"precision": "all"}, "precision", ("bf16", "fp16", "fp8")),
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
    assert getattr(ask(choose=choose).question.choices, name) == values


@pytest.mark.parametrize(
    ("choose", "problem"),
    [
        ({"tensor_paralel": 8}, "tensor_paralel: a plan does not choose it; did you mean tensor_parallel?"),
        ({"data_parallel": 8}, "data_parallel: a plan does not choose it; "),
        ({"sharding": "fsdp"}, "sharding: 'fsdp' is not one of them; it is called zero3 here"),
        ({"sharding": "zero4"}, "sharding: 'zero4' is not one of them; did you mean zero3?"),
        ({"precision": "fp7"}, "precision: 'fp7' is not one of them; did you mean fp8?"),
        ({"recompute": "full,some"}, "recompute: 'some' is not one of them; "),
        ({"sequence_parallel": "on"}, "sequence_parallel: 'on' is not one of them; known: false, true"),
        ({"tensor_parallel": "8,"}, "tensor_parallel: '8,' has no value between two commas"),
        ({"tensor_parallel": None}, "tensor_parallel: nothing is not a count; "),
        ({"micro_batch_size": 1.5}, "micro_batch_size: 1.5 is not a whole number"),
        ("precision=fp8", "choose: 'precision=fp8' where settings and their values are needed"),
    ],
)
def test_no_such_value(choose: Any, problem: str) -> None:
    """Typing errors and other names are led to the right one."""
    assert refusal(choose=choose).startswith(problem)


def test_a_precision_that_the_gpu_lacks() -> None:
    """Right, but not supported; `all` leaves it out."""
    with pytest.raises(NotSupportedError, match="precision: A100 SXM 80GB has no fp8 rate; it has bf16, fp16"):
        ask(cluster="dgx-a100", choose={"precision": "fp8"})
    assert ask(cluster="dgx-a100", choose={"precision": "all"}).question.choices.precision == ("bf16", "fp16")


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
    terms = asked(run, economics={"dollars_per_gpu_hour": 4}).question.terms
    assert (terms.dollars_per_gpu_hour, terms.detect_s) == (4, 60)
    assert asked(run, economics="typical").question.terms.detect_s == typical.detect_s
    assert ask(economics=terms).question.terms is terms


@pytest.mark.parametrize(
    ("economics", "problem"),
    [
        ({"failure_per_gpu_hour": 1}, "economics.failure_per_gpu_hour: unknown key; did you mean failures_per_gpu_hour?"),
        ({"failures_per_gpu_hour": "few"}, "economics.failures_per_gpu_hour: 'few' is not a number an hour; "),
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
