"""Into which groups do measured rows fall: by source, by what their table says of them, and by their kind of layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from perfmodel.spec.layout import GATHERED
from perfmodel.spec.run import Run


class Measured(Protocol):
    """A row of a table, and the run that it describes, or why there is none."""

    @property
    def source(self) -> str:
        """Where it is from."""

    @property
    def labels(self) -> Mapping[str, str]:
        """What its table says that sorts it."""

    @property
    def run(self) -> Run | None:
        """What the equations are asked."""

    @property
    def reason(self) -> str:
        """Why they are not."""


class Compared(Protocol):
    """A row beside its prediction."""

    @property
    def measured(self) -> Measured:
        """The row."""


C = TypeVar("C", bound=Compared)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoreboard(Generic[C, S]):
    """Rows beside their predictions, the scores of all and of each group (None and none where no row is covered)."""

    comparisons: Sequence[C]
    overall: S | None
    groups: Mapping[str, Mapping[str, S]]
    unsupported: Mapping[str, int]  # how many rows are not covered, by reason


def layout_kind(run: Run) -> str:
    """What splits the work of a run, in words: the degrees above 1, and how data parallelism keeps its states.

    tensor + pipeline (or interleaved, or zero-bubble) + context + data (or fsdp, where the parameters are sharded too)
    """
    layout = run.layout(run.stages[0])
    pipeline = "interleaved" if layout.virtual_pipeline > 1 else "pipeline"
    if layout.pipeline_schedule.startswith("zb"):
        pipeline = "zero-bubble"
    sharded = layout.sharding in GATHERED and layout.data_parallel * layout.context_parallel > 1
    kinds = {
        "tensor": layout.tensor_parallel > 1,
        pipeline: layout.pipeline_parallel > 1,
        "context": layout.context_parallel > 1,
        "fsdp" if sharded else "data": sharded or layout.data_parallel > 1,
    }
    return " + ".join(kind for kind, there in kinds.items() if there) or "single"


def group_names(measured: Measured) -> dict[str, str]:
    """The name of each group that a row is in; one that is not covered has no kind of layout."""
    kind = {} if measured.run is None else {"layout": layout_kind(measured.run)}
    return {"source": measured.source, **measured.labels, **kind}


def known_groups(rows: Iterable[Measured]) -> dict[str, set[str]]:
    """All groups that some row is in, covered or not."""
    known: dict[str, set[str]] = {}
    for row in rows:
        for group, name in group_names(row).items():
            known.setdefault(group, set()).add(name)
    return known


def by_group(comparisons: Iterable[C], summarise: Callable[[Sequence[C]], S | None]) -> dict[str, dict[str, S]]:
    """The summary of each group with a covered row, by the groups' names in alphabetical order."""
    members: dict[str, dict[str, list[C]]] = {"source": {}}
    for comparison in comparisons:
        if comparison.measured.run is not None:
            for group, name in group_names(comparison.measured).items():
                members.setdefault(group, {}).setdefault(name, []).append(comparison)
    return {
        group: {name: summary for name, rows in sorted(names.items()) if (summary := summarise(rows)) is not None}
        for group, names in members.items()
    }


def reasons(comparisons: Iterable[Compared]) -> dict[str, int]:
    """How many rows are not covered, by reason, most frequent first."""
    return dict(Counter(c.measured.reason for c in comparisons if c.measured.run is None).most_common())
