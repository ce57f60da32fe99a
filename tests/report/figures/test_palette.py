"""Can everybody tell the colours apart, and read what is thin, on a light page and on a dark one?"""

from __future__ import annotations

from itertools import combinations
from typing import Final

import numpy as np
import pytest
from numpy.typing import NDArray

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.explanation.waterfall import STEPS
from perfmodel.report.figures.drawing import palette
from perfmodel.report.figures.drawing.palette import contrast, luminance, text_on
from perfmodel.timing.breakdown import PARTS
from perfmodel.timing.confidence import WORDS

TEXT_AA, THIN_AA = 4.5, 3.0  # WCAG 2.2, 1.4.3 and 1.4.11
APART: Final = 15.0  # in CIELAB
PAGES: Final = (palette.LIGHT_PAGE, palette.DARK_PAGE)
# what is seen without one kind of cone, of linear red, green and blue (Machado, Oliveira, Fernandes 2009, severity 1)
SEEN: Final = {
    "all cones": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}
TO_XYZ: Final = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE: Final = np.array([0.9505, 1.0, 1.089])


def lab(colour: str, eyes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The colour in CIELAB as these eyes see it."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    ratio = TO_XYZ @ np.clip(eyes @ linear, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN)
def test_fills_are_told_apart(eyes: str) -> None:
    """Every pair of them, with any eyes."""
    seen = {colour: lab(colour, SEEN[eyes]) for colour in palette.FILLS}
    assert len(seen) == len(palette.FILLS)
    assert min(float(np.linalg.norm(seen[one] - seen[other])) for one, other in combinations(seen, 2)) >= APART


@pytest.mark.parametrize("page", PAGES)
def test_lines_keep_their_contrast(page: str) -> None:
    """Thin lines and markers, on both pages."""
    assert min(contrast(colour, page) for colour in palette.LINES) >= THIN_AA


@pytest.mark.parametrize("ink", [palette.INK, palette.MUTED])
def test_text_of_files_is_read_on_white(ink: str) -> None:
    """In a page it has the colour of the page's own text instead."""
    assert contrast(ink, palette.LIGHT_PAGE) >= TEXT_AA


def test_text_on_a_bar_is_read_on_any_page() -> None:
    """It lies on the bar."""
    assert min(contrast(text_on(fill), fill) for fill in palette.FILLS) >= TEXT_AA


def test_a_bar_is_seen_on_both_pages() -> None:
    """Large areas need less contrast than lines, but some; white seams part them."""
    assert min(contrast(fill, page) for fill in palette.FILLS for page in PAGES) >= 1.4


def test_every_part_has_a_colour_of_its_own() -> None:
    """Of the iteration, of memory, of what time rests on; a step of the waterfall has that of the part it is cut from."""
    for found, wanted in (
        (palette.ITERATION, PARTS),
        (palette.MEMORY, MemoryBytes.__slots__),
        (palette.CONFIDENCE, WORDS),
    ):
        assert list(found) == list(wanted)
        assert len(set(found.values())) == len(found)
    assert list(palette.STEPS) == list(STEPS)
    for step, part in {
        "tensor_parallel": "tensor_parallel_exposed_s",
        "optimizer": "optimizer_s",
        "launch": "launch_s",
    }.items():
        assert palette.STEPS[step] == palette.ITERATION[part]


def test_what_a_page_replaces_is_nothing_else() -> None:
    """Else the colour of a bar would follow the page's text."""
    replaced = {palette.INK, palette.MUTED, palette.GRID, palette.PAPER}
    assert len(replaced) == 4
    assert not replaced & {*palette.FILLS, *palette.LINES, palette.ON_DARK, palette.ON_LIGHT, palette.LIGHT_PAGE}


def test_luminance_of_known_colours() -> None:
    """The primaries, by definition."""
    assert [round(luminance(colour), 4) for colour in ("#ff0000", "#00ff00", "#0000ff")] == [0.2126, 0.7152, 0.0722]
