"""Tokens that travel to their experts once for each rank and node, and what of that hides behind another micro-batch."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from math import comb

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, places_met, ranks_met
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset
from perfmodel.spec.layout import ProcessGroup
from perfmodel.timing.collectives import collective_time_s
from perfmodel.timing.timed_operators import host_seconds, timed_operators
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.stacks import stack_with

H100 = cluster_preset("dgx-h100")


def exchange(ranks: int, **settings: object) -> Collective:
    """Dispatch 4096 tokens of 7168 numbers in 16 bits, eight copies each."""
    group = ProcessGroup(name="expert_parallel", ranks=ranks, stride=1)
    plain: dict[str, object] = {"kind": "token_exchange", "payload_bytes": 4096.0 * 8 * 7168 * 2, "copies": 8}
    return Collective(name="dispatch", group=group, **(plain | settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("places", [2, 3, 5])
def test_copies_at_random_meet_as_many_places_as_counting_says(places: int) -> None:
    """All ways to send three copies to n places, one by one."""
    ways = [len(set(way)) for way in product(range(places), repeat=3)]
    assert float(places_met(exchange(8, copies=3), places)) == pytest.approx(np.mean(ways))


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_copies_that_keep_to_groups_meet_the_nodes_of_those_groups(nodes: int) -> None:
    """4 of 8 groups, evenly over the nodes: n*(1 - C(8 - 8/n, 4)/C(8, 4))."""
    call = exchange(64, groups=8, groups_met=4)
    assert float(places_met(call, nodes)) == pytest.approx(nodes * (1 - comb(8 - 8 // nodes, 4) / comb(8, 4)))


def test_a_token_meets_no_more_ranks_than_it_has_copies() -> None:
    """Many ranks: each copy goes to another one; one rank: all stay there."""
    assert float(ranks_met(exchange(4096), 4096)) == pytest.approx(8, rel=0.01)
    assert float(ranks_met(exchange(1), 1)) == 1.0


def test_one_copy_is_an_all_to_all() -> None:
    """Inside a node and over several, where nothing is sent twice anyway."""
    for ranks in (8, 32):
        once, plain = (
            collective_time_s(exchange(ranks, kind=kind, copies=1), cluster=H100) for kind in ("token_exchange", "all_to_all")
        )
        assert float(once) == pytest.approx(float(plain), rel=0.2)


@pytest.mark.parametrize("ranks", [8, 16, 32, 64])
def test_tokens_sent_once_travel_faster_than_copies(ranks: int) -> None:
    """DeepEP and HybridEP against an all-to-all, on any number of nodes."""
    once, copies = (collective_time_s(exchange(ranks, kind=kind), cluster=H100) for kind in ("token_exchange", "all_to_all"))
    assert float(once) < float(copies)


def test_links_of_a_node_pass_on_what_arrives_but_what_stays_on_its_rank() -> None:
    """Behind a network that takes no time: 4096 tokens once for each rank met, 7 of 8 of them over links."""
    network = replace(H100.links.network, bandwidth_bytes_per_s=1e15)
    fast = replace(H100, links=replace(H100.links, network=network))
    call = exchange(16)
    seconds = collective_time_s(replace(call, payload_bytes=2 * call.payload_bytes), cluster=fast) - collective_time_s(
        call, cluster=fast
    )
    known = fast.links.node.collectives.all_to_all
    passed_on = 4096 * 7168 * 2 * float(ranks_met(call, 16)) * 7 / 8
    assert float(seconds) == pytest.approx(passed_on / float(known.bandwidth_bytes_per_s), rel=1e-6)


def test_routing_to_few_nodes_takes_less_of_the_network() -> None:
    """DeepSeek's node-limited routing over 8 nodes: at most four of them."""
    limited, free = (exchange(64, groups=groups, groups_met=met) for groups, met in ((8, 4), (1, 1)))
    assert float(collective_time_s(limited, cluster=H100)) < float(collective_time_s(free, cluster=H100))


@pytest.mark.parametrize(
    ("cluster", "ranks", "published"), [("dgx-h100", 8, 325e9), ("dgx-h100", 32, 44e9), ("gb200-nvl72", 32, 580e9)]
)
def test_all_to_all_rates_are_those_that_were_published(cluster: str, ranks: int, published: float) -> None:
    """arXiv:2603.07685, table 7, bytes that leave a rank over the slowest link: within 20 %, as one rate a link is there."""
    known = cluster_preset(cluster)
    inside = min(ranks, int(known.gpus_per_node))
    limits = {} if inside == ranks else {"groups": 8, "groups_met": 4}
    call = exchange(ranks, kind="all_to_all" if inside == ranks else "token_exchange", **limits)
    payload = float(call.payload_bytes)
    sent = (
        payload * (ranks - 1) / ranks
        if inside == ranks
        else payload / 8 * float(places_met(call, ranks // inside)) * (1 - inside / ranks)
    )
    assert sent / float(collective_time_s(call, cluster=known)) == pytest.approx(published, rel=0.2)


def hidden_and_all(overlap: str) -> tuple[float, float]:
    """Seconds of the exchanges of a forward pass that hide, and all of them."""
    stack = stack_with(STACK, {"experts.overlap": overlap})
    setup = mixture_setup(SMALL, layout_of(expert_parallel=8, sequence_length=8192), stack, "dgx-h100")
    (blocks,) = iteration(setup).layers.values()
    timed = timed_operators(blocks.plain.forward, 1.0, setup.cluster, stack)
    calls = [each for each in timed if each.operator.role in (Role.DISPATCH, Role.COMBINE)]
    return sum(float(each.hidden_s) for each in calls), sum(float(each.free_s) for each in calls)


def test_exchanges_hide_behind_the_passes_of_another_micro_batch() -> None:
    """As much as has kernels beside it, and software reaches; nothing without such overlap."""
    assert hidden_and_all("none")[0] == 0.0
    hidden, total = hidden_and_all("passes")
    share = float(STACK.experts.hidden_share) * (1 - 1 / 4)  # of four micro-batches one pass has no partner
    assert 0.0 < hidden <= share * total * (1 + 1e-9)


def test_graphs_take_the_launches_of_the_parts_that_they_replay() -> None:
    """The router's kernels, then shared experts, then all of attention, are no work of the CPU any more."""
    spent = []
    for graphed in ((), ("router",), ("router", "shared_experts"), ("attention", "router", "shared_experts")):
        stack = stack_with(STACK, {"host.graphed": graphed})
        (blocks,) = iteration(mixture_setup(SMALL, layout_of(expert_parallel=8), stack)).layers.values()
        spent.append(float(host_seconds(blocks.plain.operators, stack).launch_s))
    assert spent[0] > spent[1] > spent[2] > spent[3] > 0.0


def test_the_cpu_waits_for_the_numbers_of_tokens_once_a_layer() -> None:
    """Forwards; backwards they are known."""
    (blocks,) = iteration(mixture_setup(SMALL, layout_of(expert_parallel=8))).layers.values()
    forward, backward = (host_seconds(way, STACK) for way in (blocks.plain.forward, blocks.plain.backward))
    assert (float(forward.wait_s), float(backward.wait_s)) == (float(STACK.experts.expert_wait_s), 0.0)


def test_a_load_that_is_not_even_makes_all_wait() -> None:
    """Products of experts and their messages take longer by what the busiest rank has more; those of all tokens do not."""
    wide = replace(SMALL, mixture=replace(SMALL.mixture, ffn_hidden_size=4096))  # type: ignore[type-var]
    times: dict[bool, list[float]] = {True: [], False: []}
    for load in (1.0, 2.0):
        setup = mixture_setup(wide, layout_of(expert_parallel=8, sequence_length=65536, expert_load=load))
        (blocks,) = iteration(setup).layers.values()
        timed = timed_operators(blocks.plain.forward, 1.0, setup.cluster, STACK)
        for is_routed in (True, False):
            routed = (Role.EXPERT, Role.EXPERT_OUTPUT)
            times[is_routed].append(
                sum(
                    float(each.free_s)
                    for each in timed
                    if (each.operator.role in routed) is is_routed and each.operator.role in (*routed, Role.SHARED_EXPERT)
                )
            )
    assert times[True][1] > 1.8 * times[True][0]
    assert times[False][1] == times[False][0]


def test_products_of_experts_take_their_share_longer() -> None:
    """product_work multiplies them alone."""
    slower = replace(STACK, experts=replace(STACK.experts, product_work=1.5))
    setup = mixture_setup(SMALL, layout_of(expert_parallel=8))
    (blocks,) = iteration(setup).layers.values()
    plain, long = (timed_operators(blocks.plain.forward, 1.0, setup.cluster, stack) for stack in (STACK, slower))
    for one, other in zip(plain, long, strict=True):
        factor = 1.5 / STACK.experts.product_work if one.operator.role in (Role.EXPERT, Role.EXPERT_OUTPUT) else 1.0
        assert float(other.free_s) == pytest.approx(factor * float(one.free_s))


def test_kernels_around_products_of_experts_take_their_share_longer() -> None:
    """movement_work multiplies what orders copies of tokens and what makes activations of them."""
    slower = replace(STACK, experts=replace(STACK.experts, movement_work=3.0))
    setup = mixture_setup(SMALL, layout_of(expert_parallel=8))
    (blocks,) = iteration(setup).layers.values()
    plain, long = (timed_operators(blocks.plain.operators, 1.0, setup.cluster, stack) for stack in (STACK, slower))
    around = (Role.PERMUTE, Role.EXPERT_ACTIVATION)
    assert {one.operator.role for one in plain}.issuperset(around)
    for one, other in zip(plain, long, strict=True):
        factor = 3.0 / STACK.experts.movement_work if one.operator.role in around else 1.0
        assert float(other.free_s) == pytest.approx(factor * float(one.free_s))


def test_what_a_rank_sends_is_a_copy_for_each_rank_that_a_token_meets() -> None:
    """8 copies at random over 8 ranks meet 5.25 of them, one of which is its own for an eighth of the tokens."""
    call = exchange(8)
    assert float(call.wire_bytes) == pytest.approx(4096 * 7168 * 2 * 8 * (1 - (7 / 8) ** 8) * 7 / 8)
