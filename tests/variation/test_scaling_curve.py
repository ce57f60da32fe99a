"""Is scaling named for what stays the same, and measured against the first point of each series?"""

from __future__ import annotations

from typing import Any

from perfmodel.variation.scaling_curve import scaling_curve


def point(gpus: int, rate: float, batch: int = 64) -> dict[str, Any]:
    """The numbers that count."""
    return {"gpus": gpus, "tokens_per_s": rate, "global_batch_size": batch}


def numbered(*points: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """All of them, by their places."""
    return dict(enumerate(points))


def test_ideal_scaling_has_efficiency_1() -> None:
    """Twice the GPUs, twice the tokens."""
    found = scaling_curve([("8",), ("16",), ("32",)], numbered(point(8, 1.0), point(16, 2.0), point(32, 4.0)))
    assert found is not None
    assert list(found.efficiency.values()) == [1, 1, 1]
    assert list(found.speed_up.values()) == [1, 2, 4]


def test_the_same_batch_is_strong_and_the_same_share_is_weak() -> None:
    """Anything else is neither."""
    for batches, kind in (((64, 64), "strong"), ((64, 128), "weak"), ((64, 96), "mixed")):
        found = scaling_curve([("8",), ("16",)], numbered(*(point(8 * 2**i, 1.0, batch) for i, batch in enumerate(batches))))
        assert found is not None
        assert found.kind == kind


def test_each_series_is_measured_against_its_own_first_point() -> None:
    """Two clusters, one twice as fast, scale alike."""
    labels = [("8", "A"), ("8", "B"), ("16", "A"), ("16", "B")]
    found = scaling_curve(labels, numbered(point(8, 1.0), point(8, 2.0), point(16, 1.5), point(16, 3.0)))
    assert found is not None
    assert (found.axis, dict(found.series)) == (0, {"A": [0, 2], "B": [1, 3]})
    assert found.efficiency == {0: 1, 1: 1, 2: 0.75, 3: 0.75}


def test_the_axis_that_grows_may_be_the_second() -> None:
    """Its series are the values of the first."""
    found = scaling_curve([("A", "8"), ("A", "16")], numbered(point(8, 1.0), point(16, 1.0)))
    assert found is not None
    assert (found.axis, dict(found.series)) == (1, {"A": [0, 1]})


def test_without_an_axis_that_grows_alone_there_is_no_scaling() -> None:
    """GPUs stay, or both axes change them, or nothing is there."""
    assert scaling_curve([("1",), ("2",)], numbered(point(8, 1.0), point(8, 2.0))) is None
    labels = [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2")]
    assert scaling_curve(labels, numbered(*(point(gpus, 1.0) for gpus in (8, 16, 16, 32)))) is None
    assert scaling_curve([("1",)], {}) is None


def test_points_that_do_not_count_are_skipped() -> None:
    """The first that does is the measure."""
    found = scaling_curve([("4",), ("8",), ("16",)], {1: point(8, 1.0), 2: point(16, 1.0)})
    assert found is not None
    assert found.efficiency == {1: 1.0, 2: 0.5}
