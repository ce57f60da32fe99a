"""Do the figures of a server show what was forecast?"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.explanation.roofline import served_roofline
from perfmodel.report.figures.roofline import LEAST, served_roofline_figure
from perfmodel.report.figures.serving import first_roofline, serving_figure
from tests.report.reading import key_texts, points


@cache
def forecasts() -> tuple[pm.ServingForecast, ...]:
    """Llama 3.1 8B on one and on two GPUs."""
    return pm.infer("llama-3.1-8b", gpu="h100-sxm-80gb", tensor_parallel="1,2", concurrency="1,16,max")


def test_every_number_of_clients_has_a_point_on_its_curve() -> None:
    """Tokens a second of a client and of a GPU on the left, clients and end-to-end latency on the right."""
    drawing = serving_figure(forecasts())
    left, right = drawing.axes
    for axes in (left, right):
        drawn = {tuple(points(line)[0].round(9)) for line in axes.lines if len(points(line)) == 1}
        for each in forecasts():
            load, rate = each.load, np.asarray(each.tokens_per_s_per_gpu)
            pairs = zip(1.0 / np.asarray(load.tpot_s), rate, strict=True)
            if axes is right:
                pairs = zip(np.asarray(load.concurrency), np.asarray(load.e2e_s), strict=True)
            assert {tuple(np.round(pair, 9)) for pair in pairs} <= drawn
    assert key_texts(drawing) == ["TP 1", "TP 2", "TTFT"]


def test_the_line_goes_from_one_client_to_as_many_as_run_at_once() -> None:
    """And lies within the band of its interval."""
    (alone, _) = forecasts()
    whole = alone.whole_curve()
    clients = np.asarray(whole.load.concurrency)
    assert (clients[0], clients[-1]) == (1, alone.most_running)
    low, high = whole.intervals["e2e_s"]
    assert np.all((np.asarray(low) < whole.load.e2e_s) & (np.asarray(high) > whole.load.e2e_s))


def test_prefill_and_decode_lie_under_the_same_roofs() -> None:
    """A row of plots each, every operator a marker at its intensity and its rate."""
    (alone, _) = forecasts()
    drawing = served_roofline_figure(alone)
    rows = [drawing.axes[:2], drawing.axes[2:]]
    for (left, right), tokens in zip(rows, alone.passes.values(), strict=True):
        operators = served_roofline(alone.setup, tokens).operators
        drawn = sorted((float(points(line)[0, 0]), float(points(line)[0, 1])) for line in left.lines if len(points(line)) == 1)
        wanted = sorted((each.intensity, each.flop_per_s / 1e12) for each in operators if each.flop)
        assert np.asarray(drawn) == pytest.approx(np.asarray(wanted))
        moved = [each for each in operators if not each.flop]
        assert sum(len(points(line)) == 1 for line in right.lines) == len(moved)
        assert all(each.bytes / 1e6 > LEAST[0] / 1e3 for each in moved)
    assert [axes.get_title(loc="left").partition(":")[0] for axes in (rows[0][0], rows[1][0])] == ["prefill", "decode"]


def test_no_name_of_a_roof_lies_under_a_marker() -> None:
    """Neither a ceiling's nor the slope's, of one format and of two."""
    for forecast in (forecasts()[0], *pm.infer("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=4, precision="fp8")):
        drawing = served_roofline_figure(forecast)
        drawing.settle()
        for axes in drawing.axes[::2]:
            names = [text.get_window_extent() for text in axes.texts if "peak" in text.get_text() or "GPU" in text.get_text()]
            marks = [axes.transData.transform(points(line)[0]) for line in axes.lines if len(points(line)) == 1]
            assert not [name for name in names for mark in marks if name.contains(*mark)]


def test_what_does_not_fit_is_not_drawn() -> None:
    """One sentence says so."""
    none = pm.infer("llama-3.1-70b", gpu="h100-sxm-80gb")
    for draw in (serving_figure, first_roofline):
        with pytest.raises(pm.InputError, match="nothing to draw"):
            draw(none)
