"""Are the predictions of what fits counted as right and wrong as they are?"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.measured_rows import MeasuredFit
from perfmodel.evidence.memory_scores import FitComparison, compare_fit, summarise_fits, worst_fits
from perfmodel.exchange.tables.memory_table import read_measured_fits
from tests.tables_of_fits import TOO_LARGE, write_fits

NOTHING = MemoryBytes(**{part.name: 0.0 for part in fields(MemoryBytes)})


def compared(measured: bool, predicted: bool | None, headroom_bytes: float = 0.0, run_id: str = "") -> FitComparison:
    """A layout that fitted or not, and what was said of it; None when it is not covered."""
    fit = MeasuredFit(
        run_id=run_id, source="here", labels={}, model_name="", fits=measured, run=None, reason="", assumptions=()
    )
    if predicted is None:
        return FitComparison(measured=fit)
    return FitComparison(measured=fit, predicted_fits=predicted, memory=NOTHING, headroom_bytes=headroom_bytes)


def test_shares_are_of_what_really_happened() -> None:
    """Of 4 that fitted 1 is refused, of 2 that did not 1 is passed; one that is not covered counts nowhere."""
    rows = [compared(True, True)] * 3 + [
        compared(True, False),
        compared(False, True),
        compared(False, False),
        compared(True, None),
    ]
    summary = summarise_fits(rows)
    assert summary is not None
    assert (summary.rows, summary.fitted, summary.did_not_fit) == (6, 4, 2)
    assert summary.agreement == pytest.approx(4 / 6)
    assert summary.fits_called_impossible == 1 / 4
    assert summary.impossible_called_fits == 1 / 2
    assert summary.scores["disagreement"] == pytest.approx(2 / 6)


def test_there_is_no_share_of_nothing() -> None:
    """Where nothing fitted, none of it was refused; where nothing is covered, there is no summary."""
    summary = summarise_fits([compared(False, False)])
    assert summary is not None
    assert summary.fits_called_impossible is None
    assert summary.impossible_called_fits == 0.0
    assert summarise_fits([compared(True, None)]) is None


def test_the_worst_are_the_wrong_ones_that_were_surest() -> None:
    """With the most bytes left or missing; a right one is never among them."""
    rows = [
        compared(True, False, -1e9, "a little"),
        compared(False, True, 5e9, "much"),
        compared(True, True, 50e9, "right"),
        compared(True, False, -3e9, "more"),
    ]
    assert [row.measured.run_id for row in worst_fits(rows, 2)] == ["much", "more"]


def test_what_a_gpu_holds_is_said_to_fit_and_what_none_holds_is_not(tmp_path: Path) -> None:
    """The headroom is what is left of the GPU's memory."""
    small, large = (compare_fit(each) for each in read_measured_fits(write_fits(tmp_path / "fits.csv", {}, TOO_LARGE)).rows)
    assert (small.predicted_fits, large.predicted_fits) == (True, False)
    for each in (small, large):
        assert each.memory is not None
        assert each.measured.run is not None
        memory_bytes = each.measured.run.cluster.gpu.memory_bytes
        assert each.memory.total_bytes + (each.headroom_bytes or 0.0) == pytest.approx(memory_bytes)
