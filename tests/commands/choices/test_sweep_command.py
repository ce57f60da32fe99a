"""Does `perfmodel sweep` give every point, drop none silently, and name the scaling?"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfmodel.exchange.questions import varied_runs
from perfmodel.variation.points import NOT_REACHED, outcomes

SWEEP = ["sweep", "nemotron-4-15b"]
GPUS = ["--vary", "gpus=96..3072"]


def document(run: Any, *arguments: object) -> Any:
    """What a sweep says."""
    return json.loads(run(*SWEEP, *arguments, "--json").out)


def test_a_swept_row_is_the_single_prediction(run: Any) -> None:
    """Numbers as arrays, clusters one by one: each to the last bit what `predict` says."""
    swept = document(run, "--vary", "tensor_parallel=2..8", "--vary", "cluster=dgx-h100,dgx-b200", "--grow-gpus")
    assert [axis["labels"] for axis in swept["axes"]] == [["2", "4", "8"], ["dgx-h100", "dgx-b200"]]
    assert len(swept["points"]) == 6
    for point in swept["points"]:
        settings = [f"tensor_parallel={point['tensor_parallel']}", f"cluster={point['cluster']}"]
        options = [word for setting in settings for word in ("--set", setting)]
        single = json.loads(run("predict", "nemotron-4-15b", *options, "--json").out)["stages"][-1]
        assert point["iteration_time_s"] == single["iteration_time_s"]
        assert [point["iteration_time_low_s"], point["iteration_time_high_s"]] == single["iteration_time_interval_s"]
        assert (point["mfu"], point["days"], point["gpus"]) == (single["mfu"], single["days"], single["gpus"])
        assert point["memory_bytes"] == single["memory"]["total_bytes"]
        assert {f"{part}_s": seconds for part, seconds in single["breakdown_s"].items()}.items() <= point.items()


def test_strong_scaling_keeps_the_batch(run: Any) -> None:
    """Speed-up grows, efficiency falls from 1, and never is there more than the ideal."""
    swept = document(run, *GPUS)
    assert swept["scaling"] == {"kind": "strong", "axis": "gpus"}
    assert {point["global_batch_size"] for point in swept["points"]} == {1152}
    efficiency = [point["efficiency"] for point in swept["points"]]
    assert efficiency[0] == 1
    assert efficiency == sorted(efficiency, reverse=True)
    for point in swept["points"]:
        assert point["speed_up"] == pytest.approx(point["efficiency"] * point["gpus"] / 96, rel=1e-12)


def test_weak_scaling_grows_it(run: Any) -> None:
    """The sequences of a replica stay, and the efficiency is better than that of strong scaling."""
    weak, strong = document(run, *GPUS, "--weak"), document(run, *GPUS)
    assert weak["scaling"]["kind"] == "weak"
    assert {point["global_batch_size"] / point["data_parallel"] for point in weak["points"]} == {4}
    assert weak["points"][-1]["efficiency"] > strong["points"][-1]["efficiency"]


def test_refused_points_are_listed_with_the_reason(run: Any) -> None:
    """In the table, in JSON and in CSV."""
    arguments = ["--vary", "tensor_parallel=3,4", "--vary", "micro_batch_size=1,3", "--grow-gpus"]
    points = document(run, *arguments)["points"]
    assert [bool(point["refusal"]) for point in points] == [True, True, False, True]
    assert points[0]["refusal"].startswith("tensor_parallel: 3 neither divides 8 KV heads")
    assert points[0]["iteration_time_s"] is None
    table = " ".join(run(*SWEEP, *arguments).out.split())
    assert "1 of 4 points can be run" in table
    assert "TP 3, micro-batch 1 and 1 more tensor_parallel: 3 neither divides 8 KV heads" in table
    assert "TP 4, micro-batch 3 micro_batch_size: 3 does not divide the 4 sequences" in table
    rows = list(csv.DictReader(io.StringIO(run(*SWEEP, *arguments, "--csv").out)))
    assert [bool(row["refusal"]) for row in rows] == [True, True, False, True]


def test_csv_has_the_numbers_of_json(run: Any, tmp_path: Path) -> None:
    """Printed, or in a file by its ending."""
    printed = run(*SWEEP, *GPUS, "--csv").out
    assert run(*SWEEP, *GPUS, "-o", tmp_path / "scaling.csv").out == ""
    assert (tmp_path / "scaling.csv").read_text() == printed
    for row, point in zip(csv.DictReader(io.StringIO(printed)), document(run, *GPUS)["points"], strict=True):
        assert list(row) == list(point)
        assert float(row["iteration_time_s"]) == point["iteration_time_s"]


def test_markdown_has_the_tables(run: Any) -> None:
    """Points, and the curve."""
    page = run(*SWEEP, *GPUS, "--markdown").out
    assert "## Points" in page
    assert "## Strong scaling: the global batch stays 1,152 sequences" in page
    assert "| GPUs | tokens/s | ideal | speed-up | efficiency |" in page


def test_several_runs_are_an_axis(run: Any, tmp_path: Path) -> None:
    """Each as it is, and with one axis more."""
    path = tmp_path / "wide.yaml"
    path.write_text(
        "{model: nemotron-4-15b, cluster: dgx-h100, stack: megatron-core, tensor_parallel: 8, sequence_length: 4096,"
        " stages: [{data_parallel: 384, global_batch_size: 1536, tokens: 1T}]}"
    )
    swept = json.loads(run("sweep", "nemotron-4-15b", path, "--json").out)
    assert [point["run"] for point in swept["points"]] == ["nemotron-4-15b", str(path)]
    assert [point["gpus"] for point in swept["points"]] == [2304, 3072]
    assert swept["scaling"]["kind"] == "weak"
    both = json.loads(run("sweep", "nemotron-4-15b", path, "--vary", "micro_batch_size=1,2", "--json").out)
    assert [(point["run"], point["micro_batch_size"]) for point in both["points"]][1:3] == [
        ("nemotron-4-15b", 2),
        (str(path), 1),
    ]
    assert json.loads(run("sweep", "nemotron-4-15b", "laptop", "--json").out)["scaling"] is None


def test_costs_are_those_of_the_outlook_of_a_run(run: Any) -> None:
    """Of a run of one stage, bit by bit but for rounding; a price may be varied as anything else."""
    stage = "stages=[{data_parallel: 288, global_batch_size: 1152, tokens: 1T}]"
    swept = document(
        run, "--set", stage, "--vary", "economics.dollars_per_gpu_hour=2,3", "--vary", "tensor_parallel=4,8", "--grow-gpus"
    )
    for point in swept["points"]:
        price = f"economics.dollars_per_gpu_hour={point['economics.dollars_per_gpu_hour']}"
        settings = ["--base", stage, "--set", price, "--set", f"tensor_parallel={point['tensor_parallel']}"]
        (single,) = json.loads(run("whatif", "nemotron-4-15b", *settings, "--json").out)["scenarios"]
        for name in ("dollars", "calendar_days", "calendar_gpu_hours"):
            assert point[name] == pytest.approx(single[name], rel=1e-12)
    table = run(*SWEEP, "--set", stage, "--vary", "economics.dollars_per_gpu_hour=2,3").out
    assert "Cheapest: economics.dollars_per_gpu_hour 2, $" in table


def test_settings_hold_for_every_point_and_factors_for_each(run: Any) -> None:
    """--set comes before what is varied."""
    swept = document(run, "--set", "cluster=dgx-h200", "--vary", "stages[-1].global_batch_size=x1,x2")
    assert [point["global_batch_size"] for point in swept["points"]] == [1152, 2304]
    single = json.loads(run("predict", "nemotron-4-15b", "--set", "cluster=dgx-h200", "--json").out)["stages"][-1]
    assert swept["points"][0]["iteration_time_s"] == single["iteration_time_s"]


def test_listed_values_are_taken_as_the_first_and_said(run: Any) -> None:
    """Unless they are what is varied; the same before and after a change."""
    listed = ["--set", "micro_batch_size=[2,4]"]
    swept = document(run, *listed, "--vary", "tensor_parallel=4,8", "--grow-gpus")
    assert {point["micro_batch_size"] for point in swept["points"]} == {2}
    assert swept["taken"] == ["micro_batch_size lists several values: the first, 2, is taken"]
    assert document(run, *listed, "--vary", "micro_batch_size=1,4")["taken"] == []
    asked = json.loads(run("whatif", *SWEEP[1:], "--base", listed[1], "--set", "precision=fp8", "--json").out)
    assert asked["taken"] == swept["taken"]
    assert [each["micro_batch_size"] for each in (asked["before"], *asked["scenarios"])] == [2, 2]
    assert "the first, 2, is taken" in run(*SWEEP, *listed, "--vary", "tensor_parallel=4,8").out


def test_the_stage_that_is_swept_can_be_chosen(run: Any) -> None:
    """The last without."""
    assert document(run, "--vary", "tensor_parallel=8", "--stage", 1)["points"][0]["gpus"] == 768
    assert document(run, "--vary", "tensor_parallel=8")["points"][0]["gpus"] == 2304


def test_what_does_not_fit_is_no_measure_of_scaling(run: Any) -> None:
    """The first that fits is; a sweep in which nothing fits exits with 1."""
    points = document(run, "--vary", "tensor_parallel=1..4", "--grow-gpus")["points"]
    assert [point["fits"] for point in points] == [False, True, True]
    assert [point["efficiency"] for point in points][:2] == [None, 1]
    done = run(*SWEEP, "--vary", "tensor_parallel=1,3", "--grow-gpus")
    assert done.code == 1
    assert done.out.startswith("Nemotron-4 15B, stage 3 of 3: none of 2 points can be run.")
    assert run(*SWEEP, "--vary", "tensor_parallel=1..4").code == 0


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize(
    "arguments",
    [
        GPUS,
        [*GPUS, "--vary", "cluster=dgx-h100,dgx-h200,dgx-b200"],
        [*GPUS, "--vary", "stack=megatron-core-2025,torchtitan-async-tp", "--weak"],
        ["--vary", "tensor_parallel=1,3,8", "--vary", "micro_batch_size=1,2,3"],
        ["--vary", "cluster.links.network.bandwidth_bytes_per_s=100..800Gb/s"],
    ],
)
def test_tables_fit_the_width(run: Any, columns: int, arguments: list[str]) -> None:
    """Whatever is varied."""
    done = run(*SWEEP, *arguments, columns=columns)
    assert done.code == 0
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing is varied; give an axis, as in --vary tensor_parallel=1,2,4,8"),
        (["--vary", "tensor_parallel"], "'tensor_parallel' is not an axis; write --vary key=a,b,c or key=lo..hi"),
        (["--vary", "tensor_parallel="], "tensor_parallel: no values to sweep"),
        (["--vary", "tensor_parallel=8..1"], "tensor_parallel: 8..1 is not a range of numbers above 0"),
        (["--vary", "tensor_parallel=0,1"], "tensor_parallel: 0 must be at least 1"),
        (["--vary", "tp=1,2"], "tp: unknown key; did you mean tensor_parallel?"),
        (["--vary", "tensor_parallel=1", "--vary", "tensor_parallel=2"], "tensor_parallel: varied twice"),
        (
            ["--vary", "gpus=8,16", "--vary", "data_parallel=1,2"],
            "gpus and data_parallel set the same number; leave out one of them",
        ),
        (
            ["--vary", "tensor_parallel=1", "--vary", "micro_batch_size=1", "--vary", "precision=bf16"],
            "3 axes are given; a sweep has one or two",
        ),
        (["--vary", "data_parallel=1..1000x999", "--vary", "sequence_length=1..999x999"], "points; at most 10,000 are swept"),
        (["--vary", "tensor_parallel=1,2", "--weak"], "weak scaling needs an axis gpus=.."),
        ([*GPUS, "--vary", "global_batch_size=1152", "--weak"], "global_batch_size: weak scaling sets this number"),
        (["--vary", "stages[0].data_parallel=96"], "stages[0].data_parallel: stage 3 is swept; choose another with --stage N"),
        (["--vary", "tensor_parallel=1", "--stage", "4"], "stage: Nemotron-4 15B has no stage 4: its stages are 1 to 3"),
        (["--vary", "cluster=h200"], "cluster: 'h200' is not a preset of clusters; did you mean dgx-h200?"),
        (["--vary", "tensor_parallel=1", "--set", "tp=2"], "tp: unknown key"),
        (["--vary", "tensor_parallel=1,2", "--figure", "curve.jpg"], "--figure curve.jpg must be a .png or .svg file"),
        (["none.yaml"], "none.yaml cannot be read: no such file or directory"),
    ],
)
def test_a_sweep_that_cannot_be_gets_one_sentence(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    """On stderr, with exit code 2 and nothing written."""
    monkeypatch.chdir(tmp_path)
    done = run(*SWEEP, *arguments)
    assert done.is_refused(2, sentence), done
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["png", "svg"])
@pytest.mark.parametrize(
    "arguments",
    [GPUS, ["--vary", "tensor_parallel=1,3,8", "--vary", "micro_batch_size=1,2"], ["--vary", "precision=bf16,fp8"]],
)
def test_a_picture_of_every_kind_of_sweep(run: Any, tmp_path: Path, arguments: list[str], ending: str) -> None:
    """A curve, a map, an axis; the same sweep gives the same bytes."""
    files = [tmp_path / f"{name}.{ending}" for name in ("first", "second")]
    for file in files:
        assert run(*SWEEP, *arguments, "--figure", file).code == 0
    assert files[0].read_bytes() == files[1].read_bytes()
    assert len(files[0].read_bytes()) > 5000


@pytest.mark.processes
def test_json_loads_nothing_heavy() -> None:
    """Neither rich nor what draws, in both commands that compare runs."""
    heavy = ("torch", "pandas", "matplotlib", "scipy", "rich")
    script = "import sys; from perfmodel.commands import app\n"
    for arguments in (
        ["sweep", "laptop", "--vary", "micro_batch_size=1", "--json"],
        ["sweep", "laptop", "--vary", "micro_batch_size=1", "--csv"],
        ["whatif", "laptop", "--set", "name=A", "--json"],
    ):
        script += f"sys.argv[1:] = {arguments!r}\n"
        script += "try: app.main()\nexcept SystemExit as stop: assert not stop.code\n"
        script += f"print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["[]"] * 3


def test_degrees_are_varied_on_the_same_gpus(run: Any) -> None:
    """Data parallelism gives or takes, and it is said; what does not divide is refused, and --grow-gpus lets them grow."""
    swept = document(run, "--vary", "tensor_parallel=2,4,8")
    assert [(point["gpus"], point["data_parallel"]) for point in swept["points"]] == [(2304, 1152), (2304, 576), (2304, 288)]
    assert swept["taken"][0].startswith("Every point keeps 2,304 GPUs: data_parallel adapts")
    assert swept["scaling"] is None
    single = json.loads(
        run("predict", SWEEP[1], "--set", "tensor_parallel=4", "--set", "stages[-1].data_parallel=576", "--json").out
    )
    assert swept["points"][1]["iteration_time_s"] == single["stages"][-1]["iteration_time_s"]
    refused = document(run, "--vary", "pipeline_parallel=1,5")["points"][1]["refusal"]
    assert refused == "gpus: 2304 GPUs cannot be divided into replicas of 40"
    grown = document(run, "--vary", "tensor_parallel=4,8", "--grow-gpus")
    assert [point["gpus"] for point in grown["points"]] == [1152, 2304]
    both = document(run, "--vary", "tensor_parallel=4,8", "--vary", "data_parallel=144,288")
    assert [point["gpus"] for point in both["points"]] == [576, 1152, 1152, 2304]
    assert both["taken"] == []


@pytest.mark.parametrize("reached", [1, 2])
def test_ctrl_c_shows_the_points_that_were_reached(run: Any, monkeypatch: pytest.MonkeyPatch, reached: int) -> None:
    """Exit code 130; the others say that nobody predicted them."""
    calls = []

    def interrupted(*arguments: Any, **growth: Any) -> Any:
        calls.append(arguments)
        if len(calls) > reached:
            raise KeyboardInterrupt
        return outcomes(*arguments, **growth)

    monkeypatch.setattr(varied_runs, "outcomes", interrupted)
    done = run(*SWEEP, "--vary", "cluster=dgx-h100,dgx-h200,dgx-b200", "--vary", "tensor_parallel=4,8", "--json")
    found = json.loads(done.out)
    assert (done.code, found["complete"]) == (130, False)
    assert [point["refusal"] for point in found["points"]] == [""] * 2 * reached + [NOT_REACHED] * 2 * (3 - reached)
    calls.clear()
    shown = run(*SWEEP, "--vary", "cluster=dgx-h100,dgx-h200,dgx-b200")
    assert shown.code == 130
    assert shown.out.startswith("Stopped early: these are the points that were reached.")
