"""Is everything in every figure readable: within the canvas, not over one another, named, with units and a source?"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Final
from xml.etree import ElementTree as ET

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox

from perfmodel.report.figures.drawing.lettering import CUT, literal
from perfmodel.report.figures.drawing.palette import DARK_PAGE, FILLS, INK, LIGHT_PAGE, MUTED, ON_DARK, ON_LIGHT, contrast
from perfmodel.report.figures.drawing.style import LEAST_LETTERS, NARROW, POINTS, Drawing, svg_text
from perfmodel.report.figures.figure_set import OF_A_STAGE
from tests.report.runs import CASES, STRANGE, case, figures, texts

pytestmark = pytest.mark.slow

TOUCHING: Final = (0.5, 1.2)  # points that the boxes of two texts may share: they are a little larger than their letters
OF_THE_PAGE: Final = {INK, MUTED}
MOST_ACROSS: Final = 12  # ticks from left to right
SVG: Final = "{http://www.w3.org/2000/svg}"
COUNTS: Final = {"GPUs"}  # of these there is no unit


def _shared(one: Bbox, other: Bbox, drawing: Drawing) -> tuple[float, float]:
    """Points of width and height that two boxes have in common."""
    width, height = (POINTS * side for side in drawing.get_size_inches())
    return (
        width * (min(one.x1, other.x1) - max(one.x0, other.x0)),
        height * (min(one.y1, other.y1) - max(one.y0, other.y0)),
    )


@pytest.mark.parametrize("name", CASES)
def test_no_text_leaves_the_canvas_or_hides_another(name: str) -> None:
    """By the boxes that the renderer gives every text it draws."""
    for which, drawing in figures(name).items():
        outside = [text for text, box in texts(name)[which] if min(box.x0, box.y0) < 0 or max(box.x1, box.y1) > 1]
        assert not outside, which
        pairs = combinations(texts(name)[which], 2)
        over = [
            (one, other)
            for (one, box), (other, second) in pairs
            if all(shared > most for shared, most in zip(_shared(box, second, drawing), TOUCHING, strict=True))
        ]
        assert not over, which


@pytest.mark.parametrize("name", CASES)
def test_letters_can_be_read_on_a_telephone(name: str) -> None:
    """Of a figure that is shown NARROW pixels wide none is smaller than LEAST_LETTERS, and axes have few ticks."""
    for which, drawing in figures(name).items():
        points_wide = POINTS * drawing.get_size_inches()[0]
        root = ET.fromstring(svg_text(drawing))  # noqa: S314 - our own
        sizes = [float(size) for text in root.iter(f"{SVG}text") for size in re.findall(r"([\d.]+)px", text.get("style", ""))]
        assert sizes, which
        assert min(sizes) * NARROW / points_wide >= LEAST_LETTERS, which
        for axes in drawing.axes:
            labels = [label for label in axes.get_xticklabels() if label.get_text()]
            assert len(labels) <= MOST_ACROSS, which


@pytest.mark.parametrize("name", CASES)
def test_every_axis_has_a_name_with_its_unit(name: str) -> None:
    """Each panel names what is across; rows have labels of their own, or a name too."""
    for which, drawing in figures(name).items():
        for axes in drawing.axes:
            if axes.get_xlabel() or not axes.get_shared_x_axes().get_siblings(axes)[1:]:
                assert _is_named(axes.get_xlabel()), which
            assert _is_named(axes.get_ylabel()) or _has_rows(axes), which


def _is_named(label: str) -> bool:
    return label in COUNTS or bool(re.search(r"\[.+\]$", label))


def _has_rows(axes: Axes) -> bool:
    above = any(text.get_transform() == axes.get_yaxis_transform() for text in axes.texts)  # the bars that they name
    return (
        above
        or any(label.get_text() for label in axes.get_yticklabels())
        or not axes.yaxis.get_tick_params().get("labelleft", True)
    )


@pytest.mark.parametrize("name", CASES)
def test_every_figure_has_a_title_a_description_and_a_source(name: str) -> None:
    """The last text is what the numbers come from."""
    for which, drawing in figures(name).items():
        written = [text for text, _ in texts(name)[which]]
        lines = [text.get_text() for text in drawing.texts if text.get_fontweight() == "bold"]
        assert (" ".join(lines), {*lines} <= {*written}) == (drawing.heading, True), which
        assert drawing.description, which
        assert any(text.startswith("perfmodel ") for text in written), which


@pytest.mark.parametrize("name", CASES)
def test_colours_of_text_and_lines_keep_their_contrast(name: str) -> None:
    """Text follows the page, or lies on a bar; lines are 3 to 1 and more on both pages, or follow it."""
    for which, drawing in figures(name).items():
        for axes in drawing.axes:
            lines = [line for line in axes.lines if line.get_linestyle() not in ("None", "", " ")]
            colours = {to_hex(line.get_color()) for line in lines} - OF_THE_PAGE
            assert all(min(contrast(colour, page) for page in (LIGHT_PAGE, DARK_PAGE)) >= 3.0 for colour in colours), which
            inks = {to_hex(text.get_color()) for text in axes.texts}
            assert inks <= OF_THE_PAGE | {ON_DARK, ON_LIGHT}, which


@pytest.mark.parametrize("name", ["ramp", "strange"])
def test_fragments_are_well_formed(name: str) -> None:
    """Each parses, and no name of one is a name of another."""
    ids: list[str] = []
    for drawing in figures(name).values():
        root = ET.fromstring(svg_text(drawing))  # noqa: S314 - our own
        ids += [element.get("id", "") for element in root.iter() if element.get("id")]
        assert not any(element.text and "\u202e" in element.text for element in root.iter())
    assert len(ids) == len(set(ids))


def test_strange_names_are_written_as_they_are() -> None:
    """As far as there is room for them: the beginning and the end, with what is cut between."""
    for which, written in texts("strange").items():
        subtitle = next(text for text, _ in written if text.startswith("_<b>R&D</b> $x_1^2$"))
        beginning, cut, _ = subtitle.partition(CUT)
        assert cut, which
        assert literal(STRANGE).startswith(beginning), which


def test_figures_come_in_reading_order() -> None:
    """The questions of a planner; memory first where it is what is missing."""
    place = case("ramp").explained.place + 1
    order = ["ramp", "peak", "iteration", "memory", "operators", "scaling", "layouts", "levers", "cost", "provenance"]
    assert list(figures("ramp")) == [f"{name}-{place}" if name in OF_A_STAGE else name for name in order]
    assert next(iter(figures("too large"))) == "memory"


def test_parts_of_the_iteration_are_filled_with_colours_of_the_palette() -> None:
    """And no other figure fills bars with anything else."""
    names = ("iteration", "memory", "cost", "provenance")
    patches = [patch for name in names for axes in figures("ramp")[name].axes for box in axes.containers for patch in box]
    assert {to_hex(patch.get_facecolor()) for patch in patches} <= {colour.lower() for colour in FILLS}
