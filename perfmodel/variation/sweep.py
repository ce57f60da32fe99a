"""What a sweep gives: one stage of a run at every combination of the values of its axes, and the scaling where GPUs grow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from perfmodel.frames import Tabular
from perfmodel.variation.points import Outcome
from perfmodel.variation.scaling import Scaling, scaling


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptAxis:
    """What is varied: a key path (`run` for several run files), and its values as people wrote them."""

    key: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPoint:
    """One combination of values: how they are written, what they are in SI units, and what comes of them."""

    labels: tuple[str, ...]
    values: tuple[Any, ...]
    model: str
    outcome: Outcome

    @property
    def numbers(self) -> Mapping[str, Any]:
        """What it does; empty for a refused point."""
        return self.outcome.numbers or {}

    @property
    def fits(self) -> bool:
        """Whether it can be and fits in memory."""
        return bool(self.numbers.get("fits"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep(Tabular):
    """Points in the order of their axes, the last fastest; `stage` of `stages` is the one of the ramp, counted from 1.

    `taken` are sentences about keys for which a run lists several values, and that are not varied.
    """

    name: str
    stage: int
    stages: int
    axes: tuple[SweptAxis, ...]
    points: tuple[SweptPoint, ...]
    taken: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether any point can be and fits."""
        return any(point.fits for point in self.points)

    @property
    def scaling(self) -> Scaling | None:
        """Speed against GPUs of what fits, where one axis alone changes them; of several models there is none."""
        fitting = {place: point for place, point in enumerate(self.points) if point.fits}
        if len({point.model for point in fitting.values()}) != 1:
            return None
        return scaling([point.labels for point in self.points], {place: point.numbers for place, point in fitting.items()})

    def rows(self) -> list[dict[str, Any]]:
        """A row a point: its values by key path, every number, speed-up and efficiency, and why it is refused ("" if not).

        Where a value is a factor of a number, the number stands in its place.
        """
        names = next((list(point.numbers) for point in self.points if point.numbers), [])
        curve = self.scaling
        return [self._row(place, dict.fromkeys(names), curve) for place in range(len(self.points))]

    def _row(self, place: int, unknown: Mapping[str, None], curve: Scaling | None) -> dict[str, Any]:
        point = self.points[place]
        values = dict(zip((axis.key for axis in self.axes), point.values, strict=True))
        scaled = {"speed_up": curve and curve.speed_up.get(place), "efficiency": curve and curve.efficiency.get(place)}
        return values | {**unknown, **values, **point.numbers} | scaled | {"refusal": point.outcome.refusal}
