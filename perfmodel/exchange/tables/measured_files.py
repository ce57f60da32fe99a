"""Which measured runs are in these files: tables of runs, logs of training software, and folders of both, in any mixture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.measured_rows import MeasuredRun, MeasuredTable, UnreadRow
from perfmodel.exchange.output import is_folder
from perfmodel.exchange.tables.logged_runs import GivenBeside, logged_run
from perfmodel.exchange.tables.published_runs import read_measured_runs
from perfmodel.exchange.tables.run_folders import LOG, PART, TABLE, TABLE_OF_RUNS, Folder, folder_at, folders_in, kind_of
from perfmodel.light_dataclass import replace

NOTHING_GIVEN: Final = GivenBeside()
OF_LOGS: Final = "goes with logs, which may not say it; a table does"
Table = MeasuredTable[MeasuredRun]


def read_measured_files(paths: Sequence[Path], given: GivenBeside = NOTHING_GIVEN) -> Table:
    """The measured runs of some tables, logs and folders; a log is taken once, and what is none of these is kept as unread.

    Errors: InputError for a path that is neither, and where no run can be read at all.
    """
    if len(paths) == 1 and not is_folder(paths[0]) and _is_table(paths[0]):
        if not given.is_nothing:
            option = next(name for name in ("model", "cluster", "gpus") if getattr(given, name) is not None)
            raise InputError(f"--{option} {OF_LOGS}: {paths[0]}")
        return read_measured_runs(paths[0])
    seen: set[Path] = set()
    found = [table for path in paths for table in _tables(path, given, seen)]
    rows = tuple(row for table in found for row in table.rows)
    unread = tuple(row for table in found for row in table.unread)
    if not rows:
        raise InputError(_nothing(paths, unread))
    return MeasuredTable(rows=rows, unread=tuple(sorted(unread, key=lambda row: (row.file, row.line))))


def _is_table(path: Path) -> bool:
    """Whether a path that was typed is to be read as a table. Errors: InputError where it is neither that nor a log."""
    if path.suffix.lower() == TABLE:
        return True
    found = kind_of(path)
    if found.kind not in (LOG, TABLE_OF_RUNS):
        raise InputError(f"{path} {found.reason}")
    return found.kind == TABLE_OF_RUNS


def _nothing(paths: Sequence[Path], unread: Sequence[UnreadRow]) -> str:
    """Why no run is in these files, by the log that comes nearest."""
    where = ", ".join(str(path) for path in paths[:3]) + (", .." if len(paths) > 3 else "")
    logs = [row for row in unread if row.run_id]
    if not logs:
        return f"no log and no table of measured runs is in {where}"
    more = f" (and {len(logs) - 1} other{'s' if len(logs) > 2 else ''})" if len(logs) > 1 else ""
    return f"no run of {where} can be read; {logs[0].reason}{more}"


def _tables(path: Path, given: GivenBeside, seen: set[Path]) -> Iterator[Table]:
    """A path that was typed, as tables. Errors: InputError where it is neither a table, nor a log, nor a folder."""
    if is_folder(path):
        for folder in folders_in(path):
            yield from _of_folder(folder, path, given, seen)
    elif _is_table(path):
        yield _named(read_measured_runs(path), path.name)
    else:
        table, _ = _of_log(path, partial(folder_at, path.parent), path.name, given, seen)
        yield table


def _of_folder(folder: Folder, root: Path, given: GivenBeside, seen: set[Path]) -> Iterator[Table]:
    """The logs and tables of one folder, by their names below the one that was typed; and what is left out of it."""
    used: set[Path] = set()
    for path in folder.files(TABLE_OF_RUNS):
        name = str(path.relative_to(root))
        try:
            yield _named(read_measured_runs(path), name)
        except PerfmodelError as error:
            yield _unread(name, str(error), source=folder.path.name, run_id=name)
    for path in folder.files(LOG):
        table, described_in = _of_log(path, lambda: folder, str(path.relative_to(root)), given, seen)
        yield table
        if described_in is not None:
            used.update([described_in, *folder.parts_of(described_in)])
    for path, found in folder.kinds.items():
        if path not in used and found.kind not in (LOG, TABLE_OF_RUNS) and not (used and found.kind == PART):
            yield _unread(str(path.relative_to(root)), found.reason, source=folder.path.name)


def _of_log(
    path: Path, folder: Callable[[], Folder], name: str, given: GivenBeside, seen: set[Path]
) -> tuple[Table, Path | None]:
    """A log as a table of one row (of none where it was read before), and the file beside it that says which run it is."""
    if path.resolve() in seen:
        return MeasuredTable(rows=(), unread=()), None
    seen.add(path.resolve())
    try:
        found = logged_run(path, folder, name=name, given=given)
    except PerfmodelError as error:
        reason = str(error).removeprefix(f"{path}: ")
        return _unread(name, reason, source=path.resolve().parent.name, run_id=name), None
    return MeasuredTable(rows=(found.measured,), unread=()), found.described_in


def _unread(name: str, reason: str, *, source: str, run_id: str = "") -> Table:
    row = UnreadRow(line=0, run_id=run_id, source=source, reason=f"{name}: {reason}", file=name)
    return MeasuredTable(rows=(), unread=(row,))


def _named(table: Table, file: str) -> Table:
    """A table whose rows say which file they are of."""
    return MeasuredTable(
        rows=tuple(replace(row, file=file) for row in table.rows),
        unread=tuple(replace(row, file=file, reason=f"{file}, {row.reason}") for row in table.unread),
    )
