"""Does the README show what its commands print now, and the scores of today, and lead only to files that are there?"""

from __future__ import annotations

import re

import pytest

from perfmodel.benchmarks.project.front_page import ANSWER, PAGE, SCORES, renewed
from tests.comparisons import compared, compared_mixtures

TEXT = PAGE.read_text(encoding="utf-8")


@pytest.mark.processes
def test_the_page_is_what_its_command_writes() -> None:
    """`make readme` was run after the last change of what it shows."""
    assert renewed(TEXT, compared(), compared_mixtures()) == TEXT


def test_it_answers_four_questions_and_shows_scores() -> None:
    """On at most 150 lines."""
    assert len(ANSWER.findall(TEXT)) == 4
    assert SCORES.findall(TEXT)[0].count("\n") > 8
    assert TEXT.count("\n") <= 150


def test_its_links_lead_to_files() -> None:
    """And the commands of its development section are targets of the Makefile."""
    links = [link for link in re.findall(r"\]\(([^)]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
    targets = (PAGE.parent / "Makefile").read_text()
    assert all(f"\n{name}:" in targets for name in re.findall(r"`make (\w+)`", TEXT))
