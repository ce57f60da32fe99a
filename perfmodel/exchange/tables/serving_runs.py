"""How a table of measured serving runs is read: CSV, a row a metric, the rows of one run tied by their run_id."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from math import inf, isqrt
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.evidence.groups import publication
from perfmodel.evidence.measured_rows import MeasuredTable
from perfmodel.evidence.serving.rows import MeasuredServing
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup, usual_cluster
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.csv_tables import read_table
from perfmodel.exchange.tables.serving_models import named_served_model
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.serving.measurements import Workload
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.serving.loads import CLOSED, METRICS, OFFLINE
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.units import parse_quantity

SERVING_COLUMNS: Final = (
    *("run_id", "source", "model", "gpu", "gpus", "tensor_parallel", "data_parallel_attention", "engine", "engine_version"),
    *("weights", "kv", "isl", "osl", "concurrency", "load", "metric", "value", "notes"),
)
KERNELS: Final = "expert_kernels"  # the one setting that is a name
LEAST: Final = 1e-9  # of a measured value: a nanosecond, a token in thirty years
LONGEST_HEADER: Final = 1 << 16  # characters
MOST: Final = 1e12  # of anything that is measured or counted
EXPERTS: Final = re.compile(r"moe_tp (\d+) moe_ep (\d+)")


@cache
def _words() -> Mapping[str, Any]:
    return read_mapping(DATA / "serving_columns.yaml")


def is_serving_table(path: Path) -> bool:
    """Whether the first line of a file has the columns of a table of serving runs."""
    try:
        with path.open(encoding="utf-8") as file:
            header = file.readline(LONGEST_HEADER).strip().split(",")
    except (OSError, UnicodeDecodeError):
        return False
    return {"metric", "value", "isl", "osl"} <= set(header)


def read_serving_runs(path: Path, *, without_own: bool = False) -> MeasuredTable[MeasuredServing]:
    """The measurements of the table at `path`; one that the equations do not cover has a reason in place of a workload.

    `without_own` puts priors in the place of numbers that were learned from the source of a row.
    Errors: InputError for what is no such table.
    """
    return read_table(path, SERVING_COLUMNS, lambda line, cells: _measured(line, cells, without_own=without_own))


def _measured(line: int, cells: dict[str, str], *, without_own: bool) -> MeasuredServing:
    metric = cells["metric"]
    if metric not in METRICS:
        raise InputError(f"{shown(metric)} is no metric of serving; {did_you_mean(metric, METRICS)}", key="metric")
    cells = cells | {"source": _first_source(cells)}
    value = _number(cells, "value")
    if value is None or value <= 0:
        raise InputError("missing; a measured value above 0 is needed", key="value")
    if value < LEAST:
        raise InputError(f"{shown(cells['value'])} is smaller than anything that is measured", key="value")
    load = _load(cells["load"])
    kind, reason, workload = str(load["kind"]), "", None
    try:
        workload = _workload(cells, kind, load.get("requests"), without_own=without_own)
    except PerfmodelError as error:
        reason = error.topic
    return MeasuredServing(
        run_id=cells["run_id"] or f"line {line}",
        source=cells["source"],
        labels={"engine": cells["engine"], "gpu": cells["gpu"], "load": kind, "model": cells["model"]},
        metric=metric,
        value=value,
        workload=workload,
        reason=reason,
        context=_context(cells),
        publication=_publication(cells["source"]),
    )


def _workload(cells: Mapping[str, str], kind: str, requests: float | None, *, without_own: bool) -> Workload:
    words = _words()
    engine = _engine(cells)
    ranks = _ranks(cells)
    if named_served_model(cells["model"]).mixture is not None and _lies_whole(cells):
        ranks = replace(ranks, replicas=ranks.tensor, experts=ranks.tensor)
    setup = _setup(
        cells["model"],
        gpu=words["gpus"].get(cells["gpu"], cells["gpu"]),
        engine=engine,
        numbers=_own_numbers(cells, engine, without_own=without_own),
        precision=_weights(cells),
        kv_precision=cells["kv"] or _cache(cells),
        tensor_parallel=ranks.tensor,
        attention_replicas=ranks.replicas,
        expert_parallel=ranks.experts,
    )
    if setup.model.mixture is None and setup.expert_parallel > 1:
        raise InputError("a dense model has no experts to spread", key="notes")
    lengths = _lengths(cells)
    inputs = (_number(cells, "isl") or float(words["usual_input_tokens"])) * _times_longer(cells)
    return Workload(
        setup=setup,
        request=_request(inputs, _number(cells, "osl") or 1.0, mean=float(lengths.get("mean", 1.0))),
        kind=kind,
        concurrency=_number(cells, "concurrency") or requests,
        replicas=max(ranks.gpus / ranks.tensor, 1.0),
        waves=float(words["waves"]["value"]) if kind == CLOSED else float("inf"),
        requests=_requests(cells) if kind == OFFLINE else float("inf"),
        length_spread=float(lengths["value"]),
        stated_output_tokens=_number(cells, "osl") or 1.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranks:
    """GPUs of a row, and what of a server is split over those of one replica of the model (spec/serving/setup.py)."""

    gpus: float
    tensor: int
    replicas: int
    experts: int


def _ranks(cells: Mapping[str, str]) -> _Ranks:
    """How a model lies on the GPUs of a row, as its columns say and its notes do of the experts."""
    gpus, replicas = _gpus(cells), max(int(_number(cells, "data_parallel_attention") or 1), 1)
    tensor = int(_number(cells, "tensor_parallel") or 0) or int(gpus)
    spread = EXPERTS.search(cells["notes"])
    expert_tensor, experts = (int(number) for number in spread.groups()) if spread else (tensor, 1)
    if any(_fits(each["where"], cells) for each in _words()["spread_experts"]):
        expert_tensor, experts = 1, tensor
    side = isqrt(int(gpus))
    if _fits(_words()["counted_twice"]["where"], cells) and side > 1 and gpus == side**2 == expert_tensor * experts:
        if expert_tensor == experts:
            return _Ranks(gpus=side, tensor=side, replicas=side if replicas > 1 else 1, experts=side)
        if tensor == replicas == side and experts == gpus:
            return _Ranks(gpus=side, tensor=side, replicas=1, experts=side)
    if tensor % replicas:  # a table may state what one replica of attention is split over
        tensor *= replicas
    return _Ranks(gpus=gpus, tensor=tensor, replicas=replicas, experts=experts if expert_tensor * experts == tensor else 1)


def _gpus(cells: Mapping[str, str]) -> float:
    """Of all replicas of a row; one where it says nothing."""
    gpus = _number(cells, "gpus")
    if gpus is not None and gpus < 1.0:
        raise InputError(f"{shown(cells['gpus'])} must be at least 1", key="gpus")
    return 1.0 if gpus is None else gpus


@lru_cache(maxsize=4096)
def _setup(model: str, *, engine: str, numbers: tuple[tuple[str, float | str], ...], **settings: Any) -> ServingSetup:
    """One setup for all rows that have it: the engine with the numbers of a source in place of its own, by key path."""
    chosen = engine_preset(engine)
    for path, value in numbers:
        section, _, key = path.rpartition(".")
        own = with_numbers(getattr(chosen, section), {key: value}) if section else value
        chosen = with_numbers(chosen, {section or key: own})
    gpu = usual_cluster(settings["gpu"]).gpu
    return serving_setup(named_served_model(model), engine=chosen.on(gpu), **settings)


def _own_numbers(cells: Mapping[str, str], engine: str, *, without_own: bool) -> tuple[tuple[str, float | str], ...]:
    """Numbers of the engine as a source runs it, or without what it learned from that source, by key path; the last counts."""
    found: dict[str, float | str] = {}
    for each in _words()["learned"] if without_own else ():
        if each["engine"] == engine and re.search(each["source"], cells["source"]):
            found[f"host.{each['key']}"] = parse_quantity(each["prior"], "s")
    clients = _number(cells, "concurrency") or 1.0
    for each in _words()["settings"]:
        loaded = each.get("from_clients", 0) <= clients < each.get("below_clients", inf)
        if loaded and re.search(each["engine"], engine) and _fits(each["where"], cells):
            found |= {path: _set_number(path, value, cells) for path, value in each["set"].items()}
    return tuple(found.items())


def _fits(where: Mapping[str, str], cells: Mapping[str, str]) -> bool:
    """Whether a row has what patterns of some columns ask for."""
    return all(re.search(pattern, cells[column]) for column, pattern in where.items())


def _set_number(path: str, value: Any, cells: Mapping[str, str]) -> float | str:
    """A number, a switch or a name that a table of settings has; tokens may be a sum with the prompt and clients of a row."""
    if isinstance(value, bool):
        return value
    if path == KERNELS:
        return str(value)
    if path.endswith("_s"):
        return parse_quantity(value, "s")
    of_row = {"clients": _number(cells, "concurrency") or 1.0, "prompt": _number(cells, "isl") or 0.0}
    return sum(of_row[term] if term in of_row else float(term) for term in str(value).split(" + "))


def _requests(cells: Mapping[str, str]) -> float:
    """How many requests an offline run has; infinitely many where nobody says."""
    lengths = f"{cells['isl']}/{cells['osl']}"
    found = (each["numbers"].get(lengths) for each in _words()["request_numbers"] if re.search(each["source"], cells["source"]))
    return float(next((number for number in found if number), "inf"))


def _first_source(cells: Mapping[str, str]) -> str:
    """The source that made a run: another one may list it again as its own."""
    return next((str(each["source"]) for each in _words()["listed_again"] if _fits(each["where"], cells)), cells["source"])


def _publication(source: str) -> str:
    """Whose measurements they are: those that a collection of several names, else the publication of the source."""
    named = (re.search(str(each["pattern"]), source) for each in _words()["collections"])
    return next((found.group(1) for found in named if found), publication(source))


def _lies_whole(cells: Mapping[str, str]) -> bool:
    """Whether each GPU of a mixture has whole experts and whole sequences."""
    return any(re.search(each["pattern"], cells[each["column"]]) for each in _words()["spread_mixtures"])


def _lengths(cells: Mapping[str, str]) -> Mapping[str, Any]:
    """How lengths differ as the load generator of a source makes them: by what share, and their mean over the nominal one."""
    found: Mapping[str, Any] = next(each for each in _words()["length_spreads"] if re.search(each["pattern"], cells["source"]))
    return found


def _times_longer(cells: Mapping[str, str]) -> float:
    """How many times as many tokens as a row says an engine read of each prompt."""
    return next((float(each["times"]) for each in _words()["longer_prompts"] if _fits(each["where"], cells)), 1.0)


def _request(input_tokens: float, output_tokens: float, *, mean: float) -> Request:
    """A request of mean length; one token stays one."""
    return Request(input_tokens=max(mean * input_tokens, 1.0), output_tokens=max(mean * output_tokens, 1.0))


def _engine(cells: Mapping[str, str]) -> str:
    for each in _words()["engines"]:
        if re.search(each["engine"], cells["engine"]) and re.search(each.get("version", ""), cells["engine_version"]):
            return str(each["preset"])
    raise InputError(f"{shown(cells['engine'])} is no engine that is known here", key="engine")


def _weights(cells: Mapping[str, str]) -> str:
    """The format of the weights: that of the checkpoint where a row calls it by another name, else what the row says."""
    held = (str(each["weights"]) for each in _words()["checkpoints"] if _fits(each["where"], cells))
    return next(held, _words()["weights"].get(cells["weights"], cells["weights"]))


def _cache(cells: Mapping[str, str]) -> str:
    """The format of the cache where a row leaves it to the engine."""
    return next(str(each["cache"]) for each in _words()["caches"] if _fits(each["where"], cells))


def _load(load: str) -> Mapping[str, Any]:
    for each in _words()["loads"]:
        if re.search(each["pattern"], load):
            found: Mapping[str, Any] = each
            return found
    raise InputError(f"{shown(load)} is no load that is known here", key="load")


def _context(cells: Mapping[str, str]) -> str:
    """Why a row is not scored; "" where it is."""
    found = (each["reason"] for each in _words()["context"] if _fits(each["where"], cells))
    return str(next(found, ""))


def _number(cells: Mapping[str, str], column: str) -> float | None:
    cell = cells[column]
    if not cell:
        return None
    try:
        number = float(cell)
    except ValueError:
        raise InputError(f"{shown(cell)} is not a number", key=column) from None
    if not abs(number) <= MOST:
        raise InputError(f"{shown(cell)} must be at most {MOST:g}", key=column)
    return number
