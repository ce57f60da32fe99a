"""Command lines of torchtitan: dotted flags over a TOML file, or over a Python configuration; read as text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.launches import launch_in
from perfmodel.exchange.translation.torchtitan import TORCHTITAN, from_keys
from perfmodel.exchange.translation.words.word_table import flattened, word_table
from perfmodel.light_dataclass import replace

NAME: Final = "torchtitan command line"
FLAG: Final = re.compile(r"(?<![\w-])--(?:training|parallelism|activation_checkpoint|model|job|float8|metrics|compile)\.\w+")
OWN: Final = re.compile(r"torchtitan|run_train\.sh")
STEP: Final = re.compile(r"\bstep:\s*\d+.{0,300}\b(?:tps|wps):")  # of a log, which may begin with the command


def _is_command(document: Document) -> bool:
    text = document.text
    return not document.mapping and bool(OWN.search(text) and FLAG.search(text)) and not STEP.search(text)


def _convert(document: Document) -> Conversion:
    known = {f"--{name}" for name in word_table(TORCHTITAN.table).read}
    launch = launch_in(document.text, known, document.path.parent if document.path else None)
    if launch is None:
        raise InputError("no command of this script has the flags of torchtitan")
    given: dict[str, Any] = {name.removeprefix("--"): value for name, value in launch.flags.items()}
    path = document.path or Path("run")
    file = given.get("job.config_file") or launch.environment.get("CONFIG_FILE")
    beside = _file(path.parent, file)
    given.pop("job.config_file", None)
    found = from_keys(beside | given, format_name=NAME, name=path.stem, gpus=launch.gpus)
    missing = (f"{file}: it does not lie beside this file, so that defaults stand for its keys",) if file and not beside else ()
    return replace(found, assumed=(*found.assumed, *missing, *launch.assumed))


def _file(folder: Path, name: Any) -> dict[str, Any]:
    """The keys of the TOML file that a command names, beside the script or here; none where there is no such file."""
    for path in (folder / str(name), Path(str(name))):
        try:
            if name and path.is_file():
                return flattened(read_mapping(path))
        except (PerfmodelError, OSError, ValueError):
            return {}
    return {}


IMPORTER: Final = run_importer(name=NAME, recognises=_is_command, convert=_convert)
