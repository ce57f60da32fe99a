"""Which files of a folder are logs of runs, which say what a run was, and which run a log is of.

A log is recognised by its content, whatever its name. Its run lies in the log itself, or beside it: in a file of the same stem
(train.sh for train.log), or in the only one of the folder that describes a run; where several do, of the software that wrote
the log. A file that another one names, as a script does its DeepSpeed JSON, is part of that one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.importers.registry import DESCRIBED, Document, document_at, importer_of
from perfmodel.exchange.measured.nccl_tests import is_nccl_tests
from perfmodel.exchange.syntax.documents import head_of
from perfmodel.exchange.tables.published_runs import DECISIVE
from perfmodel.light_dataclass import dataclass

MOST_FILES: Final = 10_000
TABLE: Final = ".csv"
LONGEST_HEADER: Final = 10_000  # bytes of the first line of a table
LOG, RUN, PART, TABLE_OF_RUNS, OTHER = "log", "run", "part of a run", "table of runs", "other"
FILE, FOLDER, LOCKED = "file", "folder", "locked"
NAMED_AT_MOST: Final = 3  # files that may be the run of a log, by name


@dataclass(frozen=True, slots=True, kw_only=True)
class FileKind:
    """What a file is: of which kind, in the format of which software, and in words why it is of no use by itself."""

    kind: str
    software: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The files of one folder by what they are."""

    path: Path
    kinds: Mapping[Path, FileKind]

    def files(self, kind: str) -> list[Path]:
        """The files of one kind, in the order of their names."""
        return [path for path, each in self.kinds.items() if each.kind == kind]

    def run_of(self, log: Path) -> Path:
        """The file beside a log that says which run it is of. Errors: InputError where none does, or several may."""
        mates = _mates(log, self.files(RUN))
        own = [each for each in mates if not self.kinds[each].software]
        taken = {mate for other in self.files(LOG) for mate in _mates(other, self.files(RUN))}
        found = own or mates or [each for each in self.files(RUN) if each not in taken]
        alike = [each for each in found if self.kinds[each].software == self.kinds[log].software] or found
        whole = [each for each in alike if not any(_names(other, each) for other in alike if other != each)]
        if not whole:
            like = f"a run file, script or configuration called {log.stem}.yaml, {log.stem}.sh or the like"
            raise InputError(f"nothing in it or beside it says which run it is of; {like} would")
        if len(whole) > 1:
            names = ", ".join(each.name for each in whole[:NAMED_AT_MOST]) + (", .." if len(whole) > NAMED_AT_MOST else "")
            raise InputError(f"several files beside it may be its run ({names}); the one called {log.stem} would be")
        return whole[0]

    def parts_of(self, run: Path) -> list[Path]:
        """The files that the run of a log may have been read from, beside its own."""
        return [each for each in self.kinds if self._is_part(each, run)]

    def _is_part(self, path: Path, run: Path) -> bool:
        kind = self.kinds[path].kind
        return kind == PART or (kind == RUN and path != run and _names(run, path))


def folder_at(path: Path) -> Folder:
    """The folder at `path`, without those in it. Errors: InputError where it cannot be read."""
    return Folder(path=path, kinds={each: kind_of(each) for each in _files(path, deep=False)})


def folders_in(path: Path) -> list[Folder]:
    """The folder at `path` and all in it that have files, hidden ones left out."""
    places = dict.fromkeys(each.parent for each in _files(path, deep=True))
    return [folder_at(each) for each in places]


def kind_of(path: Path) -> FileKind:
    """What a file is, by its content."""
    if _is(path) == LOCKED:
        return FileKind(kind=OTHER, reason="cannot be read: permission denied")
    header = (head_of(path, size=LONGEST_HEADER) or "").partition("\n")[0]
    if all(column in header for column in DECISIVE):
        return FileKind(kind=TABLE_OF_RUNS)
    if path.suffix.lower() == TABLE:
        return FileKind(kind=OTHER, reason="has not the columns of a table of measured runs")
    try:
        return _kind_of_document(document_at(path))
    except PerfmodelError as error:
        return FileKind(kind=OTHER, reason=str(error).removeprefix(f"{path} ").removeprefix(f"{path}: "))


def _kind_of_document(document: Document) -> FileKind:
    importer = importer_of(document)
    if importer is not None:
        kind = LOG if importer.measures else RUN if importer.gives == "runs" else PART
        describes = f"is a {importer.name}, which describes {DESCRIBED[importer.gives]}; no log here is of it"
        return FileKind(kind=kind, software=importer.name.split()[0], reason=describes)
    if "stages" in document.mapping:
        return FileKind(kind=RUN, reason="is a run file; no log here is of it")
    if is_nccl_tests(document.text):
        return FileKind(kind=OTHER, reason="is the output of nccl-tests; calibrate --from-nccl-tests reads it")
    return FileKind(kind=OTHER, reason="is neither a log nor a table of runs")


def _files(path: Path, *, deep: bool) -> Iterator[Path]:
    """The files of a folder, and of those in it, in the order of their names; a locked folder in it counts as a file."""
    left = [path]
    number = 0
    while left:
        folder = left.pop(0)
        try:
            entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
        except OSError as error:
            if folder != path:
                continue  # gone meanwhile, or no folder of files: one that is locked has been named
            raise InputError(f"{folder} cannot be read: {(error.strerror or 'unknown reason').lower()}") from None
        kinds = {each: _is(each) for each in entries}
        left += [each for each in entries if deep and kinds[each] == FOLDER and not each.is_symlink()]
        for each in entries:
            if kinds[each] in (FILE, LOCKED):
                number += 1
                if number > MOST_FILES:
                    raise InputError(f"{path} has more than {MOST_FILES:,} files; name the folder that has the logs")
                yield each


def _is(path: Path) -> str:
    """Whether a path is a file, a folder, one that others lock, or something else; links are what they lead to."""
    try:
        if path.is_dir():
            return FOLDER if os.access(path, os.R_OK | os.X_OK) else LOCKED
        return FILE if path.is_file() else ""
    except OSError:
        return LOCKED


def _mates(log: Path, runs: Sequence[Path]) -> list[Path]:
    return [each for each in runs if each.stem == log.stem]


def _names(run: Path, other: Path) -> bool:
    """Whether the text of one file names another."""
    return other.name in (head_of(run) or "")
