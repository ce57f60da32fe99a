"""How a trace is read: JSON as torch.profiler writes it, compressed or not."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError

LARGEST_BYTES: Final = 2_000_000_000
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
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path} is larger than {LARGEST_BYTES / 1e9:g} GB; profile fewer steps")
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw.startswith(GZIP) else raw, strict=False)  # names may have tabs
    except (OSError, EOFError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or "not a whole file").lower()
        raise InputError(f"{str(path)[:200]} cannot be read: {reason}") from None
    except (ValueError, RecursionError):  # also for what is not UTF-8
        raise InputError(f"{path} is not a trace: not valid JSON") from None
