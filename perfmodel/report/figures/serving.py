"""What clients of a server see: the throughput-latency curve of each replica, and latencies by the number of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.report.figures.drawing.captions import server_caption, server_source
from perfmodel.report.figures.drawing.palette import LINES, MARKERS
from perfmodel.report.figures.drawing.point_labels import LabelledPoint, name_points
from perfmodel.report.figures.drawing.style import Drawing, grid, picture, styled
from perfmodel.report.figures.roofline import served_roofline_figure
from perfmodel.serving.forecast import ServingForecast
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.serving.loads import E2E
from perfmodel.units import seconds_text

__all__ = ["first_roofline", "picture", "serving_figure"]

NOTHING: Final = "no replica fits: there is nothing to draw"
HEIGHT: Final = 200.0  # of each of two
INTERVAL: Final = 0.2  # how dark the band of an interval is
DASHED: Final[Any] = (0, (4, 2))
RADIUS: Final = 2.5
MOST_NAMES: Final = 12
SPREAD: Final = 100.0  # of an axis, largest over smallest: below it, more ticks are wanted


@styled
def serving_figure(forecasts: Sequence[ServingForecast]) -> Drawing:
    """Tokens a second of a GPU against those of a client, and latencies against clients; a line for each replica that fits.

    Marked are the numbers of clients that the forecasts have. Errors: InputError where nothing fits.
    """
    shown = [each for each in forecasts if each.may_run]
    if not shown:
        raise InputError(NOTHING)
    several = len({each.setup.tensor_parallel for each in shown}) > 1
    drawing = Drawing(
        title="What clients of the server see",
        subtitle=server_caption(shown[0]) if not several else _caption(shown),
        plot_height=2 * HEIGHT,
        description="; ".join(_told(each) for each in shown),
    )
    upper, lower = drawing.subplots(2, 1)
    entries: list[tuple[Artist, str]] = []
    points: list[LabelledPoint] = []
    for place, each in enumerate(shown):
        colour, marker = LINES[place % len(LINES)], MARKERS[place % len(MARKERS)]
        points += _curve(drawing, (upper, lower), each, colour, marker)
        name = f"{TENSOR.short} {each.setup.tensor_parallel}" if several else "end to end, with its 90 % interval"
        entries.append((Line2D([], [], color=colour, marker=marker, markersize=4), name))
    entries.append((Line2D([], [], color=LINES[0], linestyle=DASHED), "TTFT"))
    upper.set(xlabel="tokens/s of a client", ylabel="tokens/s of a GPU")
    lower.set(xlabel="clients", ylabel="latency [s]")
    for axes in (upper, lower):
        _scale(axes)
    drawing.key(entries)
    drawing.source_line(server_source(shown[0]), "numbers at points: clients, each with one request at a time")
    name_points(drawing, upper, points, most=MOST_NAMES)
    return drawing


def first_roofline(forecasts: Sequence[ServingForecast]) -> Drawing:
    """The rooflines of the first replica that fits. Errors: InputError where none does."""
    shown = next((each for each in forecasts if each.may_run), None)
    if shown is None:
        raise InputError(NOTHING)
    return served_roofline_figure(shown)


def _caption(shown: Sequence[ServingForecast]) -> str:
    """The same for all replicas but for their GPUs."""
    numbers = ", ".join(str(each.setup.tensor_parallel) for each in shown)
    alone = server_caption(shown[0])
    first, last = alone.find(" on "), alone.find(" (")
    return f"{alone[:first]} on {numbers} GPUs{alone[last:]}" if 0 < first < last else alone


def _told(forecast: ServingForecast) -> str:
    rate = _per_place(forecast, forecast.tokens_per_s_per_gpu)
    clients = _per_place(forecast, forecast.load.concurrency)
    return f"{TENSOR.short} {forecast.setup.tensor_parallel}: {rate[-1]:,.0f} tokens/s/GPU with {clients[-1]:,.0f} clients"


def _per_place(forecast: ServingForecast, value: Any) -> NDArray[np.float64]:
    """A number at each concurrency."""
    return np.broadcast_to(np.asarray(value, dtype=float), np.shape(forecast.load.concurrency))


def _curve(
    drawing: Drawing, panels: tuple[Axes, Axes], forecast: ServingForecast, colour: str, marker: str
) -> list[LabelledPoint]:
    """Both lines of one replica, with a marker for each number of clients that was asked for; their names."""
    upper, lower = panels
    whole = forecast.whole_curve()
    clients = _per_place(whole, whole.load.concurrency)
    upper.plot(1.0 / _per_place(whole, whole.load.tpot_s), _per_place(whole, whole.tokens_per_s_per_gpu), color=colour)
    lower.plot(clients, _per_place(whole, whole.load.e2e_s), color=colour)
    lower.plot(clients, _per_place(whole, whole.load.ttft_s), color=colour, linestyle=DASHED, linewidth=1.0)
    lower.fill_between(clients, *whole.intervals[E2E], color=colour, alpha=INTERVAL, linewidth=0)
    named = []
    asked = zip(
        *(
            _per_place(forecast, each)
            for each in (
                forecast.load.concurrency,
                forecast.load.tpot_s,
                forecast.tokens_per_s_per_gpu,
                forecast.load.e2e_s,
                forecast.load.ttft_s,
            )
        ),
        strict=True,
    )
    for number, tpot_s, rate, e2e_s, ttft_s in asked:
        times = f"TTFT {seconds_text(ttft_s)}, in all {seconds_text(e2e_s)}"
        words = f"{number:,.0f} clients: {rate:,.0f} tokens/s/GPU, {times}"
        for axes, across, up in ((upper, 1.0 / tpot_s, rate), (lower, number, e2e_s)):
            (dot,) = axes.plot([across], [up], color=colour, marker=marker, markersize=2 * RADIUS, linestyle="")
            drawing.hover(dot, words)
        named.append(LabelledPoint(x=1.0 / tpot_s, y=rate, radius=RADIUS, name=f"{number:,.0f}"))
    return named


def _scale(axes: Axes) -> None:
    axes.set(xscale="log", yscale="log")
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < SPREAD else (1,), numticks=8))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(EngFormatter(sep="") if high > 1e4 else FuncFormatter(lambda value, _: f"{value:g}"))
    grid(axes, "both")
