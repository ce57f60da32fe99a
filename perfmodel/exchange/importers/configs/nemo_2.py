"""Configurations that NeMo 2 writes of its recipes: a trainer with a strategy, data, an optimizer, a model by its class.

They say in other places what Megatron-Bridge says: every key stands for one of its words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.importers.configs.megatron_bridge import BRIDGE
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.megatron.facts import from_words
from perfmodel.exchange.translation.run_drafts import whole
from perfmodel.exchange.translation.words.word_table import TABLES, flattened
from perfmodel.light_dataclass import replace
from perfmodel.spec.models.model import TransformerModel

NAME: Final = "NeMo 2 configuration"
NEMO_2: Final = replace(BRIDGE, software="NeMo 2")
SECTIONS: Final = ("data", "model", "trainer")
PLACES: Final = (  # the first that fits counts: where a key stands, and where Megatron-Bridge has it
    ("trainer.strategy.ddp.", "ddp."),
    ("trainer.strategy.", "model."),
    ("trainer.plugins.grad_reduce_in_fp32", "ddp.grad_reduce_in_fp32"),
    ("trainer.plugins.fp8_params", "mixed_precision.fp8_param_gather"),
    ("trainer.plugins.", "mixed_precision."),
    ("trainer.max_steps", "train.train_iters"),
    ("trainer.", "logger."),
    ("optim.config.use_distributed_optimizer", "ddp.use_distributed_optimizer"),
    ("optim.config.", "optimizer."),
    ("optim.", "scheduler."),
    ("data.seq_length", "model.seq_length"),
    ("data.global_batch_size", "train.global_batch_size"),
    ("data.micro_batch_size", "train.micro_batch_size"),
    ("data.", "dataset."),
    ("model.config.", "model."),
    ("model.", "dataset."),
)
OTHERS: Final = "logger."  # of logging, resuming and the like
PRECISIONS: Final = {"bf16": "bf16", "16": "fp16"}
OVERLAP: Final = "CommOverlap"  # in the class of the callback that overlaps communication
CLASS: Final = "model.config._target_"


def _is_nemo_2(document: Document) -> bool:
    has_sections = all(isinstance(document.mapping.get(each), Mapping) for each in SECTIONS)
    return has_sections and isinstance(document.mapping["trainer"].get("strategy"), Mapping)


def _convert(document: Document) -> Conversion:
    given: dict[str, Any] = flattened(document.mapping)
    named = given.pop(CLASS, None)
    words = dict(_words(given)) | dict(_overlaps(given.get("trainer.callbacks")))
    model = None if "model.num_layers" in words else _model(named)
    usual = {} if model is None else dict(_words_of(model))
    gpus = _gpus(given)
    name = document.path.stem if document.path else "run"
    found = from_words(usual | words, dialect=NEMO_2, format_name=NAME, name=name, gpus=gpus)
    is_whole = model is not None and not usual.keys() & words.keys()
    if found.run is None or not is_whole:
        return found
    said = {key: value for key, value in mapping_of(model).items() if value not in (None, "")}
    return replace(found, run={**found.run, "model": said})


def _words(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if key in ("trainer.num_nodes", "trainer.devices", "trainer.callbacks") or key.endswith("_partial_"):
            continue
        if key == "trainer.plugins.precision":
            number = PRECISIONS.get(str(value).partition("-")[0])
            yield from [(f"mixed_precision.{number}", True)] if number else []
            continue
        place, word = next((pair for pair in PLACES if key.startswith(pair[0])), ("", OTHERS))
        yield word + key.removeprefix(place), value


def _overlaps(callbacks: Any) -> Iterator[tuple[str, Any]]:
    """What the callback that overlaps communication is given."""
    for each in callbacks if isinstance(callbacks, list) else ():
        if isinstance(each, Mapping) and OVERLAP in str(each.get("_target_")):
            yield from ((f"comm_overlap.{key}", value) for key, value in flattened(each).items() if not key.startswith("_"))


def _gpus(given: Mapping[str, Any]) -> int | None:
    nodes, each = whole(given.get("trainer.num_nodes")), given.get("trainer.devices")
    return nodes * each if nodes and isinstance(each, int) and each > 0 else None


@cache
def _models() -> Mapping[str, str]:
    return dict(read_mapping(TABLES / "nemo_2_models.yaml")["models"])


def _model(named: Any) -> TransformerModel:
    """The model of a class. Errors: InputError for one that is not known."""
    name = str(named or "").rpartition(".")[2]
    if name not in _models():
        known = ", ".join(_models())
        raise InputError(f"{shown(name)} does not say its sizes; known are {known}, or write num_layers and so on", key=CLASS)
    return model_preset(_models()[name])


def _words_of(model: TransformerModel) -> Iterator[tuple[str, Any]]:
    """What the layout is checked against of a model that stands for itself."""
    yield from (
        ("model.num_layers", int(model.layers)),
        ("model.hidden_size", int(model.hidden_size)),
        ("model.num_attention_heads", int(model.attention_heads)),
        ("model.num_query_groups", int(model.kv_heads)),
        ("model.ffn_hidden_size", int(model.ffn_hidden_size)),
        ("model.kv_channels", int(model.head_size)),
        ("model.activation", model.activation),
        ("model.normalization", "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm"),
        ("model.position_embedding_type", "rope" if model.position == "rotary" else "learned_absolute"),
        ("model.rotary_percent", float(model.rotary_fraction)),
        ("model.share_embeddings_and_output_weights", model.tied_embeddings),
        ("model.add_bias_linear", model.biases),
        ("model.attention_dropout", 0.1 if model.dropout else 0.0),
        ("model.hidden_dropout", 0.1 if model.dropout else 0.0),
        ("model.vocab_size", int(model.vocab_size)),
        ("model.make_vocab_size_divisible_by", int(model.vocab_padding_multiple)),
    )


IMPORTER: Final = run_importer(name=NAME, recognises=_is_nemo_2, convert=_convert)
