"""How a result is written to a file: whole, or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from perfmodel.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write `text` to a temporary file beside `path` and rename it; what is no regular file (a pipe, a device) is written into.

    A link is followed and an existing file keeps its permissions. Errors: InputError when the place cannot be written to.
    """
    try:
        target = path.resolve()
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory; name a file in it")
        if mode is None or stat.S_ISREG(mode):
            _replace(target, text, permissions=_default_permissions() if mode is None else stat.S_IMODE(mode))
        else:
            target.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not the name of a file"
        raise InputError(f"{str(path)[:200]} cannot be written: {reason.lower()}") from None


def _replace(target: Path, text: str, *, permissions: int) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.", text=True)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(permissions)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _default_permissions() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
