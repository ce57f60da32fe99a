"""Is a source scored without what was fitted on it, and with what the others say?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.evidence.leave_out import FittedPrior, estimated_factor, left_out
from perfmodel.evidence.time_scores import TimeComparison, compare_time
from perfmodel.exchange.tables.fitted_priors import fitted_priors
from perfmodel.prediction import predict_stage
from tests.comparisons import compared as compared_rows
from tests.comparisons import compared_mixtures, measured, measured_mixtures
from tests.evidence.test_groups import RAMP, row

PRIOR = FittedPrior(key="cluster.compute_scale", rows={"stack": "^megatron-core$"}, value=1.0, spread=1.0)


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


@pytest.mark.parametrize("value", [0.9, 1.0, 1.2])
def test_without_another_source_a_number_is_what_was_known_before_any_run(value: float) -> None:
    """Its own row says nothing of what it is scored with: T'/T = (value / shipped)^slope."""
    row = compared("a", 0.3)
    (found,) = left_out([row], [replace(PRIOR, value=value)])
    assert row.predicted_s is not None
    slope = np.log((found.predicted_s or 0.0) / row.predicted_s)
    assert slope == pytest.approx(_slope_of_compute() * np.log(value), abs=3e-3)


def _slope_of_compute() -> float:
    """d ln T / d ln compute_scale of the ramp's first stage."""
    cluster = replace(RAMP.cluster, compute_scale=1.1 * RAMP.cluster.compute_scale)
    first, faster = (
        float(predict_stage(run.setup(run.stages[0])).iteration_time_s) for run in (RAMP, replace(RAMP, cluster=cluster))
    )
    return float(np.log(faster / first) / np.log(1.1))


def test_sources_outweigh_what_was_known_where_they_agree_and_not_where_they_do_not() -> None:
    """Four that all find 5 %: it stays at that. Two that find 5 % each way say nothing between: the prior decides."""
    narrow = replace(PRIOR, value=1.0, spread=0.1)
    agreeing = [compared(name, 0.05) for name in "abcd"]
    split = [compared("a", 0.05), compared("b", -0.05)]
    slope = _slope_of_compute()
    assert estimated_factor(agreeing, narrow) == pytest.approx(1.05 ** (-1.0 / slope), rel=0.01)
    assert estimated_factor(split, narrow) == pytest.approx(1.0, abs=0.006)
    assert estimated_factor(split, replace(narrow, value=1.03)) == pytest.approx(1.03, abs=0.006)


def test_what_is_shipped_is_what_all_sources_give() -> None:
    """Within a fifth of what was known before: fitted numbers are rounded, and a number moves others a little."""
    for prior in fitted_priors():
        factor = estimated_factor([*compared_mixtures()] if prior.of_mixtures else [*compared_rows()], prior)
        assert abs(np.log(factor)) <= 0.2 * np.log1p(prior.spread), prior


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
        elsewhere = replace(prior, value=1.5 * prior.value)
        assert left_out([one, *others], [elsewhere])[0].predicted_s != one.predicted_s, prior


def test_rows_of_context_teach_nothing() -> None:
    """As if they did not stand there."""
    rows = [compared("a", 0.0), *(compared(name, 0.05) for name in "bcd")]
    context = [
        replace(each, measured=replace(each.measured, scored=False)) for each in (compared(name, -0.2) for name in "efghi")
    ]
    assert left_out([*rows, *context], [PRIOR])[:4] == left_out(rows, [PRIOR])
