"""Which colour stands for what, in every figure and page: told apart with any colour vision, the same part always the same.

Bars are filled with colours that differ by 15 and more in CIELAB for people with normal vision and for those without one of
the three cones (tests/report/test_palette.py). Lines are thin, so theirs keep the contrast of 3 to 1 that WCAG 2.2 AA asks
for, against a light and a dark page. Text has the colour of the page's own text.

Blue, vermilion, bluish green, reddish purple and sky blue are those of Okabe and Ito, "Color Universal Design" (2008).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from perfmodel.explanation import waterfall
from perfmodel.explanation.terms import NAMES, TERMS
from perfmodel.report import words
from perfmodel.spec.axes import CONTEXT, DATA, EXPERT, EXPERT_TENSOR, PIPELINE, REPORTED, TENSOR
from perfmodel.timing.breakdown import PARTS

LIGHT_PAGE: Final = "#ffffff"
DARK_PAGE: Final = "#14161a"

# What a page in two themes replaces (svg.py); each is a colour that nothing else has
INK: Final = "#1b1e23"  # text, axes
MUTED: Final = "#575e68"  # text that is read last: sources, notes
GRID: Final = "#d9dce1"
PAPER: Final = "#fefefe"  # the seams between the parts of a bar

ON_DARK: Final = "#ffffff"  # text on a dark bar, whatever the page
ON_LIGHT: Final = "#010101"

BLUE: Final = "#0072B2"
VERMILION: Final = "#D55E00"
GREEN: Final = "#009E73"
PURPLE: Final = "#CC79A7"
SKY: Final = "#56B4E9"
PALE_BLUE: Final = "#A9D8F6"
ORANGE: Final = "#F2B561"
YELLOW: Final = "#E2D426"
SLATE: Final = "#4A585B"
PLUM: Final = "#7D2F7C"
PALE_GREY: Final = "#C9D4CA"
BROWN: Final = "#645931"
OLIVE: Final = "#8E9552"
VIOLET: Final = "#9060FC"
INDIGO: Final = "#6000B4"
MINT: Final = "#59E79A"
FILLS: Final = (
    *(BLUE, SKY, PALE_BLUE, VERMILION, ORANGE, YELLOW, SLATE),
    *(PURPLE, PLUM, PALE_GREY, BROWN, GREEN, OLIVE, VIOLET, INDIGO, MINT),
)

LINES: Final = (BLUE, VERMILION, GREEN, PURPLE, "#767C84", "#987500", "#3C93C8")  # with a marker each: told apart by both
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")

_OF_AXES: Final = {
    TENSOR: VERMILION,
    CONTEXT: ORANGE,
    PIPELINE: YELLOW,
    DATA: PURPLE,
    EXPERT: VIOLET,
    EXPERT_TENSOR: INDIGO,
}


def _colours_of_axes() -> dict[str, str]:
    """A colour for each axis of parallelism, by its name; an axis without one is refused, not drawn like another."""
    for axis in REPORTED:
        if axis not in _OF_AXES:
            raise LookupError(f"{axis.label} has no colour of its own in {__name__}")
    return {axis.name: _OF_AXES[axis] for axis in REPORTED}


def _complete(colours: Mapping[str, str], wanted: Iterable[str]) -> Mapping[str, str]:
    """The colours in the order of what they stand for, each of which has to have one."""
    names = list(wanted)
    if set(names) != set(colours):
        raise LookupError(
            f"{', '.join(sorted(set(names) ^ set(colours)))}: a colour in {__name__} without what it is for, or none"
        )
    return MappingProxyType({name: colours[name] for name in names})


AXES: Final[Mapping[str, str]] = MappingProxyType(_colours_of_axes())
ITERATION: Final = _complete(  # by part of timing/breakdown.py
    {
        "matmul_s": BLUE,
        "attention_s": SKY,
        "memory_bound_s": PALE_BLUE,
        **{axis.exposed_part: AXES[axis.name] for axis in REPORTED},
        **{axis.bubble_part: SLATE for axis in REPORTED if axis.bubble},
        "communication_slowdown_s": PLUM,
        "launch_s": PALE_GREY,
        "unlisted_s": BROWN,
        "optimizer_s": GREEN,
        "offload_s": OLIVE,
        "rank_waiting_s": MINT,
    },
    PARTS,
)
MEMORY: Final = _complete(  # by part of count/memory/needed.py
    {
        "parameters_bytes": BLUE,
        "gradients_bytes": SKY,
        "optimizer_bytes": GREEN,
        "activations_bytes": VERMILION,
        "loss_bytes": ORANGE,
        "scratch_bytes": PLUM,
        "workspaces_bytes": OLIVE,
        "communication_bytes": PURPLE,
        "framework_bytes": SLATE,
        "fragmentation_bytes": PALE_GREY,
    },
    words.MEMORY,
)
_OF_NO_PART: Final = {"clocks": SLATE, "recompute": OLIVE}
STEPS: Final = _complete(  # by step of explanation/waterfall.py: that of the part it is cut from
    {step: _OF_NO_PART.get(step) or ITERATION[TERMS[NAMES[step]].part] for step in waterfall.STEPS}, waterfall.STEPS
)
CALENDAR: Final[Mapping[str, str]] = MappingProxyType(  # by what time goes to (economics/goodput.py)
    {"training": BLUE, "lost": VERMILION, "stalled": ORANGE, "restarting": PURPLE, "switching": SLATE}
)
CONFIDENCE: Final[Mapping[str, str]] = MappingProxyType(  # by word of timing/confidence.py
    {"measured": BLUE, "interpolated": SKY, "extrapolated": ORANGE, "datasheet": VERMILION}
)


def luminance(colour: str) -> float:
    """0.2126*R + 0.7152*G + 0.0722*B of the linear parts of an sRGB colour (WCAG 2.2, relative luminance).

    >>> luminance("#ffffff"), luminance("#000000")
    (1.0, 0.0)
    """
    parts = [int(colour[at : at + 2], 16) / 255.0 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """(lighter + 0.05) / (darker + 0.05), from 1 to 21 (WCAG 2.2, contrast ratio).

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def text_on(fill: str) -> str:
    """The colour of text on a bar: black or white, whichever is easier to read.

    >>> text_on(BLUE), text_on(PALE_BLUE)
    ('#ffffff', '#010101')
    """
    return max((ON_DARK, ON_LIGHT), key=lambda ink: contrast(ink, fill))
