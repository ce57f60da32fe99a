"""Do maps and curves show each point as predicted: its number, its hatch, its place?"""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.patches import Patch, Rectangle

from perfmodel import api
from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.cells import MOST_TOLD
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.sweep import sweep_figure
from perfmodel.variation.layout_map import layout_map
from tests.report.reading import drawn_texts, key_texts, points
from tests.report.runs import case, figures

DEGREES = {"tensor_parallel": "1..8", "micro_batch_size": "1,2,3"}


def layouts_of(name: str) -> Drawing:
    """The map of a case's last stage."""
    return next(drawing for which, drawing in figures(name).items() if which.startswith("layouts"))


def cells(drawing: Drawing) -> dict[tuple[float, float], Rectangle]:
    """Filled cells by column and row."""
    patches = [patch for patch in drawing.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]
    return {
        (patch.get_x(), patch.get_y()): patch for patch in patches if patch.get_linewidth() == 1.0
    }  # frames are wider, hatches have none


def hatched(drawing: Drawing) -> set[tuple[float, float]]:
    """Where it does not fit."""
    return {(patch.get_x(), patch.get_y()) for patch in drawing.axes[0].patches if _is_hatched(patch)}  # type: ignore[attr-defined]


def _is_hatched(patch: Patch) -> bool:
    return bool(patch.get_hatch())


@pytest.mark.parametrize("name", ["ramp", "pipeline", "too large", "laptop"])
def test_each_layout_has_its_cell(name: str) -> None:
    """Where it fits it is plain, where it does not it is hatched, where none can be there is nothing."""
    layouts = layout_map(case(name).run, case(name).explained.place)
    at = {
        (layouts.data_parallel.index(each.data_parallel), layouts.tensor_parallel.index(each.tensor_parallel)): each
        for each in layouts.neighbours
    }
    drawing = layouts_of(name)
    assert set(cells(drawing)) == set(at)
    assert hatched(drawing) == {place for place, each in at.items() if not each.numbers["fits"]}
    assert ("does not fit" in key_texts(drawing)) == bool(hatched(drawing))
    assert ("blank: cannot be" in key_texts(drawing)) == (len(at) < len(layouts.data_parallel) * len(layouts.tensor_parallel))


def test_each_cell_says_its_mfu_and_pipeline() -> None:
    """Its number and what fills the rest; the run's own is framed."""
    layouts, drawing = layout_map(case("ramp").run), layouts_of("ramp")
    texts = [text for text, _ in drawn_texts(drawing)]
    for each in layouts.neighbours:
        assert f"{100 * each.numbers['mfu']:.1f}" in texts
        assert f"PP {each.numbers['pipeline_parallel']}" in texts
    frames = [patch for patch in drawing.axes[0].patches if patch.get_linewidth() > 1.5]
    assert len(frames) == 1
    own = layouts.data_parallel.index(288), layouts.tensor_parallel.index(8)
    assert np.floor(frames[0].get_xy()).tolist() == list(own)  # type: ignore[attr-defined]


def test_brighter_is_a_higher_mfu() -> None:
    """Over all cells, by the brightness that people see."""
    layouts, found = layout_map(case("ramp").run), cells(layouts_of("ramp"))
    mfu, light = [], []
    for each in layouts.neighbours:
        place = layouts.data_parallel.index(each.data_parallel), layouts.tensor_parallel.index(each.tensor_parallel)
        mfu.append(each.numbers["mfu"])
        light.append(np.dot(found[place].get_facecolor()[:3], (0.2126, 0.7152, 0.0722)))
    order = np.argsort(mfu)
    assert (np.diff(np.asarray(light)[order]) > -1e-3).all()


def test_a_map_of_a_sweep_leaves_refused_points_blank() -> None:
    """1152 sequences are no multiple of 3 a micro-batch for every replica."""
    swept = api.sweep("nemotron-4-15b", DEGREES)
    drawing = sweep_figure(swept)
    refused = [place for place, point in enumerate(swept.points) if not point.numbers]
    assert refused
    assert set(cells(drawing)) == {(place % 3, place // 3) for place in range(len(swept.points)) if place not in refused}
    assert "blank: cannot be" in key_texts(drawing)


def test_a_large_map_has_colours_alone() -> None:
    """No cell could be read; a scale says what they mean."""
    swept = api.sweep("nemotron-4-15b", {"cluster.compute_scale": "0.5..1x22", "cluster.network_scale": "0.5..1x20"})
    assert len(swept.points) > MOST_TOLD
    drawing = sweep_figure(swept)
    main, scale = drawing.axes
    (mesh,) = main.collections
    values = np.asarray(mesh.get_array()).ravel()
    assert values == pytest.approx([100 * point.numbers["mfu"] for point in swept.points])
    assert scale.get_ylabel() == "MFU [%]"


def test_the_scaling_curve_shows_speed_interval_and_efficiency() -> None:
    """Tokens/s at each number of GPUs, a band as wide as the interval, and the ideal from the first point on."""
    swept = api.sweep("nemotron-4-15b", {"gpus": "96..768"})
    upper, lower = sweep_figure(swept, here=384).axes
    gpus = [point.numbers["gpus"] for point in swept.points]
    speed = [point.numbers["tokens_per_s"] for point in swept.points]
    ideal, curve = (points(line) for line in upper.lines[:2])
    assert curve.tolist() == [list(pair) for pair in zip(gpus, speed, strict=True)]
    assert ideal[:, 1] == pytest.approx([speed[0] * each / gpus[0] for each in gpus])
    edges = np.asarray(upper.collections[0].get_paths()[0].vertices)[:, 1]
    first = swept.points[0].numbers
    slowest = first["tokens_per_s"] * first["iteration_time_s"] / first["iteration_time_high_s"]
    assert float(edges.min()) == pytest.approx(slowest)
    (efficiency,) = [line for line in lower.lines if len(points(line)) == len(gpus)]
    curve_found = swept.scaling
    assert curve_found is not None
    assert points(efficiency)[:, 1] == pytest.approx([100 * curve_found.efficiency[place] for place in range(len(gpus))])
    (ring,) = [line for line in upper.lines if line.get_markerfacecolor() == "none"]
    assert points(ring).tolist() == [[384, dict(zip(gpus, speed, strict=True))[384]]]


def test_what_does_not_fit_is_hollow() -> None:
    """On an axis of values, with the interval of each."""
    swept = api.sweep("nemotron-4-15b", {"micro_batch_size": "1,2,4"}, settings={"tensor_parallel": 2})
    upper, _ = sweep_figure(swept).axes
    faces = [line.get_markerfacecolor() for line in upper.lines if line.get_marker() == "o"]
    fits = [point.fits for point in swept.points]
    assert len(set(fits)) == 2
    assert [face == "#fefefe" for face in faces] == [not each for each in fits]


def test_there_is_no_picture_of_refusals() -> None:
    """A sweep of which nothing can be."""
    with pytest.raises(InputError, match="nothing to draw"):
        sweep_figure(api.sweep("nemotron-4-15b", {"tensor_parallel": "3,5"}))
