"""Are records that cannot be left out by name, and all others kept?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.steps.odd_records import FASTER, sound, work_of
from perfmodel.evidence.steps.records import Record

BORN = {"gpu": "one", "software": "torch", "date": "2026-01-01", "command": "a test"}


def product(side: float, seconds: float, phase: str = "forward") -> Record:
    """A square product."""
    return Record(
        kind="matmul",
        sizes={"rows": side, "columns": side, "inner": side},
        labels={"precision": "bf16", "phase": phase},
        seconds=seconds,
        spread=0.0,
        repeats=3,
        provenance=BORN,
    )


PRODUCTS = [product(side, 5e-6 + 2 * side**3 / 1e11) for side in (64.0, 128.0, 256.0, 512.0, 1024.0)]


def test_records_that_obey_a_law_are_all_kept() -> None:
    """A fixed time and a rate, whatever the order."""
    assert sound(PRODUCTS[::-1]).records == tuple(PRODUCTS[::-1])
    assert work_of(PRODUCTS[0]) == 2 * 64**3


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("factor", [1e-3, 1e4])
def test_one_absurd_record_is_left_out_and_named(place: int, factor: float) -> None:
    """Too fast wherever larger ones take longer than that, too slow wherever smaller ones cannot."""
    odd = replace(PRODUCTS[place], seconds=PRODUCTS[place].seconds * factor)
    found = sound([*PRODUCTS[:place], odd, *PRODUCTS[place + 1 :]])
    contradicted = place > 0 if factor < 1 else place < 4
    assert len(found.records) == (4 if contradicted else 5)
    if contradicted:
        assert odd not in found.records
        assert f"rows {odd.sizes['rows']:g}" in found.left_out[0]
        assert found.left_out[0].endswith("it is left out")


def test_what_no_device_does_is_left_out_even_alone() -> None:
    """4e17 FLOP/s became the peak of a machine."""
    found = sound([product(1024.0, 5e-9)])
    assert found.records == ()
    assert "4.29e+17 FLOP/s is faster than any device" in found.left_out[0]


def test_records_of_another_phase_contradict_nothing() -> None:
    """Only what differs in size alone is held against each other."""
    slow = product(32.0, 1.0, phase="data_gradient")
    assert sound([*PRODUCTS, slow]).left_out == ()
    assert len(sound([*PRODUCTS, product(32.0, FASTER * PRODUCTS[0].seconds * 1.1)]).left_out) == 1


@pytest.mark.parametrize(
    "numbers", [{"spread": float("nan")}, {"repeats": 0}, {"sizes": {"rows": 1e300, "columns": 1, "inner": 1}}]
)
def test_numbers_that_no_record_has_are_refused(numbers: dict[str, object]) -> None:
    """By their key."""
    with pytest.raises(InputError, match=f"^{next(iter(numbers))}"):
        replace(PRODUCTS[0], **numbers)  # type: ignore[arg-type]
