"""One point of a calibration: what is to be measured, as the record of it will say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from perfmodel.benchmarks.measure.kernels.timing import Timing
from perfmodel.evidence.steps.records import Record

FOUND: Final = ("allocated_bytes", "period_s")  # sizes of a record that were measured, not chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Kind, sizes and labels of a record that is not there yet."""

    kind: str
    sizes: Mapping[str, float]
    labels: Mapping[str, str]

    @property
    def key(self) -> str:
        """The same for every record of this point, on whatever machine."""
        return key_of(self)

    def record(self, timing: Timing, provenance: Mapping[str, str]) -> Record:
        """The record, once it was measured."""
        return Record(
            kind=self.kind,
            sizes={**self.sizes, **timing.found},
            labels=self.labels,
            seconds=timing.seconds,
            spread=timing.spread,
            repeats=timing.repeats,
            provenance=provenance,
        )


def key_of(entry: Point | Record) -> str:
    """Kind, labels and sizes as one line, whatever their order, and whether a size is written as 8 or as 8.0.

    >>> key_of(Point(kind="collective", sizes={"ranks": 2, "payload_bytes": 1024.0}, labels={"operator": "all_reduce"}))
    '["collective", {"operator": "all_reduce"}, {"payload_bytes": 1024.0, "ranks": 2.0}]'
    """
    sizes: dict[str, Any] = {name: float(size) for name, size in entry.sizes.items() if name not in FOUND}
    return json.dumps([entry.kind, dict(entry.labels), sizes], sort_keys=True)
