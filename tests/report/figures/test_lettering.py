"""Are names drawn as they are written, and within the room that there is?"""

from __future__ import annotations

import pytest

from perfmodel.report.figures.drawing.lettering import CUT, lines_of, literal, shortened, text_width

NAMES = (
    *("W" * 200, "i" * 200, "\u4e2d\u6587" * 100, "\u0627\u0644" * 100, "\U0001f680" * 60),
    *("$x_1$ \\frac{a}{b} " * 12, "<b>&amp;" * 25),
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("points", [40.0, 120.0, 250.0])
def test_shortened_names_fit(name: str, points: float) -> None:
    """However wide their letters are; what is cut says so."""
    short = shortened(name, points, 8.0)
    assert text_width(short, 8.0) <= points
    assert short == literal(name) or CUT in short


def test_short_names_stay() -> None:
    """Markup and dollars too."""
    assert shortened("$x_1$ <b>{y}</b> %s _z_", 500.0, 8.0) == "$x_1$ <b>{y}</b> %s _z_"


def test_both_ends_of_a_name_are_kept() -> None:
    """They tell one file from another."""
    short = shortened("experiments/2024/a/b/c/run-17.yaml", 100.0, 8.0)
    assert short.startswith("exp")
    assert short.endswith(".yaml")


def test_what_cannot_be_seen_is_left_out() -> None:
    """Ends of lines, escapes, marks that turn the direction; not the joiners of letters."""
    assert literal("a\r\n\tb\x1b[31m\u202ec\u200dd\ue000") == "a b [31m c\u200dd"


def test_long_texts_are_broken_between_words() -> None:
    """In as many lines as there may be; the rest is cut."""
    lines = lines_of("word " * 60, 150.0, 8.0, most=2)
    assert len(lines) == 2
    assert set(lines[0].split()) == {"word"}
    assert CUT in lines[1]
    assert max(text_width(line, 8.0) for line in lines) <= 150.0


def test_a_word_wider_than_a_line_is_cut_alone() -> None:
    """The words after it have lines of their own."""
    first, second = lines_of(f"{'W' * 60} next", 100.0, 8.0, most=2)
    assert CUT in first
    assert second == "next"
