"""How speed grows with GPUs, against the ideal.

    speed-up = v / v_0,    efficiency = (v / v_0) / (n / n_0)

v = tokens/s and n = GPUs of a point, v_0 and n_0 those of the first point of its series. Strong scaling keeps the global batch
(the same work an iteration, on more GPUs), weak scaling the sequences a GPU (work grows with GPUs); anything else is mixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from perfmodel.light_dataclass import dataclass

ScalingKind: TypeAlias = Literal["strong", "weak", "mixed"]
PointNumbers: TypeAlias = Mapping[str, Any]
SweptSeries: TypeAlias = Mapping[
    str, Sequence[int]
]  # the places of points that differ on one axis, by their name on the others


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingCurve:
    """Speed against GPUs along the axis at place `axis`; `speed_up` and `efficiency` by the place of a point."""

    kind: ScalingKind
    axis: int
    series: SweptSeries
    speed_up: Mapping[int, float]
    efficiency: Mapping[int, float]


def scaling_curve(labels: Sequence[tuple[str, ...]], numbers: Mapping[int, PointNumbers]) -> ScalingCurve | None:
    """The scaling of points with these labels (one for each axis); None where not exactly one axis changes the GPUs.

    `numbers` are those of the points that fit, by their places.

    >>> points = {0: {"gpus": 8, "tokens_per_s": 1e5, "global_batch_size": 64}}
    >>> points[1] = {"gpus": 16, "tokens_per_s": 1.6e5, "global_batch_size": 64}
    >>> found = scaling_curve([("8",), ("16",)], points)
    >>> found.kind, found.speed_up[1], found.efficiency[1]
    ('strong', 1.6, 0.8)
    """
    axes = range(len(labels[0]) if labels else 0)
    series = {axis: _series(labels, numbers, axis) for axis in axes}
    growing = [axis for axis in axes if any(len({numbers[each]["gpus"] for each in row}) > 1 for row in series[axis].values())]
    return _scaling(growing[0], series[growing[0]], numbers) if len(growing) == 1 else None


def _series(labels: Sequence[tuple[str, ...]], numbers: Mapping[int, PointNumbers], axis: int) -> dict[str, list[int]]:
    series: dict[str, list[int]] = {}
    for place in numbers:
        name = ", ".join(label for other, label in enumerate(labels[place]) if other != axis)
        series.setdefault(name, []).append(place)
    return series


def _scaling(axis: int, series: SweptSeries, numbers: Mapping[int, PointNumbers]) -> ScalingCurve:
    speed_up, efficiency = {}, {}
    for row in series.values():
        first = numbers[row[0]]
        for place in row:
            speed_up[place] = numbers[place]["tokens_per_s"] / first["tokens_per_s"]
            efficiency[place] = speed_up[place] / (numbers[place]["gpus"] / first["gpus"])
    return ScalingCurve(kind=_kind(series, numbers), axis=axis, series=series, speed_up=speed_up, efficiency=efficiency)


def _kind(series: SweptSeries, numbers: Mapping[int, PointNumbers]) -> ScalingKind:
    rows = [[numbers[place] for place in row] for row in series.values()]
    if all(len({point["global_batch_size"] for point in row}) == 1 for row in rows):
        return "strong"
    return "weak" if all(len({point["global_batch_size"] / point["gpus"] for point in row}) == 1 for row in rows) else "mixed"
