"""Does `perfmodel validate --memory` say how often the predictions are right about what fits?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.tables_of_fits import TOO_LARGE, write_fits


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """One row of each kind: right both ways, wrong both ways, and one that is not covered."""
    wrong = ({"fits": "no"}, TOO_LARGE)
    return write_fits(tmp_path / "fits.csv", {}, TOO_LARGE | {"fits": "no"}, *wrong, {"global_batch_size": ""})


def test_json_has_the_keys_of_the_design(run: Any, table: Path) -> None:
    """Fractions over the covered rows; a row that is not covered has a reason and nulls."""
    document = json.loads(run("validate", "--memory", table, "--json").out)
    assert (document["agreement"], document["fits_called_impossible"], document["impossible_called_fits"]) == (0.5, 0.5, 0.5)
    assert document["counts"] == {"fitted": 2, "fits_refused": 1, "did_not_fit": 2, "misfits_passed": 1}
    *covered, left_out = document["rows"]
    assert [row["fits"] for row in covered] == [True, False, False, True]
    assert [row["predicted_fits"] for row in covered] == [True, False, True, False]
    for row in covered:
        assert (row["headroom_bytes"] >= 0) == row["predicted_fits"]
        assert sum(row["memory"].values()) == pytest.approx(row["total_bytes"], rel=1e-12)
    assert left_out["reason"] == "the global batch size is not stated"
    assert left_out["predicted_fits"] is left_out["total_bytes"] is left_out["headroom_bytes"] is None
    assert document["groups"]["source"]["arXiv:2311.05610 some.xlsx"]["rows"] == 4


@pytest.mark.parametrize("columns", [80, 120])
def test_the_scoreboard_fits_the_width(run: Any, table: Path, columns: int) -> None:
    """Verdict first, the wrong ones with what fills their memory, and what is not covered."""
    done = run("validate", "--memory", table, columns=columns)
    assert done.code == 0
    assert done.out.isascii()
    assert max(map(len, done.out.splitlines())) <= columns
    assert done.out.startswith("4 of 5 rows predicted, 50.0 % of them right.\nOf 2 that fitted, 1 called impossible")
    worst = done.out.partition("Worst rows")[2]
    assert worst.index("line 5") < worst.index("line 4")
    assert "activations" in worst
    assert "Not predicted, and why" in worst


def test_bars_are_set_for_its_own_scores(run: Any, table: Path) -> None:
    """Disagreement and both kinds of errors, of all rows or of a group."""
    met = ["disagreement=0.5", "layout/tensor + pipeline + data:fits_called_impossible=50%"]
    missed = ["impossible_called_fits=0.4", "recompute/full:disagreement=0.1"]
    flags = [word for bar in (*met, *missed) for word in ("--fail-above", bar)]
    done = run("validate", "--memory", table, *flags)
    assert done.code == 1
    assert done.err.splitlines() == [
        "perfmodel: all rows: impossible_called_fits is 50 %; at most 40 % is allowed",
        "perfmodel: recompute/full: disagreement is 50 %; at most 10 % is allowed",
    ]
    done = run("validate", "--memory", table, "--fail-above", "agreement=0.9")
    assert done.code == 2
    assert "'agreement' is not a score; did you mean disagreement?" in done.err


def test_a_file_is_needed(run: Any) -> None:
    """No such table is shipped."""
    done = run("validate", "--memory")
    assert (done.code, done.out, done.err) == (2, "", "perfmodel: --memory needs a FILE.csv\n")


def test_a_table_of_uncovered_rows_says_so(run: Any, tmp_path: Path) -> None:
    """No share of nothing."""
    table = write_fits(tmp_path / "uncovered.csv", {"global_batch_size": ""})
    assert run("validate", "--memory", table).out.startswith("None of 1 rows is covered yet.")
    document = json.loads(run("validate", "--memory", table, "--json").out)
    assert document["agreement"] is document["fits_called_impossible"] is document["impossible_called_fits"] is None
