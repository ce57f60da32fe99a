"""Does every command print in each form that it is asked for, and refuse two at a time?"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perfmodel.exchange.presets import DATA
from perfmodel.exchange.tables.published_runs import read_measured_runs

RUN = "nemotron-4-15b"
COMMANDS = (
    ["predict", RUN],
    ["predict", RUN, "--set", "micro_batch_size=[1,2]"],
    ["explain", RUN],
    ["diagnose", RUN, "--measured", "0.9s"],
    ["list"],
    ["list", "models"],
    ["show", "dgx-h100"],
)


def read(text: str) -> list[dict[str, str]]:
    """The rows of a CSV text."""
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_csv_has_a_header_and_full_rows(run: Any, command: list[str]) -> None:
    """Every row has every column."""
    done = run(*command, "--csv")
    assert done.code == 0, done.err
    rows = read(done.out)
    assert rows
    assert all(None not in row and None not in row.values() for row in rows)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_markdown_has_tables(run: Any, command: list[str]) -> None:
    """With as many cells in each line as in the head."""
    done = run(*command, "--markdown")
    assert done.code == 0, done.err
    widths: set[int] = set()
    for line in done.out.splitlines():
        if not line.startswith("|"):
            widths = set()
            continue
        widths.add(line.replace("\\|", "").count("|"))
        assert len(widths) == 1, line


def test_csv_of_a_ramp_is_its_prediction(run: Any) -> None:
    """A row a stage, numbers in SI units."""
    rows = read(run("predict", RUN, "--csv").out)
    assert [row["gpus"] for row in rows] == ["768", "1536", "2304"]
    assert all(0.5 < float(row["iteration_time_s"]) < 0.7 for row in rows)


def test_csv_of_a_validation_has_every_row_of_the_table(run: Any, tmp_path: Path) -> None:
    """Those that are not covered too, with the reason."""
    shipped = read((DATA / "published_runs.csv").read_text())
    lacking = [row | {"gpu": "h100-sxm-80gb"} for row in shipped if row["precision"] == "nvfp4"]
    some = [*shipped[::50], *lacking][:16]
    table = tmp_path / "some.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(some[0]))
        writer.writeheader()
        writer.writerows(some)
    rows = read(run("validate", table, "--csv").out)
    assert len(rows) == len(read_measured_runs(table).rows)
    assert any(row["reason"] for row in rows)
    assert all(bool(row["predicted_s"]) != bool(row["reason"]) for row in rows)


@pytest.mark.parametrize(("name", "start"), [("out.csv", "run,stage,"), ("out.md", "Nemotron-4 15B: "), ("out.json", "{")])
def test_the_name_of_the_file_chooses_the_form(run: Any, tmp_path: Path, name: str, start: str) -> None:
    """As it does for JSON."""
    run("predict", RUN, "-o", tmp_path / name)
    assert (tmp_path / name).read_text().startswith(start)


@pytest.mark.parametrize(
    ("command", "would_do"),
    [
        (["predict", RUN], ".json, .csv, .md, .txt or .json.gz would do"),
        (["validate"], ".json, .csv, .md, .txt or .json.gz would do"),
        (["timeline", RUN], ".json or .json.gz would do"),
        (["measure", RUN], ".json or .json.gz would do"),
        (["compare", RUN, "record.json"], ".json, .csv, .md, .txt or .json.gz would do"),
    ],
    ids=lambda each: each[0],
)
def test_an_ending_that_nobody_knows_is_refused(run: Any, tmp_path: Path, command: list[str], would_do: str) -> None:
    """With those that would do, before any work; nothing is written."""
    file = tmp_path / "out.foo"
    done = run(*command, "-o", file)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"perfmodel: --output {file} ends in .foo, which is no format here; {would_do}\n"
    assert not file.exists()


def test_a_compressed_file_has_the_form_of_its_name(run: Any, tmp_path: Path) -> None:
    """The ending before .gz; an option wins over any name."""
    run("predict", RUN, "-o", tmp_path / "out.csv.gz")
    assert gzip.decompress((tmp_path / "out.csv.gz").read_bytes()).startswith(b"run,stage,")
    run("predict", RUN, "--json", "-o", tmp_path / "out.foo")
    assert (tmp_path / "out.foo").read_text().startswith("{")


def test_two_forms_at_a_time_are_refused(run: Any) -> None:
    """In one sentence."""
    done = run("predict", RUN, "--csv", "--json")
    assert (done.code, done.out) == (2, "")
    assert done.err == "perfmodel: --json and --csv cannot be combined\n"


@pytest.mark.processes
def test_a_locale_without_the_letters_of_a_name_is_no_error(tmp_path: Path) -> None:
    """They are written as their numbers."""
    path = tmp_path / "run.yaml"
    path.write_text(f"name: n\u00e4me \u6570\n{(cli_data() / 'runs' / 'nemotron-4-15b.yaml').read_text().split(chr(10), 1)[1]}")
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    for form in ([], ["--json"]):
        command = [sys.executable, "-m", "perfmodel", "predict", str(path), *form]
        done = subprocess.run(command, capture_output=True, env=environment, cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == 0, done.stderr
        if form:  # as JSON has it, so that it can be read again
            assert json.loads(done.stdout)["name"] == "n\u00e4me \u6570"
        else:
            assert done.stdout.startswith(b"n\\xe4me \\u6570: ")


def cli_data() -> Path:
    """Where the shipped presets are."""
    return Path(__file__).parents[2] / "perfmodel" / "data"
