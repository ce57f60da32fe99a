"""Do the makers of fences write what the code declares, and do commands on pages run?"""

from __future__ import annotations

from pathlib import Path

import pytest

from perfmodel.benchmarks.project.site import equations, keys, other_tools, program, typed_commands
from perfmodel.benchmarks.project.site.extension import MAKERS
from perfmodel.benchmarks.project.site.fences import FENCE, Fence, escaped, expanded, table
from perfmodel.benchmarks.project.site.keys import DOCS, words_of_keys
from perfmodel.commands.app import COMMANDS
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.memory_table import FIT_COLUMNS
from perfmodel.exchange.tables.published_runs import COLUMNS
from perfmodel.exchange.tables.serving_runs import SERVING_COLUMNS
from perfmodel.explanation.terms import TERMS
from perfmodel.report.json.schemas import document_names
from perfmodel.spec.run import Run

PAGES = sorted(DOCS.rglob("*.md"))
NOTHING = Fence(words=(), body="", folder=Path())


def fence(*words: str, body: str = "", folder: Path = Path()) -> Fence:
    """A fence of a page."""
    return Fence(words=words, body=body, folder=folder)


def test_a_fence_becomes_what_its_maker_writes(tmp_path: Path) -> None:
    """With its words and its lines; fences of other names are left alone."""
    text = "before\n```{twice} x=2\nbody\n```\n\n```{toctree}\npage\n```\n"
    made = expanded(text, {"twice": lambda each: each.option("x") + each.body}, tmp_path)
    assert made == "before\n2body\n\n\n```{toctree}\npage\n```\n"


def test_every_fence_of_a_page_has_a_maker_or_is_of_sphinx() -> None:
    """A misspelled maker would show its fence as code."""
    names = {found["name"] for page in PAGES for found in FENCE.finditer(page.read_text(encoding="utf-8"))}
    assert names - {*MAKERS} <= {"toctree", "csv-table"}
    assert {*MAKERS} <= names


@pytest.mark.processes
def test_a_command_stands_with_what_it_prints(tmp_path: Path) -> None:
    """A file of the page can be read, long output is cut, installations are shown alone, and a command that fails is told."""
    typed_commands.file(fence("words.txt", body="one\ntwo\nthree\n", folder=tmp_path))
    made = typed_commands.shell(fence("lines=2", body="pip install perfmodel\ncat words.txt\n", folder=tmp_path))
    assert made == "```sh\npip install perfmodel\ncat words.txt\n```\n\n```text\none\ntwo\n[..]\n```\n"
    with pytest.raises(RuntimeError, match="exit code 2: perfmodel: 'nemotron-4-16b' is neither"):
        typed_commands.output("perfmodel predict nemotron-4-16b", tmp_path)
    assert typed_commands.output("perfmodel predict nemotron-4-16b", tmp_path, code="2").startswith(
        "perfmodel: 'nemotron-4-16b'"
    )


def test_every_key_of_a_run_stands_in_its_reference() -> None:
    """With what it may hold, its default, and what it means."""
    made = keys.keys(fence("perfmodel.spec.run:Run"))
    assert all(f"| `{name}` |" in made for name in Run.__dataclass_fields__)
    assert "| `tensor_parallel` | whole number from 1 | `1` | GPUs that share every layer, usually those of one node. |" in made
    assert "| `sharding` | `none`, `zero1`, `zero2`, `zero3`, `hsdp` | *its stack* |" in made
    assert "## `stages[N].published`" in made


def test_every_command_option_term_and_document_stands_in_its_reference() -> None:
    """As the program, the terms and the schemas have them."""
    commands = program.commands(NOTHING)
    assert all(f"### perfmodel {name}\n" in commands for name in COMMANDS)
    assert (
        "| `--set KEY=VALUE` |  | Override a key of the run, as in tensor\\_parallel=4; its name is an option too: " in commands
    )
    terms = equations.terms(fence("nemotron-4-15b"))
    assert all(f"| `{name}` |" in terms and f"## `{name}`\n" in terms for name in TERMS)
    assert "| `cluster.links.network.bandwidth_bytes_per_s` | 5e+10 | " in terms
    assert all(f"schemas/{name}.json" in program.documents(NOTHING) for name in document_names())
    assert "| 4 | A machine that failed while it did what was asked of it. |" in program.exit_codes(NOTHING)


def test_equations_are_those_of_the_functions() -> None:
    """The first words of a docstring that states one, and no function that states none."""
    made = equations.equations(fence(body="perfmodel.timing.collectives\n"))
    assert "### `tree_share`\n\n```none\nmin(N/2, 2): what the busiest node sends" in made
    assert "### `crossed_link`" not in made


def test_columns_of_tables_are_those_that_are_read() -> None:
    """Every column of the shipped tables and of those that readers ask for has words, and no other has."""
    dense, mixtures, memory, serving = (set(columns) for columns in read_mapping(DOCS / "columns.yaml").values())
    published, mixed = (
        set((DATA / f"{name}.csv").read_text().splitlines()[0].split(",")) for name in ("published_runs", "mixture_runs")
    )
    assert dense == published | {*COLUMNS}
    assert mixtures == mixed - dense
    assert {*FIT_COLUMNS} - dense <= memory
    assert serving == {*SERVING_COLUMNS}


def test_columns_of_csv_have_the_words_of_json_keys() -> None:
    """Those of the command's own document first."""
    assert words_of_keys("predict")["hfu"] == "The same with the FLOPs of recompute."
    assert words_of_keys("plan")["gpus"] == "GPUs of the run."


def test_words_are_no_markup() -> None:
    """Stars, underscores and brackets of help texts are shown; a bar does not end a cell."""
    assert escaped("a*b <n> `a*b`") == "a\\*b \\<n\\> `a*b`"
    assert table(("a|b",), [("c",)]) == "| a\\|b |\n| --- |\n| c |\n"


def test_what_perfmodel_says_beside_other_tools_is_worked_out() -> None:
    """The ramp is that of `predict`, the errors those of a validation; every case of the file has an answer of every tool."""
    made = other_tools.other_tools(fence(body="other_tools.yaml\n"))
    _, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in made.splitlines()]
    assert {len(row) for row in rows} == {6}
    assert all(cell for row in rows for cell in row)
    assert [row[1] for row in rows[:2]] == [other_tools.ramp(), other_tools.table_5()]
    first, second, third = map(float, other_tools.ramp().split(", "))
    assert first < second < third
