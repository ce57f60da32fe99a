"""Are the scores over the shipped runs as good as those in tests/scores.yaml (benchmarks/project/scores.py)?"""

from __future__ import annotations

import pytest

from perfmodel.benchmarks.project.scores import FILE, Scores, changes, scores, worse
from perfmodel.exchange.syntax.documents import read_mapping
from tests.comparisons import compared, compared_mixtures

BEFORE: Scores = {"fsdp/h100/bf16": {"rows": 35, "median": 0.030, "p90": 0.100}}


@pytest.mark.slow
def test_no_group_got_worse() -> None:
    """No fewer rows, and no larger errors; `perfmodel.benchmarks.project.scores` writes the file anew."""
    assert worse(read_mapping(FILE), scores([*compared(), *compared_mixtures()])) == []


@pytest.mark.slow
def test_every_group_is_guarded() -> None:
    """One that is not in the file could get worse unseen."""
    assert set(scores([*compared(), *compared_mixtures()])) <= set(read_mapping(FILE))


@pytest.mark.parametrize(
    ("now", "sentence"),
    [
        ({"rows": 34, "median": 0.030, "p90": 0.100}, "34 rows are predicted; 35 were"),
        ({"rows": 35, "median": 0.034, "p90": 0.100}, "median is 3.40 %; it was 3.00 %"),
        ({"rows": 35, "median": 0.030, "p90": 0.111}, "p90 is 11.10 %; it was 10.00 %"),
    ],
)
def test_a_group_that_got_worse_is_named(now: dict[str, float], sentence: str) -> None:
    """With what it was."""
    assert worse(BEFORE, {"fsdp/h100/bf16": now}) == [f"fsdp/h100/bf16: {sentence}"]


def test_a_group_that_is_gone_got_worse() -> None:
    """All of its rows are lost."""
    assert worse(BEFORE, {}) == ["fsdp/h100/bf16: 0 rows are predicted; 35 were"]


@pytest.mark.parametrize(
    "now",
    [
        {"rows": 35, "median": 0.033, "p90": 0.109},
        {"rows": 40, "median": 0.020, "p90": 0.080},
    ],
    ids=["a little worse", "better"],
)
def test_what_is_tolerated_or_better_is_not_worse(now: dict[str, float]) -> None:
    """0.3 points of the median and 1 point of the 90th percentile; more rows; new groups."""
    assert worse(BEFORE, {"fsdp/h100/bf16": now, "new/h100/bf16": now}) == []


def test_every_change_is_listed() -> None:
    """Better, new and gone ones too."""
    now = {"fsdp/h100/bf16": {"rows": 36, "median": 0.02, "p90": 0.1}, "new/h100/bf16": BEFORE["fsdp/h100/bf16"]}
    assert changes(BEFORE, now) == [
        "fsdp/h100/bf16: median 3.00 % and p90 10.00 % of 35 -> median 2.00 % and p90 10.00 % of 36",
        "new/h100/bf16: none -> median 3.00 % and p90 10.00 % of 35",
    ]
    assert changes(BEFORE, BEFORE) == []
