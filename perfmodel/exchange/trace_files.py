"""Traces in files: JSON as torch.profiler writes it, compressed or not."""

from __future__ import annotations

import gzip
import json
import zlib
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError

LARGEST_BYTES: Final = 2_000_000_000
GZIP: Final = b"\x1f\x8b"


def read_trace(path: Path) -> Any:
    """What the file at `path` says. Errors: InputError for what is missing, unreadable, huge or no JSON."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path} is larger than {LARGEST_BYTES / 1e9:g} GB; profile fewer steps")
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw.startswith(GZIP) else raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or "not a whole file").lower()
        raise InputError(f"{str(path)[:200]} cannot be read: {reason}") from None
    except (ValueError, RecursionError):  # also what is no UTF-8
        raise InputError(f"{path} is no trace: not valid JSON") from None
