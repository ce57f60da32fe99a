"""What the keys of torchtitan make together: the run of a TOML file, or of a command line of its Python configurations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, did_you_mean, shown
from perfmodel.exchange.presets import read_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.conversion import Conversion, stage
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, whole
from perfmodel.exchange.translation.words.word_table import TABLES

TORCHTITAN: Final = Dialect(table="torchtitan", software="torchtitan")
SCHEDULES: Final = {
    "1F1B": ("1f1b", 1),
    "Interleaved1F1B": ("1f1b", 2),
    "ZBVZeroBubble": ("zb-h1", 1),
    "InterleavedZeroBubble": ("zb-h1", 1),
}
LLAMA: Final = {"activation": "swiglu", "norm": "rmsnorm", "position": "rotary", "vocab_padding_multiple": 1}
TOKENS: Final = 16384  # of a micro-batch of a data-parallel rank, where batches are given in tokens
LONGEST: Final = 9  # digits of a number of layers
LOSS_CHUNKS: Final = 8  # pieces of a micro-batch that the loss is taken of, in the Python configurations
MODEL_NAME: Final = re.compile(r"(?P<family>[a-z]+\d*)_(?P<flavor>\d+(?:[._]\d+)?b|debugmodel)", re.IGNORECASE)


@cache
def _models() -> Mapping[str, Any]:
    return read_mapping(TABLES / "torchtitan_models.yaml")


def from_keys(given: Mapping[str, Any], *, format_name: str, name: str, gpus: int | None = None) -> Conversion:
    """The run that torchtitan's keys with their values describe. Errors: InputError."""
    draft = RunDraft({key: value for key, value in given.items() if value != -1}, TORCHTITAN)
    for default in defaults_of(TORCHTITAN.table):
        draft.take(default)
    draft.attempt("model", lambda: _model(draft, given))
    known = _layout(draft)
    _software(draft)
    _recompute(draft)
    world = gpus or known
    return draft.conversion(format_name=format_name, name=name, gpus=world, stages=[_stage(draft, world)])


def _model(draft: RunDraft, given: Mapping[str, Any]) -> dict[str, Any]:
    """The model of a family and a flavor, or of the name of a Python configuration. Errors: InputError, NotSupportedError."""
    family, flavor = draft.facts.get("family"), draft.facts.get("flavor")
    if flavor is None and (named := _named_flavor(given)):
        family, flavor = named
    if flavor is None and (found := MODEL_NAME.search(str(given.get("config") or ""))):
        family, flavor = family or given.get("module") or found["family"], found["flavor"].replace("_", ".")
    family, models = str(family or given.get("module") or "llama3"), _models()
    if family in models["mixtures"]:
        raise NotSupportedError(f"model {family}: a mixture of experts is known but not supported yet")
    if family not in models["models"]:
        raise NotSupportedError(f"model {family} is not covered; {', '.join(models['models'])} are, or --model config.json")
    flavors = {name.lower(): name for name in models["models"][family]}
    if str(flavor).lower() not in flavors:
        raise InputError(f"{shown(flavor)} is no flavor of {family}; {did_you_mean(str(flavor), flavors)}", key="model.flavor")
    return model_of(family, flavors[str(flavor).lower()])


def known_flavors() -> Iterator[tuple[str, str]]:
    """The families and flavors whose models are covered."""
    return ((family, flavor) for family, flavors in _models()["models"].items() for flavor in flavors)


def model_of(family: str, flavor: str) -> dict[str, Any]:
    """The model of a flavor."""
    entry = _models()["models"][family][flavor]
    return read_preset("models", entry["preset"])[0] if "preset" in entry else {"name": entry["name"], **entry, **LLAMA}


def _named_flavor(given: Mapping[str, Any]) -> tuple[str, str] | None:
    """The family and the flavor that the name of a Python configuration is made of, where a module says the family."""
    module, name = str(given.get("module") or ""), _letters(given.get("config") or "")
    return next(
        ((family, flavor) for family, flavor in known_flavors() if family == module and name == _letters(family + flavor)), None
    )


def _letters(name: Any) -> str:
    return "".join(each for each in str(name).lower() if each.isalnum())


def _layout(draft: RunDraft) -> int | None:
    """Degrees, the sharding and the schedule; the GPUs where all degrees are given."""
    settings, facts = draft.settings, draft.facts
    settings["sequence_parallel"] = settings["tensor_parallel"] > 1 and facts.get("cuts_sequence", True)
    replicas, shards = whole(facts.get("replicas")) or 1, whole(facts.get("shards"))
    settings["sharding"] = "zero3" if replicas == 1 else "hsdp" if shards != 1 else "none"
    if settings["sharding"] == "hsdp":
        settings["data_parallel_replicas"] = replicas
    if shards is None:
        draft.assumed.append("data_parallel_shard_degree is not given, or -1: all other GPUs share the parameters")
    _schedule(draft)
    rest = settings["tensor_parallel"] * settings["pipeline_parallel"] * settings["context_parallel"]
    return None if shards is None else replicas * shards * rest


def _schedule(draft: RunDraft) -> None:
    settings, facts = draft.settings, draft.facts
    settings["virtual_pipeline"] = 1
    if settings["pipeline_parallel"] == 1:
        return
    name = str(facts.get("schedule", "1F1B"))
    if name not in SCHEDULES:
        draft.refused.append(f"pipeline_parallel_schedule {name} is not covered; {', '.join(SCHEDULES)} are")
        return
    settings["pipeline_schedule"], chunks = SCHEDULES[name]
    if settings["pipeline_schedule"] != "1f1b":
        draft.assumed.append(f"schedule {name} is predicted as {settings['pipeline_schedule']}")
    each, layers = whole(facts.get("layers_per_stage")), draft.settings.get("model", {}).get("layers")
    if each and layers and name == "Interleaved1F1B":
        chunks = max(-(-layers // each) // settings["pipeline_parallel"], 1)
    settings["virtual_pipeline"] = chunks


def _software(draft: RunDraft) -> None:
    settings, facts = draft.settings, draft.facts
    parts = str(facts.get("compiled", "model loss"))
    compiles_loss = facts.get("compiles_loss") and "loss" in parts
    compiles = facts.get("compiles") or (facts.get("compiles_loss") and "model" in parts)
    preset = "torchtitan-2025" if compiles_loss and compiles else "torchtitan" if compiles else "torchtitan-eager"
    if not compiles:
        draft.assumed.append("compile is not switched on: modules run one by one (stack torchtitan-eager)")
    settings |= {"stack.extends": preset, "stack.states.reduced_gradient_bytes": facts.get("reduced_bytes", 4)}
    if facts.get("async_tensor_parallel"):
        settings["stack.overlap.tensor_parallel"] = "pipelined"
    reshards = str(facts.get("reshards", "default"))
    if reshards == "never" or (reshards == "default" and settings["pipeline_parallel"] > 1):
        settings["stack.states.regathers_parameters"] = False
    converters = (
        " ".join(map(str, facts.get("converters") or ()))
        if isinstance(facts.get("converters"), list)
        else str(facts.get("converters", ""))
    )
    if facts.get("float8") or "float8" in converters:
        settings |= {"precision": "fp8", "stack.low_precision.scaling": "current"}
    elif "nvfp4" in converters:
        settings["precision"] = "nvfp4"
    elif "mx" in converters.split() or "linear.mx" in converters or "mxfp8" in converters:
        settings["precision"] = str(facts.get("mx_recipe", "mxfp8")).split("_")[0]


def _recompute(draft: RunDraft) -> None:
    facts, settings = draft.facts, draft.settings
    mode = str(facts.get("recompute", "selective"))
    if "recompute" not in facts:
        draft.silent("recompute", "selective is torchtitan's default")
    if mode not in ("none", "selective", "full"):
        draft.refused.append(f"activation_checkpoint.mode {mode} is not covered; none, selective, full are")
        return
    option = str(facts.get("selected", "op"))
    if mode == "selective" and option.isdecimal() and int(option[:LONGEST]) > 0:
        layers = settings.get("model", {}).get("layers", 1)
        held = -(-layers // settings["pipeline_parallel"])
        settings |= {"recompute": "full", "recompute_layers": -(-held // int(option[:LONGEST]))}
        draft.assumed.append(f"activation_checkpoint.selective_ac_option {option}: every {option}. layer runs again as a whole")
        return
    settings["recompute"] = mode


def _stage(draft: RunDraft, gpus: int | None) -> dict[str, Any]:
    """The batch: in sequences as TOML has it, or in tokens as the Python configurations have it."""
    facts, settings = draft.facts, draft.settings
    length = settings["sequence_length"]
    if "local_batch" not in facts and ("microbatch_tokens" in facts or "step_tokens" in facts or "config" in draft.given):
        return _in_tokens(draft, gpus)
    local = whole(facts.get("local_batch"))
    if local is None:
        local = 8
        draft.silent("local_batch", "8 is torchtitan's default")
    pipeline = settings["pipeline_parallel"]
    passes = whole(facts.get("pipeline_passes"))
    each = whole(facts.get("pipeline_micro_batch")) or (max(local // passes, 1) if passes else 1)
    settings["micro_batch_size"] = local if pipeline == 1 else each
    batch = whole(facts.get("global_batch")) or _per_replica(draft, gpus, local)
    steps = whole(facts.get("steps"))
    if batch is None:
        _leave_steps(draft, steps)
        return {"micro_batches": max(local // settings["micro_batch_size"], 1)}
    return stage(batch, None if steps is None else float(steps) * batch * length)


def _leave_steps(draft: RunDraft, steps: int | None) -> None:
    """Say that steps are not read where nothing says how large their batch is."""
    if steps is not None:
        why = "their batch follows from the GPUs, which this file does not give"
        draft.ignored.append(f"{draft.words['steps']}: {why}; --tokens says for how many tokens it trains")


def _per_replica(draft: RunDraft, gpus: int | None, each: int) -> int | None:
    """The global batch where every replica runs so many sequences once; None where the GPUs are not known."""
    settings = draft.settings
    rest = settings["tensor_parallel"] * settings["pipeline_parallel"] * settings["context_parallel"]
    if "global_batch" not in draft.facts:
        draft.assumed.append("the global batch is not given: the local batch of every replica, once")
    return each * max(gpus // rest, 1) if gpus else None


def _in_tokens(draft: RunDraft, gpus: int | None) -> dict[str, Any]:
    """Tokens are those of one forward pass of a data-parallel rank; a pipeline makes several of them, one a micro-batch."""
    facts, settings = draft.facts, draft.settings
    length = settings["sequence_length"]
    tokens = whole(facts.get("microbatch_tokens"))
    if tokens is None:
        tokens = TOKENS
        draft.silent("microbatch_tokens", f"{TOKENS:,} tokens are torchtitan's default")
    settings["micro_batch_size"] = max(tokens // length, 1)
    passes = (whole(facts.get("pipeline_passes")) or 1) if settings["pipeline_parallel"] > 1 else 1
    local = settings["micro_batch_size"] * passes
    settings |= {"stack.host.cuda_graphs": not facts.get("no_graphs"), "stack.fusion.loss_chunks": _loss_chunks(draft)}
    step = whole(facts.get("step_tokens"))
    batch = max(step // length, 1) if step else _per_replica(draft, gpus, local)
    steps = whole(facts.get("steps"))
    if batch is None:
        _leave_steps(draft, steps)
        return {"micro_batches": passes}
    return stage(batch, None if steps is None else float(steps) * batch * length)


def _loss_chunks(draft: RunDraft) -> int:
    if draft.facts.get("loss") == "whole":
        return 1
    if (given := whole(draft.facts.get("loss_chunks"))) is not None:
        return given
    draft.assumed.append(f"the loss is taken in {LOSS_CHUNKS} pieces, as the Python configurations of torchtitan do")
    return LOSS_CHUNKS
