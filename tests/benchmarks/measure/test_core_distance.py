"""Does a record say how far apart the cores of its ranks were, and does it doubt itself where they were moved?"""

from __future__ import annotations

import math

import pytest

from perfmodel.benchmarks.measure.core_distance import SAME, distance_text, is_near, moved, nearest_s, stated_distance_s


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


def test_the_nearest_of_some_records() -> None:
    """Those that say nothing are left out."""
    assert nearest_s([{"cores_apart_us": "33.0"}, {}, {"cores_apart_us": "24.0"}]) == pytest.approx(24e-6)
    assert nearest_s([{}]) == math.inf
