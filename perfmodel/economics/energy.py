"""What a run draws from the power grid: power from how busy the GPUs are, energy and carbon.

Symbols: P node_power_w (what a node draws at most, by its datasheet), b busy_power_share, i idle_power_share (of P, in the
terms), u how much of the time GPUs compute, PUE power_usage_effectiveness.

The power is linear in u, as that of servers is to a first order (Fan, Weber, Barroso, Power provisioning for a warehouse-sized
computer, ISCA 2007, doi 10.1145/1250662.1250665). Ignored: that GPUs which send and receive draw more than idle ones, and that
the power of computing depends on the clocks, the precision and the data; both lie within the spread of b. Making the hardware
is not counted (a fifth of BLOOM's carbon, arXiv:2211.02001).
"""

from __future__ import annotations

from typing import Final

from perfmodel.economics.goodput import TimeShares
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.timing.breakdown import WAITING, Breakdown

J_PER_KWH: Final = 3.6e6
J_PER_MWH: Final = 1e3 * J_PER_KWH


def busy_share(parts: Breakdown, shares: TimeShares) -> Numeric:
    """u = (1 - waiting / iteration) * (training + lost): kernels run in an iteration, and iterations in the calendar.

    >>> shares = TimeShares(training=0.8, lost=0.1, stalled=0.02, restarting=0.08)
    >>> round(busy_share(Breakdown(matmul_s=0.6, tensor_parallel_exposed_s=0.4), shares), 3)
    0.54
    """
    waiting_s: Numeric = sum(getattr(parts, part) for part in WAITING)
    return (1.0 - waiting_s / parts.total_s) * (shares.training + shares.lost)


def power_w(*, gpus: Numeric, busy: Numeric, cluster: Cluster, terms: Economics) -> Numeric | None:
    """PUE * gpus / gpus_per_node * P * (i + (b - i) * u), the average power of the site; None for a cluster without P.

    >>> from perfmodel.exchange.presets import cluster_preset, economics_preset
    >>> site = {"cluster": cluster_preset("dgx-h100"), "terms": economics_preset("typical")}
    >>> round(power_w(gpus=8, busy=1.0, **site)), round(power_w(gpus=8, busy=0.0, **site))
    (9302, 3550)
    """
    if cluster.node_power_w is None:
        return None
    share = terms.idle_power_share + (terms.busy_power_share - terms.idle_power_share) * busy
    return terms.power_usage_effectiveness * gpus / cluster.gpus_per_node * cluster.node_power_w * share


def carbon_kg(*, energy_j: Numeric, terms: Economics) -> Numeric:
    """energy * carbon intensity of the grid.

    >>> from perfmodel.exchange.presets import economics_preset
    >>> carbon_kg(energy_j=3.6e9, terms=economics_preset("typical"))
    445.0
    """
    return energy_j / J_PER_KWH * terms.carbon_kg_per_kwh
