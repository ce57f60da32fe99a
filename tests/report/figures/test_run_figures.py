"""Is what the figures of a run show what was predicted: bars, intervals, lines?"""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise

import pytest

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.economics.outlook import outlook
from perfmodel.exchange.presets import economics_preset
from perfmodel.report.figures.calendar import calendar_bars, calendar_figure, cost_bars
from perfmodel.report.figures.drawing.palette import CALENDAR, ITERATION, MEMORY
from perfmodel.report.figures.waterfall import falls
from perfmodel.report.words import LABELS
from perfmodel.timing.breakdown import PARTS
from perfmodel.timing.confidence import WORDS
from perfmodel.timing.ledger import ledger, seconds_by_confidence
from perfmodel.units import GIBIBYTE
from tests.report.reading import bars, colour, key_texts, points, row_labels, row_of, spans, widths
from tests.report.runs import CASES, case, figures

DAY_HOURS, SECONDS = 24.0, 86400.0


@pytest.mark.parametrize("name", CASES)
def test_parts_of_an_iteration_are_drawn_as_predicted(name: str) -> None:
    """In ms, from the left to the right in their order, each in its colour; they end at the iteration time."""
    (axes,) = figures(name)["iteration"].axes
    drawn = iter(bars(axes))
    for _, predicted in case(name).prediction.stages:
        end = 0.0
        for part in (part for part in PARTS if getattr(predicted.breakdown, part)):
            bar = next(drawn)
            assert bar.get_x() == pytest.approx(end)
            assert bar.get_width() == pytest.approx(1e3 * float(getattr(predicted.breakdown, part)))
            assert colour(bar.get_facecolor()) == ITERATION[part].lower()
            end = bar.get_x() + bar.get_width()
        assert end == pytest.approx(1e3 * float(predicted.iteration_time_s))
    assert not list(drawn)


@pytest.mark.parametrize("name", CASES)
def test_parts_of_memory_are_drawn_as_predicted(name: str) -> None:
    """In GiB, with a line at what the GPU has; what lies beyond is hatched, and nothing else."""
    found, (axes,) = case(name), figures(name)["memory"].axes
    capacity, drawn = float(found.run.cluster.gpu.memory_bytes) / GIBIBYTE, iter(bars(axes))
    totals = []
    for _, predicted in found.prediction.stages:
        for part in (part.name for part in fields(MemoryBytes) if getattr(predicted.memory, part.name)):
            bar = next(drawn)
            assert bar.get_width() == pytest.approx(float(getattr(predicted.memory, part)) / GIBIBYTE)
            assert colour(bar.get_facecolor()) == MEMORY[part].lower()
        totals.append(float(predicted.memory.total_bytes) / GIBIBYTE)
    (line,) = [line for line in axes.lines if line.is_dashed()]
    assert set(points(line)[:, 0]) == {capacity}
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    beyond = [(patch.get_x(), patch.get_x() + patch.get_width()) for patch in hatched]  # type: ignore[attr-defined]
    assert beyond == [(capacity, pytest.approx(total)) for total in totals if total > capacity]
    assert ("does not fit" in figures(name)["memory"].heading) == (not found.prediction.fits)


@pytest.mark.parametrize("name", CASES)
def test_the_waterfall_falls_from_the_peak_to_the_mfu(name: str) -> None:
    """Each bar begins where the one before it ended, and is as wide as its step."""
    fall = case(name).explained.waterfall
    (axes,) = next(drawing for which, drawing in figures(name).items() if which.startswith("peak")).axes
    drawn, rows = spans(axes), falls(fall)
    assert drawn[0] == (0.0, 100.0)
    assert list(drawn[-1]) == pytest.approx([0.0, 100.0 * fall.mfu])
    for (_, before), (start, _) in pairwise(drawn[:-1]):
        assert start == pytest.approx(before, abs=0.02)  # a step that is too small to be seen lies between
    changes = {step.name: 100.0 * step.mfu_change for step in fall.steps}
    assert widths(axes)[1:-1] == pytest.approx([changes[row.name] for row in rows[1:-1]])
    assert row_labels(axes) == [row.label for row in rows]


def test_intervals_and_published_figures_stand_at_their_values() -> None:
    """A dot within its interval, and a diamond for what the source printed."""
    time, mfu = figures("ramp")["ramp"].axes
    for axes, scale, of in ((time, 1.0, "iteration_time_s"), (mfu, 100.0, "mfu")):
        dots = [points(line)[0, 0] for line in axes.lines if line.get_marker() == "o"]
        diamonds = [points(line)[0, 0] for line in axes.lines if line.get_marker() == "D"]
        stages = case("ramp").prediction.stages
        assert dots == [scale * float(getattr(predicted, of)) for _, predicted in stages]
        assert diamonds == [scale * getattr(stage.published, of) for stage, _ in stages]
    ends = [tuple(points(line)[:, 0]) for line in time.lines if line.get_marker() == "None"]
    assert ends == [tuple(map(float, predicted.iteration_time_interval_s)) for _, predicted in stages]


def test_a_run_that_nobody_published_has_no_diamonds() -> None:
    """Nor are they in the key."""
    drawing = figures("laptop")["ramp"]
    assert "published" not in key_texts(drawing)
    assert not [line for axes in drawing.axes for line in axes.lines if line.get_marker() == "D"]


@pytest.mark.parametrize("name", CASES)
def test_levers_are_drawn_as_far_as_they_move_the_iteration(name: str) -> None:
    """In percent, those that matter most on top; helping to the left, hurting to the right."""
    effects = {each.lever.name: each for each in case(name).explained.sensitivity.effects() if each.lever.headline}
    (axes,) = next(drawing for which, drawing in figures(name).items() if which.startswith("levers")).axes
    changes = sorted((sorted((each.helping.change, each.hurting.change)) for each in effects.values()), key=_most)
    shown = [100.0 * change for pair in changes for change in pair if _most(pair) <= -5e-5]
    assert sorted(widths(axes)) == pytest.approx(sorted(change for change in shown if change))
    reach = [max(map(abs, pair)) for pair in zip(widths(axes)[::2], widths(axes)[1::2], strict=False)]
    assert reach == sorted(reach, reverse=True)


def _most(changes: list[float]) -> float:
    return -max(map(abs, changes))


@pytest.mark.parametrize("name", ["ramp", "many", "strange"])
def test_the_calendar_adds_up(name: str) -> None:
    """Training, failures, checkpoints, restarts and switches to the days of each stage, and those to the whole."""
    found = case(name)
    days, others, costs = figures(name)["cost"].axes
    rows = [sum(bar.get_width() for bar in bars(days) if row_of(bar) == row) for row in range(len(row_labels(days)))]
    assert rows == pytest.approx([*(stage.calendar_days for stage in found.outlook.stages), found.outlook.calendar_days])
    training = [bar.get_width() for bar in bars(days) if colour(bar.get_facecolor()) == CALENDAR["training"].lower()]
    assert training[:-1] == pytest.approx([stage.days for stage in found.outlook.stages])
    lost = sum(rows) - sum(training)
    assert sum(widths(others)) == pytest.approx(DAY_HOURS * lost)
    intervals = [tuple(points(line)[:, 0]) for line in days.lines]
    assert intervals[-1] == found.outlook.calendar_interval_days
    assert widths(costs) == [*(stage.dollars for stage in found.outlook.stages), found.outlook.dollars]


def test_without_tokens_the_calendar_is_shares() -> None:
    """They add up to all of it, and nothing costs anything."""
    share, _ = figures("laptop")["cost"].axes
    assert sum(widths(share)) == pytest.approx(100.0)
    assert not cost_bars(case("laptop").outlook, ["one"])


def test_without_a_price_there_are_no_dollars() -> None:
    """A panel less."""
    prediction = case("ramp").prediction
    plain = outlook(prediction, economics_preset("typical"))
    assert len(calendar_figure(prediction, plain).axes) == 2


def test_a_switch_is_part_of_the_stage_that_it_leads_to() -> None:
    """The first stage has none."""
    found = case("ramp")
    first, second, *_ = calendar_bars(found.outlook, ["a", "b", "c"])
    switch = "changing between stages"
    assert switch not in [segment.label for segment in first.segments]
    seconds = found.outlook.stages[1].switch_s
    assert [segment.value for segment in second.segments if segment.label == switch] == [pytest.approx(seconds / SECONDS)]


@pytest.mark.parametrize("name", CASES)
def test_confidence_adds_up_to_the_time_of_all_operators(name: str) -> None:
    """The first row is all of them, the others its kinds."""
    found = case(name)
    run, predicted = found.run, found.explained.predicted
    entries = ledger(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack)
    seconds = seconds_by_confidence(entries)
    (axes,) = figures(name)["provenance"].axes
    first = [bar.get_width() for bar in bars(axes) if row_of(bar) == 0]
    assert first == pytest.approx([1e3 * seconds[word] for word in WORDS if seconds.get(word)])
    assert sum(widths(axes)) == pytest.approx(2.0 * sum(first))


def test_every_part_that_is_drawn_is_in_the_key() -> None:
    """And nothing that is not there."""
    breakdown = case("ramp").prediction.stages[-1][1].breakdown
    assert set(key_texts(figures("ramp")["iteration"])) == {LABELS[part] for part in PARTS if getattr(breakdown, part)}
