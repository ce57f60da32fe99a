"""Into which groups do measured rows fall: by source, by what their table says of them, and by their kind of layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Generic, Protocol, TypeVar

from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.axes import DATA, PIPELINE, REPORTED, TENSOR
from perfmodel.spec.layout import GATHERED
from perfmodel.spec.run import Run

IN_ORDER: Final = (TENSOR, PIPELINE, *(axis for axis in REPORTED if axis not in (TENSOR, PIPELINE)))  # of a kind of layout


class LabelledRow(Protocol):
    """A measured row of any kind of table."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What sorts the row into groups: the name of a column and what stands there."""


class MeasuredRow(LabelledRow, Protocol):
    """A measured row: its source, its labels and the run that it describes, or the reason why there is none."""

    @property
    def source(self) -> str:
        """The source of the row."""

    @property
    def run(self) -> Run | None:
        """The run that the row describes; None where the equations do not cover it."""

    @property
    def reason(self) -> str:
        """Why the equations do not cover the row, "" where they do."""


class ComparedRow(Protocol):
    """A measured row beside its prediction."""

    @property
    def measured(self) -> MeasuredRow:
        """The measured row."""


class ComparedLabels(Protocol):
    """The same of any kind of table."""

    @property
    def measured(self) -> LabelledRow:
        """The measured row."""


C = TypeVar("C", bound=ComparedRow)
L = TypeVar("L", bound=ComparedLabels)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard(Generic[C, S]):
    """Measured rows beside their predictions, and the summary of all and of each group; None where no row is covered."""

    comparisons: Sequence[C]
    overall: S | None
    groups: Mapping[str, Mapping[str, S]]
    unsupported: Mapping[str, int]  # how many rows are not covered, by reason
    unread: Sequence[UnreadRow] = ()


def layout_kind(run: Run) -> str:
    """The kind of layout of a run, in words: the degrees of parallelism above 1, and whether parameters are sharded.

    tensor + pipeline (or interleaved, or zero-bubble) + context + data (or fsdp, where the parameters are sharded too)
    """
    layout = run.layout(run.stages[0])
    pipeline = "interleaved" if layout.virtual_pipeline > 1 else "pipeline"
    if layout.pipeline_schedule.startswith("zb"):
        pipeline = "zero-bubble"
    sharded = layout.sharding in GATHERED and layout.data_parallel * layout.context_parallel > 1
    words = {PIPELINE: pipeline, DATA: "fsdp" if sharded else DATA.word}
    kinds = [words.get(axis, axis.word) for axis in IN_ORDER if layout.degree(axis) > 1 or (sharded and axis == DATA)]
    return " + ".join(kinds) or "single"


def publication(source: str) -> str:
    """Whose numbers they are: one paper, one repository, one round of results, whichever of its tables a row comes from.

    >>> publication("arXiv:2401.10241 Table 4 (Zero Bubble PP) 1F1B"), publication("NVIDIA/NeMo docs, 24.03")
    ('arXiv:2401.10241', 'NVIDIA/NeMo')
    """
    return source.split(" ", 1)[0].rstrip(",;:")


def group_names(measured: MeasuredRow) -> dict[str, str]:
    """The groups of a row and its name in each; a row that is not covered has no kind of layout."""
    kind = {} if measured.run is None else {"layout": layout_kind(measured.run)}
    return {"source": measured.source, **measured.labels, **kind}


def known_groups(rows: Iterable[MeasuredRow]) -> dict[str, set[str]]:
    """All groups of some rows, and the names in each, whether the rows are covered or not."""
    known: dict[str, set[str]] = {}
    for row in rows:
        for group, name in group_names(row).items():
            known.setdefault(group, set()).add(name)
    return known


def by_group(comparisons: Iterable[C], summarise: Callable[[Sequence[C]], S | None]) -> dict[str, dict[str, S]]:
    """The summary of each name in each group that has a covered row, in alphabetical order."""
    members: dict[str, dict[str, list[C]]] = {"source": {}}
    for comparison in comparisons:
        if comparison.measured.run is not None:
            for group, name in group_names(comparison.measured).items():
                members.setdefault(group, {}).setdefault(name, []).append(comparison)
    return {
        group: {name: summary for name, rows in sorted(names.items()) if (summary := summarise(rows)) is not None}
        for group, names in members.items()
    }


def by_label(comparisons: Sequence[L], labels: Sequence[str], summarise: Callable[[Sequence[L]], S]) -> dict[str, dict[str, S]]:
    """A summary of those that share what they are labelled with, by label and value, in alphabetical order."""
    found: dict[str, dict[str, S]] = {}
    for label in labels:
        values = sorted({each.measured.labels[label] for each in comparisons})
        found[label] = {
            value: summarise([each for each in comparisons if each.measured.labels[label] == value]) for value in values
        }
    return found


def scoreboard(
    comparisons: Sequence[C], summarise: Callable[[Sequence[C]], S | None], unread: Sequence[UnreadRow] = ()
) -> Scoreboard[C, S]:
    """The comparisons with the summary of all and of each group."""
    return Scoreboard(
        comparisons=comparisons,
        overall=summarise(comparisons),
        groups=by_group(comparisons, summarise),
        unsupported=unsupported_reasons(comparisons),
        unread=unread,
    )


def unsupported_reasons(comparisons: Iterable[ComparedRow]) -> dict[str, int]:
    """How many rows are not covered, by reason, most frequent first."""
    return dict(Counter(c.measured.reason for c in comparisons if c.measured.run is None).most_common())
