"""Is every point of the grid behind a page's sliders what a prediction with the same settings says?"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from perfmodel.economics.outlook import outlook
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.spec.run import Run
from perfmodel.variation.setting_grid import MICRO_BATCH, SettingGrid, setting_grid

RUN = "nemotron-4-15b"
TERMS = economics_preset("typical")


def _run(settings: dict[str, object] | None = None) -> Run:
    run = read_candidates(RUN, [*(settings or {}).items()])[0].run
    return replace(run, economics=TERMS)


@pytest.fixture(scope="module")
def grid() -> SettingGrid:
    """Of a run with a ramp."""
    return setting_grid(_run())


def _places(grid: SettingGrid) -> list[tuple[int, ...]]:
    """Some of all places: the corners, the run as it is, and every seventy-first."""
    every = [*product(*(range(length) for length in grid.shape))]
    return [every[0], every[-1], grid.here, *every[13::71]]


def test_every_point_is_the_prediction_of_its_settings(grid: SettingGrid) -> None:
    """Bit for bit, over all ramp stages."""
    for at in _places(grid):
        settings: dict[str, object] = dict(grid.settings(at))
        settings[MICRO_BATCH] = int(str(settings[MICRO_BATCH]))
        predicted, point = predict(_run(settings)), grid.point(at)
        assert point is not None
        _, last = predicted.stages[-1]
        days = predicted.total_training_days
        assert days is not None
        assert point.iteration_time_s == pytest.approx(float(last.iteration_time_s), rel=1e-12)
        assert point.mfu == pytest.approx(float(last.mfu), rel=1e-12)
        assert point.days == pytest.approx(float(days.median), rel=1e-12)
        assert point.memory_bytes == max(float(stage.memory.total_bytes) for _, stage in predicted.stages)
        assert point.verdict == predicted.verdict


def test_gpu_hours_are_those_of_the_calendar_but_for_changes_between_stages(grid: SettingGrid) -> None:
    """What is left is the same at every point."""
    left = []
    for at in _places(grid)[:3]:
        settings: dict[str, object] = dict(grid.settings(at))
        settings[MICRO_BATCH] = int(str(settings[MICRO_BATCH]))
        hours, point = outlook(predict(_run(settings)), TERMS).gpu_hours, grid.point(at)
        assert point is not None
        assert point.calendar_gpu_hours is not None
        assert hours is not None
        left.append(hours - point.calendar_gpu_hours)
    assert left == pytest.approx([left[0]] * 3, rel=1e-6)
    assert left[0] > 0.0


def test_the_run_itself_stands_on_the_grid(grid: SettingGrid) -> None:
    """With its own numbers on every axis."""
    own, here = grid.point(grid.here), predict(_run()).stages[-1][1]
    assert own is not None
    assert own.iteration_time_s == pytest.approx(float(here.iteration_time_s), rel=1e-12)


def test_what_changes_nothing_is_no_axis() -> None:
    """One GPU has no links; a batch of odd replicas no other micro-batch."""
    run = read_candidates("laptop")[0].run
    assert not [axis.name for axis in setting_grid(run).axes if "link" in axis.name.lower() or "InfiniBand" in axis.name]


def test_a_layout_that_cannot_be_has_no_point() -> None:
    """A micro-batch that leaves fewer micro-batches than an interleaved pipeline needs."""
    settings = {"pipeline_parallel": 4, "virtual_pipeline": 2, "stages": [{"data_parallel": 4, "global_batch_size": 32}]}
    grid = setting_grid(read_candidates(RUN, [*settings.items()])[0].run)
    axis = next(place for place, each in enumerate(grid.axes) if MICRO_BATCH in each.paths)
    sizes = grid.axes[axis].values
    at = [sizes.index(8) if place == axis else own for place, own in enumerate(grid.here)]
    assert 8 in sizes
    assert grid.point(at) is None
    assert grid.point(grid.here) is not None
