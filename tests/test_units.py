"""Are quantities read in SI base units, and bits never taken for bytes?"""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.errors import UnitError
from perfmodel.units import gibibytes_text, large_text, parse_quantity, seconds_text


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("400Gb/s", "bytes_per_s", 50e9),
        ("50GB/s", "bytes_per_s", 50e9),
        ("50 GB/s", "bytes_per_s", 50e9),
        ("1GiB/s", "bytes_per_s", 2**30),
        ("80GB", "bytes", 80e9),
        ("80GiB", "bytes", 80 * 2**30),
        ("512B", "bytes", 512),
        ("989TFLOP/s", "flop_per_s", 989e12),
        ("8T", "count", 8e12),
        ("200e9", "count", 200e9),
        ("1_000", "count", 1000),
        ("3B", "count", 3e9),
        ("20us", "s", 20e-6),
        ("14d", "s", 14 * 86400),
        ("34.3%", "ratio", 0.343),
        ("10.2kW", "W", 10200),
        ("90d", "days", 90),
        ("12h", "days", 0.5),
        ("$2.5", "dollars", 2.5),
        ("400g/kWh", "kg_per_kwh", 0.4),
        ("2e-5/h", "per_hour", 2e-5),
        (0.5, "ratio", 0.5),
        (7, "bytes", 7),
    ],
)
def test_a_quantity_is_read_in_si_base_units(text: object, dimension: str, value: float) -> None:
    """Prefixes, bits and bytes, times and percentages."""
    assert parse_quantity(text, dimension) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "dimension"),
    [
        ("400Gb", "bytes"),
        ("400Gb", "bytes_per_s"),
        ("80GB", "bytes_per_s"),
        ("80GB/s", "bytes"),
        ("989TFLOPS", "flop_per_s"),
        ("8T", "bytes"),
        ("8G", "bytes"),
        ("5BB", "bytes"),
        ("700Wh", "W"),
        ("2.5 EUR", "dollars"),
        ("90s", "days"),
        ("400g", "kg_per_kwh"),
        ("ten", "count"),
        ("", "count"),
        ("1e999", "count"),
        ("nan", "count"),
        ("1" * 100, "count"),
        (True, "count"),
        (None, "count"),
        ([1], "count"),
        (float("inf"), "s"),
        (10**400, "count"),
    ],
)
def test_what_is_no_quantity_of_the_dimension_is_refused(text: object, dimension: str) -> None:
    """With one sentence that shows how to write it."""
    with pytest.raises(UnitError):
        parse_quantity(text, dimension)


def test_bits_for_a_memory_size_are_explained() -> None:
    """400Gb is 50GB, and the error says so."""
    with pytest.raises(UnitError, match="400Gb would be 50GB"):
        parse_quantity("400Gb", "bytes")


@given(
    st.text(max_size=20),
    st.sampled_from(
        ["bytes", "bytes_per_s", "flop", "flop_per_s", "s", "count", "ratio", "days", "W", "dollars", "per_hour", "kg_per_kwh"]
    ),
)
def test_any_text_is_a_number_or_a_unit_error(text: str, dimension: str) -> None:
    """Nothing else can happen."""
    with contextlib.suppress(UnitError):
        assert isinstance(parse_quantity(text, dimension), float)


@given(st.floats(min_value=1e-6, max_value=1e15))
def test_written_counts_read_back_within_their_digits(value: float) -> None:
    """Four significant digits at least."""
    assert parse_quantity(large_text(value).replace(",", ""), "count") == pytest.approx(value, rel=1e-3)


def test_values_are_written_with_the_unit_that_suits() -> None:
    """For people, not for programs."""
    assert [seconds_text(v) for v in (0.0, 2e-5, 0.02, 0.57, 12.0, 2e5)] == [
        "0 s",
        "20 us",
        "20 ms",
        "0.570 s",
        "12 s",
        "2.31 d",
    ]
    assert gibibytes_text(2**31) == "2.0 GiB"
