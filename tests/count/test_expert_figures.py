"""How many experts a GPU holds, and how many tokens each of them has."""

from __future__ import annotations

from perfmodel.count.parts.expert_figures import ExpertFigures, expert_figures
from perfmodel.prediction import StagePrediction
from tests.mixtures import predicted
from tests.search.layouts.layouts import predicted as dense


def figures(found: StagePrediction) -> ExpertFigures:
    """Of a prediction of a mixture."""
    known = expert_figures(found.work.setup)
    assert known is not None
    return known


def test_rows_of_an_expert_are_those_of_all_ranks_that_share_experts() -> None:
    """4096 tokens of 64 ranks, 8 copies of each, on 256 experts; half as many on half the ranks."""
    assert float(figures(predicted()).rows_of_an_expert) == 4096 * 64 * 8 / 256
    assert float(figures(predicted("expert_parallel=32")).rows_of_an_expert) == 4096 * 32 * 8 / 256


def test_a_gpu_holds_what_the_mesh_of_experts_leaves_it() -> None:
    """4 of 256 experts on each of 64 ranks, and the busiest of them has its load times the mean."""
    found = figures(predicted("expert_load=1.5"))
    assert float(found.experts_of_a_gpu) == 4
    assert float(found.busiest_rows) == 1.5 * float(found.rows_of_an_expert)


def test_a_dense_model_has_none() -> None:
    """No figures, and no section of them."""
    assert expert_figures(dense("dense").work.setup) is None


def test_no_rank_has_more_rows_than_all_ranks_together() -> None:
    """With 64 ranks a load of 100 is one of 64; a capacity of 1.25 drops what is beyond."""
    alone = figures(predicted("expert_load=100"))
    assert float(alone.busiest_rows) == 64 * float(alone.rows_of_an_expert)
    for load, rows in ((1.1, 1.1), (1.5, 1.25)):
        found = figures(predicted(f"expert_load={load}", "model.mixture.capacity_factor=1.25"))
        assert float(found.busiest_rows) == rows * float(found.rows_of_an_expert)


def test_ranks_that_share_each_expert_bring_their_tokens_too() -> None:
    """Twice the rows where two ranks have half of the columns of each; a rank holds as many."""
    alone, shared = (figures(predicted("expert_parallel=16", f"expert_tensor_parallel={ranks}")) for ranks in (1, 2))
    assert float(shared.rows_of_an_expert) == 2 * float(alone.rows_of_an_expert)
    assert float(shared.experts_of_a_gpu) == float(alone.experts_of_a_gpu) == 16
