"""Names of points in a plot, placed so that none hides another: the most important first, those without room not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import hypot
from typing import Final, Literal, NamedTuple

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.report.figures.drawing.lettering import text_width
from perfmodel.report.figures.drawing.style import POINTS, SMALL, Drawing

GAP: Final = 2.5  # points between a marker and its name
BETWEEN: Final = 2.0  # points left and right of a name
HIGH: Final = 1.25  # of the size of letters: what a line needs
PIECE: Final = 3.0  # points that a slope rises in one box
CROWD: Final = 8.0  # points within which markers share a name


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPoint:
    """A marker of a radius in points at a place in data, and what it is called."""

    x: float
    y: float
    radius: float
    name: str


class Box(NamedTuple):
    """A rectangle on the paper [points]."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Whether they have anything in common."""
        return self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top

    def within(self, other: Box) -> bool:
        """Whether it lies in another."""
        return other.left <= self.left and self.right <= other.right and other.bottom <= self.bottom and self.top <= other.top


class LabelPlace(NamedTuple):
    """Where a marker is on the paper [points], and what it is called there."""

    point: LabelledPoint
    x: float
    y: float


class Spot(NamedTuple):
    """Where a name may stand: how it is aligned, and how far from its marker [points]."""

    side: Literal["left", "center", "right"]
    level: Literal["bottom", "center", "top"]
    right: float
    up: float

    def box(self, place: LabelPlace) -> Box:
        """The rectangle that the name covers at a place."""
        width, height = text_width(place.point.name, SMALL), HIGH * SMALL
        left = place.x + self.right - {"left": 0.0, "center": 0.5, "right": 1.0}[self.side] * width
        bottom = place.y + self.up - {"bottom": 0.0, "center": 0.5, "top": 1.0}[self.level] * height
        return Box(left - BETWEEN, bottom, left + width + BETWEEN, bottom + height)


def name_points(
    drawing: Drawing, axes: Axes, points: Sequence[LabelledPoint], *, most: int, texts: Sequence[Text] = ()
) -> None:
    """Names beside the first points that have room, at most so many; `texts` and lines stand there already.

    Markers that lie nearly on one another have one name, the first one's, with how many there are more. Call it last: it
    settles the layout.
    """
    drawing.settle()
    scale = POINTS / drawing.dpi
    frame, *boxes = (Box(*(scale * edge for edge in each.get_window_extent().extents)) for each in (axes, *texts))
    places = [LabelPlace(point, *(scale * axes.transData.transform((point.x, point.y)))) for point in points]
    boxes += [_marker(place) for place in places]
    boxes += [box for line in axes.lines for box in _pieces(axes, line, scale)]
    named = 0
    for place in _crowds(places):
        free = (spot for spot in _spots(place, frame) if _has_room(spot.box(place), frame, boxes))
        spot = next(free, None)
        if spot is not None and named < most:
            boxes.append(spot.box(place))
            named += 1
            _write(axes, place.point, spot)


def _crowds(places: Sequence[LabelPlace]) -> list[LabelPlace]:
    crowds: list[list[LabelPlace]] = []
    for place in places:
        near = (crowd for crowd in crowds if hypot(crowd[0].x - place.x, crowd[0].y - place.y) < CROWD)
        crowd = next(near, None)
        if crowd is None:
            crowds.append([place])
        else:
            crowd.append(place)
    return [
        first._replace(point=replace(first.point, name=f"{first.point.name} + {len(others)}")) if others else first
        for first, *others in crowds
    ]


def _spots(place: LabelPlace, frame: Box) -> Iterator[Spot]:
    """Beside it, above, below, pushed into the frame, then at its corners and a line further off."""
    away, half = place.point.radius + GAP, text_width(place.point.name, SMALL) / 2.0 + BETWEEN + 0.1
    yield from (Spot("left", "center", away, 0.0), Spot("right", "center", -away, 0.0))
    pushed = min(max(place.x, frame.left + half), frame.right - half) - place.x
    for far in (away, away + HIGH * SMALL):
        yield from (Spot("center", "bottom", pushed, far), Spot("center", "top", pushed, -far))
    for far in (0.7 * away, 0.7 * away + HIGH * SMALL):
        yield from (Spot("left", "bottom", far, far), Spot("left", "top", far, -far))
        yield from (Spot("right", "bottom", -far, far), Spot("right", "top", -far, -far))


def _has_room(box: Box, frame: Box, boxes: Sequence[Box]) -> bool:
    return box.within(frame) and not any(box.meets(other) for other in boxes)


def _marker(place: LabelPlace) -> Box:
    side = 0.85 * place.point.radius  # of the square that covers a round marker but for its rim
    return Box(place.x - side, place.y - side, place.x + side, place.y + side)


def _pieces(axes: Axes, line: Line2D, scale: float) -> Iterator[Box]:
    """What a line covers, piece by piece; nothing for a marker."""
    places = scale * axes.transData.transform(line.get_xydata())
    for (left, bottom), (right, top) in pairwise(places):
        number = max(int(abs(top - bottom) / PIECE), 1)
        for at in range(number):
            xs, ys = ([a + (b - a) * each / number for each in (at, at + 1)] for a, b in ((left, right), (bottom, top)))
            yield Box(min(xs), min(ys) - 0.5, max(xs), max(ys) + 0.5)


def _write(axes: Axes, point: LabelledPoint, spot: Spot) -> None:
    shift = (spot.right, spot.up)
    axes.annotate(
        *(point.name, (point.x, point.y), shift),
        textcoords="offset points",
        ha=spot.side,
        va=spot.level,
        fontsize=SMALL,
        zorder=5,
    )
