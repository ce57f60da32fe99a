"""YAML of MaxText (JAX): a mesh inside and between slices, and batches a device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import prod
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, did_you_mean, shown
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.presets import read_preset
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.conversion import Conversion, stage
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, number, whole
from perfmodel.exchange.translation.words.word_table import TABLES

NAME: Final = "MaxText YAML"
MAXTEXT: Final = Dialect(table="maxtext", software="MaxText")
MARKS: Final = ("max_target_length", "remat_policy", "base_config", "ici_fsdp_parallelism", "model_name", "base_emb_dim")
SIZES: Final = ("layers", "hidden_size", "attention_heads", "ffn_hidden_size")
USUAL_HEAD_SIZE, USUAL_VOCABULARY = 128, 32000  # of base.yml
LLAMA: Final = {"activation": "swiglu", "norm": "rmsnorm", "position": "rotary", "vocab_padding_multiple": 1}
REMAT: Final = {  # what each policy runs again, as it is predicted
    "full": "full",
    "minimal": "selective",
    "minimal_with_context": "none",
    "minimal_flash": "none",
    "minimal_with_quantization": "selective",
    "none": "none",
}
AXES: Final = {
    "tensor": ("ici_tensor", "dcn_tensor", "ici_tensor_transpose", "ici_tensor_sequence"),
    "context": ("ici_context", "dcn_context"),
    "pipeline": ("ici_pipeline", "dcn_pipeline"),
    "data": ("ici_data", "dcn_data"),
    "fsdp": ("ici_fsdp", "dcn_fsdp", "ici_fsdp_transpose", "dcn_fsdp_transpose"),
}
REST: Final = -1  # of an axis: all devices that others leave


def _is_maxtext(document: Document) -> bool:
    mapping = document.mapping
    return "per_device_batch_size" in mapping and any(each in mapping for each in MARKS)


def _convert(document: Document) -> Conversion:
    draft = RunDraft(
        {key: value for key, value in document.mapping.items() if key != "model_name" or value != "default"}, MAXTEXT
    )
    for default in defaults_of(MAXTEXT.table):
        if not default.key.startswith("fact."):
            draft.take(default)
    settings, facts = draft.settings, draft.facts
    draft.attempt("model", lambda: _model(facts))
    settings["stack.extends"] = "maxtext"
    settings["precision"] = facts.get("quantization", settings["precision"])
    settings["recompute"] = REMAT.get(str(facts["remat"]), "full")
    if str(facts["remat"]) not in ("full", "none"):
        draft.assumed.append(f"remat_policy {facts['remat']} is predicted as recompute {settings['recompute']}")
    gpus = _mesh(draft)
    name = document.path.stem if document.path else "run"
    return draft.conversion(format_name=NAME, name=name, gpus=gpus, stages=[_stage(draft, gpus)])


@cache
def _models() -> Mapping[str, Any]:
    return read_mapping(TABLES / "maxtext_models.yaml")


def known_models() -> tuple[str, ...]:
    """The names of the models that are covered."""
    return tuple(_models()["models"])


def _model(facts: Mapping[str, Any]) -> dict[str, Any]:
    name = str(facts.get("model", ""))
    return model_called(name) if name else model_of_sizes(facts)


def model_called(name: str) -> dict[str, Any]:
    """The model of a name. Errors: InputError, NotSupportedError."""
    if name in _models()["mixtures"]:
        raise NotSupportedError(f"model_name {name}: a mixture of experts is known but not supported yet")
    known = _models()["models"]
    if name not in known:
        raise InputError(f"{shown(name)} is not covered; {did_you_mean(name, known)}", key="model_name")
    entry = known[name]
    return read_preset("models", entry["preset"])[0] if "preset" in entry else {**entry, **LLAMA}


def model_of_sizes(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The model of some sizes over base.yml. Errors: InputError."""
    sizes = {size: number(facts[size], size) for size in SIZES if size in facts}
    if missing := [size for size in SIZES if size not in sizes]:
        raise InputError("missing; the run needs it, or model_name", key=f"base.yml's {missing[0]}")
    usual = {"kv_heads": sizes["attention_heads"], "head_size": USUAL_HEAD_SIZE, "vocab_size": USUAL_VOCABULARY}
    rest = {size: facts.get(size, value) for size, value in usual.items()}
    return {"name": "MaxText model", **sizes, **rest, **LLAMA}


def _mesh(draft: RunDraft) -> int | None:
    """Degrees and sharding from the axes of the mesh; the GPUs where no axis takes the rest."""
    facts, settings = draft.facts, draft.settings
    sizes = {axis: [whole(facts.get(name)) or 1 for name in names] for axis, names in AXES.items()}
    for axis in ("tensor", "context", "pipeline"):
        if REST in sizes[axis]:
            raise InputError("-1 is covered for data and fsdp axes alone", key=f"ici_{axis}_parallelism")
        settings[f"{axis}_parallel"] = prod(sizes[axis])
    settings["sequence_parallel"] = (whole(facts.get("ici_tensor_sequence")) or 1) > 1
    slices = whole(facts.get("slices")) or 1
    copies, shares = (_product(axis, sizes[axis], slices) for axis in ("data", "fsdp"))
    settings["sharding"] = "zero3" if shares != 1 else "none"
    if shares != 1 and (copies or 0) > 1:
        settings |= {"sharding": "hsdp", "data_parallel_replicas": copies}
    if copies is None or shares is None:
        draft.assumed.append("an axis of the mesh takes all devices that others leave: the number of GPUs is not in the file")
        return None
    return copies * shares * prod(prod(sizes[axis]) for axis in ("tensor", "context", "pipeline"))


def _product(axis: str, sizes: Sequence[int], slices: int) -> int | None:
    """Ranks along an axis of the mesh; None where it takes the rest."""
    known = [1 if each == REST and _is_alone(name, slices) else each for each, name in zip(sizes, AXES[axis], strict=True)]
    return None if REST in known else prod(known)


def _is_alone(name: str, slices: int) -> bool:
    """Whether an axis between slices that takes the rest has none to take: there is one slice."""
    return name.startswith("dcn_") and slices == 1


def _stage(draft: RunDraft, gpus: int | None) -> dict[str, Any]:
    """Batches are given a device: those of a replica are spread over its tensor, context and pipeline ranks."""
    facts, settings = draft.facts, draft.settings
    ranks = prod(settings[f"{axis}_parallel"] for axis in ("tensor", "context", "pipeline"))
    each = float(facts["device_batch"]) * ranks
    if each != int(each) or each < 1:
        raise InputError(
            f"{shown(facts['device_batch'])} is no whole number of sequences for {ranks} GPUs", key="per_device_batch_size"
        )
    stages = settings["pipeline_parallel"]
    passes = whole(facts.get("pipeline_passes")) or stages
    settings["micro_batch_size"] = max(int(each) // (passes if stages > 1 else 1), 1)
    repeated = (passes if stages > 1 else 1) * (whole(facts.get("passes")) or 1)
    steps = whole(facts.get("steps"))
    if gpus is None or steps is None:
        return {"micro_batches": repeated}
    batch = settings["micro_batch_size"] * repeated * (gpus // ranks)
    return stage(batch, float(steps) * batch * settings["sequence_length"])


IMPORTER: Final = run_importer(name=NAME, recognises=_is_maxtext, convert=_convert)
