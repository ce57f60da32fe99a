"""Does `perfmodel timeline` write the trace it was asked for, and say in one sentence what it cannot do?"""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest

import perfmodel as pm
from tests.evidence.step_examples import SETTINGS, as_predicted, small_prediction
from tests.report.trace.trace_reading import read

PRESET = "nemotron-4-15b"
PIPELINE = ("--set", "stages=[{data_parallel: 8, global_batch_size: 64}]", "--set", "pipeline_parallel=4")


def test_it_writes_a_trace_and_says_how_busy_stages_are(run: Any, tmp_path: Path) -> None:
    """The file is the iteration; standard output the verdict and a row a pipeline stage."""
    path = tmp_path / "trace.json"
    done = run("timeline", PRESET, *PIPELINE, "-o", path)
    assert done.code == 0, done.err
    trace = read(path.read_text(encoding="utf-8"))
    assert trace.span_ns / 1e9 == pytest.approx(trace.facts["iteration_time_s"], rel=1e-6)
    assert len(trace.processes) == 4
    first, second, *_ = done.out.splitlines()
    assert first.startswith("Nemotron-4 15B, stage 1: an iteration of 0.37")
    assert second == "The trace opens in ui.perfetto.dev and in chrome://tracing."
    assert done.err == f"wrote {path}\n"


@pytest.mark.parametrize("columns", [80, 120])
def test_what_it_prints_fits_the_width(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """And is ASCII in a pipe."""
    monkeypatch.chdir(tmp_path)
    pipeline = (*PIPELINE, "--set", "virtual_pipeline=8", "--micro-batches", "1")
    done = run("timeline", PRESET, *pipeline, columns=columns)
    assert (tmp_path / "trace.json").exists()
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns
    assert "1, 5, 9, 13," in done.out


def test_a_name_that_ends_in_gz_is_compressed(run: Any, tmp_path: Path) -> None:
    """The same trace, a tenth as large."""
    plain, small = tmp_path / "trace.json", tmp_path / "trace.json.gz"
    for path in (plain, small):
        assert run("timeline", PRESET, *PIPELINE, "-o", path).code == 0
    assert gzip.decompress(small.read_bytes()) == plain.read_bytes()
    assert 5 * small.stat().st_size < plain.stat().st_size


def test_json_and_csv_say_what_is_in_the_trace(run: Any, tmp_path: Path) -> None:
    """JSON sums it up, CSV has a row a span."""
    path = tmp_path / "trace.json"
    document = json.loads(run("timeline", PRESET, *PIPELINE, "-o", path, "--json").out)
    assert document["schema_version"] == 1
    assert document["iteration_time_s"] == pytest.approx(document["span_s"], rel=1e-9)
    rows = list(csv.DictReader(io.StringIO(run("timeline", PRESET, *PIPELINE, "-o", path, "--csv").out)))
    assert len(rows) == document["drawn"]["spans"] == len(read(path.read_text()).slices)
    assert {row["pipeline_stage"] for row in rows} == {"1", "2", "3", "4"}


def test_a_run_that_does_not_fit_is_drawn_and_exits_with_1(run: Any, tmp_path: Path) -> None:
    """As predict does."""
    path = tmp_path / "trace.json"
    assert run("timeline", PRESET, "--set", "tensor_parallel=1", "-o", path, "--detail", "passes").code == 1
    assert read(path.read_text()).slices


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--detail", "operator"), "detail: 'operator' is not one of them; did you mean operators?"),
        (("--micro-batches", "0"), "micro_batches: 0 micro-batches cannot be drawn; 1 or more can"),
        (("--stage", "4"), "stage: Nemotron-4 15B has no stage 4: its stages are 1 to 3"),
        (("--json", "--csv"), "--json and --csv cannot be combined"),
        (("--set", "pipline_parallel=2"), "pipline_parallel: unknown key; did you mean pipeline_parallel?"),
        (("-o", "/no/such/folder/trace.json"), "/no/such/folder/trace.json cannot be written"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(run: Any, tmp_path: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """On standard error, with exit code 2 and nothing written."""
    path = tmp_path / "trace.json"
    done = run("timeline", PRESET, "-o", path, *arguments)
    assert done.is_refused(2, sentence), done
    assert not path.exists()


def test_the_function_returns_a_row_a_span() -> None:
    """With plain values, of the stage that was asked for."""
    found = pm.timeline(PRESET, {"tensor_parallel": 4}, stage=2, detail="layers")
    rows = found.rows()
    assert found.stage == 1
    assert len(rows) == len(found.spans)
    assert found.to_pandas().columns.tolist() == list(rows[0])
    assert all(isinstance(value, str | int | float | None) for row in rows[:200] for value in row.values())


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A trace as torch.profiler writes it, of one event."""
    path = tmp_path / "profile.json"
    path.write_text(
        json.dumps({"traceEvents": [{"ph": "X", "cat": "cpu_op", "name": "a", "pid": 1, "tid": 1, "ts": 5, "dur": 9}]})
    )
    return path


def test_compare_puts_a_record_and_a_profile_beside_the_prediction(run: Any, tmp_path: Path, profile: Path) -> None:
    """In one trace; what compare prints stays as it is."""
    record, both = tmp_path / "record.json", tmp_path / "both.json.gz"
    record.write_text(json.dumps(as_predicted(small_prediction(), slower=1.5).document()))
    settings = [part for each in SETTINGS for part in ("--set", each)]
    done = run("compare", PRESET, record, *settings, "--timeline", both, "--profile", profile)
    assert done.code == 0, done.err
    trace = read(gzip.decompress(both.read_bytes()).decode())
    assert [name.partition(":")[0] for name in trace.processes.values()] == ["predicted", "measured", "profiled"]
    assert done.out == run("compare", PRESET, record, *settings).out


def test_a_profile_needs_no_record(run: Any, tmp_path: Path, profile: Path) -> None:
    """Of any training software: its trace beside the forecast of a stage, and both times."""
    both = tmp_path / "both.json"
    done = run("compare", PRESET, "--timeline", both, "--profile", profile, "--stage", "1", "--json")
    document = json.loads(done.out)
    assert (document["stage"], document["profiled_step_s"]) == (1, 9e-6)
    assert list(read(both.read_text()).processes.values())[-1] == "profiled: 1"
    words = " ".join(run("compare", PRESET, "--timeline", both, "--profile", profile).out.split())
    assert words.startswith("Nemotron-4 15B, stage 3: predicted 0.618 s")
    assert "No kernel of a GPU is in it" in words


def test_a_profile_stands_in_the_place_of_a_record(run: Any, tmp_path: Path) -> None:
    """Compressed or not: its kernels by kind, those that no name tells, and all in 80 columns."""
    names = ("nvjet_hsh_256x128_64x4_1x2_h_bz_coopA_NNT", "my_own_kernel<int>(int)")
    spans = [
        {"ph": "X", "cat": "kernel", "name": name, "pid": 0, "tid": 7, "ts": 1e5 * place, "dur": 5e4}
        for place, name in enumerate(names)
    ]
    packed = tmp_path / "kineto.json.gz"
    packed.write_bytes(gzip.compress(json.dumps({"schemaVersion": 1, "traceEvents": spans}).encode()))
    done = run("compare", PRESET, packed)
    assert done.code == 0
    assert "my_own_kernel" in done.out
    assert "all of the trace is taken for one" in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines())) <= 80
    kernels = json.loads(run("compare", PRESET, packed, "--json").out)["kernels"]
    products = next(each for each in kernels["kinds"] if each["name"] == "products")
    assert (products["launches"], products["measured_s"]) == (1, pytest.approx(0.05))
    assert products["predicted_s"] > 0
    assert [each["name"] for each in kernels["unmatched"]] == ["my_own_kernel"]
    assert kernels["unmatched_s"] + products["measured_s"] + kernels["idle_s"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "there is no RECORD to compare with; name one, a log, or a profile (torch.profiler)"),
        (("PROFILE", "--figure", "steps.png"), "--figure draws records and logs; --timeline draws a profile"),
        (("--timeline", "both.json"), "there is no RECORD to compare with"),
        (("record.json", "--profile", "PROFILE"), "--profile is shown in the timeline; add --timeline FILE"),
        (("record.json", "--stage", "1"), "--stage does not go with RECORD"),
        (
            ("--timeline", "both.json", "--profile", "/no/such/profile.json"),
            "/no/such/profile.json cannot be read: no such file",
        ),
        (("--timeline", "both.json", "--profile", "BROKEN"), "is not a trace: not valid JSON"),
        (("--timeline", "both.json", "--profile", "EMPTY"), "this trace has no spans"),
        (("EMPTY",), "this trace has no spans"),
        (("--timeline", "both.json", "--profile", "CUT"), "cannot be read: not a whole file"),
    ],
)
def test_what_compare_cannot_put_in_time_is_one_sentence(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """With exit code 2, and nothing written."""
    monkeypatch.chdir(tmp_path)
    files = {"BROKEN": b"{", "EMPTY": b'{"traceEvents": []}', "CUT": gzip.compress(profile.read_bytes())[:40]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    words = [str(profile) if word == "PROFILE" else word for word in arguments]
    done = run("compare", PRESET, *words)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert not (tmp_path / "both.json").exists()
