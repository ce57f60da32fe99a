"""Which of four words says how far an operator is from what was measured?"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.timing.confidence import WORDS, confidence, least_sure

TABLE = Evidence(basis="measured", sizes=MappingProxyType({"rows": (512.0, 1024.0, 4096.0), "ranks": (2.0, 8.0)}))


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        ({"rows": 512, "ranks": 8}, "measured"),
        ({"rows": 4096.0}, "measured"),
        ({"rows": 513, "ranks": 8}, "interpolated"),
        ({"rows": 1024, "ranks": 4}, "interpolated"),
        ({"rows": 511, "ranks": 8}, "extrapolated"),
        ({"rows": 4097}, "extrapolated"),
        ({"rows": 513, "ranks": 16}, "extrapolated"),  # one size outside is enough
        ({"rows": 512, "columns": 1e9}, "measured"),  # a size that the table does not have
        ({}, "measured"),
        ({"rows": np.array(513)}, "interpolated"),
    ],
)
def test_sizes_of_a_table_are_on_it_inside_or_beyond(sizes: dict[str, float], word: str) -> None:
    """Measured when every size is listed, interpolated when all lie inside, else extrapolated."""
    assert confidence(TABLE, sizes) == word


@pytest.mark.parametrize(("basis", "word"), [("datasheet", "datasheet"), ("transferred", "extrapolated")])
@given(rows=st.floats(1, 1e6))
def test_without_a_table_of_its_own_no_size_is_measured(basis: str, word: str, rows: float) -> None:
    """What another part was measured at, or a datasheet says, is as sure for every size."""
    assert confidence(Evidence(basis=basis, sizes=TABLE.sizes), {"rows": rows}) == word


def test_evidence_is_a_datasheet_unless_something_is_said() -> None:
    """Nothing is measured by default."""
    assert confidence(Evidence(), {"rows": 512}) == "datasheet"


@given(st.lists(st.sampled_from(WORDS), min_size=1))
def test_the_least_sure_word_is_the_last_of_the_four(words: list[str]) -> None:
    """Whatever the order they come in."""
    assert least_sure(words) == WORDS[max(WORDS.index(word) for word in words)] == least_sure(words[::-1])
