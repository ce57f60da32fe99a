"""What somebody measured: a row of a table of published runs, or of a table of layouts that fitted in memory or did not."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, Generic, TypeVar

from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import Run

R = TypeVar("R")
MEMORY_KINDS: Final = ("allocated", "reserved", "device")  # of tensors, of PyTorch's allocator, of the whole GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadRow:
    """A row of a table, or a log, that describes no run: what decides is missing or wrong, as `reason` says."""

    line: int
    run_id: str
    source: str
    reason: str
    file: str = ""  # a log, or of several tables the one that has the row

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return place_of(self.file, self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTable(Generic[R]):
    """The rows of a table, and those that could not be read."""

    rows: tuple[R, ...]
    unread: tuple[UnreadRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredRun:
    """An iteration that somebody measured and published.

    `run` is None where the equations do not cover it, for the `reason`. `labels` sort rows into groups (gpu, stack, precision).
    `peak_flop_per_s` is None for a GPU or a precision that is not known. A row that is not `scored` leaves something decisive
    open: it is predicted and shown, and counts in no score. `memory_kind` (MEMORY_KINDS) is what `memory_bytes` means.
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    model: TransformerModel
    sequence_length: int
    global_batch_size: int | None
    gpus: int
    peak_flop_per_s: float | None
    iteration_time_s: float
    printed_mfu: float | None
    mfu_convention: str  # products | parameters | multi_head (evidence/time_scores.py)
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]
    warning: str = ""  # what a user should read before trusting the prediction
    line: int = 0  # of its table; a log has none
    file: str = ""  # the log that it was read from, or of several tables the one that has the row
    scored: bool = True
    memory_bytes: float | None = None
    memory_kind: str = MEMORY_KINDS[0]

    @property
    def place(self) -> str:
        """Where it is, in words."""
        return place_of(self.file, self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFit:
    """A layout that somebody tried, and whether it ran or was out of memory.

    `run` is None where the equations do not cover it, for the `reason`. `labels` sort rows into groups (stack,
    attention_kernel_detail, recompute).
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    model_name: str
    fits: bool
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]
    warning: str = ""  # what a user should read before trusting the prediction


def place_of(file: str, line: int) -> str:
    """Where a measurement is, in words.

    >>> place_of("", 4), place_of("runs.csv", 4), place_of("train.log", 0)
    ('line 4', 'runs.csv, line 4', 'train.log')
    """
    return ", ".join([*([file] if file else []), *([f"line {line}"] if line or not file else [])])


def without_doubles(table: MeasuredTable[MeasuredRun]) -> MeasuredTable[MeasuredRun]:
    """The table with each run once: a later row of the same name, settings and time is left out as a copy of the first."""
    first: dict[Hashable, str] = {}
    copies = [each for each in table.rows if first.setdefault(_identity(each), each.place) != each.place]
    of = {each.place: first[_identity(each)] for each in copies}
    unread = [
        UnreadRow(
            line=each.line,
            run_id=each.run_id,
            source=each.source,
            reason=f"{each.place}, run_id {each.run_id}: the same run as {of[each.place]}",
            file=each.file,
        )
        for each in copies
    ]
    return MeasuredTable(
        rows=tuple(each for each in table.rows if each.place not in of),
        unread=tuple(sorted([*table.unread, *unread], key=lambda row: (row.file, row.line))),
    )


def _identity(measured: MeasuredRun) -> Hashable:
    """What two copies of one row have in common."""
    run = measured.run
    configuration = None if run is None else run.setup(run.stages[0]).configuration
    sizes = (measured.gpus, measured.global_batch_size, measured.sequence_length)
    return (measured.run_id, measured.iteration_time_s, *sizes, *measured.labels.values(), configuration)


def with_evidence(measured: MeasuredRun, evidence: RunEvidence) -> MeasuredRun:
    """The same row on a cluster of which other runs are known."""
    if measured.run is None:
        return measured
    return replace(measured, run=replace(measured.run, cluster=replace(measured.run.cluster, evidence=evidence)))
