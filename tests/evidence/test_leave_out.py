"""Is a source scored without what was fitted on it, and with what the others say?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.leave_out import FittedPrior, left_out
from perfmodel.evidence.time_scores import TimeComparison, compare_time
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.prediction import predict_stage
from tests.comparisons import measured, measured_mixtures
from tests.evidence.test_groups import RAMP, row

PRIOR = FittedPrior(key="cluster.compute_scale", rows={"stack": "^megatron-core$"})


def compared(source: str, error: float, stack: str = "megatron-core") -> TimeComparison:
    """The ramp's first stage, predicted with this error against what a source measured."""
    predicted_s = float(predict_stage(RAMP.setup(RAMP.stages[0])).iteration_time_s)
    plain = row(RAMP, stack)
    seen = replace(plain.measured, source=source, iteration_time_s=predicted_s / (1.0 + error))
    return replace(plain, measured=seen, predicted_s=predicted_s, interval_s=(0.9 * predicted_s, 1.1 * predicted_s))


def test_a_source_takes_what_the_others_say() -> None:
    """All others find predictions 5 % too slow: without its own row, a source that found them right is 5 % too fast."""
    rows = [compared("a", 0.0), compared("b", 0.05), compared("c", 0.05), compared("d", 0.05)]
    found = [each.relative_error for each in left_out(rows, [PRIOR])]
    assert found[0] == pytest.approx(-0.05, abs=0.004)
    assert found[1:] == pytest.approx([0.0] * 3, abs=0.004)


def test_an_interval_moves_with_its_prediction() -> None:
    """What its coefficients leave open stays as wide, in proportion."""
    before = compared("a", 0.0)
    first = left_out([before, *(compared(name, 0.05) for name in "bcd")], [PRIOR])[0]
    assert first.predicted_s != before.predicted_s
    assert first.known_widths == pytest.approx(before.known_widths)


def test_a_source_lies_in_the_interval_that_the_others_ask_for() -> None:
    """Those that were right make it narrow; those that were off by a third make it wide enough for one that is."""
    for error, widest in ((0.0, 0.03), (0.35, 0.6)):
        others = [compared(name, error * (-1) ** place) for place, name in enumerate("bcdefg")]
        first = left_out([compared("a", 0.0), *others], [])[0]
        assert first.discrepancy <= widest
        assert first.discrepancy >= 0.8 * np.log1p(error)


def test_a_row_of_another_stack_is_as_it_was() -> None:
    """It neither teaches nor learns."""
    rows = [compared("a", 0.2, "fsdp"), *(compared(name, 0.05) for name in "bcd")]
    assert left_out(rows, [PRIOR])[0].predicted_s == rows[0].predicted_s


def test_with_hardly_another_source_nothing_is_estimated() -> None:
    """One other source says as much of itself as of the prior."""
    rows = [compared("a", 0.0), compared("b", 0.3)]
    assert left_out(rows, [PRIOR]) == rows


def test_each_fitted_prior_serves_rows_of_a_shipped_table_and_moves_them() -> None:
    """A key that no prediction depends on would be left out in vain."""
    shipped = [each for each in (*measured(), *measured_mixtures()) if each.run is not None]
    for prior in fitted_priors():
        served = [each for each in shipped if prior.serves(each)]
        assert served, prior
        assert {each.model.mixture is not None for each in served} == {prior.of_mixtures}
        pipelined = [each for each in served if each.run is not None and each.run.pipeline_parallel > 1] or served
        one = compare_time(pipelined[0])
        others = [replace(one, measured=replace(one.measured, source=name, iteration_time_s=2.0)) for name in "abc"]
        assert left_out([one, *others], [prior])[0].predicted_s != one.predicted_s, prior


def test_rows_of_context_teach_nothing() -> None:
    """As if they did not stand there."""
    rows = [compared("a", 0.0), *(compared(name, 0.05) for name in "bcd")]
    context = [
        replace(each, measured=replace(each.measured, scored=False)) for each in (compared(name, -0.2) for name in "efghi")
    ]
    assert left_out([*rows, *context], [PRIOR])[:4] == left_out(rows, [PRIOR])
