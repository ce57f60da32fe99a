"""Scripts that start a program with Hugging Face's Trainer under DeepSpeed: its flags, the JSON and config.json they name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.exchange.importers.configs.deepspeed import from_config
from perfmodel.exchange.importers.huggingface import IMPORTER as HUGGING_FACE
from perfmodel.exchange.importers.registry import Document, document_at, document_of, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.launch_texts import files_in_script
from perfmodel.exchange.translation.launches import launch_in
from perfmodel.exchange.translation.words.word_table import reading, word_table
from perfmodel.light_dataclass import replace

NAME: Final = "DeepSpeed script"
TABLE: Final = "trainer"
FLAG: Final = re.compile(r"(?<![\w-])--deepspeed(?:_config)?[ =]+\S{0,500}\.json")
TRAINER: Final = re.compile(
    r"(?<![\w-])--(?:per_device_train_batch_size|block_size|config_name|model_name_or_path|output_dir|max_steps)\b"
)
LOG: Final = re.compile(r"train_runtime|\bstep=\d+, skipped=")
CONFIG: Final = "config.json"


def _is_script(document: Document) -> bool:
    text = document.text
    return not document.mapping and bool(FLAG.search(text) and TRAINER.search(text)) and not LOG.search(text)


def _convert(document: Document) -> Conversion:
    folder = document.path.parent if document.path else None
    launch = launch_in(document.text, word_table(TABLE).read.keys(), folder)
    if launch is None:
        raise InputError("no command of this script has the flags of a training program")
    program = reading(launch.flags, word_table(TABLE))
    inside, name = files_in_script(document.text), str(program.facts.get("deepspeed_file"))
    mapping = _mapping(inside, folder, name)
    if mapping is None:
        raise InputError(f"{shown(name)} is neither written by this script nor beside it", key="--deepspeed")
    model = _model(inside, folder, str(program.facts.get("config", "")))
    settings = dict(program.settings) | ({} if model is None else {"model": model})
    title = document.path.stem if document.path else "run"
    known = replace(program, settings=settings)
    found = from_config(mapping, format_name=NAME, name=title, path=document.path, program=known, gpus=launch.gpus)
    return replace(found, assumed=(*found.assumed, *launch.assumed))


def _mapping(inside: Mapping[str, str], folder: Path | None, name: str) -> Mapping[str, Any] | None:
    """What a file holds that a script writes, or that lies beside it; None where there is no such file."""
    if name in inside:
        return document_of(inside[name]).mapping
    path = None if folder is None else folder / name
    return document_at(path).mapping if path is not None and path.is_file() else None


def _model(inside: Mapping[str, str], folder: Path | None, name: str) -> dict[str, Any] | None:
    """The model of the config.json, or of the folder with one, that a flag names; None for a name of the hub."""
    for each in (name, f"{name}/{CONFIG}"):
        if (mapping := _mapping(inside, folder, each) if each != name or name.endswith(".json") else None) is not None:
            return HUGGING_FACE.read(Document(path=None, text="", mapping=mapping))
    return None


IMPORTER: Final = run_importer(name=NAME, recognises=_is_script, convert=_convert)
