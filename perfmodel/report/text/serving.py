"""How forecasts and scores of servers look on a terminal: the verdict first, then the throughput-latency curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.evidence.serving_scores import ServingErrors, ServingScoreboard
from perfmodel.report.json.serving import load_rows
from perfmodel.report.text.terminal import plain_table, section, titled
from perfmodel.serving.forecast import DOES_NOT_FIT, FITS, ServingForecast
from perfmodel.units import gibibytes_text, gpus_text

THOUSAND: Final = 1000.0
BOUND: Final = {
    "weights": "weights",
    "compute": "compute",
    "cache": "KV cache",
    "kernels": "kernels",
    "messages": "all-reduce",
    "host": "host",
}


def serving_report(forecasts: Sequence[ServingForecast]) -> Group:
    """Each replica: whether it fits and with how much at most, its memory, and what clients see."""
    parts: list[RenderableType] = []
    for forecast in forecasts:
        parts += [Text(verdict_sentence(forecast), style="bold"), _memory(forecast)]
        if forecast.may_run:
            parts.append(_loads(forecast))
        if forecast.assumptions:
            parts.append(section("Assumptions", [("-", each) for each in forecast.assumptions]))
        parts.append(Text(""))
    return Group(*parts[:-1])


def verdict_sentence(forecast: ServingForecast) -> str:
    """Llama 3.1 8B on one H100 SXM 80GB fits: 419,000 tokens of KV cache, 334 requests of 1,000 + 500 tokens at once."""
    setup = forecast.setup
    number = setup.tensor_parallel
    where = f"{gpus_text(number)} ({setup.cluster.gpu.name})"
    asked = _tokens(forecast)
    start = f"{setup.model.name} in {setup.weights.name} on {where}, {setup.engine.name}"
    if forecast.verdict == DOES_NOT_FIT:
        memory = forecast.memory
        used = memory.weights_bytes + memory.fixed_bytes + memory.activation_bytes
        left = (
            f"weights, activations and engine take {gibibytes_text(float(used))} of {gibibytes_text(float(memory.total_bytes))}"
        )
        return f"{start}: does not fit, not even one request of {asked}: {left}."
    fits = "fits" if forecast.verdict == FITS else "is tight"
    most = f"at most {forecast.longest_context:,} tokens of context, or {_requests(forecast)} of {asked} at once"
    return f"{start}: {fits}, {most}."


def _requests(forecast: ServingForecast) -> str:
    return "1 request" if forecast.most_running == 1 else f"{forecast.most_running:,} requests"


def _tokens(forecast: ServingForecast) -> str:
    """Those of one request: 1,000 + 500 tokens."""
    request = forecast.request
    return f"{int(np.asarray(request.input_tokens)):,} + {int(np.asarray(request.output_tokens)):,} tokens"


def _memory(forecast: ServingForecast) -> RenderableType:
    memory = forecast.memory
    parts = {
        "weights": memory.weights_bytes,
        "engine and libraries": memory.fixed_bytes,
        "activations": memory.activation_bytes,
        "CUDA graphs": memory.graph_bytes,
        "KV cache": np.maximum(memory.cache_bytes, 0.0),
    }
    line = ", ".join(f"{name} {gibibytes_text(float(size))}" for name, size in parts.items())
    return section("Memory of each GPU", [("-", f"{line}; of {gibibytes_text(float(memory.total_bytes))}")])


def _loads(forecast: ServingForecast) -> RenderableType:
    table = plain_table()
    has_price = forecast.dollars_per_gpu_hour is not None
    names = ("clients", "TTFT", "TPOT", "latency", "90 %", "tok/s", "tok/s/GPU")
    for heading in (*names, *(("$/M",) if has_price else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    for row in load_rows(forecast):
        table.add_row(*_cells(row, has_price=has_price))
    queued = [row for row in load_rows(forecast) if row["queued"]]
    notes: list[RenderableType] = [Text(f"latency: of {_tokens(forecast)}, with its 90 % interval; tok/s: of one client.")]
    if has_price:
        notes.append(Text("$/M: dollars for a million tokens that come back."))
    if queued:
        notes.append(Text(f"With more than {forecast.most_running:,} at once requests queue: TTFT grows with each of them."))
    return titled("What clients see, each with one request at a time", Group(table, *notes))


def _cells(row: dict[str, Any], *, has_price: bool) -> Iterator[str]:
    yield f"{row['concurrency']:,}"
    yield from (short_seconds(row[metric]) for metric in ("ttft_s", "tpot_s", "e2e_s"))
    low, high = row["e2e_s_interval"]
    yield f"{_figure(low)}-{_figure(high)}s"
    yield f"{row['tokens_per_s_per_user']:.0f}"
    yield f"{row['tokens_per_s_per_gpu']:,.0f}"
    if has_price:
        yield f"{row['dollars_per_million_tokens']:.2f}"
    yield BOUND[row["bound_by"]]


def short_seconds(seconds: float) -> str:
    """Seconds, or milliseconds below one, of three digits.

    >>> short_seconds(0.0123), short_seconds(12.34), short_seconds(3110.4)
    ('12.3ms', '12.3s', '3,110s')
    """
    return f"{1e3 * seconds:.3g}ms" if seconds < 1.0 else f"{_figure(seconds)}s"


def _figure(number: float) -> str:
    """Three digits, or whole numbers beyond a thousand."""
    return f"{number:,.0f}" if number >= THOUSAND else f"{number:.3g}"


def serving_validation_report(scores: ServingScoreboard, *, leave_source_out: bool) -> RenderableType:
    """The errors of each question over all rows, then by engine and GPU; and what was left out."""
    how = ", each source without what was learned from it" if leave_source_out else ""
    parts: list[RenderableType] = [titled(f"Errors of servers{how}", _table([("", scores.questions)], first="metric"))]
    for group, names in scores.groups.items():
        parts.append(titled(f"By {group}", _table(list(names.items()), first=group)))
    lines = [("-", f"{number:,} rows: {reason}") for reason, number in list(scores.unsupported.items())[:8]]
    if lines:
        parts.append(section("Not covered", lines))
    lines = [("-", f"{number:,} rows: {reason}") for reason, number in scores.context.items()]
    if lines:
        parts.append(section("Predicted, not scored", lines))
    return Group(*parts)


def _table(groups: Sequence[tuple[str, Any]], *, first: str) -> RenderableType:
    table = plain_table(first)
    if first != "metric":
        table.add_column("metric", no_wrap=True)
    for heading in ("rows", "median", "p90", *(("bias", "in 90 %") if first == "metric" else ())):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, questions in groups:
        for question, errors in questions.items():
            table.add_row(*([name] if name else []), question, *_figures(errors, whole=first == "metric"))
    return table


def _figures(errors: ServingErrors, *, whole: bool) -> Iterator[str]:
    yield f"{errors.rows:,}"
    yield f"{100 * errors.median_abs_error:.1f} %"
    yield f"{100 * errors.p90_abs_error:.1f} %"
    if whole:
        yield f"{100 * errors.bias:+.1f} %"
        yield f"{100 * errors.interval_coverage:.0f} %"
