"""Do the sliders of a page carry the answers of the grid, in the words of the page, and nothing that could run?"""

from __future__ import annotations

import json
from dataclasses import replace
from html import unescape
from math import prod
from typing import Any

import pytest

from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.report.html.live import BETWEEN, IMPOSSIBLE, LiveTerms, live_data, live_html, mfu_text, value_label
from perfmodel.units import seconds_text
from perfmodel.variation.setting_grid import GridAxis, SettingGrid, setting_grid
from tests.report.html.parsed_pages import ParsedPage, first_sight

TERMS = LiveTerms(switch_gpu_hours=10.0, dollars_per_gpu_hour=2.5, is_priced=True)
WEIRD = "<script>alert(1)</script>\"'&</div>"
CAPACITY = 80 * 2.0**30


@pytest.fixture(scope="module")
def grid() -> SettingGrid:
    """Of a run of one stage."""
    stages = [{"data_parallel": 32, "global_batch_size": 64, "tokens": 1e11}]
    run = read_candidates("nemotron-4-15b", [("stages", stages)])[0].run
    return setting_grid(replace(run, economics=economics_preset("typical")))


def _data(text: str) -> dict[str, Any]:
    (start,) = [at for at in range(len(text)) if text.startswith('data-grid="', at)]
    first = start + len('data-grid="')
    found: dict[str, Any] = json.loads(unescape(text[first : text.index('"', first)]))
    return found


def test_the_page_says_of_each_point_what_the_grid_does(grid: SettingGrid) -> None:
    """As many texts as points, in their order; the page reads them back as they were written."""
    data = _data(live_html(grid, TERMS, CAPACITY))
    assert data == json.loads(json.dumps(live_data(grid, TERMS, CAPACITY)))
    assert prod(data["shape"]) == len(grid.points)
    for name, text in (("time", seconds_text), ("mfu", mfu_text)):
        values = [None if each is None else (each.iteration_time_s if name == "time" else each.mfu) for each in grid.points]
        told = data["texts"][name].split(BETWEEN)
        assert told == [IMPOSSIBLE if value is None else text(value) for value in values]
        assert len(data["notes"][name].split(BETWEEN)) == len(told)


def test_gpu_hours_have_the_changes_between_stages(grid: SettingGrid) -> None:
    """The same at every point, so that a price makes the dollars of a prediction of them."""
    hours = _data(live_html(grid, TERMS, CAPACITY))["texts"]["hours"].split(BETWEEN)
    known = [each.calendar_gpu_hours for each in grid.points if each is not None]
    wanted = [f"{each + 10.0:,.0f}" for each in known if each is not None]
    assert [each for each in hours if each != IMPOSSIBLE] == wanted


def test_there_is_a_slider_for_each_axis_and_one_for_the_price(grid: SettingGrid) -> None:
    """Each stands at the run's own value; without a price for every hour there is none."""
    text = live_html(grid, TERMS, CAPACITY)
    assert text.count('type="range"') == len(grid.axes) + 1
    for axis in grid.axes:
        assert f"<output>{value_label(axis, axis.values[axis.place])}</output>" in text
    assert "<output>$2.5</output>" in text
    assert "data-price" not in live_html(grid, replace(TERMS, is_priced=False), CAPACITY)


def test_without_a_script_a_table_is_there_in_place_of_the_sliders(grid: SettingGrid) -> None:
    """Sliders are hidden until something moves them; the table has a row for each other value of each setting."""
    text = live_html(grid, TERMS, CAPACITY)
    (head, *rows) = ParsedPage(f'<section id="x">{text}</section>').tables["x"][0]
    assert head[:3] == ["setting", "value", "iteration"]
    assert len(rows) == sum(len(axis.values) - 1 for axis in grid.axes)
    assert "What if" not in first_sight(text)


def test_a_name_is_no_markup(grid: SettingGrid) -> None:
    """Neither beside a slider nor in what the script reads."""
    axes = tuple(GridAxis(name=WEIRD, paths=axis.paths, place=axis.place) for axis in grid.axes)
    text = live_html(replace(grid, axes=axes), TERMS, CAPACITY)
    parsed = ParsedPage(text)
    assert parsed.faults == []
    assert not parsed.tags["script"]
    assert parsed.handlers == []
    assert WEIRD in " ".join(words for _, words in parsed.words)


def test_nothing_to_move_is_no_slider(grid: SettingGrid) -> None:
    """A grid without axes."""
    assert live_html(SettingGrid(axes=(), points=grid.points[:1]), TERMS, CAPACITY) == ""
