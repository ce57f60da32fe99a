"""Variations of mixtures of experts: their mesh shares the GPUs that layouts around a run have."""

from __future__ import annotations

from perfmodel.exchange.run_files import read_candidates
from perfmodel.variation.layout_map import layout_map
from tests.mixtures import DEEPSEEK, candidate


def test_experts_take_no_gpus_of_a_layout_map() -> None:
    """All layouts of it have the 256 GPUs of the run, whose own is among them."""
    found = layout_map(candidate("virtual_pipeline=1").run)
    assert found.gpus == 256
    assert {row["gpus"] for row in found.rows()} == {256}
    assert found.here in {(each.tensor_parallel, each.data_parallel) for each in found.neighbours}


def test_as_many_gpus_are_kept_whatever_experts_are_spread_over() -> None:
    """Data parallelism gives nothing for them."""
    run = read_candidates(DEEPSEEK, ["expert_parallel=32"], gpus=[256])[0].run
    assert float(run.layout(run.stages[0]).gpus) == 256
    assert float(run.stages[0].data_parallel) == 64
