"""How a result is written to a file: all of it, or nothing."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from perfmodel.errors import InputError, write_failure


def write_text(path: Path, text: str) -> None:
    """Write `text` to the file at `path`, all of it or nothing (write_bytes)."""
    write_bytes(path, as_bytes(text))


def as_bytes(content: str | bytes) -> bytes:
    """Text as UTF-8; half a surrogate pair, which has none, as its escape."""
    return content.encode(errors="backslashreplace") if isinstance(content, str) else content


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to a temporary file beside `path` and rename it.

    A pipe or a device is written into, a link is followed, and an existing file keeps its permissions. The new content is on
    the disk before it takes the place of the old: whatever stops the machine, one of the two is there whole.
    Errors: InputError when the place cannot be written to, MachineError when the disk is full or fails.
    """
    try:
        target = path.resolve()
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory; name a file in it")
        if mode is None or stat.S_ISREG(mode):
            _replace(target, content, permissions=_default_permissions() if mode is None else stat.S_IMODE(mode))
        else:
            target.write_bytes(content)
    except RuntimeError:  # before Python 3.13
        raise InputError(f"{str(path)[:200]} cannot be written: it is a link to itself") from None
    except (OSError, ValueError) as error:
        raise write_failure(f"{str(path)[:200]} cannot be written", error, otherwise="not the name of a file") from None


def is_folder(path: Path) -> bool:
    """Whether there is a folder at `path`; False for what cannot be the name of one."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def new_folder(path: Path) -> None:
    """Make a folder and its parents where they do not exist. Errors: InputError where one cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise write_failure(f"{str(path)[:200]} cannot be made", error, otherwise="not the name of a folder") from None


def _replace(target: Path, content: bytes, *, permissions: int) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:50]}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(permissions)
        temporary.replace(target)
        sync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk too, where its file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _default_permissions() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
