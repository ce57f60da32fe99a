"""Do the plans hold every operator once, in the sizes that were asked for, and can each point be measured?"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from perfmodel.benchmarks.measure.kernels import kernels
from perfmodel.benchmarks.measure.kernels.kernels import CPU_SECONDS, SMALLEST_SECONDS, take
from perfmodel.benchmarks.measure.kernels.plan import (
    COLLECTIVES,
    CPU,
    PHASES,
    PLANS,
    PRECISIONS,
    collective_points,
    kernel_points,
    plan_of,
)
from perfmodel.benchmarks.measure.kernels.points import Point, key_of
from perfmodel.errors import InputError
from perfmodel.evidence.steps.records import record
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT

SMALLEST = kernel_points(plan_of("cpu", smallest=True))
PROVENANCE = dict.fromkeys(("gpu", "software", "date", "command"), "x")


@cache
def points_of(device: str) -> tuple[Point, ...]:
    """All points of its plan."""
    return tuple(kernel_points(plan_of(device)))


@pytest.mark.parametrize("device", PLANS)
def test_no_point_stands_twice_in_a_plan(device: str) -> None:
    """Whatever was measured once is there."""
    keys = [point.key for point in points_of(device)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("device", PLANS)
def test_every_operator_is_measured_in_both_precisions(device: str) -> None:
    """Products and attention in both directions too; where the caches are empty, the optimizer and copies."""
    points = points_of(device)
    found = {(p.labels["operator"], p.labels["phase"]) for p in points if p.kind == "memory_bound"}
    assert found == {(kernel, phase) for kernel in PHASES for phase in PHASES[kernel]}
    cold = {p.labels["operator"] for p in points if p.labels.get("cache") == "cold"}
    assert cold == {"adam", "scale", "square_sum", "zero", "copy"}
    for kind, phases in (("matmul", (FORWARD, DATA_GRADIENT, WEIGHT_GRADIENT)), ("attention", (FORWARD, DATA_GRADIENT))):
        found_of = {(p.labels["precision"], p.labels["phase"]) for p in points if p.kind == kind}
        assert found_of == {(precision, phase) for precision in PRECISIONS for phase in phases}


def test_products_are_as_large_as_they_may_be_and_no_larger() -> None:
    """At least eight pairs of columns and inner size, thin ones among them, with several numbers of rows."""
    for device, plan in PLANS.items():
        shapes = {tuple(p.sizes.values()) for p in points_of(device) if p.kind == "matmul" and p.labels["precision"] == "fp32"}
        weights = {(columns, inner) for _, columns, inner in shapes}
        assert len(weights) >= 8
        assert min(min(weight) for weight in weights) <= 256
        assert all(2 * rows * columns * inner <= plan.most_flop["fp32"] for rows, columns, inner in shapes)
        assert len(shapes) >= 2 * len(weights)


def test_traffic_lies_near_the_sizes_of_the_plan() -> None:
    """The forward pass of every operator moves within a factor of two of what was asked for."""
    for point in points_of("cpu"):
        if point.kind == "memory_bound" and point.labels["phase"] != DATA_GRADIENT:
            assert any(0.5 < point.sizes["moved_bytes"] / size < 2 for size in CPU.moved_bytes), point


@pytest.mark.parametrize("point", SMALLEST, ids=lambda point: " ".join([point.kind, *point.labels.values()]))
def test_every_point_of_the_smallest_plan_gives_a_record(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured on this CPU, it survives being written and read."""
    monkeypatch.setattr("perfmodel.benchmarks.measure.kernels.kernels.CPU_SECONDS", 0.0)
    monkeypatch.setattr("perfmodel.benchmarks.measure.kernels.timing.cache_bytes", lambda _, **__: 2**16)
    made = point.record(take(point, "cpu"), PROVENANCE)
    assert made.seconds < 1.0
    assert record(made.document()) == made
    assert key_of(made) == point.key


def test_to_see_that_it_works_few_repeats_and_a_small_cache_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are asked for together."""
    asked: list[Any] = []
    monkeypatch.setattr(kernels, "timed", lambda _, **how: asked.append((how["seconds"], how["smallest"])))
    for smallest in (True, False):
        take(SMALLEST[0], "cpu", smallest=smallest)
    assert asked == [(SMALLEST_SECONDS, True), (CPU_SECONDS, False)]


def test_the_key_of_a_point_does_not_depend_on_the_order_of_its_sizes() -> None:
    """Nor on whether a size is written as a whole number."""
    one = Point(kind="collective", sizes={"ranks": 2, "payload_bytes": 8}, labels={"operator": "all_reduce"})
    other = Point(kind="collective", sizes={"payload_bytes": 8.0, "ranks": 2.0}, labels={"operator": "all_reduce"})
    assert one.key == other.key


def test_single_messages_go_between_two_ranks() -> None:
    """All other collectives in groups of every size."""
    points = collective_points(CPU, [(2, 1), (4, 1)], backend="gloo", precision="fp32")
    assert {p.labels["operator"] for p in points if p.sizes["ranks"] == 2} == set(COLLECTIVES)
    assert {p.labels["operator"] for p in points if p.sizes["ranks"] == 4} == set(COLLECTIVES) - {"point_to_point"}


def test_an_unknown_device_is_refused() -> None:
    """With what would work."""
    with pytest.raises(InputError, match="tpu is not a device; did you mean cpu"):
        plan_of("tpu")
