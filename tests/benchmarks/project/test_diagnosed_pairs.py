"""Are pairs of runs told by the one cause in which they differ?"""

from __future__ import annotations

import pytest

from perfmodel.benchmarks.project.diagnosed_pairs import cause_between, pairs, place_of, settings
from perfmodel.exchange.run_files import read_candidates


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        (["recompute=full"], "recompute"),
        (["stack.overlap.data_parallel=false"], "data-parallel overlap"),
        (["stack.fusion.softmax=false"], "other software"),
        (["stack=megatron-lm"], ""),
        (["recompute=full", "precision=fp8"], ""),
        (["tensor_parallel=4"], ""),
        (["name=another"], ""),
        ([], ""),
    ],
)
def test_a_pair_differs_in_one_cause(changes: list[str], cause: str) -> None:
    """Or it is none: other software brings its own overlap, and a degree is no cause."""
    one, other = (settings(read_candidates("nemotron-4-15b", each)[0].run) for each in ([], changes))
    assert cause_between(one, other) == cause


def test_the_time_of_fp8_is_that_of_precision() -> None:
    """The true cause of the first pair of the table comes first."""
    cause, described, measured = next(each for each in pairs() if each[0] == "precision")
    assert described.source == measured.source
    assert place_of(cause, described, measured) == 1
