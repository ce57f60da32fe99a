"""YAML of Hugging Face accelerate: which parallelism, on how many GPUs; the model is that of a config.json beside it."""

from __future__ import annotations

from typing import Final

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, whole
from perfmodel.exchange.translation.trainer_configs import add_what_the_program_knows
from perfmodel.exchange.translation.words.word_table import flattened, is_true

NAME: Final = "accelerate YAML"
ACCELERATE: Final = Dialect(table="accelerate", software="accelerate")
STRATEGIES: Final = {"FULL_SHARD": "zero3", "SHARD_GRAD_OP": "zero2", "HYBRID_SHARD": "hsdp", "NO_SHARD": "none"}
NUMBERED: Final = ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD", "HYBRID_SHARD")  # as 1 to 4 name them
STACKS: Final = {
    "FSDP": "accelerate-fsdp",
    "DEEPSPEED": "deepspeed-zero",
    "MEGATRON_LM": "megatron-core",
    "MULTI_GPU": "accelerate-fsdp",
    "NO": "accelerate-fsdp",
}


def _is_accelerate(document: Document) -> bool:
    return "distributed_type" in document.mapping and (
        "num_processes" in document.mapping or "mixed_precision" in document.mapping
    )


def _convert(document: Document) -> Conversion:
    draft = RunDraft(flattened(document.mapping), ACCELERATE)
    for default in defaults_of(ACCELERATE.table):
        draft.take(default)
    settings, facts = draft.settings, draft.facts
    kind = str(facts.get("kind", "NO")).upper()
    if kind not in STACKS:
        raise InputError(f"{shown(kind)} is not covered; {did_you_mean(kind, STACKS)}", key="distributed_type")
    settings["stack.extends"] = STACKS[kind]
    if "precision" not in settings:
        settings["precision"] = "fp32"
        draft.silent("precision", "fp32 is trained in")
    _sharding(draft, kind)
    if (ulysses := whole(facts.get("ulysses"))) and ulysses > 1:
        draft.refused.append(f"sp_size {ulysses}: Ulysses sequence parallelism is known but not supported yet")
    add_what_the_program_knows(draft, document.path)
    name = document.path.stem if document.path else "run"
    passes = whole(facts.get("passes")) or 1
    return draft.conversion(format_name=NAME, name=name, gpus=whole(facts.get("gpus")), stages=[{"micro_batches": passes}])


def _sharding(draft: RunDraft, kind: str) -> None:
    settings, facts = draft.settings, draft.facts
    if kind == "DEEPSPEED":
        stage = whole(facts.get("zero_stage")) or 0
        settings["sharding"] = f"zero{stage}" if stage else "none"
        if facts.get("deepspeed_file"):
            draft.ignored.append("deepspeed_config.deepspeed_config_file: another file; convert that one for what it says")
        return
    if kind != "FSDP":
        settings.setdefault("sharding", "none")
        return
    settings["sharding"] = _strategy(draft)
    replicas = whole(facts.get("replicas"))
    if replicas and replicas > 1:
        settings["sharding"] = "hsdp"
    if settings["sharding"] == "hsdp":
        settings["data_parallel_replicas"] = replicas or whole(facts.get("machines")) or 1


def _strategy(draft: RunDraft) -> str:
    """The sharding of FSDP 1 by its strategy, of FSDP 2 by whether parameters are given up after the forward pass."""
    facts = draft.facts
    given = str(facts.get("strategy", ""))
    if given:
        name = NUMBERED[int(given) - 1] if given in ("1", "2", "3", "4") else given
        if name not in STRATEGIES:
            raise InputError(
                f"{shown(given)} is not covered; {', '.join(STRATEGIES)} are", key="fsdp_config.fsdp_sharding_strategy"
            )
        return STRATEGIES[name]
    reshards = facts.get("reshards", True)
    if str(reshards) in STRATEGIES:  # FSDP 1 of newer versions has its strategies here
        return STRATEGIES[str(reshards)]
    if "reshards" not in facts:
        draft.silent("reshards", "parameters are given up after the forward pass, which is zero3")
    return "zero3" if is_true(reshards) else "zero2"


IMPORTER: Final = run_importer(name=NAME, recognises=_is_accelerate, convert=_convert)
