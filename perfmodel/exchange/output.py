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
        target = _followed(path)
        mode = target.stat().st_mode if target.exists() else None
        if mode is not None and stat.S_ISDIR(mode):
            raise InputError(f"{path} is a directory; name a file in it")
        if mode is None or stat.S_ISREG(mode):
            _replace(target, content, permissions=_default_permissions() if mode is None else stat.S_IMODE(mode))
        else:
            target.write_bytes(content)
    except (OSError, ValueError) as error:
        raise write_failure(f"{str(path)[:200]} cannot be written", error, otherwise="not the name of a file") from None


def _followed(path: Path) -> Path:
    """Where links lead. Errors: InputError for a link to itself, which Python 3.13 gives back and those before it raise for."""
    try:
        target = path.resolve()
    except RuntimeError:
        target = path
    if target.is_symlink():
        raise InputError(f"{str(path)[:200]} cannot be written: it is a link to itself")
    return target


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
    _remove_abandoned(target)
    handle, temporary = _own_file(target)
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


def _mark(target: Path) -> str:
    """How the names of temporary files of `target` begin."""
    return f".{target.name[:50]}.perfmodel-"


def _own_file(target: Path) -> tuple[int, Path]:
    """A new temporary file, locked while it is open: one that nobody locks was left by a process that is dead.

    Who cleans up may come between making and locking it; then there is no name left, and another is made.
    """
    while True:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=_mark(target))
        _lock(handle, wait=True)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)


def _remove_abandoned(target: Path) -> None:
    """Remove temporary files of `target` whose writer was killed."""
    mark = _mark(target)
    with suppress(OSError), os.scandir(target.parent) as entries:
        for name in [entry.path for entry in entries if entry.name.startswith(mark)]:
            with suppress(OSError):
                handle = os.open(name, os.O_RDWR)
                try:
                    if _lock(handle, wait=False):
                        Path(name).unlink()
                finally:
                    os.close(handle)


def _lock(handle: int, *, wait: bool) -> bool:
    """Lock a file until it is closed; whether that could be done."""
    try:
        from fcntl import LOCK_EX, LOCK_NB, flock

        flock(handle, LOCK_EX if wait else LOCK_EX | LOCK_NB)
    except (ImportError, OSError):  # no such locks on this system or this disk, or another process holds it
        return False
    return True


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
