"""How a table of measured fine-tuning runs is read: CSV, a row a run, blank where its source does not say.

What the words of its columns mean stands in data/tuning_columns.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel.count.parameters import active_parameter_count
from perfmodel.errors import InputError, PerfmodelError, shown
from perfmodel.evidence.measured_rows import MeasuredTable
from perfmodel.evidence.tuning.rows import FITS, MEMORY, SPEED, MeasuredTuning
from perfmodel.exchange.presets import DATA, cluster_preset, stack_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.csv_tables import read_table
from perfmodel.exchange.tables.tuning_models import named_tuned_model
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.run import RampStage, Run
from perfmodel.units import GIBIBYTE

TUNING_COLUMNS: Final = (
    *("run_id", "source", "model", "gpu", "gpus", "method", "lora_rank", "lora_targets", "optimizer", "precision", "seq"),
    *("micro_batch", "accumulation", "checkpointing", "packed", "sharding", "offload", "attention", "extra"),
    *("peak_memory_gib", "memory_kind", "tokens_per_s", "tokens_per_s_scope", "fits", "notes"),
)
LARGEST: Final = {MEMORY: 1e5, SPEED: 1e12}  # GiB of a GPU, tokens a second
MOST_DIGITS: Final = 15  # of a whole number
WIDE: Final = {"bf16": ("bf16", "bfloat16"), "fp16": ("fp16", "float16")}  # what a row's words for a format begin with
CARD: Final = re.compile(r"^(\d+) GB card")
SEQUENCES: Final = re.compile(r"ulysses sequence parallel (\d+)")


@cache
def _words() -> Mapping[str, Any]:
    return read_mapping(DATA / "tuning_columns.yaml")


def is_tuning_table(path: Path) -> bool:
    """Whether the first line of a file has the columns of a table of fine-tuning runs."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            first = file.readline()
    except OSError:
        return False
    return {"method", "lora_rank", "peak_memory_gib"} <= {name.strip().strip('"') for name in first.split(",")}


def read_tuning_runs(path: Path) -> MeasuredTable[MeasuredTuning]:
    """The runs of the table at `path`. Errors: InputError for what is no such table."""
    return read_table(path, TUNING_COLUMNS, lambda line, cells: _measured(cells, line=line))


def _measured(cells: dict[str, str], *, line: int) -> MeasuredTuning:
    values = {name: number for name, number in (_value(cells, MEMORY), _speed(cells)) if number is not None}
    if cells["fits"].lower() in ("yes", "no"):
        values[FITS] = 1.0 if cells["fits"].lower() == "yes" else 0.0
    run, reason = None, ""
    try:
        run = _run(cells)
    except PerfmodelError as error:
        reason = str(error)
    if run is not None and SPEED in values:
        values[SPEED] = _possible_speed(run, values[SPEED])
    labels = {name: cells[name] for name in ("gpu", "method")} | {"stack": _found("stacks", cells)["stack"]}
    return MeasuredTuning(
        run_id=cells["run_id"] or f"line {line}",
        source=cells["source"],
        labels=labels,
        values=values,
        run=run,
        reason=reason,
        context={each["metric"]: each["why"] for each in _words()["context"] if each["why"] and _matches(each, cells)},
        memory_kind=_found("memory_kinds", cells)["kind"],
    )


def _value(cells: Mapping[str, str], column: str) -> tuple[str, float | None]:
    if not cells[column]:
        return column, None
    try:
        number = float(cells[column].replace(",", ""))
    except ValueError:
        number = math.nan
    if not 0.0 < number <= LARGEST[column]:
        raise InputError(f"{shown(cells[column])} is not a number up to {LARGEST[column]:g}", key=column)
    return column, number


def _speed(cells: Mapping[str, str]) -> tuple[str, float | None]:
    """Tokens/s of all GPUs: of a single one times their number, where the scope says so."""
    _, number = _value(cells, SPEED)
    if number is None or not cells["tokens_per_s_scope"].lower().startswith(("per gpu", "readme")):
        return SPEED, number
    return SPEED, number * _whole(cells, "gpus", 1)


def _possible_speed(run: Run, tokens_per_s: float) -> float:
    """A speed of all GPUs; one that was read as of a single GPU, and that no GPU reaches with 4 FLOPs a parameter, is that."""
    gpus = float(run.layout(run.stages[0]).gpus)
    flop_per_s = 4.0 * float(active_parameter_count(run.model)) * tokens_per_s / gpus
    return tokens_per_s / gpus if flop_per_s > float(run.cluster.gpu.peak(run.cluster.gpu.wide_precision)) else tokens_per_s


def _whole(cells: Mapping[str, str], column: str, default: int) -> int:
    """The first whole number of a cell."""
    found = re.match(r"\d+", cells[column])
    if found and len(found[0]) > MOST_DIGITS:
        raise InputError(f"{shown(cells[column])} is no number of a run", key=column)
    return int(found[0]) if found else default


def _found(kind: str, cells: Mapping[str, str]) -> Mapping[str, Any]:
    """The first entry of a kind whose patterns are found in a row. Errors: InputError where there is none."""
    entries: Sequence[Mapping[str, Any]] = _words()[kind]
    for entry in entries:
        if _matches(entry, cells):
            return entry
    column = next(name for name in entries[0] if name in TUNING_COLUMNS)
    raise InputError(f"{shown(cells[column])} is nothing that is known here", key=column)


def _matches(entry: Mapping[str, Any], cells: Mapping[str, str]) -> bool:
    """Whether every pattern of an entry is found in the column that it names; other keys are what the entry says."""
    return all(re.search(str(pattern), cells[column]) for column, pattern in entry.items() if column in TUNING_COLUMNS)


def _precision(cells: Mapping[str, str]) -> str:
    """bf16 or fp16 as a row says so; "" where it says nothing of its products."""
    stated = cells["precision"].lower()
    return next((name for name, words in WIDE.items() if stated.startswith(words)), "")


def _run(cells: Mapping[str, str]) -> Run:
    """The run of a row. Errors: InputError or NotSupportedError with what is missing or not covered."""
    if re.search(_words()["estimates"], cells["source"]):
        raise InputError("an estimate of its authors, not a measurement", key="source")
    training = _found("trainings", cells)
    if "reason" in training:
        raise InputError(training["reason"], key="method")
    if not re.match(r"\d{1,15}$", cells["seq"]):
        raise InputError(f"{shown(cells['seq'])} is no length of a sequence", key="seq")
    gpus, length, cluster = _whole(cells, "gpus", 1), int(cells["seq"]), _cluster(cells)
    context = int(found[1]) if (found := SEQUENCES.search(cells["sharding"])) else 1
    micro = _whole(cells, "micro_batch", 1)
    data = gpus // context
    offloads = _found("offloads", cells)["offloads"].split()
    weights = training.get("weights") or _found("weights", cells)["weights"]
    targets = "" if training["training"] == "full" else _found("targets", cells)["targets"]
    return Run(
        name=cells["run_id"],
        model=named_tuned_model(cells["model"]),
        cluster=cluster,
        stack=stack_preset(_found("stacks", cells)["stack"]),
        precision=_precision(cells) or cluster.gpu.wide_precision,
        context_parallel=context,
        sequence_parallel=False,
        sharding=_found("shardings", cells)["sharding_is"],
        recompute=_found("recompute", cells)["recompute"],
        micro_batch_size=micro,
        sequence_length=length,
        training=training["training"],
        weights=weights,
        adapter_rank=_whole(cells, "lora_rank", _found("ranks", cells)["rank"]),
        adapter_targets=tuple(targets.split()),
        trained_parts=tuple(_found("trained_parts", cells)["parts"].split()),
        optimizer=_found("optimizers", cells)["optimizer_is"],
        offload=tuple(offloads),
        stages=(RampStage(data_parallel=data, global_batch_size=micro * _whole(cells, "accumulation", 1) * data),),
    )


def _cluster(cells: Mapping[str, str]) -> Cluster:
    """The machine of a row; a card that is named by its memory alone has as much."""
    known = [each["cluster"] for each in _words()["clusters"] if _matches(each, cells)]
    if not known:
        raise InputError(f"{shown(cells['gpu'])} is no GPU that is known here", key="gpu")
    cluster = cluster_preset(known[0])
    card = CARD.match(cells["gpu"])
    if card is None:
        return cluster
    return with_numbers(cluster, {"gpu": with_numbers(cluster.gpu, {"memory_bytes": float(card[1]) * GIBIBYTE})})
