"""Launch scripts of Megatron-LM: shell with variables and arrays, srun, torchrun; read as text, nothing is run."""

from __future__ import annotations

import re
from typing import Final

from perfmodel.errors import InputError
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.launches import Launch, launch_in
from perfmodel.exchange.translation.megatron.environment import environment_sentences, words_of
from perfmodel.exchange.translation.megatron.facts import from_flags
from perfmodel.exchange.translation.words.word_table import word_table
from perfmodel.light_dataclass import replace

NAME: Final = "Megatron-LM launch script"
FLAG: Final = re.compile(
    r"(?<![\w-])--(?:num-layers|hidden-size|num-attention-heads|(?:tensor|pipeline)-model-parallel-size|micro-batch-size|seq-length)\b(?!:)"
)
STEP: Final = re.compile(r"elapsed time per iteration \(ms\):|^-{10,100} arguments -{10,}", re.MULTILINE)  # of a log
LEAST_FLAGS: Final = 3


def _is_script(document: Document) -> bool:
    """Whether a text has some of the flags that every script has, and no step of a log."""
    if document.mapping or not document.text:
        return False
    return len(set(FLAG.findall(document.text))) >= LEAST_FLAGS and not STEP.search(document.text)


def _convert(document: Document) -> Conversion:
    name = document.path.stem if document.path else "run"
    folder = document.path.parent if document.path else None
    launch = launch_in(document.text, word_table("megatron").read.keys(), folder)
    if launch is None:
        raise InputError("no command of this script has the flags of Megatron-LM")
    given = words_of(launch.environment) | dict(launch.flags)
    converted = from_flags(given, format_name=NAME, name=name, gpus=launch.gpus)
    return replace(
        converted,
        assumed=(*converted.assumed, *launch.assumed),
        ignored=(*converted.ignored, *environment_sentences(launch.environment), *_sourced(launch)),
    )


def _sourced(launch: Launch) -> list[str]:
    return [f"source {each}: another file, whose variables are not read" for each in launch.sourced]


IMPORTER: Final = run_importer(name=NAME, recognises=_is_script, convert=_convert)
