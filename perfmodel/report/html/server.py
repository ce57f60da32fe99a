"""The page of a server: what clients see of each replica, its memory, and the operators of prefill and decode.

from perfmodel.report.html.server import server_page
server_page(pm.infer("qwen3-32b", gpu="h100-sxm-80gb", tensor_parallel="1,2")).save("server.html")
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import numpy as np
from rich.console import Group
from rich.text import Text

from perfmodel.report.figures.drawing.captions import server_caption
from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.roofline import served_roofline_figure
from perfmodel.report.figures.serving import serving_figure
from perfmodel.report.html.blocks import as_html, beside, folded
from perfmodel.report.html.document import Page, PageChoice, PageHeader, Section, page, views
from perfmodel.report.html.drawn import in_a_page
from perfmodel.report.text.serving import loads_section, memory_section, operators_section, short_seconds, verdict_sentence
from perfmodel.report.text.terminal import section
from perfmodel.serving.forecast import ServingForecast
from perfmodel.spec.axes import TENSOR
from perfmodel.units import gibibytes_text

TITLES: Final = {
    "clients": "What clients see",
    "memory": "Memory",
    "operators": "Prefill and decode",
    "assumptions": "Assumptions",
}
OPEN: Final = ("clients", "memory")


def server_page(forecasts: Sequence[ServingForecast], *, command: str = "") -> Page:
    """One server on each of some numbers of GPUs; `command` is the one that makes the page."""
    foremost = next((each for each in forecasts if each.may_run), forecasts[0])
    running = [each for each in forecasts if each.may_run]
    figures: dict[str, Drawing] = {"clients": serving_figure(running)} if running else {}
    figures |= {f"operators-{_degree(each)}": served_roofline_figure(each) for each in running}
    shown = {name: in_a_page(name, each, TITLES.values()) for name, each in figures.items()}
    labels = tuple(f"{TENSOR.short} {_degree(each)}" for each in forecasts)
    choice = PageChoice(what="replica", labels=labels, first=forecasts.index(foremost)) if len(forecasts) > 1 else None

    def of_each(content: Callable[[ServingForecast], str]) -> str:
        return views([content(each) for each in forecasts], choice)

    sections = [
        _section("clients", beside(shown.get("clients", ""), of_each(_loads)), "tokens a second and latencies"),
        _section("memory", of_each(lambda each: as_html(memory_section(each))), "weights, cache, and who fits into it"),
        _section("operators", of_each(lambda each: _operators(each, shown)), "every operator of both under its roof"),
    ]
    if any(each.assumptions for each in forecasts):
        sections.append(_section("assumptions", of_each(_assumptions), "what was not said"))
    opening = PageHeader(
        title=f"{foremost.setup.model.name} on {foremost.setup.cluster.gpu.name}",
        subtitle=server_caption(foremost),
        answer=foremost.may_run,
        verdict=as_html(Group(*(Text(verdict_sentence(each)) for each in forecasts))),
        glance=dict(_glance(foremost)),
    )
    return page(opening, sections, choice=choice, command=command, figures=figures)


def _section(name: str, content: str, gist: str) -> Section:
    return Section(name=name, title=TITLES[name], content=content, gist=gist, is_open=name in OPEN)


def _degree(forecast: ServingForecast) -> int:
    return forecast.setup.tensor_parallel


def _glance(forecast: ServingForecast) -> Iterator[tuple[str, tuple[str, str]]]:
    """The numbers that people ask for first, with the most clients that do not queue, and the memory."""
    memory, load, engine = forecast.memory, forecast.load, forecast.setup.engine.name
    cache = max(float(np.asarray(memory.cache_bytes)), 0.0)
    if forecast.may_run:
        place = max(int(np.sum(~np.ravel(load.is_queued))) - 1, 0)
        clients = f"{int(np.ravel(load.concurrency)[place]):,} clients"
        yield "Requests at once", (f"{forecast.most_running:,}", engine)
        yield "TTFT", (short_seconds(float(np.ravel(load.ttft_s)[place])), clients)
        yield "TPOT", (short_seconds(float(np.ravel(load.tpot_s)[place])), clients)
        yield "Tokens/s of a GPU", (f"{float(np.ravel(forecast.tokens_per_s_per_gpu)[-1]):,.0f}", clients)
    yield "KV cache of a GPU", (gibibytes_text(cache), f"of {gibibytes_text(float(np.asarray(memory.total_bytes)))}")


def _loads(forecast: ServingForecast) -> str:
    return as_html(loads_section(forecast)) if forecast.may_run else as_html(Text(verdict_sentence(forecast)))


def _operators(forecast: ServingForecast, figures: dict[str, str]) -> str:
    """The roofline, and every operator of both kinds of passes."""
    if not forecast.may_run:
        return ""
    tables = [operators_section(forecast, name) for name in forecast.passes]
    return beside(figures[f"operators-{_degree(forecast)}"], folded("All operators", as_html(Group(*tables), level=4)))


def _assumptions(forecast: ServingForecast) -> str:
    if not forecast.assumptions:
        return ""
    return as_html(section("Taken for granted", [("-", each) for each in forecast.assumptions]))
