"""Configurations that Megatron-Bridge dumps: a model, its training, data parallelism, overlap and precision in sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.megatron.facts import from_words
from perfmodel.exchange.translation.run_drafts import Dialect
from perfmodel.exchange.translation.words.word_table import flattened

NAME: Final = "Megatron-Bridge configuration"
BRIDGE: Final = Dialect(table="bridge", software="Megatron-Bridge")
BATCHES: Final = ("global_batch_size", "micro_batch_size")
GATED: Final = {"silu": "swiglu", "swish": "swiglu", "gelu": "geglu"}  # by the function that is gated
PRECISION: Final = "mixed_precision"
SCALINGS: Final = {"mxfp8": "mxfp8", "current_scaling": "tensorwise", "subchannel_scaling": "blockwise"}  # by words of recipes


def _is_bridge(document: Document) -> bool:
    model, train = (document.mapping.get(each) for each in ("model", "train"))
    has_batches = isinstance(train, Mapping) and any(each in train for each in BATCHES)
    return has_batches and isinstance(model, Mapping) and "num_layers" in model


def _convert(document: Document) -> Conversion:
    return from_dump(document.mapping, format_name=NAME, name=document.path.stem if document.path else "run")


def from_dump(mapping: Mapping[str, Any], *, format_name: str, name: str, gpus: int | None = None) -> Conversion:
    """The run of a dumped configuration, on so many GPUs where a launcher says it. Errors: InputError."""
    given: dict[str, Any] = flattened(mapping)
    if activation := _activation(given):
        given["model.activation"] = activation
    if isinstance(
        recipe := given.pop(PRECISION, None), str
    ):  # the name of a recipe, such as bf16_with_fp8_current_scaling_mixed
        given |= _named_precision(recipe)
    return from_words(given, dialect=BRIDGE, format_name=format_name, name=name, gpus=gpus)


def _activation(given: Mapping[str, Any]) -> str:
    """The activation by the name of its function, and whether it is gated; empty where it is not given."""
    target = given.get("model.activation_func._target_", given.get("model.activation_func", ""))
    name = str(target or "").rpartition(".")[2]
    return GATED.get(name, name) if given.get("model.gated_linear_unit") is True else name


def _named_precision(recipe: str) -> dict[str, Any]:
    words: dict[str, Any] = {f"{PRECISION}.bf16": recipe.startswith("bf16"), f"{PRECISION}.fp16": recipe.startswith("fp16")}
    if "fp8" in recipe:
        scaling = next((scaling for word, scaling in SCALINGS.items() if word in recipe), "delayed")
        words |= {f"{PRECISION}.fp8": "hybrid", f"{PRECISION}.fp8_recipe": scaling}
    return words


IMPORTER: Final = run_importer(name=NAME, recognises=_is_bridge, convert=_convert)
