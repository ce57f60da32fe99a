"""Scripts that write a configuration of Megatron-Bridge and start it; read as text, nothing is run."""

from __future__ import annotations

from typing import Final

from perfmodel.errors import InputError
from perfmodel.exchange.importers.configs.megatron_bridge import IMPORTER as BRIDGE
from perfmodel.exchange.importers.configs.megatron_bridge import from_dump
from perfmodel.exchange.importers.registry import Document, document_of, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.launch_texts import files_in_script
from perfmodel.exchange.translation.launches import launched_gpus

NAME: Final = "Megatron-Bridge script"
OWN: Final = "megatron.bridge"


def _is_script(document: Document) -> bool:
    return not document.mapping and OWN in document.text and _configuration(document.text) is not None


def _configuration(text: str) -> Document | None:
    """The configuration among the files that a script writes."""
    return next((each for each in map(document_of, files_in_script(text).values()) if BRIDGE.recognises(each)), None)


def _convert(document: Document) -> Conversion:
    found = _configuration(document.text)
    if found is None:
        raise InputError("this script writes no configuration of Megatron-Bridge")
    name = document.path.stem if document.path else "run"
    return from_dump(found.mapping, format_name=NAME, name=name, gpus=launched_gpus(document.text))


IMPORTER: Final = run_importer(name=NAME, recognises=_is_script, convert=_convert)
