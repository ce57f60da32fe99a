"""The result of a sweep: one ramp stage at every combination of the values of its axes, and the scaling where GPUs grow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perfmodel.count.memory.fit import fit_verdict
from perfmodel.frames import OneLine, Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.run import Run
from perfmodel.units import seconds_text
from perfmodel.variation.points import NOT_REACHED, PointOutcome
from perfmodel.variation.scaling_curve import ScalingCurve, scaling_curve


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptAxis:
    """An axis of a sweep: a key path (`run` for several run files), and its values as people wrote them."""

    key: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SweptPoint(OneLine):
    """One combination of values: as people wrote them, in SI units, and the outcome."""

    labels: tuple[str, ...]
    values: tuple[Any, ...]
    model: str
    outcome: PointOutcome

    @property
    def summary(self) -> str:
        """Its values with time, MFU and whether it fits, or why it is refused."""
        values = ", ".join(self.labels)
        if not self.numbers:
            return f"{values}: {self.outcome.refusal}"
        seconds = f"{seconds_text(self.numbers['iteration_time_s'])} an iteration"
        return f"{values}: {seconds}, MFU {100 * self.numbers['mfu']:.1f} %, {self.verdict}"

    @property
    def numbers(self) -> Mapping[str, Any]:
        """The numbers of the point; empty where it is refused."""
        return self.outcome.numbers or {}

    @property
    def fits(self) -> bool:
        """Whether the point is not refused and fits in memory."""
        return bool(self.numbers.get("fits"))

    @property
    def verdict(self) -> str | None:
        """Whether the point fits, is tight or does not fit in memory; None where it is refused."""
        return fit_verdict(self.numbers["fit_probability"]) if self.numbers else None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Sweep(Tabular):
    """Points in the order of the axes, of which the last varies fastest; `stage` is the ramp stage of `stages`, from 1.

    `taken` are sentences about keys for which a run lists several values, and that are not varied; `base` is the run that is
    varied, None where there are several.
    """

    name: str
    stage: int
    stages: int
    axes: tuple[SweptAxis, ...]
    points: tuple[SweptPoint, ...]
    taken: tuple[str, ...] = ()
    base: Run | None = None

    @property
    def summary(self) -> str:
        """What is swept, and how many points fit."""
        axes = " x ".join(f"{axis.key} ({len(axis.labels)})" for axis in self.axes)
        return f"{self.name} by {axes}: {sum(point.fits for point in self.points)} of {len(self.points)} points fit"

    @property
    def fits(self) -> bool:
        """Whether any point fits in memory."""
        return any(point.fits for point in self.points)

    @property
    def complete(self) -> bool:
        """Whether every point was reached; Ctrl-C ends a sweep early, with the points that were done."""
        return not any(point.outcome.refusal == NOT_REACHED for point in self.points)

    @property
    def scaling(self) -> ScalingCurve | None:
        """Speed against GPUs of the points that fit; None where not exactly one axis changes the GPUs, or models differ."""
        fitting = {place: point for place, point in enumerate(self.points) if point.fits}
        if len({point.model for point in fitting.values()}) != 1:
            return None
        return scaling_curve(
            [point.labels for point in self.points], {place: point.numbers for place, point in fitting.items()}
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each point: values by key path, numbers, speed-up, efficiency, and why it is refused ("" where it is not).

        Where a value is a factor of a number, the number stands in its place.
        """
        names = next((list(point.numbers) for point in self.points if point.numbers), [])
        curve = self.scaling
        return [self._row(place, dict.fromkeys(names), curve) for place in range(len(self.points))]

    def _row(self, place: int, unknown: Mapping[str, None], curve: ScalingCurve | None) -> dict[str, Any]:
        point = self.points[place]
        values = dict(zip((axis.key for axis in self.axes), point.values, strict=True))
        scaled = {"speed_up": curve and curve.speed_up.get(place), "efficiency": curve and curve.efficiency.get(place)}
        return (
            values
            | {**unknown, **values, **point.numbers}
            | scaled
            | {"verdict": point.verdict, "refusal": point.outcome.refusal}
        )
