"""Is a difference the difference of two predictions, and is its interval that of numbers that move in both at once?"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from perfmodel.api import load, whatif
from perfmodel.prediction import predict
from perfmodel.spec.evidence.spread import moved, uncertain_numbers
from perfmodel.spec.run import Run
from perfmodel.timing.breakdown import PARTS
from perfmodel.variation.scenarios import WhatIf
from tests.search.layouts.single_layouts import alone

PRESET = "nemotron-4-15b"


@cache
def asked(*settings: str) -> WhatIf:
    """The central preset beside itself with settings changed."""
    return whatif(PRESET, {"changed": settings})


def interval(result: WhatIf) -> tuple[float, float]:
    """Of the only scenario."""
    return result.time_ratio_interval(result.scenarios[0])


def test_before_and_after_are_the_predictions_of_both_runs() -> None:
    """To the last bit, for the stage that is shown and for the whole run."""
    result = asked("tensor_parallel=4")
    for scenario, settings in ((result.before, []), (result.scenarios[0], ["tensor_parallel=4"])):
        single = predict(load(PRESET, settings))
        row = single.rows()[-1]
        numbers = result.quantities(scenario)
        assert {name: numbers[name] for name in row if name in numbers} == {name: row[name] for name in row if name in numbers}
        assert numbers["total_days"] == single.total_days
        assert numbers["gpu_hours"] == single.gpu_hours


def test_a_scenario_that_changes_nothing_differs_in_nothing() -> None:
    """Nor is there any doubt about it."""
    result = asked("name=Mine")
    assert result.time_ratio(result.scenarios[0]) == 1
    assert interval(result) == (1, 1)


def test_errors_that_both_runs_share_cancel() -> None:
    """Network health is doubtful by a quarter, but it is the same network before and after."""
    result = asked("micro_batch_size=2")
    low, high = interval(result)
    stage = result.before.stage(-1)
    alone = [float(end / stage.iteration_time_s) for end in stage.iteration_time_interval_s]
    assert low < result.time_ratio(result.scenarios[0]) < high
    assert high / low < 0.5 * (alone[1] / alone[0] - 1) + 1


def test_what_the_equations_lack_of_a_configuration_cancels() -> None:
    """A faster network leaves the configuration as it is; another layout may be further off, another stack more."""
    before = asked("tensor_parallel=4").before.stage(-1).work.setup
    assert before.discrepancy.half_width > 0
    apart = [
        float(before.discrepancy_against(asked(change).scenarios[0].stage(-1).work.setup))
        for change in ("cluster.network_scale=1.1", "tensor_parallel=4", "precision=fp8", "stack=pytorch-fsdp")
    ]
    assert apart[0] == 0.0
    assert apart == sorted(set(apart))


def test_errors_of_different_numbers_add_up() -> None:
    """Kernels of two GPUs were fitted apart: their ratio is less sure than that of two layouts of one."""
    same, other = interval(asked("micro_batch_size=2")), interval(asked("cluster=dgx-b200"))
    assert other[1] / other[0] > same[1] / same[0]


@pytest.mark.slow
def test_the_interval_is_that_of_moving_each_number_in_both_runs() -> None:
    """Brute force: every uncertain number at both ends, in both runs at once, added up as independent ones.

    Nobody compared layouts of one model in these runs: their discrepancy is no part of it.
    """
    result = asked("micro_batch_size=2")
    runs = [each.prediction.run for each in (result.before, result.scenarios[0])]
    paths = set(result.before.stage(-1).uncertainty.half_widths_s)
    squares = 0.0
    for path, spread in (*uncertain_numbers(runs[0].cluster, "cluster."), *uncertain_numbers(runs[0].stack, "stack.")):
        if path in paths:
            ends = [ratio_with(runs, path, factor) for factor in (1.0 + float(spread), 1.0 / (1.0 + float(spread)))]
            squares += (np.log(ends[0] / ends[1]) / 2) ** 2
    squares += float(result.before.stage(-1).work.setup.discrepancy_against(result.scenarios[0].stage(-1).work.setup)) ** 2
    low, high = interval(result)
    assert np.log(high / low) / 2 == pytest.approx(np.sqrt(squares), rel=0.02)


def ratio_with(runs: list[Run], path: str, factor: float) -> float:
    """Iteration time after / before with one number of both runs times a factor."""
    times = []
    for run in runs:
        cluster, stack = moved(run.cluster, {path: factor}, "cluster."), moved(run.stack, {path: factor}, "stack.")
        times.append(alone(replace(run, cluster=cluster, stack=stack).setup(run.stages[-1])).iteration_time_s)
    return times[1] / times[0]


def test_rows_are_scenarios_with_the_run_before_first() -> None:
    """Their parts sum to their times."""
    frame = whatif(PRESET, {"H200": {"cluster": "dgx-h200"}, "TP 4": {"tensor_parallel": 4}}).to_pandas()
    assert frame["scenario"].tolist() == ["before", "H200", "TP 4"]
    assert frame[list(PARTS)].sum(axis=1).tolist() == pytest.approx(frame["iteration_time_s"].tolist(), rel=1e-12)
    ratios = frame["iteration_time_s"] / frame["iteration_time_s"][0]
    assert frame["time_ratio"].tolist() == pytest.approx(ratios.tolist(), rel=1e-12)
    assert (frame["time_ratio_low"] <= frame["time_ratio"]).all()


def test_another_stage_is_shown_where_it_is_asked_for() -> None:
    """Counted from 1; the last without."""
    changed = {"B": {"micro_batch_size": 2}}
    first, last = whatif(PRESET, changed, stage=1), whatif(PRESET, changed)
    assert first.quantities(first.before)["gpus"] == 768
    assert last.quantities(last.before)["gpus"] == 2304
    assert first.quantities(first.before)["total_days"] == last.quantities(last.before)["total_days"]
