"""Does data parallelism hide what it may behind the passes of the first stage, and expose what it must?"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.count.data_parallel import Buckets
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import SHARDINGS, Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import PARTS, Breakdown
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.data_parallel import DataParallel, _buckets_behind, _last_share
from tests.layouts import RAMP_STAGE
from tests.setups import BACKWARD_GATHER, DATA_PARALLEL, GRADIENT_REDUCTION, PARAMETER_GATHER, REPLICA_REDUCTION, setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
CLUSTER = cluster_preset("dgx-h100")
STACK = stack_with(stack_preset("megatron-core"), {"overlap.data_parallel": True, "overlap.hide_all": False})
LAYOUT = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=64, global_batch_size=64 * 8)
EVERY_SHARDING = pytest.mark.parametrize("sharding", SHARDINGS)
GATHERED = pytest.mark.parametrize("sharding", ["zero3", "hsdp"])


def layout_of(sharding: str, **changes: Any) -> Layout:
    """64 replicas of two GPUs with eight sequences each; hsdp keeps two copies of its shards."""
    copies = {"data_parallel_replicas": 2} if sharding == "hsdp" else {}
    return replace(LAYOUT, sharding=sharding, **{**copies, **changes})


def calls_of(work: Iteration) -> list[Collective]:
    """The data-parallel collectives of an iteration."""
    return [op for op in work.synchronisation if isinstance(op, Collective) and op.name in DATA_PARALLEL]


def left(
    layout: Layout, stack: SoftwareStack = STACK, *, forward_s: float = 0.1, backward_s: float = 0.2, cluster: Cluster = CLUSTER
) -> Breakdown:
    """What is left exposed behind passes of the given length."""
    synchronised = DataParallel(work=iteration(setup_of(MODEL, layout, stack)), cluster=cluster, stack=stack)
    return synchronised.breakdown(forward_s=forward_s, backward_s=backward_s)


def exposed_s(layout: Layout, stack: SoftwareStack = STACK, **passes: Any) -> float:
    """Seconds of it that nothing hides."""
    return float(left(layout, stack, **passes).data_parallel_exposed_s)


def alone_s(call: Collective) -> float:
    """One call on its own."""
    return float(collective_time_s(call, cluster=CLUSTER))


def predicted(stack: SoftwareStack = STACK, **changes: Any) -> Breakdown:
    """The breakdown of a whole iteration."""
    return predict_stage(setup_of(MODEL, replace(LAYOUT, **changes), stack, cluster=CLUSTER)).breakdown


@EVERY_SHARDING
@pytest.mark.parametrize("stages", [1, 4])
def test_without_overlap_everything_is_exposed(sharding: str, stages: int) -> None:
    """Each call of each collective, one after the other; no product waits for SMs."""
    layout = layout_of(sharding, pipeline_parallel=stages)
    calls = calls_of(iteration(setup_of(MODEL, layout, STACK)))
    found = left(layout, stack_with(STACK, {"overlap.data_parallel": False}))
    assert found.data_parallel_exposed_s == pytest.approx(sum(float(op.repeats) * alone_s(op) for op in calls))
    assert found.communication_slowdown_s == 0


@pytest.mark.parametrize("sharding", ["none", "zero1"])
def test_a_blocking_zero1_hides_nothing(sharding: str) -> None:
    """However long the passes are; gradients of states that are not sharded still hide."""
    stack = stack_with(STACK, {"overlap.blocking_zero1": True})
    layout = layout_of(sharding)
    all_s = sum(float(op.repeats) * alone_s(op) for op in calls_of(iteration(setup_of(MODEL, layout, stack))))
    found = left(layout, stack, forward_s=1e3, backward_s=1e3)
    assert (found.data_parallel_exposed_s == pytest.approx(all_s)) == (sharding == "zero1")
    assert (found.communication_slowdown_s == 0) == (sharding == "zero1")


@EVERY_SHARDING
@pytest.mark.parametrize("seconds", [1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize("stages", [1, 4])
def test_overlap_exposes_at_most_everything(sharding: str, seconds: float, stages: int) -> None:
    """However short or long the passes are."""
    layout = layout_of(sharding, pipeline_parallel=stages)
    all_s = exposed_s(layout, stack_with(STACK, {"overlap.data_parallel": False}))
    assert 0 < exposed_s(layout, forward_s=seconds, backward_s=2 * seconds) <= all_s * (1 + 1e-12)


def last_s(layout: Layout, share: float) -> float:
    """What is left of every collective when its window is over: `share` of all it moves at once, and the first layer gathered.

    The layer that begins a pass waits for its own parameters (zero3, hsdp); the embeddings end the gradients, and begin the
    forward pass.
    """
    gathered = layout.sharding in ("zero3", "hsdp")
    seconds = 0.0
    for op in calls_of(iteration(setup_of(MODEL, layout, STACK))):
        once = layout.sharding in ("none", "zero1") or (layout.sharding == "zero2" and op.name == PARAMETER_GATHER)
        often = 1.0 if once else float(layout.micro_batches)
        if op.name != BACKWARD_GATHER:
            whole = op.payload_bytes * op.repeats / often
            seconds += often * alone_s(replace(op, payload_bytes=whole * share, repeats=1))
        if gathered and op.name in (PARAMETER_GATHER, BACKWARD_GATHER):
            seconds += often * alone_s(op)
    return seconds


@EVERY_SHARDING
@settings(deadline=None, max_examples=20)
@given(st.floats(1e-6, 1e3))
def test_never_less_than_the_last_bucket_is_exposed(sharding: str, seconds: float) -> None:
    """However long the passes are."""
    layout = layout_of(sharding)
    least_s = last_s(layout, float(iteration(setup_of(MODEL, layout, STACK)).buckets.uncut_share))
    assert exposed_s(layout, forward_s=seconds, backward_s=2 * seconds) >= least_s * (1 - 1e-12)


@EVERY_SHARDING
def test_endless_passes_hide_all_but_the_last(sharding: str) -> None:
    """The embeddings; of buckets that do not go layer by layer, half of one is with them on average."""
    layout = layout_of(sharding)
    bucket = iteration(setup_of(MODEL, layout, STACK)).buckets
    share = float(bucket.uncut_share + (0.0 if sharding in ("zero3", "hsdp") else bucket.share / 2))
    assert exposed_s(layout, forward_s=1e9, backward_s=1e9) == pytest.approx(last_s(layout, share), rel=1e-6)
    assert last_s(layout, share) < 0.6 * exposed_s(layout, stack_with(STACK, {"overlap.data_parallel": False}))


@EVERY_SHARDING
def test_longer_passes_hide_more(sharding: str) -> None:
    """Never less."""
    windows = np.geomspace(1e-3, 10.0, 30)
    found = [exposed_s(layout_of(sharding), forward_s=seconds, backward_s=2 * seconds) for seconds in windows]
    assert np.all(np.diff(found) <= 1e-12)


@EVERY_SHARDING
@pytest.mark.parametrize("overlap", [True, False])
def test_one_rank_has_nothing_to_move(sharding: str, overlap: bool) -> None:
    """Nor takes SMs for it."""
    alone = layout_of(sharding, data_parallel=1, data_parallel_replicas=1, global_batch_size=8)
    found = left(alone, stack_with(STACK, {"overlap.data_parallel": overlap}))
    assert [getattr(found, part) for part in PARTS] == [0] * len(PARTS)


@EVERY_SHARDING
def test_ranks_of_a_sequence_are_data_parallel_ranks(sharding: str) -> None:
    """One replica over several of them has gradients to add up; as many ranks expose as much."""
    several = layout_of(sharding, data_parallel=1, data_parallel_replicas=1, context_parallel=8, global_batch_size=8)
    assert exposed_s(several) > 0
    data, context = (
        layout_of(sharding, data_parallel=d, context_parallel=c, global_batch_size=8 * d) for d, c in ((64, 1), (8, 8))
    )
    assert exposed_s(data) == pytest.approx(exposed_s(context))


@EVERY_SHARDING
def test_a_bound_that_hides_everything_exposes_nothing(sharding: str) -> None:
    """And slows nothing down."""
    found = left(layout_of(sharding), stack_with(STACK, {"overlap.hide_all": True, "overlap.data_parallel": False}))
    assert [getattr(found, part) for part in PARTS] == [0] * len(PARTS)


@GATHERED
@pytest.mark.parametrize("overlap", [True, False])
def test_larger_micro_batches_gather_less_often(sharding: str, overlap: bool) -> None:
    """Of the same batch, and behind longer passes: twice the micro-batch, at most half of it exposed."""
    stack = stack_with(STACK, {"overlap.data_parallel": overlap})
    found = [float(predicted(stack, **changes_of(sharding, size)).data_parallel_exposed_s) for size in (1, 2, 4, 8)]
    assert all(later <= 0.5 * earlier * (1 + 1e-12) for earlier, later in pairwise(found))


def changes_of(sharding: str, micro_batch_size: int) -> dict[str, Any]:
    """A sharding and a micro-batch of the same batch."""
    return {
        "sharding": sharding,
        "data_parallel_replicas": 2 if sharding == "hsdp" else 1,
        "micro_batch_size": micro_batch_size,
    }


@GATHERED
def test_what_is_gathered_for_each_pass_is_exposed_for_each_micro_batch(sharding: str) -> None:
    """In proportion to their number, behind passes of the same length."""
    one, four = (exposed_s(layout_of(sharding, global_batch_size=64 * number)) for number in (1, 4))
    assert four == pytest.approx(4 * one)


@pytest.mark.parametrize("sharding", ["none", "zero1"])
def test_what_is_moved_once_is_exposed_once(sharding: str) -> None:
    """Whatever the number of micro-batches."""
    one, four = (exposed_s(layout_of(sharding, global_batch_size=64 * number)) for number in (1, 4))
    assert four == one


@EVERY_SHARDING
def test_a_pipeline_exposes_each_of_them_once(sharding: str) -> None:
    """Parameters stay gathered and gradients whole over the micro-batches."""
    one, four = (exposed_s(layout_of(sharding, pipeline_parallel=4, global_batch_size=64 * number)) for number in (1, 4))
    assert four == one


def test_more_sharding_exposes_more() -> None:
    """zero1, zero2, zero3: more is moved."""
    stack = stack_with(STACK, {"overlap.data_parallel": False})
    found = [exposed_s(layout_of(sharding), stack) for sharding in ("zero1", "zero2", "zero3")]
    assert found[0] < found[1] < found[2]


def test_copies_of_shards_gather_inside_their_nodes() -> None:
    """Four GPUs of a node, two apart: with the network a hundred times slower zero3 suffers more."""
    slow = replace(CLUSTER, network_scale=0.01 * CLUSTER.network_scale)
    stack = stack_with(STACK, {"overlap.data_parallel": False})
    hsdp = layout_of("hsdp", data_parallel_replicas=16)
    grown = [
        left(layout, stack, cluster=slow).data_parallel_exposed_s / left(layout, stack).data_parallel_exposed_s
        for layout in (hsdp, layout_of("zero3"))
    ]
    assert grown[0] < grown[1]


def test_reductions_over_copies_that_are_joined_wait_for_their_last_gradient() -> None:
    """Behind an endless pass a half of one and the embeddings, of one alone all; apart, the embeddings."""
    layout = layout_of("hsdp", data_parallel_replicas=8, global_batch_size=64)
    over: dict[float, Collective] = {}
    left_s: dict[float, float] = {}
    for most in (0.0, 5e8, 1e12):
        stack = stack_with(STACK, {"overlap.joined_reduction_bytes": most, "overlap.joined_reduction_bytes_per_copy": most})
        over[most] = next(op for op in calls_of(iteration(setup_of(MODEL, layout, stack))) if op.name == REPLICA_REDUCTION)
        left_s[most] = exposed_s(layout, stack, forward_s=1e9, backward_s=1e9) - left_s.get(0.0, 0.0)
    assert (over[5e8].repeats, over[1e12].repeats) == (3, 1)
    assert left_s[5e8] == pytest.approx(alone_s(over[5e8]) / 2, rel=0.02)
    all_s = alone_s(over[1e12])
    assert 0.85 * all_s < left_s[1e12] < all_s  # less the embeddings


@pytest.mark.parametrize("limits", [(1e9, 0.0), (0.0, 1e9), (1.0, 1.0)])
def test_reductions_over_copies_with_no_room_to_be_joined_are_left_apart(limits: tuple[float, float]) -> None:
    """Where one limit is zero, or no two buckets fit: exactly what software that joins none leaves exposed."""
    layout = layout_of("hsdp", data_parallel_replicas=8, global_batch_size=64)
    names = ("overlap.joined_reduction_bytes", "overlap.joined_reduction_bytes_per_copy")
    narrow, none = (stack_with(STACK, dict(zip(names, each, strict=True))) for each in (limits, (0.0, 0.0)))
    for pass_s in (1e-3, 0.1, 1e9):
        assert exposed_s(layout, narrow, forward_s=pass_s, backward_s=pass_s) == pytest.approx(
            exposed_s(layout, none, forward_s=pass_s, backward_s=pass_s)
        )


def test_fp32_gradients_expose_more_than_bf16_ones() -> None:
    """Twice the bytes to reduce; what they are held in does not travel."""
    wide, narrow, held = (
        exposed_s(layout_of("none"), stack_with(STACK, {"states.reduced_gradient_bytes": sent, "states.gradient_bytes": kept}))
        for sent, kept in ((4, 4), (2, 2), (2, 4))
    )
    assert wide > 1.3 * narrow
    assert held == narrow


@pytest.mark.parametrize("stages", [1, 4])
def test_larger_micro_batches_hide_more_of_the_data_parallel_traffic(stages: int) -> None:
    """Only one micro-batch's passes hide it."""
    exposed = [float(predicted(micro_batch_size=size, pipeline_parallel=stages).data_parallel_exposed_s) for size in (1, 2, 4)]
    assert exposed == sorted(exposed, reverse=True)


def test_unlisted_work_hides_more_of_the_data_parallel_traffic() -> None:
    """It lengthens the pass that gradients go behind."""
    exposed = [
        float(predicted(stack_with(STACK, {"host.unlisted_work": work})).data_parallel_exposed_s) for work in (1.0, 1.2, 2.0)
    ]
    assert exposed == sorted(exposed, reverse=True)


@pytest.mark.parametrize(
    ("window", "alone", "last", "number", "exposed"),
    [
        (1.0, 0.5, 0.1, 10, 0.1),  # all but the last bucket hides
        (1.0, 2.0, 0.2, 10, 1.1),  # the network never rests after the first bucket
        (1.0, 0.4, 0.4, 1, 0.4),  # one bucket cannot hide
        (0.0, 0.3, 0.1, 4, 0.3),  # nothing to hide behind
    ],
)
def test_buckets_hide_behind_their_window(window: float, alone: float, last: float, number: int, exposed: float) -> None:
    """max(last, C + W/N - W) is exposed."""
    found = _buckets_behind(window, alone, last, number=number, fraction=0.0)
    assert found.data_parallel_exposed_s == pytest.approx(exposed)


EMBEDDING = 0.1  # share of the parameters that end the last bucket


def simulated_exposed_s(size: float, network_s: float) -> float:
    """Buckets of `size` become ready over a window of 1 s and are sent one after the other, the embedding with the last."""
    layers, free_s, sent = 1.0 - EMBEDDING, 0.0, 0.0
    while sent + size < layers:
        free_s = max(free_s, (sent + size) / layers) + size * network_s
        sent += size
    return max(free_s, 1.0) + (1.0 - sent) * network_s - 1.0


def predicted_exposed_s(size: float, network_s: float) -> float:
    """The closed form of the same."""
    share = _last_share(Buckets(count=1 / size, share=size, uncut_share=EMBEDDING, of_experts=1), network_s, 1.0)
    return float(_buckets_behind(1.0, network_s, share * network_s, number=1 / size, fraction=0.0).data_parallel_exposed_s)


@pytest.mark.parametrize("network_s", [0.1, 0.5, 0.9, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("number", [50, 20, 6])
def test_the_exposed_time_is_that_of_simulated_buckets(network_s: float, number: int) -> None:
    """On average over where the last cut falls; with a network from ten times faster to three times slower than the window."""
    sizes = (1.0 - EMBEDDING) / (number + np.arange(0.05, 1.0, 0.1))
    simulated, closed = (
        np.mean([exposed(size, network_s) for size in sizes]) for exposed in (simulated_exposed_s, predicted_exposed_s)
    )
    assert closed == pytest.approx(simulated, abs=0.02)


def test_a_collective_slows_the_product_that_hides_it() -> None:
    """By its share of the SMs while it runs."""
    found = _buckets_behind(1.0, 0.5, 0.1, number=10, fraction=0.1)
    assert found.communication_slowdown_s == pytest.approx(0.05)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_a_pass_beside_longer_traffic_stretches_by_the_sms_it_lost(fraction: float) -> None:
    """It takes W / (1 - f), all of which is hidden."""
    found = _buckets_behind(1.0, 10.0, 0.1, number=10, fraction=fraction)
    assert found.communication_slowdown_s == pytest.approx(fraction / (1 - fraction))
    assert found.data_parallel_exposed_s == pytest.approx(
        10.0 + found.communication_slowdown_s / 10 + 0.1 - 1 / (1 - fraction), rel=0.02
    )


@pytest.mark.parametrize("network_s", [1.0, 3.0])
def test_a_network_as_slow_as_the_pass_has_a_whole_bucket_and_the_embeddings_left(network_s: float) -> None:
    """However much slower it is."""
    ten = Buckets(count=10, share=0.1, uncut_share=EMBEDDING, of_experts=1)
    assert _last_share(ten, network_s, 1.0) == pytest.approx(EMBEDDING + 0.1)


def test_in_a_pipeline_nothing_is_gathered_again() -> None:
    """Behind endless passes zero3 leaves the embeddings of both collectives and the first layer gathered, once."""
    layout = layout_of("zero3", pipeline_parallel=4)
    share = float(iteration(setup_of(MODEL, layout, STACK)).buckets.uncut_share)
    calls = {op.name: op for op in calls_of(iteration(setup_of(MODEL, layout, STACK)))}
    whole = {name: replace(op, payload_bytes=op.payload_bytes * op.repeats * share, repeats=1) for name, op in calls.items()}
    least_s = alone_s(whole[GRADIENT_REDUCTION]) + alone_s(whole[PARAMETER_GATHER]) + alone_s(calls[PARAMETER_GATHER])
    assert calls[BACKWARD_GATHER].repeats == 0
    assert exposed_s(layout, forward_s=1e9, backward_s=1e9) == pytest.approx(least_s, rel=1e-6)


def test_an_array_of_layouts_leaves_what_each_leaves() -> None:
    """Stages down, replicas across, one of which has nobody to talk to."""
    stages, data = np.array([[1], [4]]), np.array([1, 8, 64])
    sizes = {"pipeline_parallel": stages, "data_parallel": data, "global_batch_size": 8 * data}
    for sharding in ("none", "zero1", "zero2", "zero3"):
        together = left(layout_of(sharding, **sizes))
        for index in np.ndindex(2, 3):
            one = {name: int(np.broadcast_to(size, (2, 3))[index]) for name, size in sizes.items()}
            alone = left(layout_of(sharding, **one))
            for part in PARTS:
                assert np.broadcast_to(getattr(together, part), (2, 3))[index] == getattr(alone, part), part
