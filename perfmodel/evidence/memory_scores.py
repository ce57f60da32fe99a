"""How often predictions are right about what fits in memory: layouts that were tried, one by one and in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Final

from perfmodel.count.memory.needed import MemoryBytes
from perfmodel.evidence.groups import Scoreboard, scoreboard
from perfmodel.evidence.measured_rows import MeasuredFit, UnreadRow
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import predict

SCORES: Final = ("disagreement", "fits_called_impossible", "impossible_called_fits")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitComparison:
    """Whether a layout fitted, beside its prediction; all but `measured` is None when the layout is not covered."""

    measured: MeasuredFit
    predicted_fits: bool | None = None
    memory: MemoryBytes | None = None  # parts are single numbers
    fit_probability: float | None = None
    headroom_bytes: float | None = None  # memory left on the GPU; negative where the layout is predicted not to fit

    @property
    def agrees(self) -> bool | None:
        """Whether the prediction is right; None where the layout is not covered."""
        return None if self.predicted_fits is None else self.predicted_fits == self.measured.fits


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSummary:
    """How many covered layouts of a group fitted or did not, and for how many of each the prediction says the opposite."""

    fitted: int
    fits_refused: int
    did_not_fit: int
    misfits_passed: int

    @property
    def rows(self) -> int:
        """How many layouts are covered."""
        return self.fitted + self.did_not_fit

    @property
    def agreement(self) -> float:
        """The share of covered layouts for which the prediction is right."""
        return 1.0 - (self.fits_refused + self.misfits_passed) / self.rows

    @property
    def fits_called_impossible(self) -> float | None:
        """The share of the layouts that fitted which are predicted not to fit; None where none fitted."""
        return self.fits_refused / self.fitted if self.fitted else None

    @property
    def impossible_called_fits(self) -> float | None:
        """The share of the layouts that did not fit which are predicted to fit; None where all fitted."""
        return self.misfits_passed / self.did_not_fit if self.did_not_fit else None

    @property
    def scores(self) -> Mapping[str, float | None]:
        """What a threshold can be set for, by its name in SCORES; the smaller the better."""
        shares = (1.0 - self.agreement, self.fits_called_impossible, self.impossible_called_fits)
        return dict(zip(SCORES, shares, strict=True))


def compare_fit(measured: MeasuredFit) -> FitComparison:
    """The predicted memory of a layout beside whether it fitted."""
    if measured.run is None:
        return FitComparison(measured=measured)
    (_, stage), *_ = predict(measured.run).stages
    return FitComparison(
        measured=measured,
        predicted_fits=bool(stage.fits),
        fit_probability=float(stage.fit_probability),
        memory=MemoryBytes(**{part.name: float(getattr(stage.memory, part.name)) for part in fields(MemoryBytes)}),
        headroom_bytes=float(stage.headroom_bytes),
    )


def fit_scoreboard(
    comparisons: Sequence[FitComparison], unread: Sequence[UnreadRow] = ()
) -> Scoreboard[FitComparison, FitSummary]:
    """The comparisons with the summaries of all and of each group."""
    return scoreboard(comparisons, summarise_fits, unread)


def summarise_fits(comparisons: Sequence[FitComparison]) -> FitSummary | None:
    """The summary of the covered layouts among `comparisons`; None where none is covered."""
    covered = [c for c in comparisons if c.agrees is not None]
    if not covered:
        return None
    fitted = [c for c in covered if c.measured.fits]
    misfits = [c for c in covered if not c.measured.fits]
    return FitSummary(
        fitted=len(fitted),
        fits_refused=sum(not c.agrees for c in fitted),
        did_not_fit=len(misfits),
        misfits_passed=sum(not c.agrees for c in misfits),
    )


def worst_fits(comparisons: Sequence[FitComparison], number: int) -> list[FitComparison]:
    """The wrong predictions, at most `number`, those with the most memory left or missing first."""
    wrong = [c for c in comparisons if c.agrees is False]
    return sorted(wrong, key=lambda c: abs(c.headroom_bytes or 0.0), reverse=True)[:number]
