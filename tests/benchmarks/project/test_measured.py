"""Is a record that doubts itself measured again, and the surest of all kept?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perfmodel.benchmarks.project.measured import TRIES, is_doubtful, keep_surest, spread_of, within_sentence
from perfmodel.evidence.steps.compared import ComparedOperator


class Measured:
    """A record with nothing but its spread and what it says of itself."""

    def __init__(self, spread: float, *warnings: str, **provenance: str) -> None:
        self.content = {"spread": spread, "warnings": list(warnings), "provenance": provenance}

    def document(self) -> dict[str, Any]:
        """As a file has it."""
        return self.content


def in_turn(*found: Measured) -> Callable[[], Any]:
    """Measurements one after another."""
    return iter(found).__next__


def test_a_record_without_doubt_ends_the_measurement(tmp_path: Path) -> None:
    """The next one is not asked for; what is kept is the sure one, even if an unsure one spread less."""
    record = tmp_path / "run.json"
    assert is_doubtful(record)
    keep_surest(record, in_turn(Measured(0.01, "busy"), Measured(0.05)))
    assert json.loads(record.read_text(encoding="utf-8")) == {"spread": 0.05, "warnings": [], "provenance": {}}
    assert not is_doubtful(record)


def test_where_all_doubt_the_least_spread_is_kept(tmp_path: Path) -> None:
    """Among as many as are tried and the one that was there."""
    record = tmp_path / "run.json"
    keep_surest(record, in_turn(*(Measured(0.3 - 0.01 * number, "wide") for number in range(TRIES))))
    least = 0.3 - 0.01 * (TRIES - 1)
    assert json.loads(record.read_text(encoding="utf-8"))["spread"] == pytest.approx(least)
    keep_surest(record, in_turn(*(Measured(0.5, "wide") for _ in range(TRIES))))
    assert json.loads(record.read_text(encoding="utf-8"))["spread"] == pytest.approx(least)
    assert is_doubtful(record)


def test_a_record_of_cores_that_were_farther_apart_than_calibrated_is_doubted(tmp_path: Path) -> None:
    """Until they are as near; where nothing says how near that is, they are not."""
    record = tmp_path / "run.json"
    keep_surest(record, in_turn(Measured(0.01, cores_apart_us="33.0"), Measured(0.05, cores_apart_us="26.0")), 25e-6)
    assert json.loads(record.read_text(encoding="utf-8"))["spread"] == 0.05
    assert not is_doubtful(record, 25e-6)
    assert is_doubtful(record, 20e-6)
    assert not is_doubtful(record)


def test_of_passes_the_widest_counts() -> None:
    """Prefill or decode."""
    assert spread_of({"prefill": {"spread": 0.1}, "decode": {"spread": 0.2}}) == pytest.approx(0.2)


def operator(kind: str, predicted: float, interval: tuple[float, float] | None = None) -> ComparedOperator:
    """One that takes a second."""
    return ComparedOperator(
        name="it",
        phase="forward",
        kind=kind,
        runs=1.0,
        confidence="",
        predicted=predicted,
        measured=1.0,
        measured_interval_s=interval,
    )


def test_operators_beyond_the_bar_are_named_with_what_their_measurement_says() -> None:
    """One of them may be right: its interval holds the prediction."""
    near = operator("matmul", 1.2)
    assert within_sentence([near]) == "Of 1 such operators in all runs 1 are within 25%; the others are none."
    wide, far = operator("collective", 1.3, (0.7, 1.4)), operator("memory_bound", 0.5, (0.9, 1.1))
    first, second = within_sentence([near, wide, far]).splitlines()
    assert first.endswith("1 are within 25%; the others are 1 collective, 1 memory-bound,")
    assert second == "1 of them inside the 90 % interval of their measurement."
