"""TOML files of torchtitan, as it had them until early 2026."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.torchtitan import from_keys
from perfmodel.exchange.translation.words.word_table import flattened

NAME: Final = "torchtitan TOML"
SECTIONS: Final = ("parallelism", "activation_checkpoint", "experimental", "lr_scheduler", "float8", "compile")
MARKS: Final = ("seq_len", "local_batch_size", "batch_size", "steps")


def _is_toml(document: Document) -> bool:
    training = document.mapping.get("training")
    has_marks = isinstance(training, Mapping) and any(each in training for each in MARKS)
    return has_marks and any(isinstance(document.mapping.get(each), Mapping) for each in SECTIONS)


def _convert(document: Document) -> Conversion:
    return from_keys(flattened(document.mapping), format_name=NAME, name=document.path.stem if document.path else "run")


IMPORTER: Final = run_importer(name=NAME, recognises=_is_toml, convert=_convert)
