"""A layout that somebody tried, and whether it fitted in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perfmodel.spec.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFit:
    """A layout that ran or ran out of memory; `run` is None when the equations do not cover it, for the `reason`.

    `labels` sort it into groups (stack, attention_kernel_detail, recompute).
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    model_name: str
    fits: bool
    run: Run | None
    reason: str
    assumptions: tuple[str, ...]
    warning: str = ""  # what a user should hear before trusting the prediction
