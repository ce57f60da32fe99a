"""What do collectives that work on copies of their payload add to the peak?"""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.fields import Numeric
from tests.setups import setup_of

SETTINGS = ("stack=reference", "tensor_parallel=1", "micro_batch_size=1")


def scratch_bytes(share: Numeric, *settings: str) -> np.ndarray:
    """Of one GPU, where a reduce-scatter allocates `share` of its payload."""
    run = read_candidates("nemotron-4-15b", (*SETTINGS, *settings))[0].run
    layout = run.layout(run.stages[0])
    work = iteration(setup_of(run.model, layout, run.stack))
    return np.asarray(memory_bytes(work, scratch={"reduce_scatter": share}).scratch_bytes)


def test_scratch_counts_beyond_what_the_passes_had() -> None:
    """Activations and logits are free when the gradients are reduced: max(share * 4 P - activations - loss, 0)."""
    run = read_candidates("nemotron-4-15b", SETTINGS)[0].run
    layout = run.layout(run.stages[0])
    memory = memory_bytes(iteration(setup_of(run.model, layout, run.stack)))
    gradients, passes = float(memory.gradients_bytes), float(memory.activations_bytes + memory.loss_bytes)
    assert gradients > passes
    assert float(scratch_bytes(1.0)) == pytest.approx(gradients - passes)
    assert float(scratch_bytes(0.5 * passes / gradients)) == 0.0


def test_without_scratch_or_another_rank_there_is_none() -> None:
    """NCCL's collectives work in place; a group of one calls nothing."""
    alone = "stages=[{data_parallel: 1, global_batch_size: 4}]"
    assert float(scratch_bytes(0.0)) == float(scratch_bytes(1.0, alone)) == 0.0


def test_many_shares_are_one_call() -> None:
    """An array of them gives an array."""
    assert scratch_bytes(np.array([0.0, 1.0, 2.0])).shape == (3,)
    assert np.all(np.diff(scratch_bytes(np.array([1.0, 2.0, 3.0]))) > 0)
