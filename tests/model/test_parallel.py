"""A model on several ranks trains like the same model on one: six steps have the same losses and norms of the gradients.

Tolerances are relative. In fp32 nothing but the order of additions differs. In bf16 every sum over ranks is rounded once more,
to 8 bits: 0.4 % of a number, less of a mean over many.
"""

from __future__ import annotations

import pytest

from tests.model.cases import BY_RANKS, ON_ONE_RANK, Case
from tests.model.conftest import Outcomes

pytestmark = [pytest.mark.slow, pytest.mark.ranks]

LOSS = {"fp32": 1e-4, "bf16": 2e-3}
EXACT = 1e-5  # before any step of the optimizer
NORM = {"fp32": 1e-4, "bf16": 2e-2}
FALLS_BY = 0.3  # in six steps, of about 4.5 at first

EVERY_CASE = [
    pytest.param(ranks, case, id=f"{ranks} ranks: {case.name}") for ranks, cases in BY_RANKS.items() for case in cases
]
ON_SEVERAL_RANKS = [each for each in EVERY_CASE if each.values[0] != 1]
PIPELINES_ALONE = [
    pytest.param(ranks, case, id=f"{ranks} ranks: {case.name}")
    for ranks, cases in BY_RANKS.items()
    for case in cases
    if ranks == case.layout.pipeline_parallel > 1
]
REFERENCES = {(case.model.name, case.layout.precision, case.balanced): case.name for case in ON_ONE_RANK}


@pytest.mark.parametrize(("ranks", "case"), EVERY_CASE)
def test_losses_are_those_of_one_rank(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """And of one way to run it there: no recompute, micro-batches of two."""
    (alone,), precision = outcomes.of(1), case.layout.precision
    expected, found = alone[REFERENCES[case.model.name, precision, case.balanced]], outcomes.of(ranks)[0][case.name]
    assert found["losses"] == pytest.approx(expected["losses"], rel=LOSS[precision])
    assert found["norms"] == pytest.approx(expected["norms"], rel=NORM[precision])
    assert found["losses"][-1] < found["losses"][0] - FALLS_BY


@pytest.mark.parametrize("case", ON_ONE_RANK, ids=lambda case: case.name)
def test_gradients_are_clipped_in_some_steps_and_not_in_all(outcomes: Outcomes, case: Case) -> None:
    """Adam does not see the scale of gradients: only where clipping sets in would losses show a wrong norm."""
    norms = outcomes.of(1)[0][case.name]["norms"]
    assert max(norms) > 1.0 > min(norms) or min(norms) > 1.0


@pytest.mark.parametrize(("ranks", "case"), ON_SEVERAL_RANKS)
def test_what_every_rank_holds_whole_stays_the_same(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """Norms, row-parallel biases and learned positions of a pipeline stage: bit for bit, after all steps."""
    held = {(case.stage_of(rank), found[case.name]["held_whole"]) for rank, found in enumerate(outcomes.of(ranks))}
    assert len(held) == case.layout.pipeline_parallel


@pytest.mark.parametrize(("ranks", "case"), PIPELINES_ALONE)
def test_gradients_of_a_pipeline_are_those_without(outcomes: Outcomes, ranks: int, case: Case) -> None:
    """Of every parameter of every stage, and each is on one of them; copies of tied embeddings have the gradient of both."""
    (alone,) = outcomes.of(1)
    expected = alone[REFERENCES[case.model.name, case.layout.precision, case.balanced]]
    found = [each[case.name] for each in outcomes.of(ranks)]
    stages = [each["gradients"] for each in found]
    assert {"head.weight"} | set().union(*stages) == {"head.weight"} | set(expected["gradients"])
    assert found[0]["losses"][0] == pytest.approx(expected["losses"][0], rel=EXACT)
    for name, pair in ((name, pair) for stage in stages for name, pair in stage.items()):
        size, weighed = expected["gradients"].get(name, expected["gradients"]["embedding.weight"])
        assert pair == pytest.approx((size, weighed), rel=EXACT, abs=EXACT * size)


def test_recompute_changes_nothing_at_all(outcomes: Outcomes) -> None:
    """What is formed again is what was dropped, bit for bit, whatever is run again."""
    (alone,) = outcomes.of(1)
    ways = [case for case in BY_RANKS[1] if case.name.startswith("nemotron, fp32") and case.layout.micro_batch_size == 2]
    assert {case.layout.recompute for case in ways} == {"none", "selective", "full"}
    assert len({tuple(alone[case.name]["losses"]) for case in ways}) == 1
