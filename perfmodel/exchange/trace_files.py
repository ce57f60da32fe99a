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


def read_trace(path: Path) -> Any:
    """The JSON of the trace at `path`. Errors: InputError for a file that is missing, unreadable, huge or not JSON."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise InputError(f"{path} is larger than {LARGEST_BYTES / 1e9:g} GB; profile fewer steps")
        raw = path.read_bytes()
        return json.loads(gzip.decompress(raw) if raw.startswith(GZIP) else raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = (getattr(error, "strerror", None) or "not a whole file").lower()
        raise InputError(f"{str(path)[:200]} cannot be read: {reason}") from None
    except (ValueError, RecursionError):  # also for what is not UTF-8
        raise InputError(f"{path} is not a trace: not valid JSON") from None
