"""Are all parts of a prediction as much longer as own runs were, and all else as it was?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel import api
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.measured.readings import iteration_interval
from perfmodel.explanation.sensitivity import sensitivity
from perfmodel.explanation.terms import term
from perfmodel.explanation.waterfall import waterfall
from perfmodel.prediction import StagePrediction, predict_stage, stage_breakdown
from perfmodel.search.layouts.grids import layout_grids
from perfmodel.search.layouts.search import grid_time_s
from perfmodel.spec.evidence.own_runs import OwnShift, setting_word
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run
from perfmodel.spec.setup import Setup
from perfmodel.timing.breakdown import PARTS
from tests.search.layouts.spaces import every_layout, space_of, workload

SHIFT, REMAINING = 0.05, 0.5
SEARCHED = ("tensor_parallel", "pipeline_parallel", "micro_batch_size")
RUN = read_candidates("nemotron-4-15b", {"recompute": "full", "pipeline_parallel": 2}.items())[0].run  # type: ignore[arg-type]


def with_shifts(run: Run, *shifts: OwnShift) -> Run:
    """The run on a cluster whose evidence holds own runs, beside that of published ones."""
    evidence: RunEvidence = replace(run.cluster.evidence, own_shifts=shifts)
    return replace(run, cluster=replace(run.cluster, evidence=evidence))


FILE = OwnShift(runs=2, kin="of all", shift=SHIFT, remaining=REMAINING)
SHIFTED = with_shifts(RUN, FILE)


def of_last_stage(run: Run) -> StagePrediction:
    """The prediction of its last ramp stage."""
    return predict_stage(run.setup(run.stages[-1]))


def test_every_part_is_longer_by_one_factor() -> None:
    """They add up to the time; MFU falls, tokens a second too; memory stays."""
    before, after = of_last_stage(RUN), of_last_stage(SHIFTED)
    for part in PARTS:
        assert getattr(after.breakdown, part) == pytest.approx(getattr(before.breakdown, part) * np.exp(SHIFT))
    assert after.breakdown.total_s == after.iteration_time_s
    assert after.mfu == pytest.approx(before.mfu / np.exp(SHIFT))
    assert after.tokens_per_s == pytest.approx(before.tokens_per_s / np.exp(SHIFT))
    assert after.memory.total_bytes == before.memory.total_bytes
    assert stage_breakdown(SHIFTED.setup(RUN.stages[-1])) == after.breakdown


def test_the_interval_is_narrower_in_the_logarithm() -> None:
    """Either side as much; so are the parts that it is made of."""
    before, after = of_last_stage(RUN), of_last_stage(SHIFTED)
    for one, other in zip(before.iteration_time_interval_s, after.iteration_time_interval_s, strict=True):
        assert np.log(other / after.iteration_time_s) == pytest.approx(REMAINING * np.log(one / before.iteration_time_s))
    for part, half_s in before.uncertainty.parts_s.items():
        assert after.uncertainty.parts_s[part] == pytest.approx(half_s * REMAINING * np.exp(SHIFT))
    assert after.uncertainty.shares == pytest.approx(before.uncertainty.shares)


def test_numbers_alone_are_as_wide_as_the_parts_that_they_make() -> None:
    """Their squares add up to those of the coefficients and the machine; with the discrepancy, all shares to 1."""
    known = of_last_stage(SHIFTED).uncertainty
    parts_s = {part: float(half_s) for part, half_s in known.parts_s.items()}
    of_numbers = sum(float(half_s) ** 2 for half_s in known.numbers_s.values())
    assert of_numbers == pytest.approx(parts_s["coefficients"] ** 2 + parts_s["machine"] ** 2)
    of_discrepancy = parts_s["discrepancy"] ** 2 / sum(half_s**2 for half_s in parts_s.values())
    assert sum(float(share) for share in known.shares.values()) + of_discrepancy == pytest.approx(1.0)


def test_what_numbers_may_explain_of_a_speed_is_as_narrow_as_its_interval() -> None:
    """So that an interval without one of them is never of less than nothing."""
    one, other = (iteration_interval(of_last_stage(each)) for each in (RUN, SHIFTED))
    assert other.above == pytest.approx(REMAINING * one.above)
    for path, deviation in one.of_number.items():
        assert other.of_number[path] == pytest.approx(REMAINING * deviation)


def test_own_runs_leave_the_ratio_of_two_times_as_sure_as_it_was() -> None:
    """They tell how far both are off, not which number is: what two scenarios share has cancelled before."""
    one, other = (api.whatif(each, {"more": {"micro_batch_size": 2}}) for each in (RUN, SHIFTED))
    assert other.time_ratio_interval(other.scenarios[0]) == pytest.approx(one.time_ratio_interval(one.scenarios[0]))


def test_without_own_runs_nothing_is_multiplied() -> None:
    """Bit for bit: neither by shifts of other software, nor where a run is taken without them."""
    before, elsewhere = of_last_stage(RUN), of_last_stage(with_shifts(RUN, replace(FILE, software="else", gpu="else")))
    for other in (elsewhere, of_last_stage(SHIFTED.without_own_runs)):
        assert other.breakdown == before.breakdown
        assert other.iteration_time_interval_s == before.iteration_time_interval_s


def test_a_search_times_every_layout_with_its_own_shift() -> None:
    """To the bit what a single prediction of it says: that of the configuration for one, that of the file for the others."""
    plain = workload("nemotron-4-15b", gpus=16, batch=16, length=4096)
    fixed = dict.fromkeys(("context_parallel", "virtual_pipeline"), (1,)) | dict.fromkeys(SEARCHED, (1, 2))
    space = space_of(sharding=("none", "zero1"), recompute=("none", "full"), fixed={**fixed, "recompute_layers": (1, 32)})
    layouts = [each for each in every_layout(plain, space) if each.recompute == "full" and each.tensor_parallel == 1]
    known = [setting_word(name, value) for name, value in plain.setup(layouts[0]).settings.items()]
    own = OwnShift(
        software=plain.stack.name,
        gpu=plain.cluster.gpu.name,
        settings=tuple(known),
        runs=1,
        kin="this",
        shift=0.1,
        remaining=0.5,
    )
    evidence = replace(plain.cluster.evidence, own_shifts=(FILE, own))
    work = replace(plain, cluster=replace(plain.cluster, evidence=evidence))
    shifts = set()
    for grid in layout_grids(work, space):
        seconds = grid_time_s(grid)
        for place in map(tuple, np.argwhere(grid.allowed)):
            setup = work.setup(Layout(**grid.values(*place)))
            assert seconds[place] == predict_stage(setup).iteration_time_s
            shifts.add(float(setup.own_shift.shift))
    assert shifts == {SHIFT, 0.1}


def test_the_waterfall_still_ends_at_the_mfu() -> None:
    """What own runs add belongs to no operator; every other step takes what it took."""
    before, after = (waterfall(of_last_stage(each), cluster=each.cluster, stack=each.stack) for each in (RUN, SHIFTED))
    assert 1.0 + sum(step.mfu_change for step in after.steps) == pytest.approx(after.mfu)
    assert after.ideal_s == pytest.approx(before.ideal_s)
    one, other = ({step.name: step.seconds for step in fall.steps} for fall in (before, after))
    added_s = after.iteration_time_s - before.iteration_time_s
    assert other.pop("unlisted") == pytest.approx(one.pop("unlisted") + added_s)
    assert other == pytest.approx(one)


def test_terms_have_the_same_shares() -> None:
    """Those of the breakdown, and recompute, which is worked out apart."""
    for name in ("matmul", "recompute"):
        one, other = (
            term(name, of_last_stage(each), sensitivity(_setup(each)), cluster=each.cluster, stack=each.stack)
            for each in (RUN, SHIFTED)
        )
        assert other.share == pytest.approx(one.share)
        assert other.seconds == pytest.approx(one.seconds * np.exp(SHIFT))


def test_a_timeline_draws_what_the_equations_say() -> None:
    """Which operators own runs make longer, nobody knows."""
    one, other = (api.timeline(each, detail="passes") for each in (RUN, SHIFTED))
    assert other.span_s == one.span_s


def _setup(run: Any) -> Setup:
    setup: Setup = run.setup(run.stages[-1])
    return setup
