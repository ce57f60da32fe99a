"""Do events keep to the format that viewers read?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.report.trace.format import complete, flow, in_order, microseconds, nanoseconds, process, thread, trace_text
from tests.report.trace.trace_reading import read

AT = (1, 1001)


def text(*events: dict[str, object]) -> str:
    """A file of a process with a thread and these events."""
    return trace_text(in_order([*process(1, "stage"), *thread(*AT, "passes"), *events]), {})


@given(st.integers(0, 10**14))
def test_times_survive_readers_that_cut_and_readers_that_round(whole: int) -> None:
    """To the nanosecond, up to a day."""
    assert int(microseconds(whole) * 1000.0) == whole == round(microseconds(whole) * 1000.0)


@given(st.lists(st.integers(1, 10**9), min_size=2, max_size=20))
def test_spans_that_follow_one_another_do_so_in_the_file(durations: list[int]) -> None:
    """Without a nanosecond between them or on top of each other."""
    ends = [sum(durations[: place + 1]) for place in range(len(durations))]
    spans = [complete(str(end), "forward", AT, (end - long, end), {}) for end, long in zip(ends, durations, strict=True)]
    found = read(text(*spans))
    assert [each.end_ns for each in found.slices] == ends
    assert {each.depth for each in found.slices} == {0}


def test_what_holds_others_comes_before_them() -> None:
    """Of the same start too."""
    inner, outer = complete("norm", "memory_bound", AT, (0, 10), {}), complete("layer 1", "layer", AT, (0, 50), {})
    found = read(text(inner, outer))
    assert [(each.name, each.depth) for each in found.slices] == [("layer 1", 0), ("norm", 1)]


def test_an_arrow_binds_to_the_spans_that_it_leads_to() -> None:
    """By way of a message."""
    spans = [
        complete(name, "forward", AT, ends, {}) for name, ends in (("F 1", (0, 10)), ("send", (10, 15)), ("F 2", (15, 20)))
    ]
    found = read(text(*spans, *flow(1, "activations", [(*AT, 9), (*AT, 10), (*AT, 15)])))
    assert [[each.name for each in arrow] for arrow in found.arrows] == [["F 1", "send", "F 2"]]


@pytest.mark.parametrize("wrong", [(0, 10, 5, 15), (0, 10, 9, 11)])
def test_the_reader_of_these_tests_sees_overlaps(wrong: tuple[int, int, int, int]) -> None:
    """Which viewers draw wrongly."""
    spans = [complete(name, "forward", AT, ends, {}) for name, ends in (("a", wrong[:2]), ("b", wrong[2:]))]
    with pytest.raises(AssertionError, match="b overlaps a"):
        read(text(*spans))


def test_nanoseconds_round() -> None:
    """Half of one, and less."""
    assert [nanoseconds(each) for each in (0.0, 1.4e-9, 1.6e-9, 1.0)] == [0, 1, 2, 10**9]
