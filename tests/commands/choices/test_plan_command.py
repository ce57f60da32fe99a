"""Does `perfmodel plan` answer a capacity planner's questions, each with one command, and say what is wrong in one sentence?"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from perfmodel.commands.choices import plan as planning

pytestmark = pytest.mark.usefixtures("known_searches")

FEW = ["--choose", "context_parallel=1", "--choose", "recompute=none"]
QUICK = ["plan", "llama-3.1-8b", "--cluster", "dgx-h100", *FEW]
CONFIG = {
    "model_type": "mistral",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 16,
    "num_hidden_layers": 8,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "hidden_act": "silu",
}


def document(run: Any, *arguments: object, code: int = 0) -> Any:
    """What a plan says."""
    outcome = run(*arguments, "--json")
    assert outcome.code == code, outcome.err
    return json.loads(outcome.out)


def said(run: Any, *arguments: object, code: int = 2) -> str:
    """The one sentence of a command that fails."""
    outcome = run(*arguments)
    assert outcome.code == code
    assert outcome.out == ""
    assert len(outcome.err.splitlines()) == 1, outcome.err
    assert outcome.err.startswith("perfmodel: ")
    return str(outcome.err)


# The questions


def test_how_many_gpus_for_a_deadline(run: Any) -> None:
    """The fewest that are done in time, and what more would do."""
    found = document(run, *QUICK, "--tokens", "1T", "--deadline", "12d")
    best = found["best"]
    assert found["best_by"]["gpus"] == best["gpus"]
    assert 0 < best["calendar_days"] == best["calendar_p50_days"] < best["calendar_p90_days"] <= 12
    assert best["deadline_probability"] >= found["confidence"] == 0.9
    assert best["budget_probability"] is None
    assert found["deadline_s"] == 12 * 86400
    assert found["least_gpus"] <= best["gpus"] < max(option["gpus"] for option in found["options"])
    one_node_fewer = document(run, *QUICK, "--tokens", "1T", "--deadline", "12d", "--gpus", best["gpus"] - 8, code=1)
    assert one_node_fewer["best"] is None
    assert not one_node_fewer["options"][0]["within_limits"]
    assert one_node_fewer["options"][0]["deadline_probability"] < 0.9
    even = document(run, *QUICK, "--tokens", "1T", "--deadline", "12d", "--confidence", "50%")
    assert even["best"]["gpus"] < best["gpus"]
    assert 0.5 <= even["best"]["deadline_probability"] < 0.9


def test_the_fastest_within_a_budget(run: Any) -> None:
    """It costs no more; fewer GPUs cost less and take longer."""
    fewer = ("--most-gpus", 2048, "--choose", "pipeline_parallel=1", "--choose", "sharding=zero1")
    found = document(run, *QUICK, "--tokens", "100B", "--budget", "$10k", "--price", "2.5", *fewer)
    assert found["best"]["dollars_p50"] == found["best"]["dollars"] < found["best"]["dollars_p90"] <= 10_000
    assert found["budget_dollars"] == 10_000
    assert found["best"]["budget_probability"] >= 0.9
    assert found["best_by"]["time"] == found["best"]["gpus"] > found["best_by"]["cost"]
    inside = [option for option in found["options"] if option["within_limits"]]
    assert [option["calendar_days"] for option in inside] == sorted((o["calendar_days"] for o in inside), reverse=True)


def test_the_best_layout_in_two_precisions(run: Any) -> None:
    """Both are looked at; the other one is an alternative, with what it costs."""
    found = document(run, *QUICK, "--gpus", 64, "--choose", "precision=bf16,fp8")
    (stage,) = found["stages"]
    assert stage["layout"]["precision"] == "fp8"
    other = [each for each in stage["alternatives"] if each["setting"] == "precision"]
    assert [(each["value"], each["fits"]) for each in other] == [("bf16", True)]
    assert other[0]["slower_by"] > 0.2
    assert other[0]["loses_most_in"] == "matmul"


@pytest.mark.slow
def test_does_it_fit_and_what_would_help(run: Any) -> None:
    """No: exit code 1, what is in the way, and on how many GPUs it fits."""
    arguments = ["plan", "llama-3.1-405b", "--cluster", "dgx-h100", "--gpus", 64, "--choose", "tensor_parallel=8"]
    found = document(run, *arguments, code=1)
    assert (found["best"], found["stages"], found["layouts_that_fit"]) == (None, [], 0)
    obstacle = found["obstacle"]
    assert obstacle["missing_bytes"] > 0
    assert obstacle["largest_part"] in {"optimizer", "parameters", "gradients", "activations"}
    more = [remedy for remedy in obstacle["remedies"] if remedy["change"] == "gpus"]
    assert 64 < more[0]["gpus"] <= 128
    outcome = run(*arguments)
    assert outcome.code == 1
    sentence = " ".join(outcome.out.split())
    assert "Llama 3.1 405B does not fit on 64 GPUs of DGX H100: " in sentence
    assert f"It fits on {more[0]['gpus']} GPUs: " in sentence


def test_only_some_values(run: Any) -> None:
    """What is chosen stays so, in every layout that is named."""
    found = document(run, *QUICK, "--gpus", "64,128", "--choose", "tensor_parallel=8")
    (stage,) = found["stages"]
    named = [stage, *stage["rivals"], *stage["front"], *(layout for option in found["options"] for layout in option["stages"])]
    assert {each["layout"]["tensor_parallel"] for each in named} == {8}
    assert not [each for each in stage["alternatives"] if each["setting"] == "tensor_parallel"]


def test_a_ramp(run: Any) -> None:
    """A layout for each stage on its own GPUs; changing them is counted."""
    found = document(run, *QUICK, "--ramp", "64:10B:32,256:50B:64,1024:1T:128")
    assert [stage["layout"]["global_batch_size"] for stage in found["stages"]] == [64, 256, 1024]
    for stage, gpus in zip(found["stages"], (32, 64, 128), strict=True):
        ranks = ("tensor_parallel", "pipeline_parallel", "context_parallel", "data_parallel")
        size = 1
        for rank in ranks:
            size *= stage["layout"][rank]
        assert size == gpus
    assert found["best"]["switches"] == 2
    assert " ".join(run(*QUICK, "--ramp", "64:10B:32,1024:1T:128").out.split()).count("Last stage: ") >= 3


@pytest.mark.parametrize("cluster", ["dgx-b200", "gb200-nvl72", "dgx-h200"])
def test_other_clusters(run: Any, cluster: str) -> None:
    """Whole nodes of 8 and of 72."""
    found = document(run, "plan", "llama-3.1-70b", "--cluster", cluster, "--gpus", 144, *FEW)
    assert found["best"]["gpus"] == 144


def test_a_config_of_ones_own(run: Any, tmp_path: Path) -> None:
    """Hugging Face's config.json; its path is in the run file, which the other commands take."""
    config, plan = tmp_path / "mine" / "config.json", tmp_path / "best.yaml"
    config.parent.mkdir()
    config.write_text(json.dumps(CONFIG))
    found = document(run, "plan", config, "--cluster", "dgx-h100", "--gpus", 16, "--run-file", plan)
    assert found["model"] == "mine"
    predicted = json.loads(run("predict", plan, "--json").out)["stages"][0]
    assert predicted["iteration_time_s"] == found["best"]["stages"][0]["iteration_time_s"]


def test_a_run_file_names_files_from_its_own_folder(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config, a cluster that extends a file and evidence, named from the folder of the plan, and used from another."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "ours.yaml").write_text("extends: dgx-h100\ncompute_scale: 0.5\n")
    (tmp_path / "evidence.yaml").write_text(
        "extends: published\nname: Runs of mine\nversion: '1'\nown_shifts: [{runs: 1, kin: mine, shift: 0.5, remaining: 1}]\n"
    )
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path)
    named = ("--cluster", "ours.yaml", "--evidence", "evidence.yaml", *FEW)
    found = document(run, "plan", "mine/config.json", *named, "--gpus", 16, "--run-file", "out/best.yaml")
    monkeypatch.chdir("/")
    predicted = json.loads(run("predict", tmp_path / "out" / "best.yaml", "--json").out)["stages"][0]
    assert predicted["iteration_time_s"] == found["best"]["stages"][0]["iteration_time_s"]
    again = document(run, "plan", tmp_path / "out" / "best.yaml", "--gpus", 16, *FEW)
    assert again["best"]["stages"][0]["iteration_time_s"] == found["best"]["stages"][0]["iteration_time_s"]


def test_a_run_stands_for_a_model(run: Any) -> None:
    """Its model, cluster, lengths, batches and GPUs."""
    found = document(run, "plan", "runs/laptop")
    assert (found["model"], found["best"]["gpus"], found["assumptions"]) == ("nemotron-21m", 1, [])


# The forms


def test_json(run: Any) -> None:
    """What every field holds, in SI units."""
    found = document(run, *QUICK, "--gpus", "32,64", "--tokens", "1T", "--price", 2)
    assert found["schema_version"] == 1
    assert (found["model"], found["cluster"], found["complete"]) == ("Llama 3.1 8B", "DGX H100", True)
    assert found["layouts"] >= found["layouts_that_fit"] > 0
    assert [option["gpus"] for option in found["options"]] == [32, 64]
    assert found["front_gpus"] == [64, 32]
    for option in found["options"]:
        assert option["gpu_hours"] == pytest.approx(24 * option["gpus"] * option["calendar_days"])
        assert option["dollars"] == pytest.approx(2 * option["gpu_hours"])
    (stage,) = found["stages"]
    low, high = stage["iteration_time_interval_s"]
    assert low < stage["iteration_time_s"] < high
    assert 0 < stage["mfu"] < 1
    assert stage["first_share"] + sum(rival["first_share"] for rival in stage["rivals"]) == pytest.approx(1)
    assert all(rival["differs"] and rival["slower_by"] >= 0 for rival in stage["rivals"])
    assert len(found["assumptions"]) == 3


def test_without_tokens_nothing_is_made_up(run: Any) -> None:
    """Neither days nor sums; the table has no columns for them."""
    (option,) = document(run, *QUICK, "--gpus", 64)["options"]
    names = ("days", "calendar_days", "gpu_hours", "dollars", "calendar_p50_days", "calendar_p90_days", "dollars_p90")
    assert {option[name] for name in (*names, "deadline_probability", "budget_probability")} == {None}
    bare = run(*QUICK, "--gpus", "32,64").out
    assert not {"days", "GPU-hours", "cost $"} & {word for word in ("days", "GPU-hours", "cost $") if word in bare}
    assert "p90" not in bare
    known = run(*QUICK, "--gpus", 64, "--tokens", "1T").out
    assert "days" in known
    assert "GPU-hours" in known


def test_csv_ranks_the_layouts_of_each_option(run: Any, tmp_path: Path) -> None:
    """Printed, or in a file by its ending."""
    arguments = [*QUICK, "--gpus", "32..128", "--tokens", "1T"]
    rows = list(csv.DictReader(io.StringIO(run(*arguments, "--csv").out)))
    assert list(dict.fromkeys(row["gpus"] for row in rows)) == ["32", "64", "128"]
    assert [row["gpus"] for row in rows if row["best"] == "True"] == ["128"]
    assert [row["rank"] for row in rows if row["days"]] == ["1"] * 3
    assert rows[0]["dollars"] == ""
    run(*arguments, "-o", tmp_path / "plan.csv")
    assert len((tmp_path / "plan.csv").read_text().splitlines()) == 1 + len(rows)
    assert run(*arguments, "--markdown").out.startswith("Llama 3.1 8B on 128 GPUs of DGX H100: ")


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_terminal(run: Any, columns: int) -> None:
    """Plain ASCII when piped, in its width; with the answer in the first line."""
    outcome = run(*QUICK, "--gpus", "32..512", "--tokens", "1T", "--price", 2, columns=columns)
    assert outcome.out.isascii()
    assert max(map(len, outcome.out.splitlines())) <= columns
    assert outcome.out.startswith("Llama 3.1 8B on 512 GPUs of DGX H100: ")
    assert outcome.err == ""


def test_numbers_that_cannot_be_are_listed(run: Any) -> None:
    """With why, beside those that can."""
    arguments = [*QUICK, "--gpus", "2,61,64", "--global-batch-size", 64, "--choose", "tensor_parallel=1"]
    table = " ".join(run(*arguments, "--choose", "pipeline_parallel=1", "--choose", "sharding=none,zero1").out.split())
    assert "2 nothing fits" in table
    assert "61 no layout can exist" in table


def test_run_files_a_stage(run: Any, tmp_path: Path) -> None:
    """Stages with layouts of their own are files of their own; where nothing fits, nothing is written."""
    path = tmp_path / "ramp.yaml"
    assert run(*QUICK, "--ramp", "8:10B:64,1024:1T:64", "--run-file", path).code == 0
    assert sorted(each.name for each in tmp_path.iterdir()) == ["ramp-1.yaml", "ramp-2.yaml"]
    for each in tmp_path.iterdir():
        assert run("predict", each, "--json").code == 0
    nothing = run(*QUICK, "--gpus", 8, "--leave-free", "99%", "--most-gpus", 8, "--run-file", tmp_path / "none.yaml")
    assert nothing.code == 1
    assert not (tmp_path / "none.yaml").exists()
    assert "was not written: no plan was found" in nothing.err


# What goes wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "gpus: give a number of GPUs, or a deadline or a budget that decides it"),
        (["--gpus", "64", "--tokens", "0"], "tokens: '0' must be greater than 0"),
        (["--tokens", "1T", "--deadline", "2020-01-01"], "deadline: 2020-01-01 is not after today"),
        (["--tokens", "1T", "--deadline", "14"], "deadline: '14' has no unit"),
        (["--tokens", "1T", "--budget", "5M"], "price: a budget needs the price of one GPU-hour"),
        (["--tokens", "1T", "--budget", "0", "--price", "2"], "budget: '0' must be greater than 0"),
        (["--deadline", "14d"], "tokens: a deadline or a budget needs the number of tokens"),
        (
            ["--gpus", "64", "--confidence", "90"],
            "confidence: '90' is not a probability between 0 and 100 %; write it like 90%",
        ),
        (["--gpus", "64", "--price", "free"], "price: 'free' is neither dollars, as in 2.5, nor a price"),
        (["--gpus", "64", "--set", "failures_per_gpu_hours=1"], "economics.failures_per_gpu_hours: unknown key; did you mean"),
        (["--gpus", "64", "--set", "failures"], "--set failures is not KEY=VALUE"),
        (["--gpus", "64", "--choose", "sharding=fsdp"], "sharding: 'fsdp' is not one of them; it is called zero3 here"),
        (["--gpus", "64", "--choose", "tensor_paralel=8"], "tensor_paralel: not a setting that a plan chooses; did you mean"),
        (["--gpus", "64", "--choose", "tensor_parallel=7"], "no layout of 64 GPUs trains Llama 3.1 8B"),
        (["--gpus", "64", "--ramp", "64:1T", "--tokens", "1T"], "ramp: a ramp has its own batches and tokens"),
        (["--gpus", "64", "--leave-free", "5GB"], "leave_free: '5GB' is not a share of the memory"),
        (["--gpus", "64", "--stack", "megatron"], "stack: 'megatron' is not a preset of stacks; did you mean"),
        (["--gpus", "64", "--json", "--csv"], "--json and --csv cannot be combined"),
        (["--gpus", "64", "-o", "nowhere/plan.json"], "nowhere/plan.json cannot be written: no such file or directory"),
    ],
)
def test_one_sentence(run: Any, arguments: list[str], sentence: str) -> None:
    """Which option, which value, what would work; exit code 2."""
    assert said(run, *QUICK, *arguments).startswith(f"perfmodel: {sentence}")


def test_no_such_model_or_cluster(run: Any) -> None:
    """The nearest one is named."""
    assert "did you mean llama-3.1-8b?" in said(run, "plan", "lama-3.1-8b", "--cluster", "dgx-h100", "--gpus", 8)
    assert "did you mean dgx-h100?" in said(run, "plan", "llama-3.1-8b", "--cluster", "dgx_h100", "--gpus", 8)
    assert "give a cluster" in said(run, "plan", "llama-3.1-8b", "--gpus", 8)


def test_a_precision_that_the_gpu_lacks(run: Any) -> None:
    """Right, but not supported: exit code 3."""
    arguments = ["plan", "llama-3.1-8b", "--cluster", "dgx-a100", "--gpus", 8, "--choose", "precision=fp8"]
    assert (
        said(run, *arguments, code=3) == "perfmodel: precision: A100 SXM 80GB has no fp8 rate; it has bf16, fp16, tf32, fp32\n"
    )


def test_nothing_keeps_the_limits(run: Any) -> None:
    """Exit code 1, with how near the nearest comes."""
    late = run(*QUICK, "--tokens", "10T", "--deadline", "2d", "--gpus", 64)
    assert (late.code, late.err) == (1, "")
    assert late.out.startswith("Nothing meets 2.0 days with 90 % odds: the best odds are under 1 %, on 64 GPUs")
    dear = run(*QUICK, "--tokens", "1T", "--budget", "500", "--price", 2)
    assert dear.code == 1
    assert dear.out.startswith("Nothing meets $500 with 90 % odds: the best odds are under 1 %, on 8 GPUs")
    assert "8 GPUs would meet $" in dear.out
    never = run(*QUICK, "--tokens", "100T", "--deadline", "1h")
    assert never.code == 1
    assert "even at the peak rate it takes" in " ".join(never.out.split())


def test_ctrl_c_shows_the_best_so_far(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130, and a plan that says that it is not all."""

    @contextmanager
    def counting() -> Iterator[Callable[[int], None]]:
        def advance(_: int) -> None:
            raise KeyboardInterrupt

        yield advance

    monkeypatch.setattr(planning, "counting", counting)
    arguments = (*QUICK, "--gpus", 40)  # which no other test searches
    outcome = run(*arguments)
    assert outcome.code == 130
    assert outcome.out.startswith("Stopped early: this is the best of what was looked at.\nLlama 3.1 8B on 40 GPUs")
    assert not document(run, *arguments, code=130)["complete"]


def test_fsdp_alone_is_planned_without_tensor_and_pipeline_parallelism(run: Any) -> None:
    """PyTorch FSDP has neither; nothing that the plan names has more than one rank of them."""
    fsdp = ("plan", "llama-3.1-8b", "--cluster", "dgx-h100", "--gpus", "64", "--stack", "pytorch-fsdp")
    named = json.dumps(document(run, *fsdp))
    for degree in ("tensor_parallel", "pipeline_parallel", "context_parallel"):
        assert set(re.findall(rf'"{degree}": (\d+)', named)) == {"1"}


def test_several_clusters_are_put_side_by_side(run: Any) -> None:
    """As JSON and CSV too; what writes one plan is refused."""
    several = ["plan", "llama-3.1-8b", "--cluster", "dgx-h100, dgx-h200", *FEW, "--gpus", "16"]
    found = document(run, *several)
    assert [row["cluster"] for row in found["clusters"]] == ["dgx-h100", "dgx-h200"]
    assert found["plans"]["dgx-h200"]["best"]["stages"][0]["iteration_time_s"] == found["clusters"][1]["iteration_time_s"]
    assert len(list(csv.DictReader(io.StringIO(run(*several, "--csv").out)))) == 2
    assert "--run-file writes one plan, and --cluster names 2 clusters" in said(run, *several, "--run-file", "best.yaml")
    assert "names a cluster twice" in said(run, "plan", "llama-3.1-8b", "--cluster", "p5,p5", "--gpus", "16")


def test_tight_plans_give_no_advice_that_was_followed(run: Any) -> None:
    """With --leave-free nobody is told to leave something free."""
    from perfmodel.exchange.questions.plan_arguments import read_plan_request

    request = read_plan_request("llama-3.1-8b", cluster="dgx-h100", gpus=16, leave_free="10%")
    assert request.question.leave_free == pytest.approx(0.1)
    found = run(*QUICK, "--gpus", "8", "--leave-free", "21.9%", "--global-batch-size", "64", "--choose", "sharding=zero1")
    assert "--leave-free 5%" not in found.out
