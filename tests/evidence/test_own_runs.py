"""Do own runs shift and narrow predictions as normal parts that are shared in groups ask for, and does an odd one not lead?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from perfmodel.evidence.own_runs import FREEDOM, LEAST_ROW_DEVIATION, OwnResidual, groups_of, own_posterior, own_residual
from perfmodel.spec.evidence.error_law import ErrorLaw
from perfmodel.spec.evidence.run_evidence import Discrepancy, Sharing
from perfmodel.spec.evidence.spread import DEVIATIONS, share_below
from tests.evidence.test_discrepancy import compared, with_batch_of
from tests.evidence.test_groups import RAMP

SHARING = Sharing(file=0.25, models=0.75)
CELL = Discrepancy(half_width=0.12, configuration_deviation=0.04, layout_deviation=0.025, row_deviation=0.02, sharing=SHARING)
T3 = ErrorLaw(degrees=3.0)
SOFTWARE, MODEL = ("S", "G"), ("hidden_size=1",)
HALF_WIDTH = 0.15


def own(
    residual: float,
    configuration: str = "c",
    model: tuple[str, ...] = MODEL,
    software: tuple[str, str] = SOFTWARE,
    half_width: float = HALF_WIDTH,
    law: ErrorLaw = CELL.law,
) -> OwnResidual:
    """A run of one configuration of one model."""
    groups = (software, model, (*model, configuration))
    return OwnResidual(residual=residual, half_width=half_width, discrepancy=replace(CELL, law=law), groups=groups)


def test_runs_of_one_configuration_shrink_as_the_closed_form_says() -> None:
    """N t2 / (N t2 + s2) of their mean, and s2 (1 + t2 / (N t2 + s2)) is left."""
    s2 = CELL.row_deviation**2
    total = (HALF_WIDTH / DEVIATIONS) ** 2
    t2 = total - s2
    for residuals in ([0.03], [0.03, 0.05], [0.02, 0.03, 0.04, 0.05]):
        number = len(residuals)
        posterior = own_posterior([own(each) for each in residuals])
        found = posterior.offset(own(0.0).groups)
        assert posterior.weights.tolist() == [1.0] * number
        assert found.shift == pytest.approx(number * t2 / (number * t2 + s2) * np.mean(residuals))
        assert found.remaining**2 * total == pytest.approx(s2 * (1 + t2 / (number * t2 + s2)))
        assert found.runs == number


def test_nested_groups_are_conditioned_as_normals_are() -> None:
    """By brute force, over every part of every group as a number of its own, with intervals that differ."""
    runs = [
        *(own(residual, half_width=half) for residual, half in ((0.02, 0.15), (0.03, 0.2))),
        own(-0.01, "d", half_width=0.12),
        own(0.04, "e", ("hidden_size=2",), half_width=0.18),
        own(-0.02, "f", ("hidden_size=2",), ("T", "G")),
    ]
    asked = own(0.0, "new")
    parts, loads = dict[tuple[object, ...], int](), list[NDArray[np.float64]]()
    for each in [*runs, asked]:
        known = [runs[0], runs[1], runs[2]] if each is asked else [each]
        typical = np.mean([each.variances for each in known], axis=0)
        load = np.zeros(40)
        names = [("file",), *[tuple(each.groups[:depth]) for depth in (1, 2, 3)], ("row", len(loads))]
        for name, variance in zip(names, typical, strict=True):
            load[parts.setdefault(name, len(parts))] += np.sqrt(variance)
        loads.append(load)
    joint = np.asarray(loads) @ np.asarray(loads).T
    seen, cross = joint[:-1, :-1], joint[-1, :-1]
    residuals = np.asarray([each.residual for each in runs])
    posterior = own_posterior(runs)
    found = posterior.offset(asked.groups)
    assert posterior.weights.min() == 1.0
    assert found.shift == pytest.approx(cross @ np.linalg.solve(seen, residuals))
    assert found.remaining**2 == pytest.approx(1 - cross @ np.linalg.solve(seen, cross) / joint[-1, -1])
    assert found.runs == 3


@pytest.mark.parametrize("residuals", [[0.0], [0.05], [0.01, 0.015, 0.02], [0.06, 0.06]])
def test_errors_that_are_wide_together_tell_how_wide_they_are(residuals: list[float]) -> None:
    """By brute force over the common width of a multivariate t: the 90 % interval of a further run of the configuration."""
    s2 = CELL.row_deviation**2
    total, number = (HALF_WIDTH / DEVIATIONS) ** 2, len(residuals)
    shared = np.full((number + 1, number + 1), total - s2) + np.diag(np.full(number + 1, s2))
    g = np.exp(np.linspace(-14, 4, 4001))
    known, cross = T3.unit**2 * shared[:-1, :-1], shared[-1, :-1]
    fit = np.asarray(residuals) @ np.linalg.solve(known, np.asarray(residuals))
    log_weight = 1.5 * np.log(g) - 1.5 * g + 0.5 * number * np.log(g) - 0.5 * g * fit
    weight = np.exp(log_weight - log_weight.max())
    left = T3.unit * np.sqrt(total - cross @ np.linalg.solve(shared[:-1, :-1], cross))
    found = own_posterior([own(each, law=T3) for each in residuals]).offset(own(0.0).groups)
    inside = 2.0 * share_below(found.remaining * HALF_WIDTH / (left / np.sqrt(g))) - 1.0
    assert weight @ inside / weight.sum() == pytest.approx(0.9, abs=1e-6)
    assert found.law.degrees == pytest.approx(3.0 + number)


def test_runs_near_their_predictions_narrow_and_runs_beyond_do_not() -> None:
    """As errors are wide together; what is known of other software says nothing of this."""
    near, normal, beyond = (own_posterior([each]) for each in (own(0.0, law=T3), own(0.0), own(0.16, law=T3)))
    widths = [each.offset(own(0.0).groups).remaining for each in (near, normal, beyond)]
    assert widths == sorted(widths)
    elsewhere = own(0.0, software=("T", "G")).groups
    assert near.offset(elsewhere) == replace(normal.offset(elsewhere), law=T3)


def test_what_is_nearer_learns_more() -> None:
    """The configuration more than other layouts, these more than other models, these more than other software."""
    posterior = own_posterior([own(0.05), own(0.06)])
    near_to_far = [own(0.0), own(0.0, "d"), own(0.0, "d", ("hidden_size=2",)), own(0.0, "d", MODEL, ("T", "G"))]
    offsets = [posterior.offset(each.groups) for each in near_to_far]
    shifts, widths = [each.shift for each in offsets], [each.remaining for each in offsets]
    assert shifts == sorted(shifts, reverse=True)
    assert widths == sorted(widths)
    assert len(set(shifts)) == len(set(widths)) == 4
    assert shifts[-1] > 0
    assert widths[-1] < 1


def test_the_parts_of_a_run_are_all_of_its_variance() -> None:
    """Whatever its cell says: none is negative, and together they are V."""
    for half_width in (1e-6, 0.01, 0.04, 0.1, 0.5):
        for cell in (CELL, Discrepancy(), replace(CELL, layout_deviation=0.2), replace(CELL, row_deviation=1.0)):
            variances = replace(own(0.0, half_width=half_width), discrepancy=cell).variances
            assert variances.min() >= 0
            assert variances.sum() == pytest.approx((half_width / DEVIATIONS) ** 2)
    file, software, model, configuration, row = own(0.0).variances
    assert row == pytest.approx(0.02**2)
    assert configuration == pytest.approx(0.025**2)
    assert model + configuration == pytest.approx(0.04**2)
    assert file == pytest.approx(SHARING.file * (file + software))
    file, software, model, configuration, row = own(0.0, half_width=0.08).variances
    assert model + configuration == pytest.approx(SHARING.models * (file + software + model + configuration))
    assert replace(own(0.0), discrepancy=Discrepancy()).variances[-1] == pytest.approx(LEAST_ROW_DEVIATION**2)


def test_an_odd_run_among_good_ones_barely_moves_them() -> None:
    """One of four that is off by 60 % changes the time by less than half a percent, and the width by a twentieth."""
    good = [own(0.02), own(0.03), own(0.04)]
    alone, beside = (own_posterior(each).offset(own(0.0).groups) for each in (good, [*good, own(np.log(1.6))]))
    assert abs(beside.shift - alone.shift) < 0.005
    assert beside.remaining == pytest.approx(alone.remaining, rel=0.05)
    assert own_posterior([*good, own(np.log(1.6))]).weights[-1] < 0.05


def test_a_single_run_far_off_hardly_leads() -> None:
    """It weighs (nu + 1) / (nu + z^2): a run ten times as far off shifts less than one inside, and narrows next to nothing."""
    near, far = (own_posterior([own(residual)]) for residual in (0.08, 0.8))
    z = 0.8 * DEVIATIONS / HALF_WIDTH
    assert near.weights.tolist() == [1.0]
    assert far.weights.tolist() == [pytest.approx((FREEDOM + 1) / (FREEDOM + z**2))]
    told = [posterior.offset(own(0.0).groups) for posterior in (near, far)]
    assert told[1].shift < told[0].shift
    assert told[0].remaining < 0.4
    assert told[1].remaining > 0.95


def test_runs_that_agree_lead_however_far_they_are() -> None:
    """Two alike are no accident; of three, two alike against one that is as predicted lead too."""
    far = np.log(1.6)
    for runs in ([own(far), own(far + 0.01)], [own(far), own(far + 0.01), own(0.02)]):
        posterior = own_posterior(runs)
        assert posterior.weights[:2].tolist() == [1.0, 1.0]
        assert posterior.offset(own(0.0).groups).shift == pytest.approx(far, rel=0.02)
    assert own_posterior([own(far), own(far)]).offset(own(0.0, "d", ("hidden_size=2",), ("T", "H")).groups).remaining > 2.0


def test_of_two_that_disagree_the_one_as_predicted_leads() -> None:
    """Whichever stands first."""
    for runs in ([own(0.02), own(0.5)], [own(0.5), own(0.02)]):
        assert own_posterior(runs).offset(own(0.0).groups).shift == pytest.approx(0.02, abs=0.005)


def test_a_run_belongs_to_its_software_model_and_configuration() -> None:
    """Replicas and the batch tell no groups apart; a micro-batch tells configurations apart, widths tell models apart."""
    first = groups_of(RAMP.setup(RAMP.stages[0]))
    assert first[0] == (RAMP.stack.name, RAMP.cluster.gpu.name)
    assert groups_of(RAMP.setup(replace(RAMP.stages[0], data_parallel=8, global_batch_size=16))) == first
    other_batch = groups_of(with_batch_of(2).setup(RAMP.stages[0]))
    assert other_batch[:2] == first[:2]
    assert other_batch[2] != first[2]
    wider = replace(RAMP, model=replace(RAMP.model, ffn_hidden_size=8192))
    assert groups_of(wider.setup(RAMP.stages[0]))[1] != first[1]


def test_a_residual_is_that_of_the_prediction_in_its_interval() -> None:
    """ln(measured / predicted), half of ln(high / low), the cell's deviations; nothing of a row that is context."""
    found = own_residual(compared("a", 0.1, known=0.05))
    assert found is not None
    assert found.residual == pytest.approx(0.1)
    assert found.half_width == pytest.approx(0.05)
    assert found.discrepancy == RAMP.setup(RAMP.stages[0]).discrepancy
    assert own_residual(compared("a", 0.1, scored=False)) is None
