"""DeepSpeed's JSON: batches and ZeRO; the model is that of a config.json beside it, or of --model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion, stage
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, whole
from perfmodel.exchange.translation.trainer_configs import add_what_the_program_knows
from perfmodel.exchange.translation.words.word_table import FileReading, flattened
from perfmodel.spec.layout import GATHERED

NAME: Final = "DeepSpeed JSON"
DEEPSPEED: Final = Dialect(table="deepspeed", software="DeepSpeed")
MARKS: Final = ("train_batch_size", "train_micro_batch_size_per_gpu")
AUTO: Final = "auto"  # what the Hugging Face Trainer fills in


def _is_deepspeed(document: Document) -> bool:
    return "zero_optimization" in document.mapping or any(each in document.mapping for each in MARKS)


def _convert(document: Document) -> Conversion:
    name = document.path.stem if document.path else "run"
    return from_config(document.mapping, format_name=NAME, name=name, path=document.path)


def from_config(
    mapping: Mapping[str, Any],
    *,
    format_name: str,
    name: str,
    path: Path | None = None,
    program: FileReading | None = None,
    gpus: int | None = None,
) -> Conversion:
    """The run of a DeepSpeed configuration, with what the training `program` says, on so many GPUs. Errors: InputError."""
    given = flattened(mapping)
    filled = [each for each, value in given.items() if value == AUTO]
    draft = RunDraft({each: value for each, value in given.items() if value != AUTO}, DEEPSPEED)
    for default in defaults_of(DEEPSPEED.table):
        draft.take(default)
    settings, facts = draft.settings, draft.facts
    if program is not None:
        settings |= program.settings
        facts |= {fact: value for fact, value in program.facts.items() if facts.get(fact) is None}
        draft.ignored += program.ignored
        draft.refused += program.refused
    else:
        draft.ignored += [f"{each}: filled in by the training program (auto)" for each in filled]
    _sharding(draft)
    settings["precision"] = "bf16" if facts.get("bf16") else "fp16" if facts.get("fp16") else "fp32"
    if settings["precision"] == "fp32":
        wide = "bf16" if program is None and any(each.startswith(("bf16", "fp16")) for each in filled) else "fp32"
        settings["precision"] = wide
        draft.assumed.append(f"neither bf16 nor fp16 is switched on: {wide} is assumed")
    each, passes, batch = (whole(facts.get(fact)) for fact in ("each", "passes", "batch"))
    add_what_the_program_knows(draft, path, each=each)
    replicas = gpus or _replicas(each, passes, batch)
    if batch is None and replicas and each:
        batch = each * (passes or 1) * replicas
    steps = whole(facts.get("steps"))
    tokens = None if not steps or steps < 0 or batch is None else float(steps) * batch * settings["sequence_length"]
    known = stage(batch, tokens) if batch else {"micro_batches": passes or 1}
    return draft.conversion(format_name=format_name, name=name, gpus=replicas, stages=[known])


def _replicas(each: int | None, passes: int | None, batch: int | None) -> int | None:
    """Replicas where all three numbers of the batch are given. Errors: InputError where they do not divide."""
    if not (each and passes and batch):
        return None
    if batch % (each * passes):
        raise InputError(f"{batch} is not {each} x {passes} sequences of some GPUs", key="train_batch_size")
    return batch // (each * passes)


def _sharding(draft: RunDraft) -> None:
    settings, facts = draft.settings, draft.facts
    if "sharding" not in settings:
        settings["sharding"] = "none"
        draft.silent("sharding", "every GPU holds all states")
    is_whole = settings["sharding"] not in GATHERED
    settings["stack.extends"] = "deepspeed-zero"
    if "stack.overlap.data_parallel" not in settings:
        settings["stack.overlap.data_parallel"] = not is_whole
        draft.silent("stack.overlap.data_parallel", f"{str(not is_whole).lower()} is DeepSpeed's default at this stage")
    if is_whole and (bucket := facts.get("bucket")):
        settings["stack.overlap.bucket_parameters"] = bucket
    for fact, word in (("ulysses", "sequence_parallel_size"), ("secondary", "zero_optimization.zero_hpz_partition_size")):
        if (value := whole(facts.get(fact))) and value > 1:
            what: Any = {"ulysses": "Ulysses sequence parallelism", "secondary": "a second shard of parameters in a node"}[fact]
            draft.refused.append(f"{word} {shown(value)}: {what} is known but not supported yet")


IMPORTER: Final = run_importer(name=NAME, recognises=_is_deepspeed, convert=_convert)
