"""Does a table of runs become shifts of groups, wide ones first, with every row that was left out and why?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.own_calibration import KIN, OPEN, own_calibration
from perfmodel.evidence.own_run_scores import shifted
from perfmodel.evidence.own_runs import Offset, own_posterior, own_residual
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.spec.evidence.own_runs import ANY
from tests.evidence.test_discrepancy import compared, with_batch_of

UNREAD = UnreadRow(line=4, run_id="d", source="a", reason="line 4, column gpus: no number")


def uncovered() -> TimeComparison:
    """A row that the equations do not cover, on line 2 of its table."""
    measured = replace(compared("a", 0.1).measured, run=None, reason="no such GPU", line=2)
    return TimeComparison(measured=measured)


def test_every_group_of_the_runs_has_its_shift() -> None:
    """The file, the software, the model, then each of two configurations; those that a posterior gives them."""
    rows = [compared("a", 0.04), compared("a", 0.06), compared("a", 0.0, with_batch_of(2))]
    found = own_calibration(rows)
    assert [each.runs for each in found.shifts] == [3, 3, 3, 2, 1]
    assert found.shifts[0].software == found.shifts[0].gpu == ANY
    assert [len(each.settings) for each in found.shifts[:3]] == [0, 0, 6]
    residuals = [residual for row in rows if (residual := own_residual(row)) is not None]
    offset = own_posterior(residuals).offset(residuals[0].groups)
    assert (found.shifts[3].shift, found.shifts[3].remaining) == (offset.shift, offset.remaining)
    assert found.shifts[3].kin == KIN[-1]
    assert found.median_shift == pytest.approx(0.04)
    assert [row["weight"] for row in found.rows()] == [each.weight for each in found.runs]


def test_rows_that_say_nothing_are_named_with_their_reasons() -> None:
    """Of what is not covered, what is context and what could not be read, in the order of the table."""
    context = compared("a", 0.1, scored=False)
    context = replace(context, measured=replace(context.measured, line=3))
    found = own_calibration([context, uncovered(), compared("a", 0.1)], [UNREAD])
    assert [(each.line, each.reason) for each in found.left_out] == [(2, "no such GPU"), (3, OPEN), (4, UNREAD.reason)]
    assert len(found.runs) == 1


def test_a_table_without_a_predicted_row_says_nothing() -> None:
    """No run, no shift."""
    found = own_calibration([uncovered()], [UNREAD])
    assert found.runs == found.shifts == ()
    assert len(found.left_out) == 2


def test_a_shift_moves_the_time_and_narrows_its_interval() -> None:
    """Both ends in the logarithm, about the time that moved."""
    row = compared("a", 0.0, known=0.1)
    moved = shifted(row, Offset(shift=0.05, remaining=0.5, runs=1))
    assert moved.predicted_s == pytest.approx(np.exp(0.05))
    assert np.log(moved.interval_s or ()) == pytest.approx([0.0, 0.1])
