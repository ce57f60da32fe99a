"""Do all commands that predict take what somebody's own runs say, and say so?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.commands.measured.test_validate_command import published_rows, write_rows

RUN = "nemotron-4-15b"
EVIDENCE = """
extends: published
name: My runs
source: two of them
own_shifts: [{runs: 2, kin: of mine, shift: 0.4, remaining: 0.5, degrees: 4}]
own_runs: [{name: one, measured_s: 1.5, predicted_s: 1.0, weight: 1}]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """Evidence that makes every iteration half as long again."""
    path = tmp_path / "mine.yaml"
    path.write_text(EVIDENCE)
    return path


def test_a_diagnosis_starts_from_own_runs(run: Any, mine: Path) -> None:
    """What was measured is what they foretell."""
    command = ("diagnose", RUN, "--measured", "0.926s", "--json")
    plain, shifted = (json.loads(run(*command, *more).out) for more in ((), ("--evidence", mine)))
    assert plain["iteration_time_s"] == pytest.approx(0.618, abs=0.001)
    assert shifted["iteration_time_s"] == pytest.approx(plain["iteration_time_s"] * 1.4918247)
    assert (plain["is_expected"], shifted["is_expected"]) == (False, True)


def test_scores_are_those_of_shifted_predictions(run: Any, mine: Path, tmp_path: Path) -> None:
    """Every time by the same factor; rows that it was learned from are told of."""
    rows = published_rows("Nemotron-4 15B")[:2]
    table = write_rows(tmp_path / "runs.csv", rows[0] | {"run_id": "one"}, rows[1])
    plain, done = run("validate", table, "--json"), run("validate", table, "--json", "--evidence", mine)
    times = [[row["predicted_s"] for row in json.loads(each.out)["rows"]] for each in (plain, done)]
    assert times[1] == pytest.approx([1.4918247 * each for each in times[0]])
    assert f"warning: 1 of the rows are runs that {mine} was learned from" in done.err
    assert "learned from" not in plain.err


def test_a_page_shows_own_runs(run: Any, mine: Path, tmp_path: Path) -> None:
    """Of a run and of scenarios, with the option in the command that it states."""
    for more in ((), ("--scenario", "again: recompute=full")):
        page = tmp_path / "page.html"
        assert run("report", "laptop", "--evidence", mine, *more, "-o", page).code == 0
        text = page.read_text()
        assert f"--evidence {mine}" in text
        assert "2 of your runs of mine" in text or "My runs shift the time of the run before" in text


def test_a_timeline_takes_them_too(run: Any, mine: Path, tmp_path: Path) -> None:
    """It draws what the equations say; evidence that is none is refused in the words of predict."""
    trace = tmp_path / "trace.json"
    assert run("timeline", RUN, "--evidence", mine, "--detail", "passes", "-o", trace).code == 0
    refused = run("timeline", RUN, "--evidence", "mine.txt", "-o", trace)
    assert refused.code == 2
    assert refused.err == run("predict", RUN, "--evidence", "mine.txt").err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ("--leave-source-out",),
            "--leave-source-out scores what published runs alone say; it cannot be combined with --evidence",
        ),
        (("--memory", "fits.csv"), "--evidence is about times; it cannot be combined with --memory"),
    ],
)
def test_what_cannot_be_scored_with_own_runs_is_refused(
    run: Any, mine: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """In one sentence."""
    assert run("validate", *arguments, "--evidence", mine).is_refused(2, sentence)
