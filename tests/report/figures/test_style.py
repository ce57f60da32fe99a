"""Is a drawing the same each time, in the same style whatever the user's settings are, and at home in a page?"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from matplotlib import rc_context
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

from perfmodel.report.figures.drawing.palette import BLUE, GRID, INK, MUTED, PAPER
from perfmodel.report.figures.drawing.style import (
    LEAST_TICKS,
    MOST_TICKS,
    POINTS,
    TITLE,
    WIDTH,
    Drawing,
    grid,
    log_ticks,
    picture,
    styled,
    svg_text,
)
from tests.report.reading import drawn_texts, key_texts

SVG = "{http://www.w3.org/2000/svg}"
NAME = "<b>T</b> & $x_1$ \\frac{a}{b} \u4e2d\u6587"


@styled
def example(title: str = "Title", hover: str = "a bar") -> Drawing:
    """A bar, a hatched one, a point, lines of a grid, a key and a source."""
    drawing = Drawing(title=title, subtitle="Subtitle", plot_height=120.0, description="What is to be seen")
    axes = drawing.subplots()
    (bar,) = axes.barh([0], [3.0], color=BLUE, edgecolor=PAPER)
    axes.barh([1], [2.0], color=BLUE, edgecolor=INK, hatch="//")
    axes.plot([1.0], [1.0], marker="o", color=BLUE)
    drawing.hover(bar, hover)
    grid(axes, "x")
    axes.set(xlabel=f"{title} [s]", ylabel="rows")
    drawing.key([(Rectangle((0, 0), 1, 1, facecolor=BLUE), label) for label in ("one", "two", "_three", title)])
    drawing.source_line("where it comes from")
    return drawing


def parsed(svg: str) -> ET.Element:
    """The element."""
    return ET.fromstring(svg)  # noqa: S314 - our own


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_figure_gives_the_same_bytes(kind: str) -> None:
    """No date, no random names."""
    assert picture(example(), kind) == picture(example(), kind)


@pytest.mark.parametrize(
    "rules", [{"text.usetex": True}, {"axes.facecolor": "black", "font.size": 30.0}, {"svg.fonttype": "path"}]
)
def test_settings_of_the_user_play_no_part(rules: dict[Any, Any]) -> None:
    """Neither in files nor in pages."""
    plain = picture(example(), "png"), svg_text(example())
    with rc_context(rules):
        assert (picture(example(), "png"), svg_text(example())) == plain


def test_a_fragment_is_one_element_without_a_size() -> None:
    """No prolog, no rules of style that would hold for the whole page, as wide as the page makes it."""
    svg = svg_text(example())
    root = parsed(svg)
    assert svg.startswith("<svg ")
    assert root.tag == f"{SVG}svg"
    assert "width" not in root.attrib
    assert "height" not in root.attrib
    assert [float(edge) for edge in root.attrib["viewBox"].split()][:3] == [0, 0, WIDTH]
    assert not list(root.iter(f"{SVG}style"))
    assert not list(root.iter(f"{SVG}metadata"))


def test_a_fragment_is_named_and_described() -> None:
    """For those who do not see it."""
    root = parsed(svg_text(example(NAME)))
    assert root.get("role") == "img"
    title, description = root[0], root[1]
    assert (title.tag, title.text) == (f"{SVG}title", NAME)
    assert (description.tag, description.text) == (f"{SVG}desc", "What is to be seen")
    assert root.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"


def test_text_stays_text_in_the_font_of_the_page() -> None:
    """Names with markup, dollars and any script, as they are."""
    texts = list(parsed(svg_text(example(NAME))).iter(f"{SVG}text"))
    assert {NAME, f"{NAME} [s]", "Subtitle", "one", "where it comes from"} <= {text.text for text in texts}
    assert not any("font-family" in text.get("style", "") or "DejaVu" in text.get("style", "") for text in texts)
    bold = next(text for text in texts if text.text == NAME and "weight" in text.get("style", ""))
    assert f"font-size: {TITLE:g}px" in bold.get("style", "")


def test_colours_of_text_and_grid_are_those_of_the_page() -> None:
    """No ink, grid or paper of the light page is left in; the page lies behind."""
    svg = svg_text(example())
    for colour in (INK, MUTED, PAPER, "#ffffff"):
        assert colour not in re.sub(r"var\([^)]*\)", "", svg)
    assert GRID not in svg.replace(f"var(--grid, {GRID})", "")
    assert "currentColor" in svg
    assert "var(--grid," in svg


def test_figures_of_one_page_share_no_names() -> None:
    """Every name is used, and each figure has its own."""
    ids = []
    for title in ("one", "two"):
        svg = svg_text(example(title))
        own = [element.get("id", "") for element in parsed(svg).iter() if element.get("id")]
        used = set(re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", svg))
        assert {name for pair in used for name in pair if name} <= set(own)
        ids += own
    assert len(ids) == len(set(ids))


def test_a_bar_tells_its_value() -> None:
    """Under the pointer, escaped."""
    root = parsed(svg_text(example(hover='<i>1 & "2"</i>')))
    told = [element.text for element in root.iter(f"{SVG}title")][1:]
    assert told == ['<i>1 & "2"</i>']


def test_a_drawing_grows_with_its_key() -> None:
    """The plot keeps its height."""
    drawing = Drawing(title="Title", plot_height=100.0)
    before = drawing.get_size_inches()[1]
    drawing.key([(Rectangle((0, 0), 1, 1), f"a rather long label, number {place}") for place in range(9)])
    drawing.source_line("source")
    assert drawing.get_size_inches()[1] * POINTS > before * POINTS + 3 * 12.0
    (top,) = [box.y0 for text, box in drawn_texts(drawing) if text == "Title"]
    assert top > max(box.y1 for text, box in drawn_texts(drawing) if text.startswith("a rather"))


def test_a_key_is_read_along_the_rows() -> None:
    """Its first entries stand beside each other; a label may begin with an underscore."""
    drawing = example()
    places = {text: box for text, box in drawn_texts(drawing) if text in key_texts(drawing)}
    one, two = places["one"], places["two"]
    assert one.y0 == pytest.approx(two.y0, abs=1e-3)
    assert one.x1 < two.x0
    assert any(text.endswith("_three") for text in places)


@pytest.mark.parametrize(("low", "high"), [(5e6, 9e6), (1.0, 1.3), (0.1, 20.0), (1.0, 1e6), (1e-3, 1e12), (90.0, 3100.0)])
def test_a_logarithmic_axis_has_a_few_ticks_that_people_can_name(low: float, high: float) -> None:
    """However little or much it spans; none lies outside."""
    drawing = example()
    axis = drawing.axes[0].yaxis
    drawing.axes[0].set(yscale="log", ylim=(low, high))
    log_ticks(axis, StrMethodFormatter("{x:g}"))
    ticks = [float(tick) for tick in axis.get_majorticklocs() if low <= tick <= high]
    assert LEAST_TICKS <= len(ticks) <= MOST_TICKS
    assert all(len(f"{tick:.6g}".rstrip("0").replace(".", "").lstrip("0")) <= 3 for tick in ticks if tick < 1e5)
