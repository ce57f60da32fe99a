"""Does `perfmodel whatif` answer what people ask, in one command each?"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

ASK = ["whatif", "nemotron-4-15b"]


@pytest.fixture
def ask(run: Any) -> Any:
    """The document of a what-if with these settings, as one scenario."""

    def _ask(*arguments: str) -> Any:
        settings = [word for each in arguments for word in (("--set", each) if "=" in each else (each,))]
        document = json.loads(run(*ASK, *settings, "--json").out)
        (scenario,) = document["scenarios"]
        return document["before"], scenario, scenario["difference"]

    return _ask


def test_384_way_data_parallel_for_the_last_stage(ask: Any) -> None:
    """A third more GPUs, the same batch: faster, but by less than a third, with less MFU and more GPU-hours."""
    before, after, difference = ask("stages[-1].data_parallel=384")
    assert (before["gpus"], after["gpus"]) == (2304, 3072)
    assert before["global_batch_size"] == after["global_batch_size"]
    assert 0.75 < after["time_ratio"] < 0.95
    assert difference["mfu"] < -0.02
    assert difference["total_days"] < -1
    assert difference["gpu_hours"] > 0
    assert difference["data_parallel_exposed_s"] > 0


def test_infiniband_of_800_gigabits(ask: Any) -> None:
    """Only what data parallelism exposes changes, to less than half."""
    before, after, difference = ask("cluster.links.network.bandwidth_bytes_per_s=800Gb/s")
    assert after["data_parallel_exposed_s"] < 0.5 * before["data_parallel_exposed_s"]
    assert difference["iteration_time_s"] == pytest.approx(difference["data_parallel_exposed_s"], rel=1e-9)
    assert difference["matmul_s"] == difference["memory_bytes"] == 0
    assert difference["mfu"] > 0.05


def test_h200(ask: Any) -> None:
    """The same products, faster memory: a little faster."""
    before, after, difference = ask("cluster=dgx-h200")
    assert 0.95 < after["time_ratio"] < 1
    assert after["memory_bound_s"] < 0.8 * before["memory_bound_s"]
    assert difference["headroom_bytes"] > 50e9


def test_b200(ask: Any) -> None:
    """Faster, but nowhere near its peak: the network is the same, and the MFU is of more."""
    _, after, difference = ask("cluster=dgx-b200")
    assert 0.6 < after["time_ratio"] < 0.9
    assert difference["mfu"] < -0.1
    assert difference["data_parallel_exposed_s"] > 0


def test_tensor_parallel_4_runs_on_half_the_gpus(ask: Any) -> None:
    """Slower, cheaper, with less exposed between GPUs and twice the weights on each."""
    before, after, difference = ask("tensor_parallel=4")
    assert after["gpus"] == before["gpus"] / 2
    assert 1 < after["time_ratio"] < 2
    assert difference["tensor_parallel_exposed_s"] < 0
    assert after["parameters_bytes"] == pytest.approx(2 * before["parameters_bytes"], rel=0.01)
    assert difference["gpu_hours"] < 0


def test_tensor_parallel_4_on_the_same_gpus(ask: Any) -> None:
    """Twice the replicas."""
    before, after, _ = ask("tensor_parallel=4", "--same-gpus")
    assert after["gpus"] == before["gpus"]
    assert after["data_parallel"] == 2 * before["data_parallel"]


def test_fp8(ask: Any) -> None:
    """Products take less than two thirds of their time, casts some of it back, and the MFU is of twice the peak."""
    before, after, difference = ask("precision=fp8")
    assert 0.8 < after["time_ratio"] < 1
    assert after["matmul_s"] < 0.67 * before["matmul_s"]
    assert difference["memory_bound_s"] > 0
    assert difference["mfu"] < 0


def test_no_overlap(ask: Any) -> None:
    """All communication is exposed, and no SM is lost to it."""
    _, after, difference = ask("stack.overlap.tensor_parallel=none", "stack.overlap.data_parallel=false")
    assert 1.2 < after["time_ratio"] < 1.6
    assert difference["tensor_parallel_exposed_s"] > 0
    assert difference["data_parallel_exposed_s"] > 0
    assert difference["communication_slowdown_s"] < 0
    assert difference["matmul_s"] < 0  # in one piece each


def test_half_the_batch(ask: Any) -> None:
    """Half the micro-batches, the same synchronisation: more than half the time, and more days."""
    before, after, difference = ask("stages[*].global_batch_size=x0.5")
    assert after["global_batch_size"] == before["global_batch_size"] / 2
    assert 0.5 < after["time_ratio"] < 1
    assert difference["data_parallel_exposed_s"] == 0
    assert after["matmul_s"] == pytest.approx(before["matmul_s"] / 2, rel=1e-9)
    assert difference["total_days"] > 2


def test_what_it_costs_follows_from_a_price(ask: Any, run: Any) -> None:
    """GPU-hours of the calendar times the price; nothing is charged without one."""
    before, after, difference = ask("tensor_parallel=4")
    assert before["dollars"] is after["dollars"] is None
    assert "dollars" not in difference
    arguments = ["--base", "economics.dollars_per_gpu_hour=2.5", "--set", "tensor_parallel=4"]
    (scenario,) = json.loads(run(*ASK, *arguments, "--json").out)["scenarios"]
    assert scenario["dollars"] == pytest.approx(2.5 * after["calendar_gpu_hours"], rel=1e-12)
    assert scenario["difference"]["dollars"] == pytest.approx(2.5 * difference["calendar_gpu_hours"], rel=1e-9)
    assert scenario["difference"]["calendar_days"] > 4
    assert "cost, $" in run(*ASK, *arguments).out
    dearer = run(*ASK, "--base", "economics.dollars_per_gpu_hour=2.5", "--set", "cluster=dgx-b200").out
    assert "costs the same per GPU-hour; economics.dollars_per_gpu_hour is its price" in " ".join(dearer.split())


def test_json_has_every_number_before_and_after(run: Any) -> None:
    """And its difference; the ratio of times with its interval."""
    document = json.loads(run(*ASK, "--set", "precision=fp8", "--scenario", "TP 4: tensor_parallel=4", "--json").out)
    assert document["schema_version"] == 1
    assert (document["stage"], document["stages"], document["fits"]) == (3, 3, True)
    assert [each["name"] for each in document["scenarios"]] == ["precision=fp8", "TP 4"]
    assert [each["settings"] for each in document["scenarios"]] == [["precision=fp8"], ["tensor_parallel=4"]]
    for scenario in document["scenarios"]:
        low, high = scenario["time_ratio_interval"]
        assert low < scenario["time_ratio"] < high
        for name, difference in scenario["difference"].items():
            assert difference == scenario[name] - document["before"][name]


def test_csv_and_markdown_have_a_scenario_each(run: Any, tmp_path: Path) -> None:
    """The run before first; a file chooses its form by its ending."""
    question = [*ASK, "--set", "precision=fp8", "--scenario", "TP 4: tensor_parallel=4"]
    rows = list(csv.DictReader(io.StringIO(run(*question, "--csv").out)))
    assert [row["scenario"] for row in rows] == ["before", "precision=fp8", "TP 4"]
    document = json.loads(run(*question, "--json").out)
    assert [float(row["iteration_time_s"]) for row in rows[1:]] == [each["iteration_time_s"] for each in document["scenarios"]]
    run(*question, "-o", tmp_path / "answer.md")
    page = (tmp_path / "answer.md").read_text()
    assert "## What changes" in page
    assert "| GPUs | 2,304 | 2,304 |" in page
    assert run(*question, "--csv", "--json").code == 2


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("number", [1, 2, 4, 7])
def test_tables_fit_the_width(run: Any, columns: int, number: int) -> None:
    """However many scenarios there are; the sentences come first."""
    changes = ["precision=fp8", "cluster=dgx-b200", "tensor_parallel=4", "micro_batch_size=2", "recompute=full"]
    changes += ["stages[-1].data_parallel=384", "cluster=dgx-h200"]
    scenarios = [word for change in changes[:number] for word in ("--scenario", change)]
    done = run(*ASK, "--base", "economics.dollars_per_gpu_hour=250", *scenarios, columns=columns)
    assert done.code == 0
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns
    assert "precision=fp8: 0.559 s an iteration instead of 0.618 s" in " ".join(done.out.splitlines()[:2])
    for line in ("iteration time, ms", "matrix products", "parameters"):
        assert line in done.out


def test_what_does_not_fit_is_said_first_and_exits_with_1(run: Any) -> None:
    """Before what it would gain."""
    done = run(*ASK, "--set", "tensor_parallel=1", "--scenario", "FP8: precision=fp8")
    assert done.code == 1
    assert done.out.startswith("A does not fit in memory: needs 97.0 GiB of the GPU's 79.1 GiB.")
    document = json.loads(run(*ASK, "--set", "tensor_parallel=1", "--scenario", "FP8: precision=fp8", "--json").out)
    assert document["fits"] is False
    assert [each["fits"] for each in document["scenarios"]] == [False, True]


def test_another_number_of_gpus_is_said(run: Any) -> None:
    """With what would keep them; not of one that was asked for."""
    assert "tensor_parallel=4 runs on 1,152 GPUs, not 2,304: --same-gpus" in run(*ASK, "--set", "tensor_parallel=4").out
    for quiet in (["--set", "tensor_parallel=4", "--same-gpus"], ["--set", "stages[-1].data_parallel=384"]):
        assert "--same-gpus" not in run(*ASK, *quiet).out


def test_each_listed_value_is_a_scenario(run: Any) -> None:
    """As candidates of a run are."""
    document = json.loads(run(*ASK, "--set", "cluster=[dgx-h200,dgx-b200]", "--set", "precision=fp8", "--json").out)
    assert [each["name"] for each in document["scenarios"]] == [
        "cluster=dgx-h200, precision=fp8",
        "cluster=dgx-b200, precision=fp8",
    ]


def test_both_sides_can_be_another_run(run: Any) -> None:
    """What --base changes is before and after."""
    arguments = ["--base", "cluster=dgx-h200", "--set", "micro_batch_size=2", "--json"]
    document = json.loads(run(*ASK, *arguments).out)
    alone = json.loads(run("predict", "nemotron-4-15b", "--set", "cluster=dgx-h200", "--json").out)
    assert document["before"]["iteration_time_s"] == alone["stages"][-1]["iteration_time_s"]
    assert document["scenarios"][0]["difference"]["headroom_bytes"] < 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "nothing is changed; say what, as in --set tensor_parallel=4"),
        (["--set", "tensor_parallel=3"], 2, "tensor_parallel: 3 neither divides 8 KV heads nor is a multiple of them"),
        (["--set", "ib=800Gb/s"], 2, "ib: unknown key; did you mean cluster.links.network.bandwidth_bytes_per_s?"),
        (["--set", "cluster=h200"], 2, "cluster: 'h200' is not a preset of clusters; did you mean dgx-h200?"),
        (["--set", "precision=fp8", "--set", "cluster=dgx-a100"], 3, "precision: A100 SXM 80GB has no fp8 rate"),
        (["--set", "precision=fp8", "--scenario", "Q: cluster=h200"], 2, "Q: cluster: 'h200' is not a preset"),
        (["--scenario", "H200"], 2, "'H200' is not a scenario; write --scenario"),
        (["--scenario", "A: precision=fp8", "--scenario", "A: tensor_parallel=4"], 2, "two scenarios are called 'A'"),
        (["--scenario", "A: precision=fp8, tp"], 2, "'tp' is not a setting"),
        (["--set", "precision=fp8", "--stage", "4"], 2, "stage: Nemotron-4 15B has no stage 4: its stages are 1 to 3"),
        (["--set", "pipeline_parallel=5", "--same-gpus"], 2, "stages[0]: 768 GPUs cannot be kept"),
        (["--set", "stages[-1].data_parallel=384", "--same-gpus"], 2, "stages[-1].data_parallel: this follows from the number"),
    ],
)
def test_a_question_without_an_answer_gets_one_sentence(run: Any, arguments: list[str], code: int, sentence: str) -> None:
    """On stderr, with its exit code."""
    done = run(*ASK, *arguments)
    assert done.is_refused(code, f"perfmodel: {sentence}"), done


def test_the_questions_stand_in_the_help(run: Any) -> None:
    """A newcomer copies them."""
    text = " ".join(run("whatif", "--help").out.split())
    for example in ("stages[-1].data_parallel=384", "bandwidth_bytes_per_s=800Gb/s", "cluster=dgx-b200", "--same-gpus"):
        assert example in text
    for example in ("precision=fp8", "stack.overlap.data_parallel=false", "stages[*].global_batch_size=x0.5"):
        assert example in text
