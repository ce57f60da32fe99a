"""How a table of published runs is read: CSV, one measured run a row, blank where its source does not say.

A blank cell takes the default of DEFAULTS (or what follows from the model's family), and the row lists it as an assumption.
A row that the equations do not cover keeps its reason instead of a run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from perfmodel.errors import InputError, NotSupportedError, PerfmodelError, did_you_mean, shown
from perfmodel.evidence.measured_rows import MEMORY_KINDS, MeasuredRun, MeasuredTable
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import DATA, expand_part, preset_names, read_preset
from perfmodel.exchange.stack_fit import beyond_the_stack
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.syntax.slips import likely_slips
from perfmodel.exchange.tables.csv_tables import read_table
from perfmodel.exchange.tables.mixture_columns import has_experts, mixture_model, mixture_settings, mixture_stack
from perfmodel.exchange.tables.printed_mfu import contradiction, other_denominator
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.axes import FILLING, PIPELINE, REPLICA_AXES, TENSOR
from perfmodel.spec.fields import Spec
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import parse_quantity

S = TypeVar("S", bound=Spec)
Entry: TypeAlias = dict[str, Any]  # of a table of csv_columns.yaml: patterns of columns, and what they say
GPUS_PER_NODE: Final = 8  # where a row does not state it
COLUMNS: Final = (  # that every table has; a degree that has no column here may have one
    *("run_id", "source", "model", "layers", "hidden_size", "attention_heads", "kv_heads", "ffn_hidden_size", "activation"),
    *("vocab_size", "sequence_length", "gpu", "gpus", "gpus_per_node", "internode_gbit_per_s_per_gpu", "tensor_parallel"),
    *("pipeline_parallel", "virtual_pipeline", "context_parallel", "data_parallel", "sequence_parallel", "sharding"),
    *("micro_batch_size", "global_batch_size", "recompute", "precision", "stack", "software", "iteration_time_s"),
)
DECISIVE: Final = ("run_id", "layers", "hidden_size", "attention_heads", "sequence_length", "gpus", "iteration_time_s")
CONTEXT: Final = "context"  # of `use`: something decisive is not stated or inferred; learned from, never scored
USES: Final = ("", CONTEXT)
MEMORY_CELL: Final = re.compile(r"(?P<number>\d+(\.\d+)?) *(/ *\d+(\.\d+)?)? *(\((?P<unit>GiB|GB)? *(?P<words>[^()]*)\))?")
# what stands behind the number of a cell, and the kind that it means
MEMORY_WORDS: Final = {"nvidia-smi": "device", "max_memory_usage": "allocated", **{kind: kind for kind in MEMORY_KINDS}}
LARGEST_MEMORY: Final = 1e5  # GiB of one GPU
LARGEST_COUNT: Final = 1e15  # of GPUs, tokens or sequences of a run: more is a slip
DEGREES: Final = (*(axis.name for axis in REPLICA_AXES), "virtual_pipeline")
DEFAULTS: Final = {
    **dict.fromkeys(DEGREES, "1"),
    "micro_batch_size": "1",
    "recompute": "none",
    "precision": "bf16",
    "activation": "gelu",
}
ATTENTION_KERNELS: Final = {"flash": "fused", "fused": "fused", "unfused": "unfused"}
STACK_DEFAULTS: Final = ("sequence_parallel", "sharding")  # what the training software does where its user sets nothing
KERNEL_SETTINGS: Final = (  # of the stack, as far as the words of a row tell them
    *("fusion.attention_library", "fusion.fp32_scores", "fusion.norms", "fusion.loss_peak_bytes"),
    *("low_precision.parameter_gather", "low_precision.products", "low_precision.spared_layers"),
    *("low_precision.attention", "low_precision.attention_recipes", "low_precision.hadamard"),
    *("host.cuda_graphs", "overlap.tensor_parallel"),
)
SCHEDULE_SETTINGS: Final = ("pipeline_schedule", "virtual_pipeline", "micro_batches")
SILENT_DEFAULTS: Final = tuple(name for name in DEGREES if name != TENSOR.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedRun:
    """The run that a row describes; `run` is None where the equations do not cover it, for the `reason`."""

    labels: Mapping[str, str]
    model: TransformerModel
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]
    warning: str


def read_measured_runs(path: Path) -> MeasuredTable[MeasuredRun]:
    """The measured runs of the table at `path`. Errors: InputError for what is no such table."""
    presets = read_mapping(DATA / "csv_columns.yaml")
    return read_table(path, COLUMNS, lambda line, cells: replace(_published(cells, presets), line=line))


def _published(cells: dict[str, str], presets: Mapping[str, Any]) -> MeasuredRun:
    for column in DECISIVE:
        if not cells[column]:
            raise InputError("not stated", key=column)
    if not cells["run_id"].isprintable():
        raise InputError(f"{shown(cells['run_id'])} is not one line of text", key="run_id")
    iteration_time_s = _within(cells, "iteration_time_s", 1e-6, 1e6)
    printed_mfu, mfu_problem = _printed_mfu(cells)
    memory_bytes, memory_kind, memory_problem = _memory(cells, presets)
    use = cells.get("use", "")
    if use not in USES:
        raise InputError(f"{shown(use)} is not one of them; {did_you_mean(use, USES[1:])}", key="use")
    described = described_run(cells, presets)
    measured = MeasuredRun(
        run_id=cells["run_id"],
        source=cells["source"],
        labels=described.labels,
        model=described.model,
        sequence_length=_integer(cells, "sequence_length"),
        global_batch_size=_integer(cells, "global_batch_size") if cells["global_batch_size"] else None,
        gpus=_integer(cells, "gpus"),
        peak_flop_per_s=_peak(cells),
        iteration_time_s=iteration_time_s,
        printed_mfu=printed_mfu,
        mfu_convention=_mfu_convention(cells, presets),
        run=described.run,
        reason=described.reason,
        assumptions=described.assumptions,
        scored=use != CONTEXT,
        memory_bytes=memory_bytes,
        memory_kind=memory_kind,
    )
    denominator = other_denominator(measured)
    doubts = [each for each in (mfu_problem, memory_problem, "" if denominator else contradiction(measured)) if each]
    warning = "; ".join([described.warning, *doubts] if described.warning else doubts)
    assumed = (*measured.assumptions, *([denominator] if denominator else []), *doubts)
    return replace(measured, warning=warning, assumptions=assumed)


def _printed_mfu(cells: Mapping[str, str]) -> tuple[float | None, str]:
    """The printed MFU as a ratio, or None and what is wrong with it: nothing is predicted from it, so the row stays."""
    if not cells.get("mfu_pct"):
        return None, ""
    try:
        return _within(cells, "mfu_pct", 1e-3, 100) / 100, ""
    except InputError as error:
        return None, f"{error}; the MFU of the row is left out"


def _memory(cells: Mapping[str, str], presets: Mapping[str, Any]) -> tuple[float | None, str, str]:
    """The measured memory [bytes] and its kind (measured_rows.MEMORY_KINDS); or None, and what is wrong with the cell.

    A cell is a number of GiB; behind it may stand the capacity after a slash, and in brackets another unit and what it means.
    """
    cell = cells.get("memory_gib", "")
    entry = _entry(presets["memory_kinds"], cells, apart=("kind", "unit"))
    if not cell:
        return None, entry["kind"], ""
    found = MEMORY_CELL.fullmatch(cell)
    size = float(found["number"]) if found else 0.0
    if not found or not 0.0 < size < LARGEST_MEMORY:
        return None, entry["kind"], f"memory_gib: {shown(cell)} is not a number of GiB; the memory of the row is left out"
    words = found["words"] or ""
    kind = next((kind for word, kind in MEMORY_WORDS.items() if word in words), entry["kind"])
    unit = found["unit"] or entry.get("unit", "GiB")
    return size * {"GiB": 2.0**30, "GB": 1e9}[unit], kind, ""


def described_run(cells: dict[str, str], presets: Mapping[str, Any]) -> DescribedRun:
    """The run that a row describes; blank cells of `cells` are filled in. Errors: InputError for a cell with a wrong value."""
    model_mapping, assumptions = _model(cells, presets)
    stack, warning = _stack(cells, presets)
    for column, value in {**DEFAULTS, **_stack_defaults(stack)}.items():
        if not cells.get(column):
            cells[column] = value
            if column not in SILENT_DEFAULTS:
                assumptions.append(f"{column} is not stated: {value} is assumed")
    labels = {name: cells[name] for name in ("gpu", "stack", "precision")}
    if cells["precision"] in presets["precisions"]:
        cells["precision"] = presets["precisions"][labels["precision"]]
        assumptions.append(f"precision {labels['precision']} is timed as {cells['precision']}")
    meant = _entry(presets["shardings"], cells, apart=("meant",))
    if meant:
        assumptions.append(
            f"sharding {cells['sharding']} is read as {meant['meant']}: {meant['meant']} is what its recipes use"
        )
        cells["sharding"] = meant["meant"]
    run, reason = None, ""
    try:
        if has_experts(cells):
            model_mapping = mixture_model(cells, model_mapping, presets)
            stack = with_sections(stack, mixture_stack(cells, presets))
        model = build(TransformerModel, model_mapping)
        run = _run(cells, model, stack, presets)
        assumptions.extend(likely_slips(run.cluster))
        warning = "; ".join([warning, *beyond_the_stack(run)] if warning else beyond_the_stack(run))
    except NotSupportedError as error:
        reason = error.topic
        model = build(TransformerModel, model_mapping)
    except InputError as error:
        reason = f"this layout is refused: {error}"
        model = build(TransformerModel, model_mapping)
    return DescribedRun(
        labels=labels,
        model=model,
        run=run,
        reason=reason,
        assumptions=tuple([warning, *assumptions] if warning else assumptions),
        warning=warning,
    )


def _mfu_convention(cells: Mapping[str, str], presets: Mapping[str, Any]) -> str:
    for entry in presets["mfu_conventions"]:
        if re.search(entry["source"], cells["source"]) and re.search(entry["model"], cells["model"]):
            return str(entry["convention"])
    raise InputError("no MFU convention is known for it", key=cells["source"])


def _peak(cells: Mapping[str, str]) -> float | None:
    if cells["gpu"] not in preset_names("gpus"):
        return None
    peak = _part(Gpu, json.dumps(cells["gpu"])).peak_flop_per_s.get(cells["precision"])
    return None if peak is None else float(peak)


def _model(cells: Mapping[str, str], presets: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The model of a row and its assumptions: the family, known by the activation, settles what no column states."""
    gpt = cells["activation"] in ("", "gelu")
    hidden, heads = _integer(cells, "hidden_size"), _integer(cells, "attention_heads")
    vocabulary = cells["vocab_size"] or str(_entry(presets["vocabularies"], cells, apart=("vocab_size",))["vocab_size"])
    taken = {"vocab_size": vocabulary, "kv_heads": "as many as attention heads", "ffn_hidden_size": "4 * hidden_size"}
    assumptions = [f"{column} is not stated: {value} is assumed" for column, value in taken.items() if not cells[column]]
    dropout = gpt and bool(_entry(presets["dropouts"], cells, apart=("dropout",))["dropout"])
    family = (
        f"GPT: layer norm, learned positions, biases, {'' if dropout else 'no '}dropout, tied embeddings"
        if gpt
        else "rotary positions, no biases, no dropout"
    )
    assumptions.append(f"norm, positions, biases and dropout are not stated: those of its family are assumed ({family})")
    model = {
        "name": cells["model"],
        "layers": _integer(cells, "layers"),
        "hidden_size": hidden,
        "attention_heads": heads,
        "kv_heads": _integer(cells, "kv_heads") if cells["kv_heads"] else heads,
        "head_size": max(hidden // heads, 1),
        "ffn_hidden_size": _integer(cells, "ffn_hidden_size") if cells["ffn_hidden_size"] else 4 * hidden,
        "activation": cells["activation"].replace("-", "_") or "gelu",
        "norm": "rmsnorm" if cells["activation"] in ("swiglu", "geglu") else "layernorm",
        "position": "learned" if gpt else "rotary",
        "biases": gpt,
        "dropout": dropout,
        "tied_embeddings": gpt,
        "vocab_size": _parsed(vocabulary, "vocab_size"),
        "max_positions": _integer(cells, "sequence_length"),
    }
    return model, [*assumptions, *_network_assumptions(cells)]


def _network_assumptions(cells: Mapping[str, str]) -> list[str]:
    columns = ("gpus_per_node", "internode_gbit_per_s_per_gpu")
    return [f"{column} is not stated: that of the GPU's DGX is assumed" for column in columns if not cells[column]]


def _run(cells: Mapping[str, str], model: TransformerModel, stack: Mapping[str, Any], presets: Mapping[str, Any]) -> Run:
    if not cells["global_batch_size"]:
        raise NotSupportedError("the global batch size is not stated")
    batch = _integer(cells, "global_batch_size")
    replicas = _integer(cells, FILLING.name) if cells[FILLING.name] else _replicas(cells)
    settings: dict[str, Any] = {name: _integer(cells, name) for name in (*DEGREES, "micro_batch_size", "sequence_length")}
    settings |= {name: cells[name] for name in ("precision", "sharding", "recompute")} | _schedule(cells, presets)
    settings |= mixture_settings(cells, presets) if has_experts(cells) else {}
    if cells["sharding"] == "hsdp":
        nodes = _integer(cells, "gpus") // int(cells["gpus_per_node"] or GPUS_PER_NODE)
        settings["data_parallel_replicas"] = max(nodes, 1)
    run = Run(
        name=cells["run_id"],
        model=model,
        cluster=_part(Cluster, json.dumps(_cluster(cells, presets))),
        stack=_part(SoftwareStack, json.dumps(stack)),
        sequence_parallel=_yes(cells, "sequence_parallel"),
        stages=(RampStage(data_parallel=replicas, global_batch_size=batch),),
        **settings,
    )
    if int(run.layout(run.stages[0]).gpus) != _integer(cells, "gpus"):
        raise InputError(f"its degrees make {run.layout(run.stages[0]).gpus} GPUs, not {cells['gpus']}", key=FILLING.name)
    return run


@lru_cache(maxsize=256)
def _part(spec: type[S], mapping: str) -> S:
    """A part of a run from its JSON; rows with equal parts share one object."""
    kind = {Gpu: "gpus", Cluster: "clusters", SoftwareStack: "stacks"}[spec]
    return build(spec, expand_part(spec, kind, json.loads(mapping)))


def _schedule(cells: Mapping[str, str], presets: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the pipeline beside its degrees, by the first entry of data/csv_columns.yaml that fits the row."""
    stages = _integer(cells, PIPELINE.name)
    if stages == 1:
        return {}
    entry = _entry(presets["schedules"], cells, apart=SCHEDULE_SETTINGS)
    settings: Entry = {key: entry[key] for key in ("pipeline_schedule", "virtual_pipeline") if key in entry}
    if settings.get("virtual_pipeline") == "most":  # a layer apiece, embedding and head counted as layers
        settings["virtual_pipeline"] = max(-(-_integer(cells, "layers") // stages), 1)
    if entry.get("micro_batches") == "stages":
        settings["micro_batch_size"] = max(_integer(cells, "micro_batch_size") // stages, 1)
    return settings


def _yes(cells: Mapping[str, str], column: str) -> bool:
    words = {"yes": True, "true": True, "no": False, "false": False}
    if cells[column].lower() not in words:
        raise InputError(f"{shown(cells[column])} is not yes or no", key=column)
    return words[cells[column].lower()]


def _replicas(cells: Mapping[str, str]) -> int:
    ranks = prod(_integer(cells, axis.name) for axis in REPLICA_AXES)
    return max(_integer(cells, "gpus") // max(ranks, 1), 1)


def _cluster(cells: Mapping[str, str], presets: Mapping[str, Any]) -> dict[str, Any]:
    if not cells["gpu"]:
        raise NotSupportedError("not stated", key="gpu")
    name = presets["clusters"].get(cells["gpu"])
    if name is None:
        raise NotSupportedError(f"no cluster preset has {cells['gpu']}", key="gpu")
    cluster: dict[str, Any] = {"extends": name} | _node(cells, name, presets)
    own = read_preset("clusters", name)[0]["links"]["network"]
    network = _entry(presets["networks"], cells, apart=("network",)).get("network", own)
    stated = cells["internode_gbit_per_s_per_gpu"]
    if stated or network != own:
        rate = f"{stated}Gb/s" if stated else read_preset("links", own)[0]["bandwidth_bytes_per_s"]
        cluster["links"] = {"network": {"extends": network, "bandwidth_bytes_per_s": rate}}
    return cluster


def _node(cells: Mapping[str, str], name: str, presets: Mapping[str, Any]) -> dict[str, int]:
    """GPUs and NICs of a row's nodes: a NIC a GPU where the row states its rate for each, else as many as the cluster has."""
    preset, _ = read_preset("clusters", name)
    known = int(preset["gpus_per_node"])
    counted = cells["gpus_per_node"] and cells["gpu"] not in presets["rack_scale"]
    gpus = _integer(cells, "gpus_per_node") if counted else known
    nics = gpus if cells["internode_gbit_per_s_per_gpu"] else max(int(preset["nics_per_node"]) * gpus // known, 1)
    return {"gpus_per_node": gpus, "nics_per_node": nics}


def _stack(cells: Mapping[str, str], presets: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The stack of a row, and a warning where `generic` stands for one that is not known."""
    entry = _entry(presets["stacks"], cells)
    fusion: dict[str, Any] = {}
    if kernel := ATTENTION_KERNELS.get(cells.get("attention_kernel", "")):
        fusion["attention"] = kernel == "fused"
    kernels = _entry(presets["kernels"], cells, apart=KERNEL_SETTINGS)
    stack: dict[str, Any] = {"extends": str(entry["preset"]), "fusion": fusion}
    for key in kernels.keys() & KERNEL_SETTINGS:
        section, _, name = key.partition(".")
        stack.setdefault(section, {})[name] = kernels[key]
    if len(entry) > 1:
        return stack, ""
    if cells["stack"] in preset_names("stacks"):
        return stack | {"extends": cells["stack"]}, ""
    return stack, f"stack {cells['stack'] or 'not stated'} has no preset: {entry['preset']} stands for it"


def with_sections(stack: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """A stack with some keys of its sections set."""
    return {**stack, **{name: {**stack.get(name, {}), **keys} for name, keys in sections.items()}}


def _entry(entries: Sequence[Entry], cells: Mapping[str, str], *, apart: Sequence[str] = ("preset",)) -> Entry:
    """The first entry whose patterns fit the cells, {} where none does; keys in `apart` are no patterns."""
    for entry in entries:
        if all(re.search(pattern, cells.get(column, "")) for column, pattern in entry.items() if column not in apart):
            return entry
    return {}


def _stack_defaults(stack: Mapping[str, Any]) -> dict[str, str]:
    defaults = read_preset("stacks", stack["extends"])[0]["defaults"]
    words = {True: "yes", False: "no"}
    return {column: words.get(defaults[column], str(defaults[column])) for column in STACK_DEFAULTS}


def _integer(cells: Mapping[str, str], column: str) -> int:
    number = _number(cells, column)
    if not 1 <= number <= LARGEST_COUNT or number != int(number):
        raise InputError(f"{shown(cells[column])} is not a positive whole number", key=column)
    return int(number)


def _within(cells: Mapping[str, str], column: str, low: float, high: float) -> float:
    number = _number(cells, column)
    if not low <= number <= high:
        raise InputError(f"{shown(cells[column])} is not between {low:g} and {high:g}", key=column)
    return number


def _number(cells: Mapping[str, str], column: str) -> float:
    return _parsed(cells[column], column)


def _parsed(text: str, column: str) -> float:
    try:
        return parse_quantity(text, "s" if column.endswith("_s") else "count")
    except PerfmodelError as error:
        raise error.under(column) from None
