"""Do summaries of errors weigh rows and sources as they say, leave context out, and see the memory that was measured?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.interval_scores import MISS
from perfmodel.evidence.time_scores import TimeComparison, seen_bytes, summarise_times
from tests.evidence.test_groups import RAMP, row

MEMORY = MemoryBytes(
    parameters_bytes=10.0,
    gradients_bytes=10.0,
    optimizer_bytes=20.0,
    activations_bytes=30.0,
    loss_bytes=10.0,
    scratch_bytes=0.0,
    communication_bytes=2.0,
    workspaces_bytes=0.0,
    framework_bytes=5.0,
    fragmentation_bytes=3.0,
)


def compared(error: float, source: str = "here", *, scored: bool = True, memory: float | None = None) -> TimeComparison:
    """A run of one second, predicted with this error and an interval of a tenth to either side."""
    plain = row(RAMP)
    predicted = 1.0 + error
    measured = replace(plain.measured, source=source, scored=scored, memory_bytes=memory)
    interval = (predicted - 0.1, predicted + 0.1)
    return replace(plain, measured=measured, predicted_s=predicted, interval_s=interval, memory=MEMORY)


def test_each_source_weighs_one() -> None:
    """Nine rows of one paper count as much as one row of another."""
    rows = [*(compared(0.01, "arXiv:1 Table 2") for _ in range(9)), compared(0.3, "arXiv:2"), compared(0.5, "arXiv:3")]
    summary = summarise_times(rows)
    assert summary is not None
    assert summary.median_abs_error == pytest.approx(0.01)
    assert summary.by_source.median_abs_error == pytest.approx(0.3)
    assert summary.by_source.p90_abs_error == pytest.approx(0.5)


def test_rows_of_context_count_nowhere() -> None:
    """Neither in the median nor in the number of rows."""
    summary = summarise_times([compared(0.02), compared(0.9, scored=False)])
    assert summary is not None
    assert summary.rows == 1
    assert summary.median_abs_error == pytest.approx(0.02)
    assert summarise_times([compared(0.9, scored=False)]) is None


def test_the_winkler_score_is_the_width_and_what_lies_beyond() -> None:
    """Inside it is the width; a measurement 0.2 below costs twenty times that more."""
    inside, outside = summarise_times([compared(0.05)]), summarise_times([compared(0.3)])
    assert inside is not None
    assert outside is not None
    assert inside.winkler_score == pytest.approx(0.2)
    assert outside.winkler_score == pytest.approx(0.2 + MISS * 0.2)
    assert (inside.interval_coverage, outside.interval_coverage) == (1.0, 0.0)


@pytest.mark.parametrize(("kind", "seen"), [("allocated", 80.0), ("reserved", 83.0), ("device", 90.0)])
def test_memory_is_compared_as_far_as_it_was_seen(kind: str, seen: float) -> None:
    """The allocator does not see the CUDA context; tensors do not see what the allocator loses."""
    assert seen_bytes(MEMORY, kind) == seen


def test_memory_errors_are_those_of_rows_that_state_it() -> None:
    """80 of 100 bytes is a fifth too little."""
    summary = summarise_times([compared(0.0), compared(0.0, memory=100.0)])
    assert summary is not None
    assert summary.memory is not None
    assert summary.memory.rows == 1
    assert summary.memory.bias == pytest.approx(-0.2)
    alone = summarise_times([compared(0.0)])
    assert alone is not None
    assert alone.memory is None
