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

from perfmodel.report.figures.drawing.style import Drawing
from perfmodel.report.figures.roofline import served_roofline_figure
from perfmodel.report.figures.serving import serving_figure
from perfmodel.report.html.blocks import as_html, as_table, beside, folded
from perfmodel.report.html.document import Page, PageChoice, PageHeader, Section, page, views
from perfmodel.report.html.drawn import in_a_page
from perfmodel.report.text.serving import loads_section, memory_section, operators_section, short_seconds, verdict_sentence
from perfmodel.report.text.terminal import section
from perfmodel.serving.forecast import FITS, ServingForecast
from perfmodel.spec.axes import TENSOR
from perfmodel.units import gibibytes_text, gpus_text

TITLES: Final = {
    "clients": "What clients see",
    "operators": "Prefill and decode",
    "memory": "Memory",
    "assumptions": "Assumptions",
}
OPEN: Final = ("clients",)


def server_page(forecasts: Sequence[ServingForecast], *, command: str = "") -> Page:
    """One server on each of some numbers of GPUs; `command` is the one that makes the page."""
    running = [each for each in forecasts if each.may_run]
    foremost = next((each for each in running if each.verdict == FITS), next(iter(running), forecasts[0]))
    figures: dict[str, Drawing] = {"clients": serving_figure(running)} if running else {}
    figures |= {f"operators-{_degree(each)}": served_roofline_figure(each) for each in running}
    shown = {name: in_a_page(name, each, TITLES.values()) for name, each in figures.items()}
    labels = tuple(f"{TENSOR.short} {_degree(each)}" for each in forecasts)
    choice = PageChoice(what="replica", labels=labels, first=forecasts.index(foremost)) if len(forecasts) > 1 else None

    def of_each(content: Callable[[ServingForecast], str]) -> str:
        return views([content(each) for each in forecasts], choice)

    sections = [
        _section("clients", beside(shown.get("clients", ""), of_each(_loads)), "tokens a second and latencies"),
        _section(
            "operators", of_each(lambda each: _operators(each, shown)), "every operator of both under its roof", is_half=True
        ),
        _section(
            "memory", of_each(lambda each: as_html(memory_section(each))), "weights, cache, and who fits into it", is_half=True
        ),
    ]
    if any(each.assumptions for each in forecasts):
        sections.append(_section("assumptions", of_each(_assumptions), "what was not said"))
    opening = PageHeader(
        title=f"{foremost.setup.model.name} on {foremost.setup.cluster.gpu.name}",
        subtitle=_what_is_asked(foremost),
        answer=foremost.may_run,
        verdict=as_html(Group(*map(_verdict, forecasts))),
        glance=dict(_glance(foremost)),
    )
    return page(opening, sections, choice=choice, command=command, figures=figures)


def _section(name: str, content: str, gist: str, *, is_half: bool = False) -> Section:
    return Section(name=name, title=TITLES[name], content=content, gist=gist, is_open=name in OPEN, is_half=is_half)


def _what_is_asked(forecast: ServingForecast) -> str:
    """fp8 weights, vLLM, requests of 1,000 + 500 tokens: what all replicas of a page have in common."""
    setup, request = forecast.setup, forecast.request
    tokens = " + ".join(f"{int(np.asarray(each)):,}" for each in (request.input_tokens, request.output_tokens))
    return f"{setup.weights.name} weights, {setup.engine.name}, requests of {tokens} tokens"


def _verdict(forecast: ServingForecast) -> Text:
    """Whether a replica fits, and how much context; where it does not, all that stands in the way and what would help."""
    if not forecast.may_run:
        return Text(verdict_sentence(forecast), style="red")
    fits, style = ("fits", "green") if forecast.verdict == FITS else ("tight", "yellow")
    where = gpus_text(_degree(forecast))
    return Text(f"On {where}: {fits}, {forecast.context_text}.", style=style)


def _degree(forecast: ServingForecast) -> int:
    return forecast.setup.tensor_parallel


def _glance(forecast: ServingForecast) -> Iterator[tuple[str, tuple[str, str]]]:
    """The numbers that people ask for first, with the most clients that do not queue, and the memory."""
    memory, load = forecast.memory, forecast.load
    cache = max(float(np.asarray(memory.cache_bytes)), 0.0)
    if forecast.may_run:
        place = max(int(np.sum(~np.ravel(load.is_queued))) - 1, 0)
        number = int(np.ravel(load.concurrency)[place])
        clients = "with as many clients" if number == forecast.most_running else f"with {number:,} clients"
        yield "Requests at once", (f"{forecast.most_running:,}", f"on {gpus_text(_degree(forecast))}")
        yield "TTFT", (short_seconds(float(np.ravel(load.ttft_s)[place])), clients)
        yield "TPOT", (short_seconds(float(np.ravel(load.tpot_s)[place])), "at the same load")
        yield "Tokens/s of a GPU", (f"{float(np.ravel(forecast.tokens_per_s_per_gpu)[place]):,.0f}", "at the same load")
    yield "KV cache of a GPU", (gibibytes_text(cache), f"of {gibibytes_text(float(np.asarray(memory.total_bytes)))}")


def _loads(forecast: ServingForecast) -> str:
    """The table behind the curves, folded; of what does not fit why stands above."""
    return as_table(as_html(loads_section(forecast))) if forecast.may_run else as_html(Text("It does not fit."))


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
