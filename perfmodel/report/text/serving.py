"""How forecasts of servers look on a terminal: the verdict first, then the throughput-latency curve, then operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.count.serving.forward_pass import ForwardPass
from perfmodel.explanation.roofline import RooflinePoint, served_roofline
from perfmodel.report.json.serving import load_rows
from perfmodel.report.text.terminal import Name, plain_table, section, titled
from perfmodel.serving.forecast import DOES_NOT_FIT, FITS, ServingForecast
from perfmodel.serving.remedies import serving_remedies
from perfmodel.spec.axes import TENSOR
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


def serving_report(forecasts: Sequence[ServingForecast], *, verbose: bool = False) -> Group:
    """Each replica: whether it fits and with how much at most, its memory, what clients see; `verbose` adds operators."""
    parts: list[RenderableType] = []
    for forecast in forecasts:
        parts += [Text(verdict_sentence(forecast), style="bold"), memory_section(forecast)]
        if forecast.may_run:
            parts.append(loads_section(forecast))
            parts += [operators_section(forecast, name) for name in forecast.passes] if verbose else []
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
        return f"{start}: does not fit, not even one request of {asked}: {left}. {remedy_sentence(forecast)}"
    fits = "fits" if forecast.verdict == FITS else "is tight"
    return f"{start}: {fits}, {forecast.context_text}, or {_requests(forecast)} of {asked} at once."


def remedy_sentence(forecast: ServingForecast) -> str:
    """What would make it fit: It fits with --gpus 2, or with --precision int4."""
    options = {TENSOR.name: "--gpus", "precision": "--precision"}
    ways = [f"with {options[each.setting]} {each.value}" for each in serving_remedies(forecast.setup, forecast.request)]
    return f"It fits {', or '.join(ways)}." if ways else "Neither more GPUs of a node nor narrower weights would make it fit."


def _requests(forecast: ServingForecast) -> str:
    return "1 request" if forecast.most_running == 1 else f"{forecast.most_running:,} requests"


def _tokens(forecast: ServingForecast) -> str:
    """Those of one request: 1,000 + 500 tokens."""
    request = forecast.request
    return f"{int(np.asarray(request.input_tokens)):,} + {int(np.asarray(request.output_tokens)):,} tokens"


def memory_section(forecast: ServingForecast) -> RenderableType:
    """What of a GPU's memory goes where."""
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


def loads_section(forecast: ServingForecast) -> RenderableType:
    """A line for each number of clients, and what its columns mean."""
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
    yield short_seconds(row["ttft_s"])
    yield "-" if row["tokens_per_s_per_user"] is None else short_seconds(row["tpot_s"])
    yield short_seconds(row["e2e_s"])
    yield _interval(row["e2e_s_interval"], around_s=row["e2e_s"])
    yield "-" if row["tokens_per_s_per_user"] is None else f"{row['tokens_per_s_per_user']:.0f}"
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


def _interval(ends_s: Sequence[float], *, around_s: float) -> str:
    """Both ends of an interval in the unit that the seconds between them have."""
    times, unit = (1e3, "ms") if around_s < 1.0 else (1.0, "s")
    return f"{'-'.join(_figure(times * end_s) for end_s in ends_s)}{unit}"


def _figure(number: float) -> str:
    """Three digits, or whole numbers beyond a thousand."""
    return f"{number:,.0f}" if number >= THOUSAND else f"{number:.3g}"


def operators_section(forecast: ServingForecast, name: str) -> RenderableType:
    """Every operator of one kind of pass: intensity, the rate that it reaches, its share of the roof, and what bounds it."""
    tokens = forecast.passes[name]
    roofs = served_roofline(forecast.setup, tokens)
    table = plain_table()
    table.add_column("operator", overflow="fold", ratio=1)
    for heading in ("runs", "us", "FLOP/B", "reached", "roof"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("bound", no_wrap=True)
    table.add_column("confidence", no_wrap=True)
    for each in roofs.operators:
        table.add_row(Name(each.name.removeprefix("layer.")), *_operator_cells(each), roofs.bound_of(each), each.confidence)
    note = Text("us: of one run alone; roof: the share that it reaches of what its intensity allows.")
    return titled(f"Operators of {name}: {pass_text(tokens)}", Group(table, note))


def _operator_cells(each: RooflinePoint) -> Iterator[str]:
    yield f"{each.repeats:,.0f}"
    yield f"{1e6 * each.seconds:,.1f}"
    yield f"{each.intensity:.3g}" if each.flop else ""
    yield f"{each.flop_per_s / 1e12:.3g} TFLOP/s" if each.flop else f"{each.bytes_per_s / 1e9:,.0f} GB/s"
    yield f"{100 * each.efficiency:.0f} %"


def pass_text(tokens: ForwardPass) -> str:
    """A prompt of 2,000 tokens; or 64 sequences of 2,250 tokens."""
    if np.all(np.asarray(tokens.prompts) > 0):
        return f"a prompt of {int(np.asarray(tokens.prompt_tokens)):,} tokens"
    number = int(np.asarray(tokens.sequences))
    return f"{number:,} sequence{'' if number == 1 else 's'} of {int(np.asarray(tokens.context)):,} tokens"
