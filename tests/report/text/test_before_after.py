"""Do numbers before and after a change read as people compare them?"""

from __future__ import annotations

import pytest

from perfmodel.report.text.before_after import IntervalLine, Line, table_of_changes
from perfmodel.report.text.terminal import as_text

TIME = Line(name="time_s", label="time, ms", scale=1e3, decimals=1)
MFU = Line(name="mfu", label="MFU, %", scale=100, decimals=1, is_share=True)
TOTAL = Line(name="time_s", label="total", scale=1e3, decimals=1)
BEFORE = {"time_s": 0.6, "mfu": 0.3, "dollars": None, "low": 0.5, "high": 0.7}
AFTER = {"time_s": 0.45, "mfu": 0.4, "dollars": 5.0, "low": None, "high": None}


def test_a_difference_has_a_sign_and_nothing_is_an_equals_sign() -> None:
    """Also what rounds to nothing; and there is none to what is not known."""
    assert TIME.difference(BEFORE, AFTER) == "-150.0"
    assert TIME.difference(BEFORE, BEFORE) == "="
    assert TIME.difference(BEFORE, {"time_s": 0.60001}) == "="
    assert Line(name="dollars", label="").difference(BEFORE, AFTER) == ""


def test_what_is_too_wide_is_shown_in_four_digits() -> None:
    """Every digit below ten millions."""
    line = Line(name="dollars", label="cost, $")
    before, after = {"dollars": 9_999_999.0}, {"dollars": 1.7036868e10}
    assert (line.value(before), line.value(after)) == ("9,999,999", "17.04B")
    assert (line.difference(before, after), line.difference(after, before)) == ("+17.03B", "-17.03B")


def test_shares_change_by_points_and_all_else_by_a_ratio() -> None:
    """30 to 40 % is 10 points."""
    assert (MFU.difference(BEFORE, AFTER), MFU.ratio(BEFORE, AFTER)) == ("+10.0", "")
    assert (TIME.ratio(BEFORE, AFTER), TIME.ratio(BEFORE, BEFORE)) == ("-25.0 %", "")
    assert TIME.ratio({"time_s": 0.0}, AFTER) == ""


def test_an_interval_has_both_ends_or_none() -> None:
    """And no difference."""
    line = IntervalLine(name="low", high="high", label="90 %", decimals=1)
    assert (line.value(BEFORE), line.value(AFTER), line.difference(BEFORE, BEFORE)) == ("0.5-0.7", "", "")


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_every_change_is_beside_what_was_before(number: int) -> None:
    """Results and parts, with values or with what is added."""
    changes = dict.fromkeys("ABCD"[:number], AFTER)
    results = as_text(table_of_changes([TIME, MFU], BEFORE, changes, results=True), width=80).splitlines()
    assert results[2].split()[:4] == ["time,", "ms", "600.0", "450.0"]
    assert sum("-150.0" in line or "-25.0 %" in line for line in results) == 1
    parts = as_text(table_of_changes([TIME, TOTAL], BEFORE, changes, results=False), width=80)
    assert parts.count("-150.0") == 2 * number
    assert "total" in parts.splitlines()[-1]


def test_what_nobody_knows_has_no_row() -> None:
    """Nor has what is zero everywhere."""
    lines = [Line(name="dollars", label="cost"), Line(name="zero", label="none")]
    text = as_text(table_of_changes(lines, {"zero": 0.0}, {"A": {"zero": 0.0}}, results=True), width=80)
    assert "cost" not in text
    assert "none" not in text
