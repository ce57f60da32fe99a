"""From a table of own runs beside their predictions to the evidence that shifts and narrows later ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.own_runs import OwnPosterior, own_posterior, own_residual
from perfmodel.evidence.time_scores import TimeComparison
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.evidence.own_runs import ANY, OwnRun, OwnShift

OPEN: Final = "its use is context: something decisive of it is not stated"
KIN: Final = ("of other software or GPUs", "", "of other layouts of this model", "of this configuration")  # by depth of group


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OwnCalibration(Tabular):
    """The runs that were used with what they say, wide groups first, and the rows of the table that were left out."""

    runs: tuple[OwnRun, ...]
    shifts: tuple[OwnShift, ...]
    stretch: float  # how many times as wide as predicted intervals have to be for most of the runs to lie in theirs
    left_out: tuple[UnreadRow, ...]

    @property
    def median_shift(self) -> float:
        """Median of ln(measured / predicted)."""
        return float(np.median([np.log(each.measured_s / each.predicted_s) for each in self.runs])) if self.runs else 0.0

    def rows(self) -> list[dict[str, Any]]:
        """A row a run that was used."""
        names = ("name", "measured_s", "predicted_s", "weight")
        return [{name: getattr(each, name) for name in names} for each in self.runs]


def own_calibration(comparisons: Sequence[TimeComparison], unread: Sequence[UnreadRow] = ()) -> OwnCalibration:
    """What a table of runs says: those of it that are predicted, against what each of them was predicted to take."""
    residuals = [own_residual(each) for each in comparisons]
    pairs = [(each, residual) for each, residual in zip(comparisons, residuals, strict=True) if residual is not None]
    without = [_left_out(each) for each, residual in zip(comparisons, residuals, strict=True) if residual is None]
    left_out = tuple(sorted([*unread, *without], key=lambda row: (row.file, row.line)))
    if not pairs:
        return OwnCalibration(runs=(), shifts=(), stretch=1.0, left_out=left_out)
    posterior = own_posterior([residual for _, residual in pairs])
    return OwnCalibration(
        runs=tuple(_own_run(each, float(weight)) for (each, _), weight in zip(pairs, posterior.weights, strict=True)),
        shifts=tuple(own_shifts(posterior)),
        stretch=posterior.stretch,
        left_out=left_out,
    )


def own_shifts(posterior: OwnPosterior) -> Iterator[OwnShift]:
    """What the runs say of each group that they are in, wide groups first."""
    for depth, kin in enumerate(KIN):
        for path in dict.fromkeys(each.groups[:depth] for each in posterior.runs):
            (software, gpu), found = path[0] if path else (ANY, ANY), posterior.offset(path)
            yield OwnShift(
                software=software,
                gpu=gpu,
                settings=path[-1] if depth > 1 else (),
                runs=found.runs,
                kin=kin or f"of {software} on {gpu}",
                shift=found.shift,
                remaining=found.remaining,
                degrees=None if found.law.is_normal else found.law.degrees,
            )


def _left_out(comparison: TimeComparison) -> UnreadRow:
    """A row that says nothing of predictions, with the reason."""
    measured = comparison.measured
    return UnreadRow(
        line=measured.line,
        run_id=measured.run_id,
        source=measured.source,
        reason=measured.reason or OPEN,
        file=measured.file,
    )


def _own_run(comparison: TimeComparison, weight: float) -> OwnRun:
    """A run as a file of evidence keeps it."""
    return OwnRun(
        name=" ".join(comparison.measured.run_id.split()) or comparison.measured.place,
        measured_s=comparison.measured.iteration_time_s,
        predicted_s=comparison.predicted_s or 0.0,
        weight=weight,
    )
