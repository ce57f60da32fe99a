"""Does `perfmodel validate` say how wrong the predictions are, hold them to bars, and refuse what it cannot read?"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from perfmodel.evidence import time_scores
from perfmodel.exchange.presets import DATA
from tests.comparisons import compared

HEAVY = ("torch", "pandas", "matplotlib", "scipy", "transformers", "rich")


def write_rows(path: Path, *rows: dict[str, str]) -> Path:
    """Write rows of published_runs.csv as a table of their own."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def published_rows(*models: str) -> list[dict[str, str]]:
    """The rows of some models of published_runs.csv; of all models without."""
    with (DATA / "published_runs.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if not models or row["model"] in models]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Eight runs of Nemotron-4 15B."""
    return write_rows(tmp_path / "some.csv", *published_rows("Nemotron-4 15B")[:8])


def test_validate_json_has_the_keys_of_the_design(run: Any, tmp_path: Path) -> None:
    """Rows, groups, overall; what is not covered has a reason and no number."""
    known, unknown = published_rows("Nemotron-4 15B")[:10], published_rows("GPT-3 175B")[:2]
    rows = [*known, *(row | {"global_batch_size": ""} for row in unknown)]
    table = write_rows(tmp_path / "some.csv", *rows)
    document = json.loads(run("validate", table, "--json").out)
    errors = {"median_abs_error", "p90_abs_error", "bias"}
    assert set(document["overall"]) == errors | {
        *("rows", "interval_coverage", "winkler_score", "half_width", "by_source", "memory")
    }
    assert set(document["overall"]["by_source"]) == errors | {"interval_coverage", "winkler_score"}
    predicted = [row for row in document["rows"] if row["predicted_s"] is not None]
    assert document["overall"]["rows"] == len(predicted) == len(known)
    for row in predicted:
        assert row["relative_error"] == pytest.approx(row["predicted_s"] / row["measured_s"] - 1)
        assert row["interval_s"][0] < row["predicted_s"] < row["interval_s"][1]
        assert sum(row["breakdown_s"].values()) == pytest.approx(row["predicted_s"], rel=1e-12)
        assert row["memory_bytes"] > 1e9
    assert all(row["reason"] for row in document["rows"] if row["predicted_s"] is None)
    assert sum(document["unsupported"].values()) == len(rows) - len(predicted)
    text = run("validate", table).out
    assert text.startswith(f"{len(predicted)} of {len(rows)} rows predicted and scored: median error ")
    assert "Not predicted, and why" in text


def test_an_unknown_stack_is_warned_of_once_with_its_rows(run: Any, tmp_path: Path) -> None:
    """On stderr, so that what goes into a pipe stays JSON; the rows are predicted all the same."""
    known = published_rows("Nemotron-4 15B")[:3]
    unknown = [row | {"run_id": f"{index}", "stack": "mystery"} for index, row in enumerate(known)]
    done = run("validate", write_rows(tmp_path / "some.csv", *known, *unknown), "--json")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert done.err.startswith("perfmodel: warning: ")
    assert "mystery" in done.err
    assert done.err.endswith("has no preset: generic stands for it (3 rows)\n")
    assert json.loads(done.out)["overall"]["rows"] == 6
    assert run("validate", write_rows(tmp_path / "known.csv", *known)).err == ""


def test_a_run_that_cannot_have_fit_is_warned_of(run: Any, tmp_path: Path) -> None:
    """With its line, and the odds in JSON; a table of runs that fit has no warning."""
    fitting = published_rows("Nemotron-4 15B")[:3]
    more = {name: str(16 * float(fitting[0][name])) for name in ("iteration_time_s", "global_batch_size")}
    beyond = [fitting[0] | more | {"micro_batch_size": "16", "global_batch_size": more["global_batch_size"].partition(".")[0]}]
    done = run("validate", write_rows(tmp_path / "some.csv", *fitting, *beyond), "--json")
    assert done.code == 0
    (warning,) = done.err.splitlines()
    assert warning.startswith("perfmodel: warning: line 5: Nemotron-4 15B needs ")
    assert [row["fit_probability"] < 0.05 for row in json.loads(done.out)["rows"]] == [False, False, False, True]
    assert run("validate", write_rows(tmp_path / "some.csv", *fitting)).err == ""


def test_a_row_whose_stack_lacks_what_it_asks_for_is_warned_of(run: Any, tmp_path: Path) -> None:
    """The presets that have it come with the warning."""
    rows = [
        row | {"stack": "fsdp", "sharding": "zero3"}
        for row in published_rows("Nemotron-4 15B")
        if row["tensor_parallel"] == "4"
    ]
    done = run("validate", write_rows(tmp_path / "some.csv", rows[0]))
    assert "PyTorch FSDP (llm-foundry) offers no tensor parallelism; it is predicted as if it did; " in done.err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "has no column run_id; the file is empty"),
        ("a,b\n1,2\n", "has no column run_id; known: a, b"),
        ("runid,source\n", "has no column run_id; did you mean runid?"),
    ],
)
def test_a_table_without_the_columns_is_refused(run: Any, tmp_path: Path, content: str, sentence: str) -> None:
    """The first one that is missing is named."""
    table = tmp_path / "bad.csv"
    table.write_text(content)
    done = run("validate", table)
    assert done.code == 2
    assert sentence in done.err


def test_a_wrong_cell_is_named_by_line_and_column(run: Any, tmp_path: Path) -> None:
    """As an editor would find it."""
    header, first, *_ = (DATA / "published_runs.csv").read_text().splitlines()
    table = tmp_path / "bad.csv"
    table.write_text(f"{header}\n{first.replace(',8.85,', ',fast,')}\n")
    done = run("validate", table)
    assert done.code == 2
    assert "bad.csv, line 2, column iteration_time_s: 'fast' is not a time" in done.err


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [("iteration_time_s", "0", "'0' is not between 1e-06 and 1e+06"), ("iteration_time_s", "-1", "is not between"),
     ("layers", "", "column layers"), ("gpus", "0", "column gpus")],
)  # fmt: skip
def test_an_impossible_measurement_is_refused(run: Any, tmp_path: Path, column: str, value: str, sentence: str) -> None:
    """A table with one is wrong somewhere."""
    done = run("validate", write_rows(tmp_path / "bad.csv", published_rows()[0] | {column: value}))
    assert done.code == 2
    assert sentence in done.err


def test_a_row_with_more_cells_than_columns_is_refused(run: Any, tmp_path: Path) -> None:
    """A comma without quotes shifts everything after it."""
    header, first, *_ = (DATA / "published_runs.csv").read_text().splitlines()
    table = tmp_path / "bad.csv"
    table.write_text(f"{header}\n{first},more\n")
    assert "line 2 has 1 more cells than there are columns" in run("validate", table).err


def test_a_table_of_uncovered_rows_says_so(run: Any, tmp_path: Path) -> None:
    """No median of nothing."""
    rows = [row | {"global_batch_size": ""} for row in published_rows("Nemotron-4 15B")[:4]]
    table = write_rows(tmp_path / "uncovered.csv", *rows)
    assert run("validate", table).out.startswith("None of 4 rows is covered yet.")
    assert json.loads(run("validate", table, "--json").out)["overall"] is None


@pytest.mark.slow
def test_without_a_file_the_shipped_table_is_taken(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of its rows, each in the groups of its labels and of its kind of layout."""
    known = {each.measured.run_id: each for each in compared()}  # predicted once for all tests
    monkeypatch.setattr(time_scores, "compare_time", lambda row: known[row.run_id])
    document = json.loads(run("validate", "--json").out)
    assert [row["run_id"] for row in document["rows"]] == [row["run_id"] for row in published_rows()]
    assert document["complete"] is True
    assert list(document["groups"]) == ["source", "gpu", "stack", "precision", "layout"]
    for group, members in document["groups"].items():
        names = [row["groups"][group] for row in document["rows"] if row["predicted_s"] is not None and row["scored"]]
        assert {name: summary["rows"] for name, summary in members.items()} == {name: names.count(name) for name in set(names)}


@pytest.mark.parametrize("columns", [80, 120])
def test_the_scoreboard_fits_the_width(run: Any, table: Path, columns: int) -> None:
    """Plain ASCII, no line longer than the terminal; short unless all is asked for."""
    full, short = (run("validate", table, *more, columns=columns) for more in (["--full"], []))
    for done in (full, short):
        assert done.code == 0
        assert done.out.isascii()
        assert max(map(len, done.out.splitlines())) <= columns
    assert len(short.out.splitlines()) <= 20 < len(full.out.splitlines())
    assert "Worst row: " in short.out
    assert "--full shows every source" in " ".join(short.out.split())


def test_the_worst_rows_come_with_their_breakdown(run: Any, table: Path) -> None:
    """Five, the largest error first, each with its layout and where its predicted time goes."""
    rows = json.loads(run("validate", table, "--json").out)["rows"]
    ranked = sorted(rows, key=lambda row: -abs(row["relative_error"]))
    worst = run("validate", table, "--full").out.partition("Worst rows")[2]
    named = [line.partition(",")[0] for line in worst.splitlines()[1:] if not line.startswith(" ")]
    assert named == [row["run_id"] for row in ranked[:5]]
    share = ranked[0]["breakdown_s"]["matmul"] / ranked[0]["predicted_s"]
    assert f"matrix products {100 * share:.0f} %" in worst


def test_a_bar_that_is_met_changes_nothing(run: Any, table: Path) -> None:
    """Exit code 0 and no word."""
    done = run("validate", table, "--fail-above", "median=0.9", "--fail-above", "stack/megatron-core:p90=90%")
    assert (done.code, done.err) == (0, "")


def test_a_bar_that_is_missed_is_a_no(run: Any, table: Path) -> None:
    """Exit code 1 and a line for each, after the whole scoreboard."""
    bars = ["median=0", "precision/bf16:p90=0.01%", "bias=100%"]
    done = run("validate", table, *(word for bar in bars for word in ("--fail-above", bar)))
    assert done.code == 1
    median, p90 = done.err.splitlines()
    assert median.startswith("perfmodel: all rows: median is ")
    assert p90.startswith("perfmodel: precision/bf16: p90 is ")
    assert p90.endswith("at most 0.01 % is allowed")
    assert done.out == run("validate", table).out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--fail-above", "medan=5%"], "--fail-above medan=5%: 'medan' is not a score; did you mean median?"),
        (["--fail-above", "stack/megatron:median=5%"], "no row has stack 'megatron'; did you mean megatron-core?"),
        (["--fail-above", "median=5"], "'5' is not between 0 and 1 (0 and 100%); did you mean 5%?"),
        (["--figure", "scores.pdf"], "--figure scores.pdf must be a .png or .svg file"),
        (["--memory", "--figure", "scores.png"], "--figure draws times; it cannot be combined with --memory"),
        (["--memory", "--reliability", "scores.png"], "--reliability draws times; it cannot be combined with --memory"),
        (["--reliability", "scores.pdf"], "--reliability scores.pdf must be a .png or .svg file"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_the_work(
    run: Any, table: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], sentence: str
) -> None:
    """One sentence, exit code 2, and nothing predicted."""
    monkeypatch.setattr(time_scores, "predict", lambda _: pytest.fail("predicted"))
    done = run("validate", table, *options)
    assert done.is_refused(2, sentence), done


@pytest.mark.parametrize("option", ["--figure", "--reliability"])
@pytest.mark.parametrize(("name", "start"), [("scores.png", b"\x89PNG"), ("scores.svg", b"<?xml")])
def test_a_picture_is_written_whole(run: Any, table: Path, tmp_path: Path, option: str, name: str, start: bytes) -> None:
    """Beside the scoreboard, by extension; nothing else is left."""
    done = run("validate", table, option, tmp_path / name)
    assert done.code == 0
    assert done.err.endswith(f"{name}\n")
    assert (tmp_path / name).read_bytes().startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, table.name])


def test_a_picture_needs_matplotlib_and_says_so(run: Any, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.delitem(sys.modules, "perfmodel.report.figures.measured.steps", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run("validate", table, "--figure", "scores.png")
    assert (done.code, done.out) == (2, "")
    assert done.err == "perfmodel: --figure needs matplotlib; pip install 'perfmodel[report]' brings it\n"


def interrupted_after(rows: int) -> Iterator[None]:
    """What is drawn from at each prediction: nothing `rows` times, then Ctrl-C."""
    yield from [None] * rows
    raise KeyboardInterrupt


def test_ctrl_c_prints_the_scores_of_the_rows_so_far(run: Any, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130; a part is neither judged nor drawn, and JSON says that it is one."""
    compare = time_scores.compare_time
    for arguments in ([], ["--json"]):
        interruptions = interrupted_after(3)
        monkeypatch.setattr(time_scores, "compare_time", lambda each, turns=interruptions: (next(turns), compare(each))[1])
        done = run("validate", table, "--fail-above", "median=0", "--figure", table.parent / "scores.png", *arguments)
        assert done.code == 130
        assert done.err.startswith("perfmodel: stopped after 3 of 8 rows: ")
        assert done.err.count("\n") == 1
        assert not (table.parent / "scores.png").exists()
        if arguments:
            document = json.loads(done.out)
            assert (document["complete"], len(document["rows"])) == (False, 3)
        else:
            assert done.out.startswith("3 of 3 rows predicted")


def test_ctrl_c_before_the_first_row_prints_no_scores(run: Any, table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only how far it came."""
    interruptions = interrupted_after(0)
    monkeypatch.setattr(time_scores, "compare_time", lambda _: next(interruptions))
    done = run("validate", table)
    assert (done.code, done.out, done.err) == (130, "", "perfmodel: stopped after 0 of 8 rows\n")


@pytest.mark.processes
def test_json_loads_nothing_heavy(table: Path) -> None:
    """Neither torch, pandas nor matplotlib, and not even rich."""
    script = f"import sys; from perfmodel.commands import app; sys.argv[1:] = ['validate', {str(table)!r}, '--json']\n"
    script += "try: app.main()\nexcept SystemExit: pass\n"
    script += f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_leaving_sources_out_is_for_times(run: Any, tmp_path: Path) -> None:
    """What fits in memory was fitted on no runs."""
    done = run("validate", tmp_path / "fits.csv", "--memory", "--leave-source-out")
    assert done.is_refused(2, "--leave-source-out is about times; it cannot be combined with --memory"), done


def test_mixtures_are_a_table_of_their_own(run: Any, table: Path) -> None:
    """Their runs are shipped too; a file beside them is one table too many."""
    result = run("validate", table, "--mixtures")
    assert result.code == 2
    assert "cannot be combined with FILE" in result.err
