"""Does the schedule hide what it may, expose what it must, and add up?"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.count.data_parallel import GRADIENT_REDUCTION, PARAMETER_GATHER, Buckets
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.predict import predict_stage
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.data_parallel import _buckets_behind, _last_share
from tests.layouts import RAMP_STAGE

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
CORE = stack_preset("megatron-core")


def parts(stack: SoftwareStack = CORE, **changes: Any) -> Breakdown:
    """The breakdown of the first ramp stage, or of a changed one."""
    return predict_stage(MODEL, CLUSTER, stack, replace(RAMP_STAGE, **changes)).breakdown


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["megatron-core", "megatron-lm", "ideal"]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 8, 96]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from(["none", "selective", "full"]),
    st.booleans(),
    st.sampled_from([1.0, 1.1]),
)
def test_the_parts_sum_to_the_iteration(
    stack: str, tensor: int, data: int, micro: int, recompute: str, sequence_parallel: bool, unlisted_work: float
) -> None:
    """And none of them is negative, whatever the layout."""
    layout = replace(RAMP_STAGE, tensor_parallel=tensor, data_parallel=data, micro_batch_size=micro, global_batch_size=4 * data)
    layout = replace(layout, recompute=recompute, sequence_parallel=sequence_parallel)
    software = replace(stack_preset(stack), unlisted_work=unlisted_work)
    predicted = predict_stage(MODEL, CLUSTER, software, layout)
    values = [float(getattr(predicted.breakdown, part.name)) for part in fields(Breakdown)]
    assert sum(values) == pytest.approx(float(predicted.iteration_time_s), rel=1e-12)
    assert min(values) >= 0


def test_the_ideal_stack_exposes_nothing() -> None:
    """A bound: no communication, no lost SMs, no launches."""
    ideal = parts(stack_preset("ideal"))
    assert ideal.tensor_parallel_exposed_s == ideal.data_parallel_exposed_s == ideal.communication_slowdown_s == 0
    assert ideal.launch_s == 0


def test_no_parallelism_needs_no_communication() -> None:
    """One GPU."""
    alone = parts(tensor_parallel=1, data_parallel=1, global_batch_size=4)
    assert alone.tensor_parallel_exposed_s == alone.data_parallel_exposed_s == 0


def test_more_overlap_is_never_slower() -> None:
    """None, backward, pipelined, everything."""
    modes = [replace(CORE, tensor_parallel_overlap=mode) for mode in ("none", "backward", "pipelined")]
    times = [parts(stack).total_s for stack in [*modes, replace(CORE, hide_all=True)]]
    assert times == sorted(times, reverse=True)


def test_without_overlap_all_data_parallel_traffic_is_exposed() -> None:
    """And with it at least the last bucket is."""
    exposed = parts(replace(CORE, data_parallel_overlap=False)).data_parallel_exposed_s
    assert 0 < parts().data_parallel_exposed_s < exposed


def test_larger_micro_batches_hide_more_of_the_data_parallel_traffic() -> None:
    """Only one micro-batch's passes hide it."""
    exposed = [float(parts(micro_batch_size=size).data_parallel_exposed_s) for size in (1, 2, 4)]
    assert exposed == sorted(exposed, reverse=True)


def test_fp32_gradients_expose_more_than_bf16_ones() -> None:
    """Twice the bytes to reduce."""
    assert parts(replace(CORE, gradient_bytes=4)).data_parallel_exposed_s > 1.3 * parts().data_parallel_exposed_s


def test_a_slow_host_makes_a_small_micro_batch_wait() -> None:
    """A millisecond a kernel: the launches decide."""
    slow = parts(replace(CORE, host_s=1e-3))
    assert slow.launch_s > 0.5 * slow.total_s
    assert parts().launch_s == 0


@pytest.mark.parametrize("host_s", [6e-6, 1e-3])
def test_unlisted_work_is_a_share_of_both_passes(host_s: float) -> None:
    """(u - 1) times all that a pass takes, waiting for launches too; nothing of the optimizer, nothing at u = 1."""
    alone = {"data_parallel": 1, "global_batch_size": 4}  # else a longer pass hides more of the reduction
    listed, more = (parts(replace(CORE, host_s=host_s, unlisted_work=work), **alone) for work in (1.0, 1.25))
    assert listed.unlisted_s == 0
    assert more.unlisted_s == pytest.approx(0.25 * (listed.total_s - listed.optimizer_s))
    assert more.total_s - more.unlisted_s == pytest.approx(listed.total_s)
    assert more.optimizer_s == listed.optimizer_s


def test_unlisted_work_hides_more_of_the_data_parallel_traffic() -> None:
    """It lengthens the pass that gradients go behind."""
    exposed = [float(parts(replace(CORE, unlisted_work=work)).data_parallel_exposed_s) for work in (1.0, 1.2, 2.0)]
    assert exposed == sorted(exposed, reverse=True)


def test_gradients_that_are_added_by_kernels_of_their_own_take_longer() -> None:
    """Memory-bound work grows by them; products lose the factor of adding to fp32."""
    fused, apart = (parts(replace(CORE, gradient_bytes=4, fused_gradient_accumulation=each)) for each in (True, False))
    assert apart.memory_bound_s > fused.memory_bound_s
    assert apart.matmul_s < fused.matmul_s
    assert apart.attention_s == fused.attention_s


def test_tensor_parallelism_over_two_nodes_has_all_their_nics() -> None:
    """16 ranks: with one NIC a node instead of eight the exposed traffic is about eight times as long."""
    plain = replace(CORE, tensor_parallel_overlap="none")
    layout = replace(RAMP_STAGE, tensor_parallel=16, data_parallel=1, global_batch_size=4, micro_batch_size=4)
    all_nics, one_nic = (
        predict_stage(MODEL, replace(CLUSTER, nics_per_node=nics), plain, layout).breakdown.tensor_parallel_exposed_s
        for nics in (8, 1)
    )
    assert 5 < one_nic / all_nics < 8


def test_full_recompute_adds_about_a_third_of_the_layers_work() -> None:
    """The forward pass runs again: products, attention and collectives."""
    none, full = parts(), parts(recompute="full")
    assert 1.25 < full.matmul_s / none.matmul_s < 1.34
    assert full.tensor_parallel_exposed_s > none.tensor_parallel_exposed_s


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
    share = _last_share(Buckets(count=1 / size, share=size, uncut_share=EMBEDDING), network_s, 1.0)
    return float(_buckets_behind(1.0, network_s, share * network_s, number=1 / size, fraction=0.0).data_parallel_exposed_s)


@pytest.mark.parametrize("network_s", [0.1, 0.5, 0.9, 1.0, 1.5, 3.0])
@pytest.mark.parametrize("number", [50, 20, 6])
def test_the_exposed_time_is_that_of_simulated_buckets(network_s: float, number: int) -> None:
    """On average over where the last cut falls; with a network from ten times faster to three times slower than the window."""
    sizes = (1.0 - EMBEDDING) / (number + np.arange(0.05, 1.0, 0.1))
    simulated, predicted = (
        np.mean([exposed(size, network_s) for size in sizes]) for exposed in (simulated_exposed_s, predicted_exposed_s)
    )
    assert predicted == pytest.approx(simulated, abs=0.02)


def test_collectives_take_sms_by_the_links_they_cross() -> None:
    """Those of node links wherever a step stays in a node; those of the network where each rank has a node of its own."""
    inside = parts(tensor_parallel=1, data_parallel=8, global_batch_size=32)
    narrow = parts(replace(CORE, node_link_sm_fraction=0.0), tensor_parallel=1, data_parallel=8, global_batch_size=32)
    assert inside.communication_slowdown_s > narrow.communication_slowdown_s == 0
    both = parts(replace(CORE, network_sm_fraction=0.0), tensor_parallel=1, data_parallel=16, global_batch_size=64)
    assert both.communication_slowdown_s > 0
    whole = {"tensor_parallel": 8, "data_parallel": 2, "global_batch_size": 8}
    ring = [parts(replace(CORE, network_sm_fraction=share), **whole).communication_slowdown_s for share in (0.0, 0.1)]
    assert ring[0] < ring[1]


def test_a_collective_slows_the_product_that_hides_it() -> None:
    """By its share of the SMs while it runs."""
    found = _buckets_behind(1.0, 0.5, 0.1, number=10, fraction=0.1)
    assert found.communication_slowdown_s == pytest.approx(0.05)


def test_the_synchronisation_has_one_reduction_and_one_gather() -> None:
    """The names by which the schedule knows them."""
    from perfmodel.count.synchronisation import synchronisation_operators

    names = [operator.name for operator in synchronisation_operators(MODEL, RAMP_STAGE, CORE)]
    assert names.count(GRADIENT_REDUCTION) == names.count(PARAMETER_GATHER) == 1
