"""How a result is written to a file: whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from perfmodel.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path` and rename it. Errors: InputError when the place cannot be written to."""
    if path.is_dir():
        raise InputError(f"{path} is a directory; name a file in it")
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.", text=True)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise InputError(f"{str(path)[:200]} cannot be written: {(error.strerror or 'unknown reason').lower()}") from None
