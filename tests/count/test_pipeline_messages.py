"""What pipeline stages hand to each other: how often, how many bytes, between which GPUs.

Symbols: b micro_batch_size, s sequence_length, h hidden_size, t tensor_parallel, c context_parallel, p stages of v pieces.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.count.pipeline import PipelineStage, pipeline_split
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.stack import SoftwareStack
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
TIED = model_preset("gpt-3-175b")
WHOLE = stack_with(
    stack_preset("megatron-core"),
    {
        "overlap.scatter_gather_pipeline": False,
        "states.gradient_bytes": 4,
        "states.optimizer_bytes": 12,
        "states.parameter_bytes": 2,
    },
)
SLICED = stack_with(WHOLE, {"overlap.scatter_gather_pipeline": True})
LAYOUT = replace(RAMP_STAGE, micro_batch_size=2, global_batch_size=96 * 64, pipeline_parallel=4)
STREAM_BYTES = 2 * 4096 * 4096 * 2  # b * s * h numbers of 2 bytes


def work_of(stack: SoftwareStack = WHOLE, **changes: Any) -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(MODEL, replace(LAYOUT, **changes), stack))


def messages(work: Iteration) -> list[tuple[str, str, float]]:
    """Kind, phase and payload of what passes from one piece to the next, and back."""
    calls = [op for op in work.boundary.operators if isinstance(op, Collective)]
    return [(op.kind, op.phase, float(op.payload_bytes)) for op in calls]


@pytest.mark.parametrize(("sequence_parallel", "share"), [(True, 8), (False, 1)])
@pytest.mark.parametrize("context", [1, 4])
def test_a_stage_hands_on_the_stream_and_gets_its_gradient_back(context: int, share: int, *, sequence_parallel: bool) -> None:
    """Each rank what it holds of b*s*h/c numbers of 2 bytes: a t-th of it under sequence parallelism."""
    each = STREAM_BYTES / context / share
    found = messages(work_of(sequence_parallel=sequence_parallel, context_parallel=context))
    assert found == [("point_to_point", FORWARD, each), ("point_to_point", DATA_GRADIENT, each)]


def test_ranks_that_hold_the_same_may_send_a_slice_each() -> None:
    """arXiv:2104.04473, section 4.1: a t-th of the bytes between nodes, and an all-gather inside."""
    sliced = [("point_to_point", STREAM_BYTES / 8), ("all_gather", STREAM_BYTES)]
    found = messages(work_of(SLICED, sequence_parallel=False))
    assert found == [(kind, phase, payload) for phase in (FORWARD, DATA_GRADIENT) for kind, payload in sliced]
    assert messages(work_of(SLICED)) == messages(work_of(WHOLE))  # sequence parallelism has slices as they are


@pytest.mark.parametrize(("stages", "virtual", "boundaries"), [(1, 1, 0), (2, 1, 1), (4, 1, 3), (4, 8, 31), (2, 16, 31)])
def test_pieces_have_boundaries_between_them(stages: int, virtual: int, boundaries: int) -> None:
    """P*v - 1 of them, each passed once forwards and once backwards by every micro-batch."""
    work = work_of(pipeline_parallel=stages, virtual_pipeline=virtual)
    assert work.boundaries == boundaries
    sent = [times for op, times in work.executions() if op.name.startswith("pipeline.")]
    assert sent == ([boundaries * 32] * 2 if boundaries else [])


def test_stages_are_the_outermost_axis() -> None:
    """A stage's neighbour is t*c*d GPUs away."""
    groups = {op.group for op in work_of(context_parallel=2).boundary.operators if isinstance(op, Collective)}
    assert [(group.name, group.ranks, group.stride) for group in groups] == [("pipeline_parallel", 4, 8 * 2 * 96)]


@pytest.mark.parametrize(("stages", "tied", "ranks"), [(4, True, 2), (1, True, 1), (4, False, 1)])
def test_copies_of_tied_embeddings_add_up_their_gradients(stages: int, tied: bool, ranks: int) -> None:
    """V*h/t of them, over the first stage and the last: once an iteration."""
    model = replace(TIED, tied_embeddings=tied, max_positions=4096)
    operators = iteration(setup_of(model, replace(LAYOUT, pipeline_parallel=stages), WHOLE)).synchronisation
    (found,) = [op for op in operators if op.name == "optimizer.embedding_gradients.all_reduce"]
    assert isinstance(found, Collective)
    assert found.group.ranks == ranks
    assert found.payload_bytes == model.padded_vocab_size(8) * 12288 / 8 * 4
    assert (found.wire_bytes > 0) == (ranks > 1)


@pytest.mark.parametrize("stages", [1, 2, 4])
def test_only_the_ends_of_a_pipeline_add_up_tied_embeddings(stages: int) -> None:
    """The stage of the embedding and that of the head: those between hold none of it."""
    work = iteration(setup_of(replace(TIED, max_positions=4096), replace(LAYOUT, pipeline_parallel=stages), WHOLE))
    adding = ["optimizer.embedding_gradients.all_reduce" in names_in(work, stage) for stage in work.every_stage]
    assert adding == [stage in (0, stages - 1) for stage in range(stages)]


def names_in(work: Iteration, stage: PipelineStage) -> set[str]:
    """The operators that a stage runs."""
    return {operator.name for operator, _ in work.stage_executions(stage)}


def test_the_optimizer_steps_the_parameters_of_the_fullest_stage() -> None:
    """With untied embeddings the ends hold more than those between: the last, with a norm, decides."""
    layout = replace(LAYOUT, sharding="none")
    stages = pipeline_split(setup_of(MODEL, layout, WHOLE)).stages
    held = [stage.parameters.total for stage in stages]
    (adam,) = [op for op in iteration(setup_of(MODEL, layout, WHOLE)).synchronisation if op.name == "optimizer.adam"]
    assert isinstance(adam, MemoryBound)
    assert held[1] < held[0] < held[2]
    assert adam.moved_bytes == held[2] * (4 + 2 * 12 + 2)  # a gradient, the states twice, a parameter


def test_arrays_of_stages_send_what_each_sends() -> None:
    """Boundaries and payloads of an array of pipelines."""
    stages = np.array([1, 2, 8])
    together = work_of(pipeline_parallel=stages, virtual_pipeline=np.array([1, 4, 4]))
    assert np.array_equal(np.asarray(together.boundaries), [0, 7, 31])
    alone = [work_of(pipeline_parallel=int(each)).boundary.forward[0] for each in stages]
    send = together.boundary.forward[0]
    assert isinstance(send, Collective)
    for index, each in enumerate(alone):
        assert isinstance(each, Collective)
        assert np.broadcast_to(send.payload_bytes, (3,))[index] == each.payload_bytes
        assert np.broadcast_to(send.group.ranks, (3,))[index] == each.group.ranks
