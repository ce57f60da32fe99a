"""Does a site draw what was measured, and nothing that follows from nothing?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.economics.energy import busy_share, carbon_kg, power_w
from perfmodel.economics.goodput import TimeShares
from perfmodel.exchange.presets import cluster_preset, economics_preset
from perfmodel.timing.breakdown import PARTS, WAITING, Breakdown

TERMS = economics_preset("typical")
H100 = cluster_preset("dgx-h100")
ALWAYS = TimeShares(training=1.0, lost=0.0, stalled=0.0, restarting=0.0)


def test_a_node_draws_between_idle_and_busy() -> None:
    """Linear in how busy it is, times the PUE of the site."""
    idle, half, busy = (power_w(gpus=8, busy=share, cluster=H100, terms=TERMS) for share in (0.0, 0.5, 1.0))
    assert idle == pytest.approx(1.2 * 0.29 * 10.2e3)
    assert busy == pytest.approx(1.2 * 0.76 * 10.2e3)
    assert half == pytest.approx((idle + busy) / 2)


def test_a_cluster_without_a_power_has_no_energy() -> None:
    """None is made up."""
    assert power_w(gpus=8, busy=1.0, cluster=replace(H100, node_power_w=None), terms=TERMS) is None


def test_every_part_of_an_iteration_is_computing_or_waiting() -> None:
    """Exposed communication, bubbles and launches wait."""
    assert set(WAITING) < set(PARTS)
    waiting = Breakdown(**dict.fromkeys(WAITING, 1.0))
    assert busy_share(waiting, ALWAYS) == 0
    assert busy_share(Breakdown(matmul_s=3.0, optimizer_s=1.0), ALWAYS) == 1
    assert busy_share(waiting + Breakdown(attention_s=len(WAITING)), ALWAYS) == pytest.approx(0.5)


def test_lost_training_draws_as_much_as_training_that_counts() -> None:
    """Restarts and stalls wait."""
    shares = TimeShares(training=0.7, lost=0.1, stalled=0.1, restarting=0.1)
    assert busy_share(Breakdown(matmul_s=1.0), shares) == pytest.approx(0.8)


def test_carbon_is_energy_times_the_grid() -> None:
    """1 MWh at 445 g a kWh."""
    assert carbon_kg(energy_j=3.6e9, terms=TERMS) == pytest.approx(445)


@pytest.mark.parametrize("cluster", ["dgx-a100", "dgx-a100-40gb", "dgx-h100", "dgx-h200", "dgx-b200", "gb200-nvl72"])
def test_shipped_clusters_state_what_a_node_draws(cluster: str) -> None:
    """Between 0.8 and 2.1 kW a GPU, more with each generation."""
    spec = cluster_preset(cluster)
    assert spec.node_power_w is not None
    assert 800 < spec.node_power_w / spec.gpus_per_node < 2100
