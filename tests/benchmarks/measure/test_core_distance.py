"""Does a record say how far apart the cores of its ranks were, and does it doubt itself where they were moved?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from perfmodel.benchmarks.measure.core_distance import SAME, distance_text, is_near, moved, near_s, nearest, stated_distance_s
from perfmodel.evidence.steps.records import Record

BORN = {"gpu": "cpu", "software": "torch", "date": "2026-11-30", "command": "calibrate"}


def test_cores_that_were_moved_are_a_doubt() -> None:
    """Both distances are said; of one core alone, or within what looks differ by, nothing is."""
    (sentence,) = moved([25e-6, 33e-6, 26e-6])
    assert "took 25 us, and 33 us" in sentence
    assert moved([]) == moved([25e-6]) == moved([25e-6, 25e-6 * SAME]) == []


def test_a_record_states_the_greatest_distance() -> None:
    """That of one core is not stated."""
    assert stated_distance_s(distance_text([25e-6, 33e-6])) == pytest.approx(33e-6)
    assert distance_text([]) == {}


@pytest.mark.parametrize("text", ["", "far", "nan", "inf"])
def test_what_is_no_number_says_nothing(text: str) -> None:
    """Records are files of others."""
    assert stated_distance_s({"cores_apart_us": text}) is None
    assert is_near({"cores_apart_us": text}, 1e-6)


def test_the_usual_short_distance_of_some_records() -> None:
    """A quarter of them are at most as near, so that a few that were nearer by chance do not count; some say nothing."""
    stated = [{"cores_apart_us": f"{distance_us}"} for distance_us in (19, 24, 24.5, 25, 26, 33, 33, 40)]
    assert near_s([*stated, {}]) == pytest.approx(24e-6)
    assert near_s(stated[5:6]) == pytest.approx(33e-6)
    assert near_s([{}]) == math.inf


def test_where_no_cores_were_near_the_nearest_count(records: Sequence[Record]) -> None:
    """Not all of them: times of cores that are apart are others."""
    near, farther, far, silent = records
    assert nearest(records, 25e-6) == [near, silent]
    assert nearest([far, farther], 25e-6) == [farther]
    assert nearest([far], 25e-6) == [far]
    assert nearest([far, silent], 25e-6) == [silent]
    assert nearest(records, math.inf) == [*records]


@pytest.fixture
def records() -> list[Record]:
    """Of one point, which differ in the distance of the cores."""
    point = Record(
        kind="host", sizes={"layers": 2}, labels={"precision": "fp32"}, seconds=1.0, spread=0.1, repeats=9, provenance=BORN
    )
    marks = [*({"cores_apart_us": f"{distance_us}"} for distance_us in (25.9, 30.0, 39.0)), {}]
    return [replace(point, provenance=BORN | mark) for mark in marks]
