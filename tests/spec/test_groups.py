"""Which GPUs communicate: do the groups of every axis have the right ranks, that far apart, and each GPU a place in one?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from perfmodel.spec.layout import (
    Layout,
    ProcessGroup,
    context_parallel_group,
    data_parallel_group,
    pipeline_parallel_group,
    replica_group,
    shard_group,
    tensor_parallel_group,
    vocabulary_group,
    world_group,
)
from tests.layouts import RAMP_STAGE

EVERY_AXIS = replace(
    RAMP_STAGE,
    tensor_parallel=2,
    context_parallel=3,
    data_parallel=12,
    pipeline_parallel=5,
    sharding="hsdp",
    data_parallel_replicas=4,
    global_batch_size=384,
    micro_batch_size=2,
    sequence_length=6144,
)


def members(group: ProcessGroup) -> list[int]:
    """The group of GPU 0."""
    return [int(group.stride) * rank for rank in range(int(group.ranks))]


def test_groups_are_told_by_ranks_and_stride() -> None:
    """Tensor-parallel ranks are neighbours; data-parallel ones are a tensor-parallel group apart."""
    groups = tensor_parallel_group(RAMP_STAGE), data_parallel_group(RAMP_STAGE), world_group(RAMP_STAGE)
    assert [(group.ranks, group.stride) for group in groups] == [(8, 1), (96, 8), (768, 1)]


@pytest.mark.parametrize(
    ("group_of", "ranks", "stride"),
    [
        (tensor_parallel_group, 2, 1),
        (context_parallel_group, 3, 2),
        (data_parallel_group, 12 * 3, 2),  # the ranks of a sequence hold the same parameters
        (shard_group, 9, 2),
        (replica_group, 4, 2 * 9),
        (pipeline_parallel_group, 5, 2 * 3 * 12),
        (world_group, 2 * 3 * 12 * 5, 1),
    ],
)
def test_axes_lie_inside_each_other(group_of: Callable[[Layout], ProcessGroup], ranks: int, stride: int) -> None:
    """Tensor, context, data, pipeline: from neighbours to the farthest."""
    group = group_of(EVERY_AXIS)
    assert (group.ranks, group.stride) == (ranks, stride)


def test_the_groups_of_all_axes_reach_every_gpu_once() -> None:
    """A step along each of them, and no two ways to the same GPU."""
    axes = tensor_parallel_group, shard_group, replica_group, pipeline_parallel_group
    reached = [sum(steps) for steps in product(*(members(axis(EVERY_AXIS)) for axis in axes))]
    assert sorted(reached) == list(range(int(EVERY_AXIS.gpus)))


def test_shards_and_their_copies_make_the_data_parallel_group() -> None:
    """Context-parallel ranks among them."""
    both = [one + other for one, other in product(members(shard_group(EVERY_AXIS)), members(replica_group(EVERY_AXIS)))]
    assert sorted(both) == members(data_parallel_group(EVERY_AXIS))


@pytest.mark.parametrize(
    ("tied", "stages", "ranks", "stride"), [(True, 5, 2, 72 * 4), (True, 2, 2, 72), (False, 5, 1, 72 * 4), (True, 1, 1, 72)]
)
def test_two_copies_of_tied_embeddings_lie_on_the_ends_of_a_pipeline(tied: bool, stages: int, ranks: int, stride: int) -> None:
    """One where there is but one stage, or nothing is tied."""
    group = vocabulary_group(replace(EVERY_AXIS, pipeline_parallel=stages), tied=tied)
    assert (group.ranks, group.stride) == (ranks, stride)


def test_a_group_of_an_array_of_layouts_has_arrays() -> None:
    """Each as alone."""
    stages, context = np.array([[1], [4]]), np.array([1, 2, 4])
    layout = replace(RAMP_STAGE, pipeline_parallel=stages, context_parallel=context)
    for group_of in (context_parallel_group, data_parallel_group, pipeline_parallel_group, world_group):
        together = group_of(layout)
        for index in np.ndindex(2, 3):
            one = replace(RAMP_STAGE, pipeline_parallel=int(stages[index[0], 0]), context_parallel=int(context[index[1]]))
            for name in ("ranks", "stride"):
                assert np.broadcast_to(getattr(together, name), (2, 3))[index] == getattr(group_of(one), name)


def test_a_batch_is_shared_out_over_replicas_micro_batches_and_ranks_of_a_sequence() -> None:
    """384 sequences: 12 replicas, 16 micro-batches of 2 each; 2,048 of 6,144 tokens a rank; sequences are nobody's copies."""
    assert RAMP_STAGE.micro_batches == 4
    assert EVERY_AXIS.micro_batches == 16
    assert EVERY_AXIS.tokens_per_micro_batch == 2 * 2048
    assert EVERY_AXIS.tokens_per_iteration == 384 * 6144
    ranks_of_tokens = EVERY_AXIS.context_parallel * EVERY_AXIS.data_parallel
    assert EVERY_AXIS.tokens_per_micro_batch * EVERY_AXIS.micro_batches * ranks_of_tokens == EVERY_AXIS.tokens_per_iteration
