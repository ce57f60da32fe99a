"""What a search is run with: memory that is kept, and a count of layouts for who watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from perfmodel.commands.console import is_watched

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
KEPT_BYTES: Final = 1 << 30


def keep_freed_memory() -> None:
    """Make glibc keep freed memory: returning it to the kernel and asking for it again takes a sixth of a search."""
    from ctypes import CDLL

    mallopt = getattr(CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, KEPT_BYTES)


@contextmanager
def counting() -> Iterator[Callable[[int], None]]:
    """A count of evaluated layouts on standard error, if that is a terminal."""
    if not is_watched():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,} layouts evaluated; Ctrl-C shows the best so far"),
        TimeElapsedColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:  # which would be a thread
        task = progress.add_task("searching", total=None)
        yield lambda layouts: progress.update(task, completed=layouts, refresh=True)
