"""Do reports read as Markdown, whatever is in them?"""

from __future__ import annotations

from rich.columns import Columns
from rich.console import Group
from rich.padding import Padding
from rich.text import Text

from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.text.markdown import as_markdown
from perfmodel.report.text.prediction import prediction_report
from perfmodel.report.text.terminal import plain_table, section, titled


def lines_of(text: str) -> list[str]:
    """The lines that are not empty."""
    return [line for line in text.splitlines() if line]


def test_a_table_has_a_rule_and_a_line_for_each_row() -> None:
    """Numbers to the right, words to the left, rows that are empty left out."""
    table = plain_table("part")
    table.add_column("ms", justify="right")
    table.add_row("attention", "35.9")
    table.add_row("", "")
    assert lines_of(as_markdown(table)) == ["| part | ms |", "| :--- | ---: |", "| attention | 35.9 |"]


def test_marks_of_markdown_in_names_are_escaped() -> None:
    """A name is a name, not a link, a column or a tag."""
    table = plain_table("na|me")
    table.add_row("<b>[x](y)*_`")
    assert lines_of(as_markdown(table))[2] == r"| \<b\>\[x\](y)\*\_\` |"


def test_sections_become_lists_and_titles_headings() -> None:
    """In their order."""
    content = Group(Text("Verdict."), titled("Stages", Text("none")), section("Assumptions", [("-", "one"), ("key", "two")]))
    assert lines_of(as_markdown(content)) == ["Verdict.", "## Stages", "none", "## Assumptions", "- one", "- key: two"]


def test_every_number_of_a_report_is_there() -> None:
    """The report of the ramp: as many tables as in text, each with a line a stage or a part."""
    candidate = read_candidates("nemotron-4-15b")[0]
    text = as_markdown(prediction_report(predict(candidate.run), assumptions=candidate.assumptions))
    titles = [line.removeprefix("## ") for line in lines_of(text) if line.startswith("## ")]
    assert titles[:2] == ["Stages", "Predicted beside published (in brackets: the difference, of the MFU in points)"]
    assert sum(line.startswith("| 96 |") for line in lines_of(text)) == 2


def test_a_table_with_room_around_it_is_a_table() -> None:
    """And what lays itself out is written as it would be on a terminal of any width."""
    table = plain_table("part")
    table.add_row("attention")
    content = Group(Padding(table, (1, 0, 0, 0)), Padding(Columns(["one", "two"]), (0, 0, 0, 2)))
    assert lines_of(as_markdown(content)) == ["| part |", "| :--- |", "| attention |", "one two"]
