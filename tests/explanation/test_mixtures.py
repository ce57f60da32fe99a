"""What an explanation says of mixtures of experts: their messages, their moves and where their tokens go."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from perfmodel.explanation.expert_moves import UNEVEN, expert_candidates
from perfmodel.explanation.moves import Move, Moves, moves
from perfmodel.explanation.sensitivity import sensitivity
from perfmodel.explanation.terms import Term, term
from perfmodel.explanation.token_volumes import TokenVolume, token_volume
from perfmodel.explanation.waterfall import waterfall
from perfmodel.spec.setup import Setup
from tests.mixtures import candidate, predicted
from tests.search.layouts.layouts import predicted as dense

OVER_NODES = ("cluster=dgx-h100", "precision=bf16")
BESIDE = "stack.experts.overlap=passes"


def setup(*settings: str) -> Setup:
    """What the run is counted for."""
    run = candidate(*settings).run
    return run.setup(run.stages[0])


def expert_term(*settings: str) -> Term:
    """What stands behind the messages of experts."""
    run = candidate(*settings).run
    return term("expert_parallel", predicted(*settings), sensitivity(setup(*settings)), cluster=run.cluster, stack=run.stack)


def volume(*settings: str) -> TokenVolume:
    """Where the tokens of a rank go in a dispatch."""
    found = token_volume(expert_term(*settings).entries, candidate(*settings).run.cluster)
    assert found is not None
    return found


@cache
def moves_of(*settings: str) -> Moves:
    """All moves from the run."""
    return moves(predicted(*settings))


def move_to(key: str, after: Any, *settings: str) -> Move:
    """One move from the run, possible or not."""
    found = moves_of(*settings)
    return next(move for move in (*found.possible, *found.refused) if (move.key, move.after) == (key, after))


def test_a_waterfall_has_the_messages_of_experts() -> None:
    """A step of their own, of the average stage, that takes MFU."""
    run = candidate().run
    steps = {step.name: step.seconds for step in waterfall(predicted(), cluster=run.cluster, stack=run.stack).steps}
    assert 0 < steps["expert_parallel"] <= float(predicted().breakdown.expert_parallel_exposed_s)
    assert steps["expert_tensor_parallel"] == 0


def test_the_term_is_what_the_breakdown_has() -> None:
    """With dispatch and combine of both passes behind it."""
    found = expert_term()
    assert found.seconds == float(predicted().breakdown.expert_parallel_exposed_s)
    assert {str(entry.operator.role) for entry in found.entries} == {"dispatch", "combine"}
    assert found.numbers


def test_the_equations_of_a_term_are_those_of_its_dispatcher_and_overlap() -> None:
    """An exchange has its law over the network, and what meets what; messages beside passes what hides them."""
    exchange, plain = expert_term(*OVER_NODES, "stack.experts.dispatcher=deepep", BESIDE), expert_term()
    named = [{each.name.rpartition(".")[2] for each in some.equations} for some in (exchange, plain)]
    special = {"network_exchange_time_s", "ranks_met", "places_met", "hidden_beside_passes", "paired_share"}
    assert special <= named[0]
    assert not special & named[1]
    assert "expert_time_s" in named[0] & named[1]


def test_an_all_to_all_sends_a_copy_for_each_expert() -> None:
    """8 of each token, of which 63 in 64 leave the rank; 7168 numbers of 2 bytes in 4096 tokens."""
    found = volume()
    assert (found.once_bytes, found.copies) == (4096 * 7168 * 2, 8)
    assert found.sent_bytes == pytest.approx(8 * found.once_bytes * 63 / 64)
    assert found.network_bytes == 0


def test_an_exchange_sends_one_copy_over_the_network_for_each_node() -> None:
    """Tokens that keep to 4 groups of 8 meet 4 of 8 nodes: 7 in 8 of their copies leave for others."""
    found = volume(*OVER_NODES, "stack.experts.dispatcher=deepep")
    assert found.nodes == 8
    assert found.nodes_met == pytest.approx(4.0)
    assert found.network_bytes == pytest.approx(4.0 * found.once_bytes * 7 / 8)
    assert found.copies == found.ranks_met < 8


def test_ranks_that_gather_get_every_token() -> None:
    """Of a rank's tokens, 63 copies leave it."""
    found = volume("stack.experts.dispatcher=allgather")
    assert found.sent_bytes == pytest.approx(63 * found.once_bytes)


@pytest.mark.parametrize(
    ("key", "after", "settings"),
    [
        ("expert_parallel", 32, ["expert_parallel=32"]),
        ("expert_tensor_parallel", 2, ["expert_tensor_parallel=2"]),
        ("expert_load", UNEVEN, [f"expert_load={UNEVEN}"]),
        ("stack.experts.dispatcher", "deepep", ["stack.experts.dispatcher=deepep"]),
        ("stack.experts.overlap", "passes", [BESIDE]),
        ("recompute_modules", ("mla_up_proj", "moe_act"), ["recompute_modules=[mla_up_proj, moe_act]"]),
        ("recompute", "none", ["recompute=none", "recompute_modules=[]"]),
    ],
)
def test_a_move_is_the_run_that_set_makes(key: str, after: Any, settings: list[str]) -> None:
    """The mesh of experts leaves data parallelism as it is; how tokens travel is a setting of the software."""
    try_these = ["expert_parallel=32"] if key == "expert_tensor_parallel" else []
    move, there = move_to(key, after, *try_these), predicted(*try_these, *settings)
    assert move.predicted is not None
    assert move.predicted.iteration_time_s == there.iteration_time_s
    assert move.predicted.memory.total_bytes == there.memory.total_bytes


def test_more_ranks_than_a_pipeline_stage_has_share_no_experts() -> None:
    """64 GPUs hold what 128 ranks would."""
    assert "do not divide the 64 GPUs of a pipeline stage" in move_to("expert_parallel", 128).refusal


def test_a_load_that_is_uneven_is_tried_even() -> None:
    """From any factor back to 1."""
    assert move_to("expert_load", 1.0, "expert_load=1.4").time_change < 0


def test_a_dense_model_has_no_moves_of_experts() -> None:
    """Nothing is tried that it has not."""
    assert not list(expert_candidates(dense("dense").work.setup))


def test_modules_are_tried_where_they_run_something() -> None:
    """Mixtral has neither latent attention, shared experts nor dense layers."""
    mixtral = setup("model=mixtral-8x7b", "recompute=none", "recompute_modules=[]", "expert_parallel=8")
    tried = {name for key, names in expert_candidates(mixtral) if key == "recompute_modules" for name in names}
    assert tried == {"core_attn", "layernorm", "moe", "moe_act"}
