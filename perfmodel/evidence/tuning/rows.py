"""Measurements of fine-tuning runs, as a table of them has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from perfmodel.evidence.measured_rows import MEMORY_KINDS
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.run import Run

MEMORY: Final = "peak_memory_gib"
SPEED: Final = "tokens_per_s"
FITS: Final = "fits"
TUNING_METRICS: Final = (MEMORY, SPEED, FITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredTuning:
    """One run of a fine-tuning with all that was measured of it, by metric; speeds are those of all GPUs together.

    `run` is None where the equations do not cover it, for the `reason`. `context` says of a metric why it is not scored.
    `memory_kind` (MEMORY_KINDS) is what its memory means.
    """

    run_id: str
    source: str
    labels: Mapping[str, str]
    values: Mapping[str, float]
    run: Run | None
    reason: str = ""
    context: Mapping[str, str]
    memory_kind: str = MEMORY_KINDS[0]
    assumptions: tuple[str, ...] = ()
