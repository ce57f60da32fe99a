"""How a trace is read: JSON as torch.profiler writes it, compressed or not."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError

LARGEST_BYTES: Final = 2_000_000_000
PIECE: Final = 2**20  # bytes that are read at once
SHARE_OF_MEMORY: Final = 1 / 12  # of what is free, for the text of a trace: its Python objects take some ten times as much
PACKED: Final = 50  # times smaller, at most, than the trace in it: traces pack 10 to 25 times, endless repetition 1000 times
ALWAYS_BYTES: Final = 20_000_000  # that a packed trace may have, however well it packs
MOST_OF_A_PIPE: Final = 200_000_000
GZIP: Final = b"\x1f\x8b"
HEAD: Final = 1_000_000  # bytes: the facts about devices and the distributed run come before the events
MARK: Final = b'"traceEvents"'


def is_trace(path: Path) -> bool:
    """Whether the file at `path` begins as a trace of torch.profiler does, compressed or not."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            is_packed = file.read(len(GZIP)) == GZIP
        with gzip.open(path) if is_packed else path.open("rb") as file:
            return MARK in file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return False


def read_trace(path: Path) -> Any:
    """The JSON of the trace at `path`. Errors: InputError for a file that is missing, unreadable, huge or not JSON."""
    try:
        return json.loads(_content(path), strict=False)  # names may have tabs
    except (OSError, EOFError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or "not a whole file").lower()
        raise InputError(f"{str(path)[:200]} cannot be read: {reason}") from None
    except (ValueError, RecursionError):  # also for what is not UTF-8
        raise InputError(f"{path} is not a trace: not valid JSON") from None


def _content(path: Path) -> bytearray:
    """What a file holds once it is unpacked, which is bounded: a few packed bytes may stand for more than all memory."""
    most = min(LARGEST_BYTES, int(SHARE_OF_MEMORY * _free_bytes()))
    with path.open("rb") as file:
        is_packed = file.read(len(GZIP)) == GZIP
        if is_packed:
            most = min(most, max(PACKED * file.seek(0, os.SEEK_END), ALWAYS_BYTES))
    if not path.is_file():  # a pipe or a device, which may never end
        most = min(most, MOST_OF_A_PIPE)
    with gzip.open(path) if is_packed else path.open("rb") as file:
        found = bytearray()  # of its own size: a read of so many bytes at once would ask for all of them first
        while len(found) <= most and (piece := file.read(min(PIECE, most + 1 - len(found)))):
            found += piece
    if len(found) > most:
        unpacked = " unpacked" if is_packed else ""
        raise InputError(f"{path} is larger than {most / 1e6:,.0f} MB{unpacked}; profile fewer steps")
    return found


def _free_bytes() -> float:
    """The memory that the machine can give now; as much as is ever needed where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return LARGEST_BYTES / SHARE_OF_MEMORY
