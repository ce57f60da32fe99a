"""Do operators of a pass lie where the overlap of their collectives says, and last as long as it adds up to?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.count.operators import Collective, Matmul
from perfmodel.events.pass_spans import LaidOutPass, laid, weight_gradients
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.timing.timed_operators import TimedOperator

GROUP = ProcessGroup(name="tensor_parallel", ranks=4, stride=1)


def kernel(name: str, seconds: float, phase: str = "forward") -> TimedOperator:
    """A product that takes so long."""
    return TimedOperator(operator=Matmul(name=name, phase=phase, rows=1, columns=1, inner=1, precision="bf16"), free_s=seconds)


def call(
    name: str, seconds: float, exposed: float, slowdown: float = 0.0, *, beside: str, chunks: bool = False
) -> TimedOperator:
    """A collective beside a product."""
    operator = Collective(
        name=name, kind="all_gather", payload_bytes=1.0, group=GROUP, partner=(beside, "forward"), pipelined=chunks
    )
    hidden = seconds - exposed
    return TimedOperator(operator=operator, free_s=seconds, hidden_s=hidden, sm_fraction=slowdown / hidden if hidden else 0.0)


def times(found: LaidOutPass) -> dict[str, tuple[float, float]]:
    """Start and end of each operator."""
    return {span.timed.operator.name: (span.start_s, span.end_s) for span in found.operators}


def test_kernels_follow_one_another() -> None:
    """Without collectives."""
    found = laid([kernel("a", 1.0), kernel("b", 2.0)])
    assert times(found) == {"a": (0.0, 1.0), "b": (1.0, 3.0)}
    assert (found.duration_s, found.waits) == (3.0, ())


def test_a_collective_with_nothing_beside_it_holds_all_kernels_up() -> None:
    """As long as it takes."""
    found = laid([kernel("a", 1.0), call("gather", 2.0, 2.0, beside=""), kernel("b", 1.0)])
    assert times(found) == {"a": (0.0, 1.0), "gather": (1.0, 3.0), "b": (3.0, 4.0)}
    assert [(wait.call.name, wait.start_s, wait.end_s) for wait in found.waits] == [("gather", 1.0, 3.0)]


def test_in_chunks_before_its_product_the_first_chunk_is_exposed() -> None:
    """The rest lies beside the product, which lasts longer by what the collective takes from it."""
    found = laid([call("gather", 2.0, 0.5, 0.25, beside="fc1", chunks=True), kernel("fc1", 4.0)])
    assert times(found) == {"gather": (0.0, 2.0), "fc1": (0.5, 4.75)}


def test_in_chunks_after_its_product_the_last_chunk_is_exposed() -> None:
    """The collective ends with what is exposed."""
    found = laid([kernel("fc2", 4.0), call("scatter", 2.0, 0.5, 0.25, beside="fc2", chunks=True)])
    assert times(found) == {"fc2": (0.0, 4.25), "scatter": (2.75, 4.75)}


@pytest.mark.parametrize(("seconds", "exposed", "ends"), [(2.0, 0.0, (2.0, 5.0)), (6.0, 2.0, (6.0, 7.0))])
def test_without_chunks_a_collective_begins_with_its_product(seconds: float, exposed: float, ends: tuple[float, float]) -> None:
    """What is longer than the product is exposed after it."""
    found = laid([call("reduce", seconds, exposed, beside="dw"), kernel("dw", 4.0), kernel("next", 1.0)])
    assert times(found)["reduce"] == (0.0, ends[0])
    assert times(found)["next"] == (ends[1] - 1.0, ends[1])


def test_beside_a_product_of_another_pass_what_follows_runs_and_is_slowed_down() -> None:
    """As in zero-bubble schedules, where weight gradients come later."""
    found = laid([kernel("dx", 2.0), call("reduce", 3.0, 1.0, 0.5, beside="dw"), kernel("norm", 1.0), kernel("dx2", 4.0)])
    assert times(found) == {"dx": (0.0, 2.0), "reduce": (2.0, 5.0), "norm": (3.0, 4.5), "dx2": (4.5, 8.5)}


def test_weight_gradients_are_apart_with_their_kernels_alone() -> None:
    """A collective of that phase belongs to the pass that needs its result."""
    gather = call("gather", 1.0, 0.0, beside="dx")
    gather = replace(gather, operator=replace(gather.operator, phase=WEIGHT_GRADIENT))
    both = [gather, kernel("dx", 1.0, DATA_GRADIENT), kernel("dw", 1.0, WEIGHT_GRADIENT)]
    assert [each.operator.name for each in weight_gradients(both, wanted=True)] == ["dw"]
    assert [each.operator.name for each in weight_gradients(both, wanted=False)] == ["gather", "dx"]


@given(
    st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 2.0), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.floats(1.0, 1.5),
)
def test_a_pass_takes_its_kernels_what_slows_them_down_and_what_is_exposed(
    pairs: list[tuple[float, float, bool, bool]], stretch: float
) -> None:
    """Whatever hides behind what; no two kernels overlap."""
    timed: list[TimedOperator] = []
    for place, (kernel_s, call_s, chunks, before) in enumerate(pairs):
        hidden_s = min(call_s, kernel_s / 0.9) * (0.75 if chunks else 1.0)
        beside = call(f"c{place}", call_s, call_s - hidden_s, 0.1 * hidden_s, beside=f"k{place}", chunks=chunks)
        pair = [beside, kernel(f"k{place}", kernel_s)]
        timed += pair if before else pair[::-1]
    found = laid(timed, stretch)
    sums = sum(
        float(each.exposed_s + each.slowdown_s) + (0.0 if isinstance(each.operator, Collective) else each.alone_s * stretch)
        for each in timed
    )
    assert found.duration_s == pytest.approx(sums, rel=1e-12)
    kernels = sorted(span[1:3] for span in found.operators if not isinstance(span.timed.operator, Collective))
    waits = sorted((wait.start_s, wait.end_s) for wait in found.waits)
    busy = sorted([*kernels, *waits])
    assert all(one[1] <= other[0] for one, other in pairwise(busy))
    assert sum(end - start for start, end in busy) == pytest.approx(found.duration_s, rel=1e-12)  # with no gap between them
