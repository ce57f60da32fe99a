"""Do commands take a log of training software where they take what was measured?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from perfmodel import api
from tests.exchange.importers.logs.test_megatron_log import BLOCK, line
from tests.exchange.importers.scripts import LLAMA

ON: list[str] = ["--cluster", "dgx-h100"]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of 40 steps of 2 s, with the arguments of its run."""
    path = tmp_path / "train.log"
    path.write_text(BLOCK + "\n".join(line(number, 2000.0) for number in range(1, 41)) + "\n")
    return path


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A launch script of another run."""
    path = tmp_path / "train.sh"
    path.write_text(LLAMA.replace("EXTRA", "--overlap-grad-reduce --overlap-param-gather"))
    return path


def test_a_log_stands_beside_the_prediction_of_its_run(run: Any, log: Path) -> None:
    """Which may be that of its own arguments."""
    done = run("compare", log, log, *ON, "--json")
    document = json.loads(done.out)
    predicted = float(api.predict(str(log), ["cluster=dgx-h100"]).stages[0][1].iteration_time_s)
    assert (done.code, document["measured_s"], document["predicted_s"]) == (0, 2.0, predicted)
    assert document["relative_error"] == pytest.approx(predicted / 2.0 - 1.0)
    assert document["inside_interval"] is False
    assert document["measured_tokens_per_s_per_gpu"] == pytest.approx(64 * 2048 / 16 / 2.0)
    assert document["record"]["steps"] == 30


def test_a_script_and_a_log_of_another_size_are_doubted(run: Any, script: Path, log: Path) -> None:
    """In the table too."""
    done = run("compare", script, log, *ON)
    assert done.code == 0
    assert "the log is of 16 GPUs, the prediction of 32 GPUs" in " ".join(done.out.split())
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_stage_of_a_ramp_is_the_one_with_the_batch_of_the_log(run: Any, log: Path) -> None:
    """Or the one that is named."""
    log.write_text("\n".join(line(number, 600.0, 768) for number in range(1, 41)) + "\n")
    assert json.loads(run("compare", "nemotron-4-15b", log, "--json").out)["stage"] == 2
    assert json.loads(run("compare", "nemotron-4-15b", log, "--stage", 1, "--json").out)["stage"] == 1


def test_steps_are_drawn_with_the_band_of_the_prediction(run: Any, log: Path, tmp_path: Path) -> None:
    """As PNG or SVG."""
    assert run("compare", log, log, *ON, "--figure", tmp_path / "steps.svg").code == 0
    assert "90 % interval of the prediction" in (tmp_path / "steps.svg").read_text()


def test_steps_beyond_the_axis_are_told(run: Any, log: Path, tmp_path: Path) -> None:
    """The first may take minutes; it is not left out in silence."""
    log.write_text(log.read_text().replace(line(1, 2000.0), line(1, 90000.0)))
    assert run("compare", log, log, *ON, "--figure", tmp_path / "steps.svg").code == 0
    assert "One step lies above, at up to 90 s." in (tmp_path / "steps.svg").read_text()


def test_a_diagnosis_takes_the_speed_of_a_log(run: Any, log: Path) -> None:
    """As if its median had been typed."""
    from_log = json.loads(run("diagnose", log, *ON, "--measured-from", log, "--json").out)
    typed = json.loads(run("diagnose", log, *ON, "--measured", "2s", "--json").out)
    assert from_log == typed


def test_a_diagnosis_takes_samples_of_all_gpus(run: Any, log: Path, tmp_path: Path) -> None:
    """As DeepSpeed prints them; the run says how many a step has."""
    path = tmp_path / "ds.log"
    path.write_text(
        "".join(f"global_step={step}, RunningAvgSamplesPerSec=3.0, CurrSamplesPerSec=32.0, \n" for step in range(30))
    )
    found = json.loads(run("diagnose", log, *ON, "--measured-from", path, "--json").out)
    typed = json.loads(run("diagnose", log, *ON, "--measured", "2s", "--json").out)
    assert found.pop("measured") == "32samples/s"
    assert found == {key: value for key, value in typed.items() if key != "measured"}


def test_what_describes_a_run_is_no_measurement(run: Any, script: Path) -> None:
    """Of a script with what it is."""
    assert run("compare", "nemotron-4-15b", script).is_refused(
        2, "train.sh is a Megatron-LM launch script, which describes a run"
    )


@pytest.mark.parametrize("given", [[], ["--measured", "2s", "--measured-from", "LOG"]])
def test_a_diagnosis_needs_one_speed(run: Any, log: Path, given: list[str]) -> None:
    """Neither none nor two."""
    words = [str(log) if word == "LOG" else word for word in given]
    asked = log if given else "nemotron-4-15b"
    assert run("diagnose", asked, *ON, *words).is_refused(2, "say what was measured: --measured 0.9s, or --measured-from")


def test_a_log_that_says_its_run_is_diagnosed_by_itself(run: Any, log: Path) -> None:
    """Its steps are what was measured."""
    alone = json.loads(run("diagnose", log, *ON, "--json").out)
    assert alone == json.loads(run("diagnose", log, *ON, "--measured-from", log, "--json").out)


def test_what_is_no_log_is_refused(run: Any, script: Path, tmp_path: Path) -> None:
    """With what it is."""
    path = tmp_path / "notes.txt"
    path.write_text("nothing of interest")
    assert run("diagnose", "nemotron-4-15b", "--measured-from", path).is_refused(2, "is no log that is recognised")
    assert run("diagnose", "nemotron-4-15b", "--measured-from", script).is_refused(2, "without the line of a step")


def test_a_log_is_told_in_a_few_lines(run: Any, log: Path, tmp_path: Path) -> None:
    """Where no run file is asked for; one with its arguments may become a run file."""
    done = run("convert", log)
    assert "An iteration takes 2 s, the median of 30 steady steps" in " ".join(done.out.split())
    assert run("convert", log, *ON, "-o", tmp_path / "run.yaml").code == 0
    assert int(api.load(str(tmp_path / "run.yaml")).stages[0].data_parallel) == 8


def test_a_log_without_arguments_is_no_run(run: Any, log: Path) -> None:
    """It is compared with one."""
    log.write_text("\n".join(line(number) for number in range(1, 41)) + "\n")
    assert run("predict", log, *ON).is_refused(2, "does not say which run it is of; compare RUN with it")


def test_logs_are_validated_and_learned_from(run: Any, log: Path, tmp_path: Path) -> None:
    """As tables are: the same rows of JSON, and evidence in which a run is called like its file."""
    predicted = float(api.predict(str(log), ["cluster=dgx-h100"]).stages[0][1].iteration_time_s)
    (row,) = json.loads(run("validate", tmp_path, *ON, "--json").out)["rows"]
    assert (row["run_id"], row["measured_s"], row["predicted_s"]) == ("train.log", 2.0, predicted)
    assert row["relative_error"] == pytest.approx(predicted / 2.0 - 1.0)
    assert row["interval_s"][0] < predicted < row["interval_s"][1]
    (tmp_path / "notes.md").write_text("nothing")
    done = run("calibrate", "--from-runs", log, tmp_path, *ON, "-o", tmp_path / "mine.yaml", "--json")
    document = json.loads(done.out)
    assert [each["name"] for each in document["runs"]] == ["train.log"]
    assert "warning: notes.md: is neither a log nor a table of runs; the file is left out" in done.err


def test_the_table_says_of_each_log_whether_it_lies_in_its_interval(run: Any, log: Path) -> None:
    """Within 80 columns."""
    out = run("validate", log, *ON).out
    assert "train.log" in out
    assert "outside" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("validate", "--gpus", 8), "--gpus goes with logs that do not say it"),
        (("validate", "LOG"), "train.log: cluster: nothing says it; --cluster dgx-h100 would"),
        (("calibrate", "--from-runs", "LOG", "-o", "OUT"), "train.log: cluster: nothing says it; --cluster dgx-h100 would"),
        (("calibrate", "LOG"), "goes with --from-runs; without it this machine is measured"),
    ],
)
def test_what_logs_need_is_said(run: Any, log: Path, tmp_path: Path, arguments: Any, sentence: str) -> None:
    """In one sentence; nothing is written."""
    words = {"LOG": log, "OUT": tmp_path / "mine.yaml"}
    assert run(*(words.get(each, each) for each in arguments)).is_refused(2, sentence)
    assert not (tmp_path / "mine.yaml").exists()
