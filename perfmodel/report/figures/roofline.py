"""Every operator of an iteration under its roof: what computes, by FLOPs a byte; what only moves bytes, by their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import log, pi, sqrt
from typing import Any, Final, Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from perfmodel.explanation.explanation import Explanation
from perfmodel.explanation.roofline import (
    ATTENTION,
    COLLECTIVE,
    MATMUL,
    MEMORY,
    MEMORY_BOUND,
    Roofline,
    RooflinePoint,
    roofline,
    served_roofline,
)
from perfmodel.light_dataclass import dataclass
from perfmodel.report.figures.drawing.captions import server_caption, server_source, source_text, stage_caption
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.palette import AXES, BLUE, GREEN, INK, MUTED, PALE_BLUE, SKY
from perfmodel.report.figures.drawing.point_labels import Box, LabelledPoint, name_points
from perfmodel.report.figures.drawing.style import SMALL, Drawing, grid, styled
from perfmodel.report.text.operators import phase_text
from perfmodel.report.text.serving import pass_text
from perfmodel.serving.forecast import ServingForecast
from perfmodel.spec.axes import REPORTED
from perfmodel.spec.phases import FORWARD
from perfmodel.units import seconds_text

PLOT_HEIGHT: Final = 220.0  # of each of two
TERA, GIGA, MEGA = 1e12, 1e9, 1e6
LARGEST, SMALLEST = 10.0, 2.0  # radius of a marker [points]
MOST_NAMES: Final = 9
LEAST: Final = (0.1, 1e-3)  # MB and share of the slowest roof: below, points lie on the edge of the plot
LOOKS: Final[Mapping[str, tuple[str, str, str]]] = {  # by kind, or by axis of a collective: label, colour, marker
    MATMUL: ("matrix products", BLUE, "o"),
    ATTENTION: ("attention", SKY, "s"),
    MEMORY_BOUND: ("memory-bound operators", PALE_BLUE, "^"),
    **{axis.name: (axis.label, AXES[axis.name], "D") for axis in REPORTED},
    COLLECTIVE: ("all GPUs", GREEN, "D"),
}
NAME_OF_ROOF, NAME_OF_LINK, LINE = 0.45, 0.5, 0.06  # shares of the width and the height of a plot that names take
WIDTH_OF_PLOT: Final = 300.0
PLACES: Final = (0.12, 0.3, 0.5, 0.7)  # of the name of the slope, in shares of its length
LINK: Final = 100.0  # points of the name of a link


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """An operator on the paper: x and y as the axes have them, radius in points, area in proportion to its time."""

    operator: RooflinePoint
    x: float
    y: float
    radius: float
    looks: str  # a key of LOOKS


def computing(roofs: Roofline) -> list[Marker]:
    """What computes: FLOPs a byte against TFLOP/s."""
    return [
        Marker(operator=each, x=each.intensity, y=each.flop_per_s / TERA, radius=_radius(each, roofs), looks=each.kind)
        for each in roofs.operators
        if each.flop
    ]


def moving(roofs: Roofline) -> list[Marker]:
    """What only moves bytes: MB of one execution against GB/s, neither below the edge of the plot."""
    least = LEAST[1] * min([roofs.memory_bytes_per_s, *roofs.links_bytes_per_s.values()]) / GIGA
    return [
        Marker(
            operator=each,
            x=max(each.bytes / MEGA, LEAST[0]),
            y=max(each.bytes_per_s / GIGA, least),
            radius=_radius(each, roofs),
            looks=each.axis or each.kind,
        )
        for each in roofs.operators
        if not each.flop
    ]


def _radius(operator: RooflinePoint, roofs: Roofline) -> float:
    longest_s = max(each.total_s for each in roofs.operators)
    return max(LARGEST * sqrt(operator.total_s / longest_s), SMALLEST)


@styled
def roofline_figure(explained: Explanation) -> Drawing:
    """Arithmetic above, bytes below; markers by kind, the larger the more time an operator takes in all."""
    run = explained.run
    roofs = roofline(explained.predicted, cluster=run.cluster, stack=run.stack)
    drawing = Drawing(
        title="Every operator under its roof",
        subtitle=stage_caption(run, explained.place),
        plot_height=2 * PLOT_HEIGHT,
        description=_description(roofs),
    )
    upper, lower = drawing.subplots(2, 1)
    panels = _panels(drawing, upper, lower, roofs)
    drawing.key(_entries(each for panel in panels for each in panel.markers))
    drawing.source_line(source_text(run), "each operator alone, the area of its marker its time in an iteration")
    _name_all(drawing, panels)
    return drawing


@styled
def served_roofline_figure(forecast: ServingForecast) -> Drawing:
    """The same of a server: the operators of a prompt above, those of a decode step below."""
    setup, passes = forecast.setup, forecast.passes
    roofs = {name: served_roofline(setup, each) for name, each in passes.items()}
    drawing = Drawing(
        title="Every operator of prefill and decode under its roof",
        subtitle=server_caption(forecast),
        plot_height=4 * PLOT_HEIGHT,
        description="; ".join(f"{name}: {_description(each)}" for name, each in roofs.items()),
    )
    rows = drawing.subplots(4, 1).reshape(2, 2)
    panels: list[_Panel] = []
    for (upper, lower), (name, each) in zip(rows, roofs.items(), strict=True):
        panels += _panels(drawing, upper, lower, each)
        upper.set_title(f"{name}: {pass_text(passes[name])}, {seconds_text(sum(op.total_s for op in each.operators))}")
    drawing.key(_entries(each for panel in panels for each in panel.markers))
    drawing.source_line(server_source(forecast), "each operator alone, the area of its marker its time in a pass")
    _name_all(drawing, panels)
    return drawing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """One plot: its markers, and the texts that stand in it already."""

    axes: Axes
    markers: Sequence[Marker]
    texts: Sequence[Text]


def _panels(drawing: Drawing, upper: Axes, lower: Axes, roofs: Roofline) -> list[_Panel]:
    """What computes above, what only moves bytes below, under their roofs."""
    panels = []
    for axes, markers, roofs_of in ((upper, computing(roofs), _roofs), (lower, moving(roofs), _rates)):
        for each in sorted(markers, key=lambda marker: -marker.radius):
            _draw(drawing, axes, each)
        panels.append(_Panel(axes=axes, markers=markers, texts=roofs_of(axes, markers, roofs)))
    return panels


def _name_all(drawing: Drawing, panels: Iterable[_Panel]) -> None:
    for each in panels:
        name_points(drawing, each.axes, _points(each.markers), most=MOST_NAMES, texts=each.texts)


def _description(roofs: Roofline) -> str:
    first = sorted(roofs.operators, key=lambda each: -each.total_s)[:3]
    told = [f"{_name(each)} {seconds_text(each.total_s)} at {100 * each.efficiency:.0f} % of its roof" for each in first]
    return f"Most time alone: {'; '.join(told)}"


def _name(operator: RooflinePoint) -> str:
    """mlp.fc1 wgrad"""
    phase = "" if operator.phase == FORWARD else f" {phase_text(operator.phase)}"
    name = operator.name.removeprefix("layer.")
    return name if name.startswith(operator.phase) else f"{name}{phase}"


def _draw(drawing: Drawing, axes: Axes, marker: Marker) -> None:
    _, colour, shape = LOOKS[marker.looks]
    operator, area = marker.operator, pi * marker.radius**2
    (point,) = axes.plot(
        [marker.x],
        [marker.y],
        marker=shape,
        markersize=sqrt(area),
        color=colour,
        markeredgecolor=MUTED,
        markeredgewidth=0.5,
        alpha=0.85,
        linestyle="",
        zorder=3,
        clip_on=False,
    )
    rate = f"{operator.flop_per_s / TERA:,.4g} TFLOP/s" if operator.flop else f"{operator.bytes_per_s / GIGA:,.4g} GB/s"
    drawing.hover(
        point,
        f"{_name(operator)}: {rate}, {100 * operator.efficiency:.0f} % of its roof; {operator.bytes / MEGA:.4g} MB; "
        f"{operator.repeats:.0f} times {seconds_text(operator.seconds)}; {operator.confidence}",
    )


def _roofs(axes: Axes, markers: Sequence[Marker], roofs: Roofline) -> list[Text]:
    """The slope of the memory and the ceiling of each precision, with their names; the axes."""
    memory, peaks = roofs.memory_bytes_per_s, roofs.peak_flop_per_s
    highest, ridge = max(peaks.values()), max(peaks.values()) / memory
    low = min([ridge, *(marker.x for marker in markers)]) / 3.0
    high = max([ridge, *(marker.x for marker in markers)]) * 3.0
    bottom = min([memory * low / TERA * 2.0, *(marker.y for marker in markers)]) / 2.0
    _scale(axes, (low, high), (bottom, 2.2 * highest / TERA))
    axes.set(xlabel="arithmetic intensity [FLOP/byte]", ylabel="achieved [TFLOP/s]")
    axes.plot([low, ridge], [low * memory / TERA, highest / TERA], color=INK, linewidth=1.2, zorder=1)
    texts = []
    for name, peak in peaks.items():
        axes.plot([peak / memory, high], [peak / TERA] * 2, color=INK, linewidth=1.2, zorder=1)
        ridge_at, up = _share(peak / memory, (low, high)), _share(peak / TERA, axes.get_ylim())
        crossed = ridge_at > 1.0 - NAME_OF_ROOF or not _is_free(axes, markers, Box(1.0 - NAME_OF_ROOF, up, 1.0, up + LINE))
        end = peak / memory if crossed and ridge_at > NAME_OF_ROOF else high  # above the slope lies nothing
        texts.append(_write(axes, f"{name} peak, {peak / TERA:,.4g} TFLOP/s", (end, peak / TERA), (-2.0, 2.0), "right"))
    return [*texts, _slope_name(axes, markers, memory, low, ridge)]


def _slope_name(axes: Axes, markers: Sequence[Marker], memory: float, low: float, ridge: float) -> Text:
    """The name of the slope on its right, at the first of some places where no marker is."""
    places = [(x, x * memory / TERA) for x in (low * (ridge / low) ** share for share in PLACES)]
    for x, y in places:
        across, up = _share(x, axes.get_xlim()), _share(y, axes.get_ylim())
        if _is_free(axes, markers, Box(across, up - LINE, across + NAME_OF_ROOF, up)):
            break
    else:
        x, y = places[0]
    return _write(axes, f"{MEMORY}, {memory / TERA:.3g} TB/s", (x, y), (8.0, -9.0), "left")


def _rates(axes: Axes, markers: Sequence[Marker], roofs: Roofline) -> list[Text]:
    """The rate of the memory and of each link that is crossed, with their names; the axes."""
    rates = {MEMORY: roofs.memory_bytes_per_s} | dict(roofs.links_bytes_per_s)
    high = max([10.0, *(marker.x for marker in markers)]) * 3.0
    fastest = max([*(rate / GIGA for rate in rates.values()), *(marker.y for marker in markers)])
    slowest = min([*(rate / GIGA / 3.0 for rate in rates.values()), *(marker.y for marker in markers)])
    _scale(axes, (LEAST[0] / 2.0, high), (slowest / 2.0, 2.2 * fastest))
    axes.set(xlabel="bytes of one execution [MB]", ylabel="achieved [GB/s]")
    for rate in rates.values():
        axes.plot([LEAST[0] / 2.0, high], [rate / GIGA] * 2, color=INK, linewidth=1.2, zorder=1)
    texts = []
    for name, rate in rates.items():
        text, height = f"{shortened(name, LINK, SMALL)}, {rate / GIGA:,.4g} GB/s", rate / GIGA
        up = _share(height, axes.get_ylim())
        if _is_free(axes, markers, Box(0.0, up, NAME_OF_LINK, up + LINE)):
            texts.append(_write(axes, text, (LEAST[0] / 2.0, height), (2.0, 2.0), "left"))
        else:
            texts.append(_write(axes, text, (high, height), (-2.0, 2.0), "right"))
    return texts


def _is_free(axes: Axes, markers: Sequence[Marker], box: Box) -> bool:
    """Whether no marker reaches into a box in shares of the plot."""
    for marker in markers:
        x, y = _share(marker.x, axes.get_xlim()), _share(marker.y, axes.get_ylim())
        across, up = marker.radius / WIDTH_OF_PLOT, marker.radius / PLOT_HEIGHT
        if box.meets(Box(x - across, y - up, x + across, y + up)):
            return False
    return True


def _share(value: float, ends: tuple[float, float]) -> float:
    """Where a value lies on a logarithmic axis: 0 at its low end, 1 at the high one."""
    low, high = ends
    return log(value / low) / log(high / low)


def _scale(axes: Axes, across: tuple[float, float], up: tuple[float, float]) -> None:
    axes.set(xscale="log", yscale="log", xlim=across, ylim=up)
    for axis, (low, high) in ((axes.xaxis, across), (axes.yaxis, up)):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 100 else (1,), numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1e3:g}k" if value >= 1e4 else f"{value:,g}"))
    grid(axes, "both")


def _write(axes: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], side: Literal["left", "right"]) -> Text:
    style: dict[str, Any] = {"fontsize": SMALL, "color": MUTED, "zorder": 4}
    line = axes.annotate(text, at, shift, textcoords="offset points", ha=side, va="bottom", **style)
    line.set_in_layout(False)
    return line


def _entries(markers: Iterable[Marker]) -> list[tuple[Artist, str]]:
    """A marker for each kind that is there, in the order of LOOKS."""
    there = {marker.looks for marker in markers}
    return [
        (
            Line2D([], [], color=colour, marker=shape, markersize=6, linestyle="", markeredgecolor=MUTED, markeredgewidth=0.5),
            label,
        )
        for name, (label, colour, shape) in LOOKS.items()
        if name in there
    ]


def _points(markers: Iterable[Marker]) -> list[LabelledPoint]:
    """Labelled points, longest operator first."""
    longest = sorted(markers, key=lambda each: -each.operator.total_s)
    return [LabelledPoint(x=each.x, y=each.y, radius=each.radius, name=_name(each.operator)) for each in longest]
