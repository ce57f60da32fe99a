"""Configurations of NeMo 1: a trainer, and a model with its layout and optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.megatron.facts import from_words
from perfmodel.exchange.translation.run_drafts import Dialect
from perfmodel.exchange.translation.words.word_table import flattened, interpolated

NAME: Final = "NeMo 1 configuration"
NEMO: Final = Dialect(table="nemo", software="NeMo")
MARKS: Final = ("num_layers", "micro_batch_size")


def _is_nemo(document: Document) -> bool:
    model = document.mapping.get("model")
    return "trainer" in document.mapping and isinstance(model, Mapping) and all(each in model for each in MARKS)


def _convert(document: Document) -> Conversion:
    given: dict[str, Any] = interpolated(flattened(document.mapping))
    name = str(given.get("run.name") or given.get("name") or (document.path.stem if document.path else "run"))
    return from_words(given, dialect=NEMO, format_name=NAME, name=name)


IMPORTER: Final = run_importer(name=NAME, recognises=_is_nemo, convert=_convert)
