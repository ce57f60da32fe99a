"""Is what nccl-tests measured of a link what its coefficients say, and if not, which known fault would explain it?

Each size is held against the 90 % interval of its time by the same equations as a run's (timing/collectives.py), with the
coefficients of the links at both ends of their spreads. network_scale and node_link_scale, which say how healthy the links of a
cluster are, are what is tested: they are held. A fault fits where the largest size lies in the interval of a cluster with it;
none is looked for where it lies nearer to its own interval than the equations miss healthy links by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from perfmodel.count.operators import Collective
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.evidence.causes import LinkCause
from perfmodel.spec.evidence.spread import both_ends, moved, uncertain_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.collectives import collective_time_s, placement
from perfmodel.timing.uncertainty import Uncertainty, uncertainty

LINKS: Final = "links."  # how key paths of the coefficients of links start
SCALES: Final = {"node": "node_link_scale", "network": "network_scale"}  # by tier, the number of a cluster for its rates
ONE_BYTE: Final = 1.0  # the size of a message that takes the start alone
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkTest:
    """One collective between one set of ranks, as nccl-tests measured it; `call` has all sizes, the smallest first."""

    call: Collective
    nodes: int
    seconds: Floats

    @property
    def tier(self) -> str:
        """Which links bound it: those inside a node, or the network between nodes."""
        return "network" if self.nodes > 1 else "node"

    @property
    def payload_bytes(self) -> Floats:
        """The sizes."""
        return np.asarray(self.call.payload_bytes, dtype=np.float64)

    @property
    def bus_bytes_per_s(self) -> Floats:
        """Bus bandwidth as nccl-tests define it: what each rank sends over the time."""
        return np.asarray(self.call.wire_bytes / self.seconds)

    def times_s(self, cluster: Cluster) -> Floats:
        """What the equations give for all sizes on a cluster."""
        return np.asarray(collective_time_s(self.call, cluster=cluster), dtype=np.float64)

    def start_s(self, cluster: Cluster) -> float:
        """What the equations give for a message of one byte."""
        return float(collective_time_s(replace(self.call, payload_bytes=ONE_BYTE), cluster=cluster))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinkVerdict:
    """A test beside what is expected of it, and the faults that would explain its largest size, the likeliest first."""

    test: LinkTest
    expected: Uncertainty
    is_slight: bool  # the largest size is outside of its interval by less than the equations miss healthy links by
    causes: tuple[LinkCause, ...]

    @property
    def expected_bus_bytes_per_s(self) -> tuple[Floats, Floats]:
        """The ends of the expected bus bandwidth of each size."""
        wire = np.asarray(self.test.call.wire_bytes)
        return np.asarray(wire / self.expected.high_s), np.asarray(wire / self.expected.low_s)

    @property
    def signs(self) -> NDArray[np.int_]:
        """For each size -1 where it is slower than expected, 1 where it is faster, 0 where it lies in its interval."""
        slow, fast = self.test.seconds > self.expected.high_s, self.test.seconds < self.expected.low_s
        return np.where(fast, 1, np.where(slow, -1, 0))

    @property
    def sign(self) -> int:
        """That of the largest size."""
        return int(self.signs[-1])


def expectation(test: LinkTest, cluster: Cluster) -> Uncertainty:
    """The 90 % interval of the time of each size, from the spreads of the coefficients of links alone."""
    spreads = {path: spread for path, spread in uncertain_numbers(cluster) if path.startswith(LINKS)}
    ends = moved(cluster, both_ends(spreads, 1))
    times = test.times_s(ends)
    return uncertainty(np.broadcast_to(times, (1 + 2 * len(spreads), len(test.seconds))), tuple(spreads))


def link_verdict(test: LinkTest, cluster: Cluster, causes: Sequence[LinkCause], *, law_error: float) -> LinkVerdict:
    """A test beside what is expected of it on a cluster; equations miss healthy links by `law_error`, relatively."""
    expected, time_s = expectation(test, cluster), float(test.seconds[-1])
    low_s, high_s = (float(np.ravel(end)[-1]) for end in (expected.low_s, expected.high_s))
    beyond = max(np.log(time_s / high_s), np.log(low_s / time_s))
    found = LinkVerdict(test=test, expected=expected, is_slight=bool(0.0 < beyond <= np.log1p(law_error)), causes=())
    if found.sign == 0 or found.is_slight:
        return found
    fitting = [(rank, cause) for cause in causes if (rank := _rank(cause, test, cluster)) is not None]
    return replace(found, causes=tuple(cause for _, cause in sorted(fitting, key=lambda each: each[0])))


def _rank(cause: LinkCause, test: LinkTest, cluster: Cluster) -> tuple[float, float] | None:
    """How well a fault fits, the less the better; None where it does not.

    First how far ln of the time is from what the fault's own range makes of it, then how wide that range is.
    """
    ends = _with_cause(cause, test, cluster)
    if ends is None:
        return None
    slow, fast = ends
    time_s = float(test.seconds[-1])
    least, most = (np.ravel(each)[-1] for each in (expectation(test, fast).low_s, expectation(test, slow).high_s))
    if not least <= time_s <= most:
        return None
    fast_s, slow_s = test.times_s(fast)[-1], test.times_s(slow)[-1]
    outside = max(np.log(time_s / slow_s), np.log(fast_s / time_s), 0.0)
    return float(outside), float(np.log(slow_s / fast_s))


def _with_cause(cause: LinkCause, test: LinkTest, cluster: Cluster) -> tuple[Cluster, Cluster] | None:
    """The slowest and the fastest cluster with a fault; None where a test cannot have it."""
    if cause.tier != test.tier or (cause.kinds and test.call.kind not in cause.kinds):
        return None
    if cause.unswitched:
        known = cluster.links.node.collectives
        if known.switch_reduce is None or np.any(test.call.group.ranks < known.switch_reduce.ranks):
            return None
        node = replace(cluster.links.node, collectives=replace(known, switch_reduce=None))
        without = replace(cluster, links=replace(cluster.links, node=node))
        return without, without
    least, most = float(cause.least), float(cause.most)
    if cause.lost_nics:
        left = cluster.nics_per_node - cause.lost_nics
        if left < 1 or np.any(placement(test.call.group, cluster).ranks_per_node < cluster.gpus_per_node):
            return None
        least = most = left / cluster.nics_per_node
    slow, fast = (moved(cluster, {SCALES[cause.tier]: factor}) for factor in (least, most))
    return slow, fast
