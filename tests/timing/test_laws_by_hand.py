"""Laws of kernels, collectives and what they are known by, at sizes for which a person can work them out."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound, places_met, ranks_met
from perfmodel.exchange.presets import cluster_preset, gpu_preset, stack_preset
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.timing.attention import attention_bytes, executed_flop, fused_attention_time_s, plain_attention_time_s
from perfmodel.timing.collectives import collective_time_s, network_efficiency, node_collective_time_s, placement
from perfmodel.timing.confidence import confidence
from perfmodel.timing.kernels import _unaligned_s, at_cluster_load, matmul_time_s, memory_bound_time_s
from perfmodel.timing.ledger import Entry, operator_confidence, seconds_by_confidence

H100, GB200 = cluster_preset("dgx-h100"), cluster_preset("gb200-nvl72")
CORE = stack_preset("megatron-core")
ATTENTION = FusedAttention(
    name="core", sequences=2, heads=6, kv_heads=3, head_size=64, value_size=32, query_length=8, key_length=8, precision="bf16"
)


@pytest.mark.parametrize(("window", "keys"), [(None, 4), (4, 3), (8, 4)])
def test_attention_computes_pairs_that_its_mask_leaves(window: int | None, keys: int) -> None:
    """2 * (d + v) FLOPs a pair forwards, 2 * (3*d + 2*v) backwards; 96 queries meet half of 8 keys, or 3 in a window of 4."""
    forward = replace(ATTENTION, window=window)
    assert executed_flop(forward) == 2 * (64 + 32) * 96 * keys
    assert executed_flop(replace(forward, phase=DATA_GRADIENT)) == 2 * (3 * 64 + 2 * 32) * 96 * keys
    assert executed_flop(replace(forward, window=None, causal=False)) == 2 * (64 + 32) * 96 * 8


@pytest.mark.parametrize(
    ("precision", "size", "wider"), [("bf16", 2, 0), ("fp32", 4, 0), ("fp8", 1, 1), ("mxfp8", 33 / 32, 31 / 32)]
)
def test_attention_moves_its_operands_once_and_its_output_in_16_bits(precision: str, size: float, wider: float) -> None:
    """Of two sequences 48 rows of queries and output, 24 of keys and values; all with their gradients twice."""
    bytes_once = 2 * (size * (48 + 24) * (64 + 32) + wider * 48 * 32)
    call = replace(ATTENTION, precision=precision)
    assert attention_bytes(call) == bytes_once
    assert attention_bytes(replace(call, phase=DATA_GRADIENT)) == 2 * bytes_once


BARE = {"fixed_s": 0.0, "exposed_load": 0.0, "growth": 0.0, "sequence_half": 0.0, "sequence_half_full": 0.0}


@pytest.mark.parametrize(("extra", "heads", "factor"), [(0, 66, 2.0), (1, 66, 1.0), (1, 99, 4 / 3), (1, 132, 1.0)])
def test_waves_are_of_whole_tiles(extra: int, heads: int, factor: float) -> None:
    """Of 132 multiprocessors: a row beyond a tile is another tile; 198 of them are a wave and a half."""
    gpu = gpu_preset("h100-sxm-80gb")
    law = gpu.attention("bf16", backward=False, library="fastest")
    rows = int(law.tile_rows) + extra
    call = replace(
        ATTENTION, sequences=1, heads=heads, kv_heads=heads, head_size=128, value_size=None, query_length=rows, causal=False
    )
    seconds = [
        float(plain_attention_time_s(call, with_numbers(law, BARE | {"wave_weight": weight}), gpu=gpu, compute_scale=1.0))
        for weight in (0.0, 1.0)
    ]
    assert seconds[1] / seconds[0] == pytest.approx(factor, rel=1e-12)


def test_long_attention_on_few_bits_is_as_much_slower_as_its_clocks() -> None:
    """Half of the clocks, twice the time, but for its start and what it loads."""
    call = replace(ATTENTION, heads=64, kv_heads=8, head_size=128, value_size=None, query_length=65536, key_length=65536)
    for precision in ("bf16", "fp8"):
        full, half = (
            float(fused_attention_time_s(replace(call, precision=precision), gpu=gpu_preset("gb300"), compute_scale=scale))
            for scale in (1.0, 0.5)
        )
        assert half / full == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    ("ranks", "inside", "nodes"), [(649, 59, 11), (142, 71, 2), (2628, 36, 73), (145, 72, 3), (73, 72, 2), (108, 54, 2)]
)
def test_a_job_is_spread_evenly_where_no_domain_is_left_half_empty(ranks: int, inside: int, nodes: int) -> None:
    """11 * 59, 2 * 71 and 73 * 36 divide; 145 = 5 * 29 would leave more than half of 72 empty, 73 is prime."""
    where = placement(ProcessGroup(name="data_parallel", ranks=ranks, stride=1), GB200)
    assert (where.ranks_per_node, where.nodes) == (inside, nodes)


def call_of(kind: str, ranks: int, payload: float, **settings: Any) -> Collective:
    """A collective of neighbours."""
    group = ProcessGroup(name="ranks", ranks=ranks, stride=1)
    plain: dict[str, Any] = {"name": "call", "kind": kind, "payload_bytes": payload, "group": group}
    return Collective(**(plain | settings))


def test_tokens_inside_a_node_travel_as_an_all_to_all_of_what_ranks_meet() -> None:
    """A copy for each rank that a token goes to."""
    exchange = call_of("token_exchange", 8, 8e8, copies=4)
    met = float(ranks_met(exchange, 8))
    assert 1 < met < 4
    same = call_of("all_to_all", 8, 2e8 * met)
    assert node_collective_time_s(exchange, cluster=H100) == node_collective_time_s(same, cluster=H100)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_exchange_of_tokens_over_nodes_begins_a_message_to_each_rank_there_and_fills_the_slower_link(scale: float) -> None:
    """Empty: a + g * (p - r). Over a slow node: each token once for each rank met; over a slow network, for each node met."""
    cluster = replace(H100, node_link_scale=scale)
    known, inside = cluster.links.network.collectives, cluster.links.node.collectives.all_to_all
    empty_s = float(collective_time_s(call_of("token_exchange", 32, 0.0, copies=4), cluster=cluster))
    assert empty_s == pytest.approx(float(known.latency_s + known.peer_latency_s * 24), rel=1e-12)
    call = call_of("token_exchange", 32, 4e9, copies=4)
    endless = replace(cluster, network_scale=100.0)
    near_s = 1e9 * float(ranks_met(call, 32)) * 7 / 8 / (float(inside.bandwidth_bytes_per_s) * scale)
    assert float(collective_time_s(call, cluster=endless)) - empty_s == pytest.approx(near_s, rel=1e-9)
    slow = replace(cluster, network_scale=1e-2)
    far = 1e9 * float(places_met(call, 4)) * 3 / 4
    rate = float(cluster.network_bytes_per_s_per_gpu * network_efficiency(4, cluster)) * 1e-2
    assert float(collective_time_s(call, cluster=slow)) - empty_s == pytest.approx(far / rate, rel=1e-9)


def test_sizes_between_the_ends_of_a_table_are_interpolated() -> None:
    """Wherever they lie: the last of three values is an end, as the first is."""
    table = Evidence(basis="measured", sizes=MappingProxyType({"rows": (1.0, 2.0, 4.0)}))
    words = [confidence(table, {"rows": rows}) for rows in (0.5, 1.0, 1.5, 3.0, 4.0, 4.5)]
    assert words == ["extrapolated", "measured", "interpolated", "interpolated", "measured", "extrapolated"]


def unaligned(gpu: Gpu, rate: float) -> Gpu:
    """The GPU with such a rate off its tensor cores."""
    law = with_numbers(gpu.kernels.matmul["bf16"], {"unaligned_flop_per_s": rate})
    return replace(gpu, kernels=replace(gpu.kernels, matmul={**gpu.kernels.matmul, "bf16": law}))


def test_products_of_odd_sides_run_off_the_tensor_cores_at_their_clocks() -> None:
    """Batched products of activations alone: FLOPs over that rate, at half of the clocks twice as long."""
    gpu = unaligned(gpu_preset("h100-sxm-80gb"), 1e12)
    odd = Matmul(name="scores", rows=129, columns=128, inner=64, batch=1000, has_weight=False, precision="bf16")
    for scale in (1.0, 0.5):
        seconds = matmul_time_s(odd, gpu=gpu, compute_scale=scale)
        assert float(seconds) == pytest.approx(2 * 1000 * 129 * 128 * 64 / (1e12 * scale), rel=1e-12)
    assert float(matmul_time_s(replace(odd, rows=128), gpu=gpu, compute_scale=1.0)) < 1e-3
    assert float(matmul_time_s(replace(odd, has_weight=True), gpu=gpu, compute_scale=1.0)) < 1e-3


@pytest.mark.parametrize(("precision", "multiple"), [("fp32", 4), ("bf16", 8), ("fp8", 16)])
def test_tensor_cores_take_sides_of_16_bytes(precision: str, multiple: int) -> None:
    """Of 4 numbers in TF32, 8 in 16 bits, 16 in 8 (NVIDIA, Matrix Multiplication Background, table 1)."""
    even = Matmul(
        name="scores", rows=3 * multiple, columns=5 * multiple, inner=7 * multiple, has_weight=False, precision=precision
    )
    assert float(_unaligned_s(even, 1.0)) == 0.0
    few = multiple // 2
    for odd in (replace(even, rows=few), replace(even, columns=few), replace(even, inner=few)):
        assert float(_unaligned_s(odd, 1.0)) == float(odd.flop)


def test_each_pass_has_a_factor_of_its_own_beside_busy_devices() -> None:
    """1 + (f - 1) * share, with f of the forward pass or of gradients."""
    gpu = H100.gpu
    known = replace(gpu.kernels.memory_bound["elementwise"], busy_factor=3.0, backward_busy_factor=5.0)
    busy = replace(gpu, kernels=replace(gpu.kernels, memory_bound={**gpu.kernels.memory_bound, "elementwise": known}))
    for phase, factor in ((FORWARD, 2.0), (RECOMPUTE, 2.0), (DATA_GRADIENT, 3.0)):
        one = MemoryBound(name="add", moved_bytes=1e8, phase=phase)
        alone = memory_bound_time_s(one, gpu=busy, stack=CORE)
        beside = memory_bound_time_s(one, gpu=busy, stack=CORE, busy_share=0.5)
        assert float(beside / alone) == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(("gpus", "share"), [(1, 0.0), (2, 1 / 7), (5, 4 / 7), (8, 1.0), (64, 1.0)])
def test_the_share_of_neighbours_that_run_is_of_the_others_in_a_node(gpus: int, share: float) -> None:
    """Seven beside one; none in a node of one."""
    assert float(at_cluster_load(H100, gpus).busy_share) == pytest.approx(share)
    lone = replace(H100, gpus_per_node=1)
    assert float(at_cluster_load(lone, gpus).busy_share) == 0


def with_evidence(**sizes: tuple[float, ...]) -> Cluster:
    """The cluster whose products were measured at such sizes."""
    law = replace(H100.gpu.kernels.matmul["bf16"], evidence=Evidence(basis="measured", sizes=MappingProxyType(sizes)))
    kernels = replace(H100.gpu.kernels, matmul={**H100.gpu.kernels.matmul, "bf16": law})
    return replace(H100, gpu=replace(H100.gpu, kernels=kernels))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "measured"),
        ({"phase": RECOMPUTE}, "measured"),
        ({"phase": DATA_GRADIENT}, "interpolated"),
        ({"phase": WEIGHT_GRADIENT}, "interpolated"),
        ({"batch": 2}, "interpolated"),
        ({"rows": 4096}, "extrapolated"),
        ({"rows": 4096, "batch": 2}, "extrapolated"),
    ],
)
def test_tables_hold_single_forward_products(settings: dict[str, Any], word: str) -> None:
    """Gradients and batches of a size that they have are interpolated."""
    plain: dict[str, Any] = {"name": "fc1", "rows": 1024, "columns": 512, "inner": 512, "precision": "bf16"}
    one = Matmul(**(plain | settings))
    cluster = with_evidence(rows=(512.0, 1024.0), columns=(512.0,), inner=(512.0,))
    assert operator_confidence(one, cluster=cluster, stack=CORE) == word


@pytest.mark.parametrize(
    ("window", "word"), [(None, "measured"), (4096, "measured"), (8192, "measured"), (1024, "extrapolated")]
)
def test_no_attention_with_a_window_was_measured(window: int | None, word: str) -> None:
    """But one as long as the sequence cuts nothing."""
    law = replace(H100.gpu.kernels.attention_forward, evidence=Evidence(basis="measured"))
    cluster = replace(H100, gpu=replace(H100.gpu, kernels=replace(H100.gpu.kernels, attention_forward=law)))
    call = replace(ATTENTION, head_size=128, value_size=None, query_length=4096, key_length=4096, window=window)
    assert operator_confidence(call, cluster=cluster, stack=CORE) == word


def test_seconds_are_added_up_by_the_word_that_they_are_known_by() -> None:
    """As often as each operator runs."""
    entries = [
        Entry(operator=ATTENTION, repeats=3, seconds=2.0, confidence="measured"),
        Entry(operator=ATTENTION, repeats=np.array(5), seconds=4.0, confidence="measured"),
        Entry(operator=ATTENTION, repeats=2, seconds=0.5, confidence="datasheet"),
    ]
    assert seconds_by_confidence(entries) == {"measured": 26.0, "interpolated": 0.0, "extrapolated": 0.0, "datasheet": 1.0}


def test_copies_that_keep_to_groups_meet_ranks_of_those_groups_alone() -> None:
    """4 of 8 groups are half of 64 ranks: 32 * (1 - (31/32)^8); arrays of groups each as alone."""
    call = call_of("token_exchange", 64, 1.0, copies=8, groups=8, groups_met=4)
    assert float(ranks_met(call, 64)) == pytest.approx(32 * (1 - (31 / 32) ** 8), rel=1e-12)
    assert float(ranks_met(call, 1)) == 1
    met = np.array([2, 4, 8])
    together = places_met(replace(call, groups_met=met), 4)
    assert np.asarray(together).tolist() == pytest.approx([float(places_met(replace(call, groups_met=int(n)), 4)) for n in met])


@pytest.mark.parametrize(("stride", "inside", "nodes"), [(3, 2, 4), (5, 1, 8), (9, 1, 8)])
def test_strides_that_do_not_divide_a_node_leave_room_for_fewer_ranks(stride: int, inside: int, nodes: int) -> None:
    """Of eight ranks three GPUs apart two lie in a node of eight."""
    where = placement(ProcessGroup(name="ranks", ranks=8, stride=stride), H100)
    assert (where.ranks_per_node, where.nodes) == (inside, nodes)


@pytest.mark.parametrize(("window", "keys"), [(None, 4096 + 128), (2048, 2048 * (1 - 1 / 8) + 2 * 128), (8192, 4096 + 128)])
def test_each_query_costs_keys_beyond_those_that_it_meets(window: int | None, keys: float) -> None:
    """128 of them here, twice as many where a window cuts both ends; in kernels that nothing else bounds."""
    gpu = gpu_preset("h100-sxm-80gb")
    law = with_numbers(
        gpu.attention("bf16", backward=False, library="fastest"), BARE | {"sequence_half": 128.0, "longest_rows": 0}
    )
    call = replace(
        ATTENTION, heads=64, kv_heads=64, head_size=128, value_size=None, query_length=8192, key_length=8192, window=window
    )
    seconds = float(plain_attention_time_s(call, law, gpu=gpu, compute_scale=1.0))
    rate = float(gpu.peak("bf16") * law.efficiency)
    assert seconds == pytest.approx(2 * 2 * 128 * 2 * 64 * 8192 * keys / rate, rel=1e-12)


def test_a_library_may_be_slower_on_short_sequences() -> None:
    """At half of its rate a kernel takes twice as long."""
    gpu = gpu_preset("h100-sxm-80gb")
    law = with_numbers(gpu.attention("bf16", backward=False, library="fastest"), BARE | {"longest_rows": 0})
    slow = replace(law, by_sequence_length=MappingProxyType({"1024": 0.5, "8192": 1.0}))
    for length, factor in ((1024, 2.0), (8192, 1.0)):
        call = replace(ATTENTION, head_size=128, value_size=None, query_length=length, key_length=length)
        times = [float(plain_attention_time_s(call, each, gpu=gpu, compute_scale=1.0)) for each in (slow, law)]
        assert times[0] / times[1] == pytest.approx(factor, rel=1e-12)


@pytest.mark.parametrize(("moved", "kernels", "word"), [(1e6, 1, "measured"), (3e6, 3, "measured"), (2e6, 1, "extrapolated")])
def test_memory_bound_kernels_are_known_by_what_each_moves(moved: float, kernels: int, word: str) -> None:
    """A chain of three moves a third in each."""
    known = replace(
        H100.gpu.kernels.memory_bound["elementwise"],
        evidence=Evidence(basis="measured", sizes=MappingProxyType({"moved_bytes": (1e6,)})),
    )
    classes = {**H100.gpu.kernels.memory_bound, "elementwise": known}
    cluster = replace(H100, gpu=replace(H100.gpu, kernels=replace(H100.gpu.kernels, memory_bound=classes)))
    one = MemoryBound(name="add", moved_bytes=moved, kernels=kernels)
    assert operator_confidence(one, cluster=cluster, stack=CORE) == word


@pytest.mark.parametrize(("ranks", "stride", "word"), [(4, 4, "datasheet"), (2, 8, "extrapolated"), (16, 1, "datasheet")])
def test_groups_with_several_ranks_in_a_node_are_as_sure_as_its_links(ranks: int, stride: int, word: str) -> None:
    """Two of four in each of two nodes; one in each is as sure as the network."""
    links = H100.links
    node = replace(links.node, collectives=replace(links.node.collectives, evidence=Evidence(basis="datasheet")))
    network = replace(links.network, collectives=replace(links.network.collectives, evidence=Evidence(basis="transferred")))
    cluster = replace(H100, links=replace(links, node=node, network=network))
    group = ProcessGroup(name="ranks", ranks=ranks, stride=stride)
    call = Collective(name="call", kind="all_gather", payload_bytes=1e6, group=group)
    assert operator_confidence(call, cluster=cluster, stack=CORE) == word


def test_copies_free_to_go_anywhere_meet_places_at_random() -> None:
    """Of eight groups a token may meet all: 4 * (1 - (3/4)^8) nodes; of two ranks 2 * (1 - (1/2)^8)."""
    free = call_of("token_exchange", 64, 1.0, copies=8, groups=8, groups_met=8)
    assert float(places_met(free, 4)) == pytest.approx(4 * (1 - 0.75**8), rel=1e-12)
    assert float(ranks_met(call_of("token_exchange", 2, 1.0, copies=8), 2)) == pytest.approx(2 * (1 - 0.5**8), rel=1e-12)
