"""Does HTML say what the terminal says, whatever is in a name?"""

from __future__ import annotations

import pytest
from rich.console import Group
from rich.style import Style
from rich.text import Text

from perfmodel.report.html.blocks import as_html, escaped, figure_html, folded
from perfmodel.report.text.terminal import plain_table, section, titled


def _table(*rows: tuple[str, ...]) -> str:
    table = plain_table("part")
    table.add_column("ms", justify="right")
    for row in rows:
        table.add_row(*row)
    return as_html(table)


@pytest.mark.parametrize("weird", ["<script>alert(1)</script>", "a & b", "\"quoted\" 'twice'", "</style><b>"])
def test_markup_in_a_name_is_text(weird: str) -> None:
    """In sentences, titles, cells, lists, summaries and attributes."""
    content = Group(Text(weird), titled(weird, section(weird, [(weird, weird)])))
    for made in (as_html(content), _table((weird, weird)), folded(weird, ""), figure_html(weird, "<svg></svg>")):
        assert weird not in made
        assert escaped(weird) in made.replace("<wbr>", "")


def test_what_nobody_sees_is_shown() -> None:
    """Control characters, which HTML forbids, and marks that turn the text after them round."""
    assert escaped("a\x00b\x1b[31mc\u202ed\u200be") == "a\ufffdb\ufffd[31mc\ufffdd\ufffde"
    assert escaped("naïve 模型 \U0001f600\n") == "naïve 模型 \U0001f600\n"


def test_a_table_keeps_its_cells() -> None:
    """The label of a row heads it, numbers are on the right."""
    made = _table(("attention", "35.9"))
    assert '<thead><tr><th scope="col">part</th><th scope="col" class="number">ms</th></tr></thead>' in made
    assert '<tr><th scope="row">attention</th><td class="number">35.9</td></tr>' in made


def test_what_is_added_up_is_the_foot_of_a_table() -> None:
    """So that sorting leaves it where it is."""
    table = plain_table("part")
    table.add_column("ms", justify="right")
    table.add_row("attention", "1")
    table.add_section()
    table.add_row("total", "1")
    body, foot = as_html(table).split("<tfoot>")
    assert "attention" in body
    assert "total" in foot


def test_bars_of_letters_are_left_to_the_figures() -> None:
    """A column without a heading that has nothing else; one with words stays."""
    table = plain_table("part")
    table.add_column("")
    table.add_row("attention", "####--")
    assert "#" not in as_html(table)
    table.add_row("matmul", "and fits")
    assert "and fits" in as_html(table)


def test_styles_become_classes() -> None:
    """Of a whole sentence, and of some of its words."""
    assert as_html(Text("no", style="bold red")) == '<p class="strong bad">no</p>'
    assert as_html(Text.assemble("it ", ("fits", "green"))) == '<p>it <span class="good">fits</span></p>'


def test_each_line_of_a_text_is_a_paragraph() -> None:
    """Empty lines are none."""
    assert as_html(Text("one\n\ntwo")) == "<p>one</p>\n<p>two</p>"


def test_titles_go_down_by_one_inside_a_title() -> None:
    """As the outline of a page does."""
    assert as_html(titled("outer", titled("inner", "text"))) == "<h3>outer</h3>\n<h4>inner</h4>\n<p>text</p>"


def test_long_paths_may_break() -> None:
    """After a dot, an underscore or a slash, without a change of the text."""
    path = "cluster.gpu.kernels.matmul.bf16.efficiency"
    made = _table((path, "1"))
    assert path not in made
    assert path in made.replace("<wbr>", "")


def test_links_stay_on_the_page() -> None:
    """Whatever a style says."""
    table = plain_table("number")
    table.add_row(Text("here", style=Style(link="#source-1")))
    table.add_row(Text("there", style=Style(link="https://example.org")))
    made = as_html(table)
    assert '<a href="#source-1">here</a>' in made
    assert "example.org" not in made
