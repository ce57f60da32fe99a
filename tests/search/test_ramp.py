"""Is the chain of layouts over a ramp the fastest of all chains?"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.search.layouts.search import LayoutCandidate
from perfmodel.search.ramp import LayoutChain, fastest_chain


def candidate(tensor: int, seconds: float, batch: int = 8) -> LayoutCandidate:
    """A layout that its tensor-parallel degree tells from others, at one batch size."""
    settings = {"tensor_parallel": tensor, "pipeline_parallel": 1, "global_batch_size": batch}
    return LayoutCandidate(settings=settings, iteration_time_s=seconds, memory_bytes=1.0)


def degrees(chain: LayoutChain) -> list[int]:
    """The layout of each stage."""
    return [each.settings["tensor_parallel"] for each in chain.layouts]


def total_s(layouts: Sequence[LayoutCandidate], iterations: Sequence[float], switch_s: float) -> float:
    """What one chain takes."""
    training_s = sum(each.iteration_time_s * number for each, number in zip(layouts, iterations, strict=True))
    changes: int = sum(one.settings["tensor_parallel"] != other.settings["tensor_parallel"] for one, other in pairwise(layouts))
    return training_s + changes * switch_s


STAGE = st.dictionaries(st.integers(1, 5), st.integers(1, 20), min_size=1, max_size=4)


@given(
    stages=st.lists(st.tuples(STAGE, st.integers(0, 10)), min_size=1, max_size=5),
    switch_s=st.sampled_from([0.0, 1.0, 7.0, 30.0, 1e6]),
)
def test_no_chain_is_faster(stages: list[tuple[dict[int, int], int]], switch_s: float) -> None:
    """Of all: each layout of each stage with each of the others. Batches grow; that is no change of layout."""
    candidates = [
        [candidate(tensor, float(seconds), batch=8 * (place + 1)) for tensor, seconds in stage.items()]
        for place, (stage, _) in enumerate(stages)
    ]
    iterations = [float(number) for _, number in stages]
    chain = fastest_chain(candidates, iterations, switch_s=switch_s)
    assert chain.total_s(switch_s) == min(total_s(each, iterations, switch_s) for each in product(*candidates))
    assert chain.total_s(switch_s) == total_s(chain.layouts, iterations, switch_s)
    assert all(layout in stage for layout, stage in zip(chain.layouts, candidates, strict=True))


def test_one_stage_takes_its_fastest() -> None:
    """There is nothing to switch to."""
    chain = fastest_chain([[candidate(2, 3.0), candidate(4, 2.0), candidate(8, 2.5)]], [10.0], switch_s=100.0)
    assert (degrees(chain), chain.training_s, chain.switches) == ([4], 20.0, 0)


@pytest.mark.parametrize(("switch_s", "expected"), [(0.0, [2, 4, 2]), (9.0, [2, 4, 2]), (11.0, [2, 2, 2]), (1e9, [2, 2, 2])])
def test_a_faster_layout_is_worth_its_restarts_or_not(switch_s: float, expected: list[int]) -> None:
    """It saves 20 s in the middle stage, and takes two restarts."""
    slow, fast = candidate(2, 2.0), candidate(4, 1.0)
    apart = [[slow], [slow, fast], [slow]]
    assert degrees(fastest_chain(apart, [5.0, 20.0, 5.0], switch_s=switch_s)) == expected


def test_the_last_stages_may_decide_on_the_first() -> None:
    """A layout that is slower at first, but that the long end of the ramp needs."""
    stages = [[candidate(2, 1.0), candidate(8, 1.5)], [candidate(2, 3.0), candidate(8, 1.0)]]
    chain = fastest_chain(stages, [10.0, 1000.0], switch_s=60.0)
    assert (degrees(chain), chain.switches, chain.training_s) == ([8, 8], 0, 1015.0)


def test_layouts_that_no_other_stage_has_are_switched_to() -> None:
    """Where stages have nothing in common, every stage starts anew."""
    chain = fastest_chain([[candidate(each, 1.0)] for each in (1, 2, 4)], [1.0, 1.0, 1.0], switch_s=5.0)
    assert (chain.switches, chain.total_s(5.0)) == (2, 13.0)


def test_of_stages_that_last_no_time_the_faster_layout_is_taken() -> None:
    """Without tokens all chains are equally long: the last stage decides."""
    chain = fastest_chain([[candidate(2, 3.0), candidate(4, 2.0)]], [0.0], switch_s=0.0)
    assert degrees(chain) == [4]
