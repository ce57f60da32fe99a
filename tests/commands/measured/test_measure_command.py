"""Do calibrate, measure and compare close the loop on this machine, and say in one sentence what they cannot do?"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

import perfmodel
from perfmodel.benchmarks.fit.machine.calibrated import machine_profile
from perfmodel.benchmarks.measure import calibrate
from perfmodel.benchmarks.measure.kernels.plan import SMALLEST, kernel_points
from perfmodel.benchmarks.measure.kernels.points import key_of
from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.benchmarks.measure.kernels.served.served_plan import served_points
from perfmodel.benchmarks.measure.processes import marked
from perfmodel.evidence.steps.records import record as record_of_point
from perfmodel.evidence.steps.step_records import step_record
from tests.evidence.step_examples import SETTINGS, as_predicted, small_prediction
from tests.evidence.test_pass_comparison import record_of, small_run
from tests.report.trace.trace_reading import read

SMALL = """
name: a small step
model: {name: small, layers: 2, hidden_size: 128, attention_heads: 4, kv_heads: 2, head_size: 32, ffn_hidden_size: 256,
        activation: squared_relu, norm: layernorm, rotary_fraction: 0.5, vocab_size: 512}
cluster: dgx-h100
stack: reference
precision: bf16
tensor_parallel: 2
micro_batch_size: 1
sequence_length: 64
stages: [{data_parallel: 1, global_batch_size: 2}]
"""


def fitted_once() -> Callable[..., dict[str, Any]]:
    """The fit of a machine's profile, which takes seconds: that of the same records is not made again."""
    known: dict[str, dict[str, Any]] = {}

    def fitted(*records: Any) -> dict[str, Any]:
        key = repr(records)
        if key not in known:
            known[key] = machine_profile(*records)
        return deepcopy(known[key])

    return fitted


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A run file of two ranks."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.slow
@pytest.mark.ranks
def test_the_loop_closes_on_this_machine(
    run: Any, small: Path, tmp_path: Path, collective_records: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """calibrate writes a cluster, measure a record of two ranks, compare both sides: counts and held bytes are exact.

    calibrate goes on with the collectives that were measured before, all but one: those are kept, none is measured twice.
    """
    monkeypatch.setattr(calibrate, "machine_profile", fitted_once())
    profile, record, figure = tmp_path / "here.yaml", tmp_path / "record.json", tmp_path / "step.svg"
    records = profile.with_suffix(".records.jsonl")
    before = collective_records.splitlines(keepends=True)
    records.write_text("".join(before[:-1]))
    made = run("calibrate", "--device", "cpu", "--smallest", "-o", profile)
    assert made.code == 0, made.err
    assert records.read_text().startswith("".join(before[:-1]))
    every = read_records(records)
    measured_alone = len(kernel_points(SMALLEST)) + len(served_points("cpu", smallest=True))
    assert len({key_of(each) for each in every}) == len(every) >= len(before) + measured_alone
    assert {"matmul", "attention", "memory_bound", "few_rows", "cached", "served", "host", "collective", "rank_times"} == {
        each.kind for each in every
    }
    assert key_of(record_of_point(json.loads(before[-1]))) in {key_of(each) for each in every}
    assert "matmul.bf16" in made.out
    again = run("calibrate", "--records", records, "-o", tmp_path / "again.yaml")
    assert again.out == made.out

    trace, both = tmp_path / "profile.json", tmp_path / "both.json"
    done = run("measure", small, "--device", "cpu", "--seconds", "0.5", "-o", record, "--profile", trace)
    assert done.code == 0, done.err
    assert "2 ranks on cpu" in done.out
    found = step_record(json.loads(record.read_text()))
    assert found.repeats >= 7
    assert found.losses[-1] < found.losses[0]
    parts_s = sum(each.seconds for each in found.operators) + found.between_s
    assert parts_s == pytest.approx(found.profiled_iteration_time_s, rel=0.5)  # medians of each do not add up on a busy machine

    beside = ("--figure", figure, "--timeline", both, "--profile", trace)
    compared = run("compare", small, record, "--set", f"cluster={profile}", "--json", *beside)
    assert compared.code == 0, compared.err
    in_time = read(both.read_text())
    assert [name.partition(":")[0] for name in in_time.processes.values()] == ["predicted", "measured", "profiled"]
    assert "layer.mlp.fc1 (weight_gradient)" in {each.name for each in in_time.slices if each.pid == 3}
    document = json.loads(compared.out)
    assert {each["kind"] for each in document["collectives"]} == {"all_reduce", "all_gather", "reduce_scatter"}
    for each in document["collectives"]:
        assert each["calls"]["error"] == each["payload_bytes"]["error"] == 0.0
    for part in ("parameters", "gradients", "optimizer"):
        assert document["memory_bytes"][part]["error"] == 0.0
    peak = document["memory_bytes"]["peak"]
    assert abs(peak["predicted"] - peak["measured"]) < 0.5e6  # of some MB: small tensors and copies of messages
    operators = {(each["name"], each["phase"]): each for each in document["operators"] if each["kind"]}
    assert all(each["predicted_s"] > 0 and each["measured_s"] > 0 for each in operators.values())
    assert "layer.mlp.fc1" in figure.read_text()
    assert "Collectives of an iteration" in run("compare", small, record, "--set", f"cluster={profile}").out
    check_that_it_serves(run, small, profile)


def check_that_it_serves(run: Any, small: Path, profile: Path) -> None:
    """On the same machine: passes of two ranks beside their forecast, with the weights, caches and messages of that."""
    record = profile.with_name("passes.json")
    load = ("--infer", "--batch", "2", "--input-tokens", "16", "--output-tokens", "4")
    done = run("measure", small, *load, "--device", "cpu", "--seconds", "0.2", "-o", record)
    assert done.code == 0, done.err
    assert "2 prompts of 16 tokens" in done.out
    assert 1.0 < float(json.loads(record.read_text())["provenance"]["cores_apart_us"]) < 1e5  # as in records of steps
    compared = run("compare", small, record, "--set", f"cluster={profile}", "--json")
    assert compared.code == 0, compared.err
    document = json.loads(compared.out)
    assert document["memory_bytes"]["cache"]["error"] == document["memory_bytes"]["weights"]["error"] == 0.0
    for found in document["passes"].values():
        assert {each["kind"] for each in found["collectives"]} == {"all_reduce", "all_gather"}
        assert all(each[figure]["error"] == 0.0 for each in found["collectives"] for figure in ("calls", "payload_bytes"))
        assert all(each["predicted_s"] > 0 and each["measured_s"] > 0 for each in found["operators"] if each["kind"])
    shown = run("compare", small, record, "--set", f"cluster={profile}").out
    assert "Operators of decode, predicted and measured" in shown
    assert max(map(len, shown.splitlines())) <= 80
    refused = run("compare", small, record, "--set", f"cluster={profile}", "--figure", "x.svg")
    assert (refused.code, refused.err.splitlines()[-1]) == (
        2,
        "perfmodel: --figure goes with training steps; this record is of passes of a served model",
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--batch", "2"), "--batch goes with --infer, which serves the model of RUN"),
        (("--infer", "--dry-run"), "--dry-run goes with training steps; --infer serves the model of RUN"),
        (("--infer", "--set", "tensor_parallel=1", "--set", "precision=fp32"), "precision: fp32 is no format of weights; "),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Any, small: Path, options: tuple[str, ...], sentence: str) -> None:
    """In one sentence each, before anything runs."""
    refused = run("measure", small, *options)
    assert refused.code == 2
    assert sentence in refused.err


def test_a_machine_without_kernels_of_serving_has_no_forecast(run: Any, tmp_path: Path) -> None:
    """Not supported, and what would measure them."""
    record = tmp_path / "passes.json"
    record.write_text(json.dumps(record_of(small_run("tensor_parallel=1")).document()))
    refused = run("compare", "laptop", record)
    assert refused.code == 3
    assert "perfmodel calibrate -o here.yaml measures them" in refused.err


@pytest.mark.slow
@pytest.mark.ranks
def test_a_measured_pipeline_is_compared_stage_by_stage(run: Any, small: Path, tmp_path: Path) -> None:
    """Every operator of either stage is in the forecast, messages and memory are exact, and waiting is a row of its own."""
    record = tmp_path / "record.json"
    settings = ("tensor_parallel=1", "pipeline_parallel=2", "stages=[{data_parallel: 1, global_batch_size: 4}]")
    changed = [part for setting in settings for part in ("--set", setting)]
    done = run("measure", small, *changed, "--device", "cpu", "--seconds", "0.1", "-o", record)
    assert done.code == 0, done.err
    assert "Pipeline stages in the profiled steps" in done.out
    document = json.loads(run("compare", small, record, *changed, "--json").out)
    seen = {(each["pipeline_stage"], each["kind"]): each for each in document["collectives"]}
    assert seen.keys() == {(stage, kind) for stage in (1, 2) for kind in ("point_to_point", "all_reduce")}
    assert all(each["calls"]["error"] == each["payload_bytes"]["error"] == 0.0 for each in seen.values())
    assert all(document["memory_bytes"][part]["error"] == 0.0 for part in ("parameters", "gradients", "optimizer"))
    operators = {each["name"]: each for each in document["operators"]}
    assert all(each["predicted_s"] > 0 and each["measured_s"] > 0 for each in operators.values() if each["kind"])
    assert operators["pipeline bubble"]["measured_s"] > operators["pipeline.send_activations"]["measured_s"]
    waited_s = [stage["waiting_s"] for stage in document["pipeline_stages"]]
    assert len(waited_s) == 2
    assert min(waited_s) > 0


def test_compare_shows_what_is_off(run: Any, tmp_path: Path) -> None:
    """A step that took half again as long as predicted, with the operators that make up most of it."""
    record = tmp_path / "record.json"
    record.write_text(json.dumps(as_predicted(small_prediction(), slower=1.5).document()))
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    out = run("compare", "nemotron-4-15b", record, *settings).out
    assert "(-33.3 %)" in out.splitlines()[0] + out.splitlines()[1]
    assert "layer.mlp.fc1" in out
    every = run("compare", "nemotron-4-15b", record, "--all", *settings).out
    assert "head.norm" in every
    assert "head.norm" not in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("measure", "nemotron-4-15b"), "the layout has 768 ranks and this machine"),
        (("measure", "nemotron-4-15x"), "did you mean nemotron-4-15b?"),
        (("measure", "nemotron-4-15b", "--stage", "4"), "--stage: 4 is not one of the 3 stages"),
        (("measure", "nemotron-4-15b", "--device", "tpu"), "--device: 'tpu' is not one of them"),
        (("measure", "nemotron-4-15b", "--device", "cuda"), "no CUDA device is there"),
        (("calibrate", "--device", "cuda"), "no CUDA device is there"),
        (("calibrate", "-o", "/no/such/folder/profile.yaml"), "/no/such/folder is not a folder"),
        (("calibrate", "--records", "/no/such/records.jsonl"), "/no/such/records.jsonl cannot be read"),
        (("compare", "nemotron-4-15b", "/no/such/record.json"), "/no/such/record.json cannot be read"),
        (("compare", "nemotron-4-15b", "pyproject.toml"), "this is not the record of a training_step"),
        (("compare", "nemotron-4-15b", "x.json", "--figure", "x.pdf"), "--figure x.pdf must be a .png or .svg file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_one_sentence(run: Any, arguments: tuple[str, ...], sentence: str) -> None:
    """Exit code 2, nothing on stdout."""
    done = run(*arguments)
    assert done.is_refused(2, sentence), done


def test_a_layout_that_the_model_does_not_run_is_not_supported(run: Any) -> None:
    """Exit code 3, for steps and for the dry run."""
    for more in ((), ("--dry-run",)):
        done = run("measure", "nemotron-4-15b", "--set", "context_parallel=2", *more)
        assert done.code == 3
        assert "the reference model runs context_parallel 1, not 2" in done.err


def test_more_memory_than_there_is_is_refused_before_the_start(run: Any) -> None:
    """On a CPU, where the kernel would end the ranks."""
    big = ("tensor_parallel=1", "model.hidden_size=61440", "stages=[{data_parallel: 1, global_batch_size: 1}]")
    done = run("measure", "nemotron-4-15b", "--device", "cpu", *(part for each in big for part in ("--set", each)))
    assert done.code == 2
    assert "GB are free" in done.err


def test_without_torch_the_sentence_says_what_to_install(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every command that runs something real; predictions and comparisons need none."""
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in ("benchmarks", "model"):  # a second import would leave other modules there
        monkeypatch.setattr(perfmodel, name, importlib.import_module(f"perfmodel.{name}"))
    for name in [name for name in sys.modules if name.startswith(("perfmodel.benchmarks", "perfmodel.model"))]:
        monkeypatch.delitem(sys.modules, name)
    for command in (("calibrate",), ("measure", "nemotron-4-15b"), ("measure", "nemotron-4-15b", "--dry-run")):
        done = run(*command)
        assert done.code == 2
        assert "pip install 'perfmodel[torch]'" in done.err


@pytest.mark.slow
def test_the_dry_run_of_the_ramp_equals_the_forecast(run: Any) -> None:
    """Exit code 0, a table a stage; as JSON too. Of one layer and micro-batch: tests of the dry run itself count all."""
    sizes = ", ".join(f"{{data_parallel: {number}, global_batch_size: {number}}}" for number in (96, 192, 288))
    arguments = ("measure", "nemotron-4-15b", "--dry-run", "--set", "model.layers=1", "--set", f"stages=[{sizes}]")
    done = run(*arguments)
    assert done.code == 0
    assert done.out.startswith("Nemotron-4 15B: every count of one rank equals the forecast's.")
    assert done.out.count("One rank, data parallel") == 3
    assert "differs" not in done.out
    counts = json.loads(run(*arguments, "--json").out)
    assert all(each["equal"] for stage in counts["stages"] for each in stage["counts"])


@pytest.mark.slow
@pytest.mark.ranks
def test_a_rank_that_dies_leaves_no_record_and_no_process(
    run: Any, small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sentence that names the rank."""
    monkeypatch.setenv("PERFMODEL_STARTED", "of-this-test")
    monkeypatch.setenv("PERFMODEL_TEST_KILL_RANK", "1")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import os, sys, threading, time\n"
        "def die():\n"
        "    while 'RANK' not in os.environ: time.sleep(0.05)\n"
        "    time.sleep(1.0)\n"
        "    if os.environ['RANK'] == os.environ['PERFMODEL_TEST_KILL_RANK']: os.kill(os.getpid(), 9)\n"
        "os.register_at_fork(after_in_child=lambda: threading.Thread(target=die, daemon=True).start())\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(site))
    record = tmp_path / "record.json"
    done = run("measure", small, "--device", "cpu", "--seconds", "30", "-o", record)
    assert done.code == 4
    assert "rank 1 of perfmodel.benchmarks.measure.steps.training_step was ended by SIGKILL" in done.err
    assert done.err.count("\n") == 1
    assert not record.exists()
    assert marked("of-this-test") == []


def test_a_folder_that_is_gone_is_said(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries of torch end the process there."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert run("measure", "laptop", "--dry-run").is_refused(4, "the current folder is gone")
    monkeypatch.chdir(tmp_path)
