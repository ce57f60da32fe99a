"""Does the script of a page do in a browser what the page promises? Skipped where no Chromium is installed.

Sliders are moved by writing another place into the page before it is opened: the script reads them as it starts.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import perfmodel as pm
from perfmodel.exchange.presets import economics_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import predict
from perfmodel.report.html.deadlines import deadline_label, deadlines_days, odds_by
from perfmodel.report.html.live import mfu_text
from perfmodel.report.html.pages import run_page
from perfmodel.report.html.plan import plan_page
from perfmodel.report.text.plans.plan_odds import short_odds
from perfmodel.units import dollars_text, large_text, seconds_text
from perfmodel.variation.setting_grid import setting_grid
from tests.report.html.parsed_pages import parsed_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

RUN = {
    "name": "Small",
    "model": "llama-3.1-8b",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "tensor_parallel": 4,
    "micro_batch_size": 1,
    "sequence_length": 8192,
    "stages": [{"data_parallel": 4, "global_batch_size": 16, "tokens": 2e11}],
}


@pytest.fixture(scope="module")
def page() -> str:
    """A run of one stage without a price."""
    return run_page(RUN).html


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[str], str]:
    """A page as it is once its script has run."""

    def _opened(text: str) -> str:
        (tmp_path / "page.html").write_text(text, encoding="utf-8")
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
        command = [str(CHROMIUM), *options, f"file://{tmp_path}/page.html"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout

    return _opened


def _glance(text: str) -> str:
    return parsed_page(text).said("dl").replace("\N{NO-BREAK SPACE}", " ")


def test_as_it_is_nothing_changes(page: str, opened: Callable[[str], str]) -> None:
    """Sliders are there, the table in their place is folded, the numbers are the page's own."""
    seen = opened(page)
    assert re.search(r'<div class="live" data-grid="[^"]*">', seen)
    assert re.search(r'<details class="alone">', seen)
    assert _glance(seen) == _glance(page)


def test_a_moved_slider_shows_the_prediction_of_its_setting(page: str, opened: Callable[[str], str]) -> None:
    """The last place of each axis but the micro-batch, and a price: as `predict` says it."""
    terms = economics_preset("typical")
    grid = setting_grid(replace(read_candidates(RUN)[0].run, economics=terms))
    at = [len(axis.values) - 1 if axis.name != "micro-batch" else axis.place for axis in grid.axes]
    places = iter(at)
    moved = re.sub(r'value="\d+" data-axis', lambda _: f'value="{next(places)}" data-axis', page)
    moved = moved.replace('value="0" data-price', 'value="2.5" data-price')
    said = _glance(opened(moved))
    settings = {path: value for path, value in grid.settings(at).items() if path != "micro_batch_size"}
    (_, predicted), *_ = predict(read_candidates(RUN, [*settings.items()])[0].run).stages
    point = grid.point(at)
    assert point is not None
    assert point.calendar_gpu_hours is not None
    assert f"Iteration {seconds_text(float(predicted.iteration_time_s))}" in said
    assert f"MFU {mfu_text(float(predicted.mfu))}" in said
    cost = 2.5 * float(f"{point.calendar_gpu_hours:.4g}")  # the page holds four digits of them
    assert f"Cost ${large_text(float(f'{cost:.4g}'))} at $2.5 of a GPU-hour" in said or dollars_text(cost) in said
    assert "Energy - not worked out here" in said


def test_the_sliders_of_a_plan_show_other_gpus_and_deadlines(opened: Callable[[str], str]) -> None:
    """The most GPUs by the earliest deadline: their cost as the plan has it, and the odds of that deadline."""
    plan = pm.plan("llama-3.1-8b", cluster="dgx-h100", gpus="64,128", deadline="60d", tokens="1T", price="2.37")
    places = iter((1, 0))
    moved = re.sub(r'value="\d+" data-axis', lambda _: f'value="{next(places)}" data-axis', plan_page(plan).html)
    said, first, largest = _glance(opened(moved)), deadlines_days(plan)[0], plan.options[-1]
    assert largest.dollars is not None
    assert f"GPUs {largest.gpus}" in said
    assert f"Cost {dollars_text(largest.dollars)} at most" in said
    assert f"Odds {short_odds(odds_by(largest, first))} of being done in {deadline_label(first)}" in said
