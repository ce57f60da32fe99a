"""Measurements of servers, as a table of them has them."""

from __future__ import annotations

from collections.abc import Mapping

from perfmodel.light_dataclass import dataclass
from perfmodel.serving.measurements import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredServing:
    """One metric of one run: the load that it was measured under, or the `reason` why that is not covered.

    `context` says why it is predicted but not scored; "" for one that is. `publication` is whose measurement it is, where
    several sources are of one, or one table lists several.
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    metric: str
    value: float
    workload: Workload | None
    reason: str = ""
    context: str = ""
    publication: str = ""

    @property
    def scored(self) -> bool:
        """Whether it counts."""
        return self.workload is not None and not self.context
