"""Do tests of links say what is wrong with them, and are fitted links those that the tests ran on?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors
from perfmodel.explanation.measured.link_fit import LinkFit, link_fit
from perfmodel.explanation.measured.link_tests import LinkTest, expectation, link_verdict
from perfmodel.spec.evidence.spread import moved, uncertain_numbers
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import collective_time_s

CLUSTER = cluster_preset("dgx-h100")
CAUSES = diagnosis_priors().links
LAW_ERROR = float(diagnosis_priors().link_error.value)
SIZES = 2.0 ** np.arange(10, 34)
NETWORK = "links.network.collectives"


def measured(kind: str, nodes: int, there: Cluster = CLUSTER, *, each: int = 8, sizes: Any = SIZES) -> LinkTest:
    """What tests on a cluster would show, with `each` GPUs of every node."""
    group = ProcessGroup(name="all", ranks=nodes * each, stride=8 // each if nodes > 1 else 1)
    call = Collective(name="test", kind=kind, payload_bytes=sizes, group=group)
    return LinkTest(call=call, nodes=nodes, seconds=np.asarray(collective_time_s(call, cluster=there)))


def causes(test: LinkTest) -> list[str]:
    """The names of what would explain a test on a DGX H100."""
    return [cause.name for cause in link_verdict(test, CLUSTER, CAUSES, law_error=LAW_ERROR).causes]


def fitted(*tests: LinkTest) -> LinkFit:
    """The links of a DGX H100 as tests have them."""
    return link_fit(tests, CLUSTER, least_spread=0.04)


def factors(found: LinkFit) -> dict[str, float]:
    """The factor of each first key path."""
    return {each.paths[0]: each.factor for each in found.factors}


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"])
@pytest.mark.parametrize("nodes", [1, 4])
def test_a_cluster_as_it_is_described_needs_no_explanation(kind: str, nodes: int) -> None:
    """All sizes lie in their intervals, and no factor is another one than 1."""
    test = measured(kind, nodes)
    found = link_verdict(test, CLUSTER, CAUSES, law_error=LAW_ERROR)
    assert not np.any(found.signs)
    assert found.causes == ()
    assert list(factors(fitted(test)).values()) == pytest.approx([1.0, 1.0], rel=1e-4)


def test_an_interval_is_the_root_of_squares_of_what_each_coefficient_of_the_links_does() -> None:
    """By hand; what says how healthy the cluster is has no part in it."""
    test = measured("all_gather", 16, sizes=np.asarray([2.0**30]))
    slow = []
    for path, spread in uncertain_numbers(CLUSTER):
        if path.startswith("links."):
            times = [float(test.times_s(moved(CLUSTER, {path: factor}))[0]) for factor in (1 + spread, 1 / (1 + spread))]
            slow.append(max(np.log(max(times) / test.seconds[0]), 0.0))
    assert np.asarray(expectation(test, CLUSTER).high_s)[0] == pytest.approx(
        test.seconds[0] * np.exp(np.sqrt(np.square(slow).sum()))
    )


@pytest.mark.parametrize(
    ("kind", "nodes", "factor", "name"),
    [
        ("all_gather", 4, {"network_scale": 7 / 8}, "one rail down"),
        ("reduce_scatter", 4, {"network_scale": 6 / 8}, "two rails down"),
        ("all_gather", 4, {"network_scale": 0.5}, "NICs at half their rate"),
        ("all_reduce", 4, {"network_scale": 0.25}, "NICs at a quarter of their rate"),
        ("all_reduce", 16, {"network_scale": 0.1}, "sockets in place of RDMA"),
        ("all_gather", 1, {"node_link_scale": 0.04}, "PCIe or memory of the host in place of NVLink"),
    ],
)
def test_a_fault_is_named(kind: str, nodes: int, factor: dict[str, float], name: str) -> None:
    """First of all that fit."""
    assert causes(measured(kind, nodes, moved(CLUSTER, factor)))[0] == name


def test_without_sums_in_the_switch_an_all_reduce_is_a_ring() -> None:
    """370 in place of 480 GB/s on eight H100; a gather has none to lose."""
    node = CLUSTER.links.node
    ring = replace(node, collectives=replace(node.collectives, switch_reduce=None))
    there = replace(CLUSTER, links=replace(CLUSTER.links, node=ring))
    assert causes(measured("all_reduce", 1, there)) == ["no sums in the NVSwitch (NVLS off)"]
    assert causes(measured("all_gather", 1, there)) == []


def test_what_no_fault_makes_is_left_open() -> None:
    """A node at half of its rate; and one GPU of each node has one rail to lose, and is not slower by (n-1)/n."""
    assert causes(measured("all_gather", 1, moved(CLUSTER, {"node_link_scale": 0.5}))) == []
    alone = measured("all_gather", 4, moved(CLUSTER, {"network_scale": 0.8}), each=1)
    assert not any("rail" in name for name in causes(alone))


def test_a_network_that_adds_up_is_faster_than_its_nics() -> None:
    """Of an all-reduce alone."""
    assert "SHARP" in causes(measured("all_reduce", 16, moved(CLUSTER, {"network_scale": 1.5})))[0]
    assert causes(measured("reduce_scatter", 16, moved(CLUSTER, {"network_scale": 1.2}))) == []


def test_what_the_equations_miss_healthy_links_by_is_no_fault() -> None:
    """Slightly slower than its interval, or faster: no cause is looked for; further off one is."""
    for seconds, is_slight in ((1.03, True), (0.97, True), (1.4, False)):
        test = measured("all_gather", 4)
        ends = expectation(test, CLUSTER)
        end_s = np.ravel(ends.high_s if seconds > 1 else ends.low_s)[-1]
        off = replace(test, seconds=test.seconds * (seconds * end_s / test.seconds[-1]))
        found = link_verdict(off, CLUSTER, CAUSES, law_error=LAW_ERROR)
        assert (found.is_slight, found.sign, bool(found.causes)) == (is_slight, -1 if seconds > 1 else 1, not is_slight)


def test_sizes_between_start_and_rate_do_not_move_them() -> None:
    """NCCL's protocols make them slower than both say; and one slow first call is an outlier."""
    test = measured("all_gather", 4)
    between = (test.payload_bytes > 2**19) & (test.payload_bytes < 2**26)
    odd = np.where(between, 1.5, 1.0) * np.where(np.arange(len(SIZES)) == 0, 3.0, 1.0)
    assert list(factors(fitted(replace(test, seconds=test.seconds * odd))).values()) == pytest.approx([1.0, 1.0], rel=0.02)


def test_starts_and_rates_are_found_again() -> None:
    """Of the network and of the links inside a node, each kind by itself; the best rate is the scale of all."""
    starts = ("latency_s", "rank_latency_s", "node_latency_s", "tree_start_s", "tree_latency_s")
    there = moved(CLUSTER, {"network_scale": 0.7, **{f"{NETWORK}.{name}": 1.6 for name in starts}})
    there = moved(there, {"node_link_scale": 0.9, "links.node.collectives.all_gather.bandwidth_bytes_per_s": 0.8})
    kinds = ("all_gather", "reduce_scatter")
    found = fitted(measured("all_reduce", 16, there), *(measured(kind, 1, there) for kind in kinds))
    shown = factors(found)
    assert shown["network_scale"] == pytest.approx(0.7, rel=1e-3)
    assert shown[f"{NETWORK}.latency_s"] == pytest.approx(1.6, rel=1e-3)
    assert shown["node_link_scale"] == pytest.approx(0.9, rel=1e-3)
    assert shown["links.node.collectives.all_gather.bandwidth_bytes_per_s"] == pytest.approx(0.8, rel=1e-3)
    assert found.p90_error < 1e-3


def test_a_number_that_no_size_tells_stays() -> None:
    """Of large messages the start, of small ones the rate."""
    large = fitted(measured("all_gather", 4, moved(CLUSTER, {"network_scale": 0.6}), sizes=SIZES[-2:]))
    assert (list(factors(large)), large.untold) == (["network_scale"], (f"{NETWORK}.latency_s",))
    small = fitted(measured("all_gather", 4, sizes=SIZES[:2]))
    assert (list(factors(small)), small.untold) == ([f"{NETWORK}.latency_s"], (f"{NETWORK}.efficiency",))


def test_a_spread_is_what_nine_of_ten_sizes_are_within() -> None:
    """At least what repeats of the test differ by."""
    test = measured("all_gather", 4)
    noisy = replace(test, seconds=test.seconds * np.where(np.arange(len(SIZES)) % 2, 1.3, 1 / 1.3))
    assert {each.spread for each in fitted(test).factors} == {0.04}
    assert all(0.2 < each.spread < 0.8 for each in fitted(noisy).factors)
