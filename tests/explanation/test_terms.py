"""Does a term have the equation of the very code, all its operators, and the numbers that move it?"""

from __future__ import annotations

import inspect
from functools import cache

import pytest

from perfmodel.count.operators import Collective, Matmul
from perfmodel.errors import InputError
from perfmodel.exchange.presets import stack_preset
from perfmodel.explanation.sensitivity import Sensitivity, sensitivity
from perfmodel.explanation.terms import STEPS, TERMS, Term, term
from perfmodel.explanation.waterfall import STEPS as WATERFALL
from perfmodel.explanation.waterfall import waterfall
from perfmodel.timing.breakdown import OFFLOAD, PARTS
from perfmodel.timing.collectives import network_collective_time_s, node_collective_time_s
from perfmodel.timing.kernels import matmul_time_s
from tests.search.layouts.layouts import CLUSTER, LAYOUTS, MODEL, predicted
from tests.setups import setup_of

CORE = stack_preset("megatron-core")


@cache
def moved(layout: str) -> Sensitivity:
    """One layout under every lever."""
    return sensitivity(setup_of(MODEL, LAYOUTS[layout], CORE, cluster=CLUSTER))


def term_of(name: str, layout: str = "dense") -> Term:
    """One term of one layout."""
    return term(name, predicted(layout), moved(layout), cluster=CLUSTER, stack=CORE)


@pytest.mark.parametrize("layout", ["dense", "pipeline", "context", "full recompute"])
@pytest.mark.parametrize("name", TERMS)
def test_every_term_has_its_seconds_and_an_equation(name: str, layout: str) -> None:
    """As the breakdown has them; no examples in the text."""
    found = term_of(name, layout)
    if name != "recompute":
        assert found.seconds == getattr(predicted(layout).breakdown, TERMS[name].part)
    assert found.share == pytest.approx(found.seconds / float(predicted(layout).iteration_time_s))
    assert found.equations or not found.entries
    assert all(each.text and ">>>" not in each.text for each in found.equations)
    assert bool(found.numbers) == (found.seconds > 0)


def test_there_is_a_term_for_every_part_of_the_iteration() -> None:
    """And for what runs again, which is cut from several; every step of a waterfall leads to one."""
    assert {kind.part for kind in TERMS.values()} == {"", *PARTS} - {OFFLOAD}  # runs that wait for their host are not explained
    assert set(WATERFALL) <= set(TERMS) | set(STEPS)
    assert set(STEPS.values()) <= set(TERMS)


def test_equations_are_those_of_the_code() -> None:
    """Word for word, and what the module says of its symbols."""
    texts = {each.name: each.text for each in term_of("matmul").equations}
    documented = inspect.getdoc(matmul_time_s)
    assert documented is not None
    assert texts["perfmodel.timing.kernels.matmul_time_s"].startswith(documented.partition(">>>")[0].rstrip())
    assert sum(text.count("Symbols:") for text in texts.values()) == 1


@pytest.mark.parametrize(("layout", "crosses"), [("dense", False), ("context", True)])
def test_collectives_have_the_equation_of_the_links_that_they_cross(layout: str, crosses: bool) -> None:
    """Inside a node, or over nodes."""
    names = {
        each.name.rpartition(".")[2] for each in term_of("context_parallel" if crosses else "tensor_parallel", layout).equations
    }
    assert (network_collective_time_s.__name__ in names) == crosses
    assert (node_collective_time_s.__name__ in names) != crosses


def test_operators_make_up_a_term_that_nothing_hides() -> None:
    """Matrix products run one after the other; of collectives a part is hidden."""
    products, collectives = term_of("matmul"), term_of("tensor_parallel")
    assert all(isinstance(entry.operator, Matmul) for entry in products.entries)
    assert sum(float(entry.repeats * entry.seconds) for entry in products.entries) == pytest.approx(products.seconds)
    assert all(isinstance(entry.operator, Collective) for entry in collectives.entries)
    assert sum(float(entry.repeats * entry.seconds) for entry in collectives.entries) > collectives.seconds


def test_every_operator_of_the_passes_belongs_to_one_term() -> None:
    """None is forgotten, none is in two: recompute and slowed-down work apart, which are views of others."""
    names = [name for name in TERMS if name not in ("recompute", "communication_slowdown")]
    for layout in LAYOUTS:
        for operator, _ in predicted(layout).work.executions():
            assert len([name for name in names if TERMS[name].selects(operator)]) == 1, operator.name


def test_what_runs_again_is_that_of_the_waterfall() -> None:
    """On the average GPU."""
    fall = waterfall(predicted("fp8 pipeline"), cluster=CLUSTER, stack=CORE)
    again_s = next(step.seconds for step in fall.steps if step.name == "recompute")
    assert term_of("recompute", "fp8 pipeline").seconds == pytest.approx(again_s)


def test_numbers_behind_a_term_are_those_that_move_it() -> None:
    """NVLink and clocks behind exposed tensor parallelism, but nothing of the network; the largest first."""
    numbers = term_of("tensor_parallel").numbers
    paths = [each.path for each in numbers]
    assert "cluster.links.node.bandwidth_bytes_per_s" in paths
    assert not [path for path in paths if path.startswith("cluster.links.network")]
    assert len(paths) == len(set(paths))
    sizes = [abs(each.term_change) for each in numbers]
    assert sizes == sorted(sizes, reverse=True)
    bandwidth = next(each for each in numbers if each.path == "cluster.links.node.bandwidth_bytes_per_s")
    assert bandwidth.value == CLUSTER.links.node.bandwidth_bytes_per_s
    assert bandwidth.term_change < bandwidth.iteration_change < 0


def test_settings_that_decide_are_named() -> None:
    """Those of the layout and those of the stack."""
    assert dict(term_of("tensor_parallel").settings) == {
        "sequence_parallel": True,
        "stack.overlap.tensor_parallel": CORE.overlap.tensor_parallel,
    }


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("tensor-parallel", "tensor_parallel"),
        ("tensor_parallel_exposed_s", "tensor_parallel"),
        ("data_parallel_exposed", "data_parallel"),
        ("matmul_s", "matmul"),
        ("causal_mask", "attention"),
        ("uneven_stages", "pipeline_bubble"),
    ],
)
def test_a_term_is_known_by_its_names_elsewhere(written: str, name: str) -> None:
    """Of a breakdown, and of a step of the waterfall."""
    assert term_of(written).name == name


def test_an_unknown_term_gets_a_hint() -> None:
    """One sentence."""
    with pytest.raises(InputError, match=r"'tensor_paralel' is not a term .* did you mean tensor_parallel\?"):
        term_of("tensor_paralel")
    with pytest.raises(InputError, match="known: attention, communication_slowdown"):
        term_of("xyz")


def test_rows_are_the_numbers() -> None:
    """One a number."""
    assert [row["path"] for row in term_of("matmul").rows()] == [each.path for each in term_of("matmul").numbers]
