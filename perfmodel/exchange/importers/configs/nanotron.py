"""YAML of nanotron: parallelism, tokens, and a model in the words of a config.json."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from perfmodel.errors import InputError
from perfmodel.exchange.importers.huggingface import IMPORTER as HUGGING_FACE
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion, stage
from perfmodel.exchange.translation.defaults import defaults_of
from perfmodel.exchange.translation.run_drafts import Dialect, RunDraft, number
from perfmodel.exchange.translation.words.word_table import flattened
from perfmodel.spec.axes import REPLICA_AXES

NAME: Final = "nanotron YAML"
NANOTRON: Final = Dialect(table="nanotron", software="nanotron")
CONFIG: Final = "model.model_config."  # keys of a config.json
FAMILIES: Final = {"is_qwen2_config": "qwen2", "is_starcoder2_config": "starcoder2"}
WRITTEN_FAMILIES: Final = {"llama": "is_llama_config", "qwen2": "is_qwen2_config"}  # whose keys are those of a config.json
USUAL_BUCKET_MB: Final = 25
FP32_BYTES: Final = 4
BUCKET_NUMBERS: Final = 2**20 / 2  # of a MiB of bucket: DistributedDataParallel counts parameters, which have 16 bits


def _is_nanotron(document: Document) -> bool:
    layout, tokens = document.mapping.get("parallelism"), document.mapping.get("tokens")
    is_layout = isinstance(layout, Mapping) and all(each in layout for each in ("dp", "tp", "pp"))
    return is_layout and isinstance(tokens, Mapping) and "micro_batch_size" in tokens


def _convert(document: Document) -> Conversion:
    mapping = document.mapping
    draft = RunDraft({name: value for name, value in flattened(mapping).items() if not name.startswith(CONFIG)}, NANOTRON)
    for default in defaults_of(NANOTRON.table):
        draft.take(default)
    for key in ("sequence_length", "micro_batch_size"):
        draft.need(key)
    settings, facts = draft.settings, draft.facts
    settings["model"] = _model(mapping.get("model"), int(facts.get("padding") or 1))
    settings["stack.extends"] = "nanotron"
    settings["stack.states.reduced_gradient_bytes"] = settings.get("stack.states.gradient_bytes", 4)
    if settings["stack.states.reduced_gradient_bytes"] != FP32_BYTES:
        settings["stack.overlap.blocking_zero1"] = False
    if (cap := facts.get("bucket_mb")) not in (None, USUAL_BUCKET_MB):
        settings["stack.overlap.bucket_parameters"] = cap * BUCKET_NUMBERS
    replicas, passes = number(facts.get("replicas", 1), "parallelism.dp"), number(facts.get("passes", 1), "tokens")
    batch = replicas * passes * number(settings["micro_batch_size"], "tokens.micro_batch_size")
    steps = facts.get("steps")
    tokens = None if steps is None else float(number(steps, "tokens.train_steps")) * batch * settings["sequence_length"]
    general = mapping.get("general")
    name = str(general.get("run") if isinstance(general, Mapping) and general.get("run") else "nanotron run")
    gpus = replicas * prod(settings.get(axis.name, 1) for axis in REPLICA_AXES)
    return draft.conversion(format_name=NAME, name=name, gpus=gpus, stages=[stage(batch, tokens)])


def _model(section: Any, padding: int) -> dict[str, Any]:
    """The model of its section. Errors: those of a config.json, under the section."""
    config = section.get("model_config") if isinstance(section, Mapping) else None
    if not isinstance(config, Mapping):
        raise InputError("missing; the run needs it", key="model.model_config")
    family = next((name for mark, name in FAMILIES.items() if config.get(mark)), "llama")
    model = HUGGING_FACE.read(Document(path=None, text="", mapping={"model_type": family, **config}))
    return {**model, "vocab_padding_multiple": padding}


IMPORTER: Final = run_importer(name=NAME, recognises=_is_nanotron, convert=_convert)
