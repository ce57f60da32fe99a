"""Does `perfmodel calibrate --from-runs` write evidence that other commands take and show, and nothing where it cannot?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.measured.test_validate_command import published_rows, write_rows

SETTINGS = (
    "--set",
    "tensor_parallel=4",
    "--set",
    "micro_batch_size=4",
    "--set",
    "stages=[{data_parallel: 8, global_batch_size: 128}]",
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three runs of Nemotron-4 15B with tensor parallelism of 4, one on a GPU that does not exist, one without a time."""
    known = [row for row in published_rows("Nemotron-4 15B") if row["tensor_parallel"] == "4"][:5]
    rows = [*known[:3], known[3] | {"gpu": "h999"}, known[4] | {"iteration_time_s": ""}]
    return write_rows(tmp_path / "runs.csv", *rows)


def test_runs_become_evidence_that_a_prediction_shows(run: Any, table: Path, tmp_path: Path) -> None:
    """The line says how far, how wide and by whose runs; JSON has the same, and -v the runs."""
    mine = tmp_path / "mine.yaml"
    made = run("calibrate", "--from-runs", table, "-o", mine)
    assert made.code == 0
    assert made.out.startswith("3 of 5 rows of runs.csv are used: the median run took ")
    assert "line 5" in made.out
    assert "line 6" in made.out
    assert made.err.endswith(f"wrote {mine}\n")
    command = ("predict", "nemotron-4-15b", *SETTINGS, "--evidence", mine)
    text = " ".join(run(*command).out.split())
    assert "by 3 of your runs of this configuration." in text
    document = json.loads(run(*command, "--json").out)["stages"][0]
    plain = json.loads(run(*command[:-2], "--json").out)["stages"][0]
    assert plain["own_runs"] is None
    assert document["own_runs"]["runs"] == 3
    ratio = document["iteration_time_s"] / plain["iteration_time_s"]
    assert ratio == pytest.approx(document["own_runs"]["time_factor"])
    assert f"Shifted by {100 * (ratio - 1):+.1f} % and narrowed to" in text
    verbose = run(*command, "-v").out
    assert "Runs of runs.csv; without them " in verbose


def test_warnings_are_those_of_validate(run: Any, table: Path, tmp_path: Path) -> None:
    """Word by word: rows that are left out, a stack that is not known, runs that are predicted not to fit."""
    rows = [row | {"stack": "mystack"} for row in published_rows("Nemotron-4 15B")[:2]]
    known = published_rows("Nemotron-4 15B")[0]
    large = {name: f"{16 * float(known[name]):g}" for name in ("iteration_time_s", "global_batch_size")}
    rows.append(known | large | {"run_id": "large", "micro_batch_size": "16"})
    rows.append(rows[0] | {"iteration_time_s": "nan"})
    table = write_rows(tmp_path / "mine.csv", *rows)
    said = run("validate", table).err
    assert "stack mystack has no preset: generic stands for it" in said
    assert "'nan' is not a time" in said
    assert "line 4: Nemotron-4 15B needs " in said
    assert run("calibrate", "--from-runs", table, "-o", tmp_path / "mine.yaml").err.startswith(said)


def test_a_doubled_row_counts_once(run: Any, tmp_path: Path) -> None:
    """The same name and numbers are one run; the same run measured again is another."""
    row = published_rows("Nemotron-4 15B")[0]
    again = row | {"iteration_time_s": str(1.01 * float(row["iteration_time_s"]))}
    mine = tmp_path / "mine.yaml"
    made = run("calibrate", "--from-runs", write_rows(tmp_path / "runs.csv", row, again, row), "-o", mine, "--json")
    document = json.loads(made.out)
    assert len(document["runs"]) == document["shifts"][-1]["runs"] == 2
    assert f"warning: line 4, run_id {row['run_id']}: the same run as line 2; the row is left out" in made.err
    assert [each["line"] for each in document["left_out"]] == [4]


def test_json_has_the_runs_the_shifts_and_what_was_left_out(run: Any, table: Path, tmp_path: Path) -> None:
    """A run for each row that is predicted, a shift for each group."""
    document = json.loads(run("calibrate", "--from-runs", table, "-o", tmp_path / "mine.yaml", "--json").out)
    assert len(document["runs"]) == 3
    assert [each["runs"] for each in document["shifts"]] == [3, 3, 3, 3]
    assert [each["line"] for each in document["left_out"]] == [5, 6]
    assert all(each["reason"] for each in document["left_out"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--device", "cpu"), "--from-runs measures nothing; it cannot be combined with --device"),
        (("-o", "mine.csv"), "--output mine.csv must be a .yaml file"),
    ],
)
def test_what_cannot_be_combined_is_said(run: Any, table: Path, arguments: tuple[str, ...], sentence: str) -> None:
    """In one sentence, before anything is predicted."""
    done = run("calibrate", "--from-runs", table, *arguments)
    assert done.code == 2
    assert sentence in done.err


def test_a_table_without_a_predicted_row_writes_nothing(run: Any, table: Path, tmp_path: Path) -> None:
    """The sentence names the first row, and why it is not predicted."""
    rows = [row | {"gpu": "h999"} for row in published_rows("Nemotron-4 15B")[:2]]
    done = run("calibrate", "--from-runs", write_rows(tmp_path / "bad.csv", *rows), "-o", tmp_path / "mine.yaml")
    assert done.code == 2
    assert "so nothing was written; line 2: gpu: no cluster preset has h999" in done.err
    assert not (tmp_path / "mine.yaml").exists()


def test_json_of_a_profile_is_refused(run: Any) -> None:
    """A profile is a file itself."""
    done = run("calibrate", "--json")
    assert (done.code, "--json goes with --from-runs" in done.err) == (2, True)
