"""Does context parallelism share the time of a sequence out, and hide its ring behind the kernels of the keys before?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
CLUSTER = cluster_preset("dgx-h100")
RING = stack_with(
    stack_preset("megatron-core"),
    {
        "overlap.context_parallel_exchange": "ring",
        "overlap.balanced_context_parallel": True,
        "fusion.attention_library": "fastest",
        "host.launch_s": 0.0,
        "host.unlisted_work": 1.0,
    },
)
GATHER = stack_with(RING, {"overlap.context_parallel_exchange": "all_gather"})
LAYOUT = replace(RAMP_STAGE, tensor_parallel=1, data_parallel=1, global_batch_size=4, sequence_length=131072)
RANKS = (2, 4, 8)


def parts(stack: SoftwareStack = RING, cluster: Cluster = CLUSTER, **changes: Any) -> Breakdown:
    """The breakdown of an iteration over sequences of 131,072 tokens."""
    return predict_stage(setup_of(MODEL, replace(LAYOUT, **changes), stack, cluster=cluster)).breakdown


def with_network(scale: float) -> Cluster:
    """Another rate of the network between nodes."""
    return replace(CLUSTER, network_scale=scale * CLUSTER.network_scale)


@pytest.mark.parametrize("context", RANKS)
def test_ranks_of_a_long_sequence_share_its_attention_out(context: int) -> None:
    """Each takes the c-th part of the time of one that has it all, but for how long and short kernels differ."""
    assert parts(context_parallel=context).attention_s * context == pytest.approx(parts().attention_s, rel=0.08)


@pytest.mark.parametrize("context", RANKS)
def test_linears_of_a_long_sequence_are_shared_out(context: int) -> None:
    """Products of an eighth of so many rows are as efficient."""
    assert parts(context_parallel=context).matmul_s * context == pytest.approx(parts().matmul_s, rel=0.03)


@pytest.mark.parametrize("context", RANKS)
def test_the_last_rank_of_an_unbalanced_sequence_has_nearly_twice_the_attention(context: int) -> None:
    """2 - 1/c times the pairs, and everybody waits."""
    unbalanced = parts(stack_with(RING, {"overlap.balanced_context_parallel": False}), context_parallel=context)
    assert unbalanced.attention_s / parts(context_parallel=context).attention_s == pytest.approx(2 - 1 / context, rel=0.05)


def test_one_rank_exchanges_nothing() -> None:
    """Whatever the exchange."""
    for stack in (RING, GATHER):
        assert parts(stack).context_parallel_exposed_s == 0
    assert parts(RING) == parts(GATHER)


@pytest.mark.parametrize("context", RANKS)
def test_the_ring_of_a_long_sequence_hides_behind_its_kernels(context: int) -> None:
    """Inside a node messages are far shorter than the kernels beside them; gathered, all of them are exposed."""
    ring, gather = (parts(stack, context_parallel=context).context_parallel_exposed_s for stack in (RING, GATHER))
    assert ring == 0 < gather


def test_a_ring_over_a_slow_network_is_exposed() -> None:
    """Where a message takes longer than the kernel beside it; the slower, the more."""
    found = [
        float(parts(cluster=with_network(scale), context_parallel=32).context_parallel_exposed_s)
        for scale in (1.0, 0.1, 0.01, 0.001)
    ]
    assert found == sorted(found)
    assert found[-1] > 5 * found[-2] > 0


def test_long_sequences_hide_a_ring_that_short_ones_expose() -> None:
    """Kernels grow with the square of the sequence, messages with its length."""
    short, long = (
        parts(cluster=with_network(0.3), sequence_length=length, context_parallel=16).context_parallel_exposed_s
        for length in (32768, 1048576)
    )
    assert short > 0 == long


@pytest.mark.parametrize("stack", [RING, GATHER], ids=["ring", "all-gather"])
def test_an_exchange_over_nodes_is_exposed_more_than_inside_one(stack: SoftwareStack) -> None:
    """With 8-way tensor parallelism ranks of a sequence have a node each."""
    inside, over = (
        float(parts(stack, with_network(0.02), tensor_parallel=t, context_parallel=8).context_parallel_exposed_s) * t
        for t in (1, 8)
    )
    assert over > inside


def test_what_hides_everything_hides_the_exchange() -> None:
    """As a bound."""
    for stack in (RING, GATHER):
        assert parts(stack_with(stack, {"overlap.hide_all": True}), context_parallel=8).context_parallel_exposed_s == 0


def test_messages_take_sms_from_the_kernels_beside_them() -> None:
    """The share that the links of a node take, while they run."""
    steady = replace(CLUSTER, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))  # else longer passes leave higher clocks
    stacks = [stack_with(RING, {"overlap.node_link_sm_fraction": each}) for each in (0.0, 0.2)]
    none, some = (parts(stack, steady, context_parallel=4) for stack in stacks)
    alone = parts(stack_with(RING, {"overlap.node_link_sm_fraction": 0.2}), context_parallel=1)
    assert none.communication_slowdown_s == alone.communication_slowdown_s == 0
    assert some.communication_slowdown_s > 0
    assert some.attention_s == none.attention_s


@pytest.mark.parametrize("stack", [RING, GATHER], ids=["ring", "all-gather"])
def test_more_ranks_take_less_time_for_a_sequence(stack: SoftwareStack) -> None:
    """Down to what does not shrink with it: the optimizer, and what ranks have to tell each other."""
    found = [float(parts(stack, context_parallel=context).total_s) for context in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)


def test_full_recompute_exchanges_a_third_more() -> None:
    """Gathers once more of what it gathers, gathers again and scatters."""
    none, full = (parts(GATHER, context_parallel=8, recompute=each).context_parallel_exposed_s for each in ("none", "full"))
    assert full / none == pytest.approx(4 / 3, rel=0.02)


def test_arrays_of_ranks_take_what_each_takes() -> None:
    """Two and more of them (one rank among others is in tests/count/test_context_parallel.py)."""
    context = np.array(RANKS)
    together = parts(context_parallel=context)
    for index, each in enumerate(RANKS):
        alone = parts(context_parallel=each)
        assert np.broadcast_to(together.total_s, (3,))[index] == alone.total_s
        assert np.broadcast_to(together.context_parallel_exposed_s, (3,))[index] == alone.context_parallel_exposed_s
