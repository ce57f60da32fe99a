"""Does the first answer of `predict` say what a setting changed beside what was asked, in the headline and in JSON?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RUN = ["predict", "nemotron-4-15b"]


def headline(run: Any, *settings: str) -> str:
    """What stands above the description of the run, in one line."""
    words = [word for setting in settings for word in ("--set", setting)]
    return " ".join(run(*RUN, *words).out.partition("DGX H100, ")[0].split())


def test_other_gpus_than_were_asked_for_stand_in_the_headline(run: Any) -> None:
    """A pipeline of three stages asks for three times as many, and deals its layers out unevenly."""
    said = headline(run, "pipeline_parallel=3")
    assert "Note: pipeline_parallel made 2,304 GPUs of 768 in stage 1" in said
    assert "Note: 32 layers do not divide over 3 pieces of a pipeline" in said
    assert "Note: published figures are of other settings, and are left out." in said


def test_they_stand_there_alone(run: Any) -> None:
    """Not a second time among the assumptions; in JSON both, and by themselves."""
    printed = " ".join(run(*RUN, "--set", "tensor_parallel=4").out.split())
    assert printed.count("made 384 GPUs of 768") == 1
    document = json.loads(run(*RUN, "--set", "tensor_parallel=4", "--json").out)
    assert len(document["consequences"]) == 2
    assert set(document["consequences"]) <= set(document["stages"][0]["assumptions"])
    assert json.loads(run(*RUN, "--json").out)["consequences"] == []


def test_an_mfu_above_every_published_one_stands_there_too(run: Any) -> None:
    """Nobody reads the last line first."""
    assert "is above the" in headline(run, "sequence_length=131072")


@pytest.mark.parametrize(
    "setting",
    ["precision=bf16", "tensor_parallel=8", "cluster=dgx-h100", "stages[0].tokens=2e11", "micro_batch_size=1", "name=mine"],
)
def test_published_figures_stay_when_a_value_did_not_change(run: Any, setting: str) -> None:
    """What is set to what it was is still the run that was published."""
    done = run(*RUN, "--set", setting).out
    assert "13.1 published" in done
    assert "Predicted beside published" in done


@pytest.mark.parametrize("setting", ["precision=fp8", "stages[0].tokens=1e11", "cluster.network_scale=0.9", "cluster=dgx-h200"])
def test_they_go_when_it_did(run: Any, setting: str) -> None:
    """And it is said."""
    said = headline(run, setting) if "h200" not in setting else " ".join(run(*RUN, "--set", setting).out.split())
    assert "published figures are of other settings" in said
    assert "13.1 published" not in said


def test_both_conventions_of_flops_are_in_json(run: Any) -> None:
    """Half of attention less; the table shows the one that is asked for."""
    (*_, last) = json.loads(run(*RUN, "--json").out)["stages"]
    share = last["model_flop_per_token_causal"] / last["model_flop_per_token"]
    assert 0.9 < share < 1
    assert last["mfu_causal"] == pytest.approx(last["mfu"] * share, rel=1e-12)
    rate = last["model_flop_per_token"] * last["tokens_per_s_per_gpu"]
    assert last["flop_per_s_per_gpu"] == pytest.approx(rate, rel=1e-9)
    assert last["flop_per_s_per_gpu_causal"] == pytest.approx(rate * share, rel=1e-9)
    causal = run(*RUN, "--flops-convention", "causal").out
    assert f"MFU {100 * last['mfu_causal']:.1f} %" in " ".join(causal.split())
    assert f" {100 * last['mfu_causal']:.1f} " in causal.partition("Stages")[2]
    refused = run(*RUN, "--flops-convention", "half")
    assert refused.is_refused(2, "half is no convention of FLOPs; known: causal, full")


def test_errors_are_json_where_json_is_asked_for(run: Any) -> None:
    """On standard output for programs, the sentence on standard error for people."""
    done = run(*RUN, "--set", "tensor_parallel=3", "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["exit_code"], error["kind"], error["key"]) == (2, 2, "InputError", "tensor_parallel")
    assert done.err == f"perfmodel: {error['message']}\n"
    assert run(*RUN, "--set", "tensor_parallel=3").out == ""
    usage = run(*RUN, "--bogus", "--json")
    told = json.loads(usage.out)["error"]
    assert (usage.code, told["kind"], told["exit_code"]) == (2, "UsageError", 2)
    assert told["message"].startswith("No such option: --bogus")


def test_a_run_is_read_from_standard_input(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run file, with what is given beside it; what is none is one sentence."""
    import io
    import sys

    text = "{model: llama-3.1-8b, stack: torchtitan, sharding: zero3, sequence_length: 8192, stages: [{global_batch_size: 64}]}"
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    found = json.loads(run("predict", "-", "--cluster", "dgx-h100", "--gpus", "16", "--json").out)
    assert (found["name"], found["stages"][0]["gpus"]) == ("standard input", 16)
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello"))
    assert run("predict", "-").is_refused(2, "standard input holds text where it needs a run file")


def test_colours_can_be_forced_into_a_pipe(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """FORCE_COLOR does, NO_COLOR is stronger."""
    assert "\x1b[" not in run(*RUN).out
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m" in run(*RUN).out
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in run(*RUN).out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("predict", "llama-3.1-8b", "--tp"), "--tp is --set tensor_parallel=N here"),
        (("predict", "llama-3.1-8b", "--nodes", "4"), "--nodes is --gpus N here"),
        (
            ("predict", "llama-3.1-8b", "--deadline", "14d"),
            "--deadline is perfmodel plan MODEL --cluster C --tokens N --deadline 14d here",
        ),
        (("infer", "llama-3.1-8b"), "name a GPU, as in --gpu h100-sxm-80gb (perfmodel list gpus)"),
        (("validate", "--gpu", "h100"), "--gpu is --full (which scores every GPU, stack and precision) here"),
        (("infer", "llama-3.1-8b", "--tp"), "--tp is --tensor-parallel N here"),
    ],
)
def test_options_that_are_called_otherwise_are_named(run: Any, arguments: tuple[str, ...], hint: str) -> None:
    """In a line of its own for people, in the message for programs."""
    assert run(*arguments).err.endswith(f"perfmodel: {hint}\n")
    assert json.loads(run(*arguments, "--json").out)["error"]["message"].endswith(f"; {hint}")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (("predict", "nemotron-4-15b", "--tp", "4"), ("--set", "tensor_parallel=4")),
        (("explain", "nemotron-4-15b", "--seq-len=8192"), ("--set", "sequence_length=8192")),
        (("predict", "nemotron-4-15b", "--batch-size", "1152"), ("--set", "stages[*].global_batch_size=1152")),
        (("predict", "nemotron-4-15b", "--fp8"), ("--set", "precision=fp8")),
        (("predict", "nemotron-4-15b", "--price", "2.5"), ("--set", "economics.dollars_per_gpu_hour=2.5")),
        (("whatif", "nemotron-4-15b", "--precision", "fp8"), ("--set", "precision=fp8")),
        (("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "8", "--tp", "2"), ("--choose", "tensor_parallel=2")),
        (
            ("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "8", "--precision", "fp8"),
            ("--choose", "precision=fp8"),
        ),
        (("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "8", "--gbs", "64"), ("--global-batch-size", "64")),
        (("infer", "llama-3.1-8b", "--gpu", "b200", "--price", "3"), ("--dollars-per-gpu-hour", "3")),
    ],
)
def test_options_by_other_words_are_taken_for_what_they_mean(run: Any, typed: tuple[str, ...], meant: tuple[str, ...]) -> None:
    """The answer is that of the option by its own name."""
    asked = typed[: max(place for place, word in enumerate(typed) if word.startswith("--"))]
    one, other = run(*typed, "--json"), run(*asked, *meant, "--json")
    assert one.code == other.code == 0
    assert json.loads(one.out) == json.loads(other.out)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("memory", "perfmodel predict RUN says that"),
        ("serve", "perfmodel infer MODEL --gpu GPU says that"),
        ("llama-3.1-8b", "perfmodel predict llama-3.1-8b predicts it"),
    ],
)
def test_where_a_command_is_expected_others_are_told_which(run: Any, word: str, hint: str) -> None:
    """People name what they ask about, or the thing they want to know."""
    assert run(word).err.endswith(f"perfmodel: {hint}\n")
    assert "perfmodel: " not in run("bogus").err


def test_a_model_says_what_follows_from_it(run: Any, tmp_path: Path) -> None:
    """Parameters and FLOPs a token above its settings, of a preset and of a file alike."""
    said = " ".join(run("show", "llama-3.1-8b").out.split())
    assert "8.030B parameters; 51.47 GFLOP of model FLOPs a token in training" in said
    assert said.index("8.030B parameters") < said.index("hidden_size")
    counted = json.loads(run("show", "deepseek-v3", "--json").out)["counted"]["models/deepseek-v3"]
    assert counted["parameters"] == pytest.approx(671e9, rel=1e-3)
    file = tmp_path / "config.json"
    config = {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32}
    file.write_text(json.dumps(config | {"num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 32768}))
    assert "7.248B parameters" in run("show", file).out
    assert json.loads(run("show", "dgx-h100", "--json").out)["counted"] == {}


def test_a_server_that_does_not_fit_says_what_would(run: Any) -> None:
    """The sentence ends with options that then fit."""
    done = run("infer", "llama-3.1-70b", "--gpu", "h100-sxm-80gb")
    assert "It fits with --gpus 2, or with --precision int4." in " ".join(done.out.split())
    assert run("infer", "llama-3.1-70b", "--gpu", "h100-sxm-80gb", "--gpus", "2").code == 0


def test_settings_of_runs_are_not_offered_where_there_is_no_run(run: Any) -> None:
    """Servers, tables and lists have no keys of a run."""
    for command in (("validate",), ("list",), ("infer", "llama-3.1-8b", "--gpu", "h100-sxm-80gb")):
        assert "--set" not in run(*command, "--pipeline-parallel", "4").err.splitlines()[-1]


def test_a_server_that_nothing_helps_says_so(run: Any) -> None:
    """On one GPU too, whatever its weights are in already."""
    done = run("infer", "deepseek-v3", "--gpu", "rtx-4090", "--precision", "int4")
    assert "Neither more GPUs of a node nor narrower weights would make it fit." in " ".join(done.out.split())
