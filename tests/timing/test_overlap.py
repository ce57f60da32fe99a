"""What of a collective hides beside a product, and what it takes from it, seen in whole iterations.

Symbols: c the collective's time, g the product's, f the share of the SMs that a collective takes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.timing.breakdown import Breakdown
from tests.counted import predicted
from tests.layouts import RAMP_STAGE
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
CLUSTER = cluster_preset("dgx-h100")
STACK = stack_with(
    stack_preset("megatron-core"), {"overlap.tensor_parallel": "backward", "host.launch_s": 0.0, "host.unlisted_work": 1.0}
)
LAYOUT = replace(RAMP_STAGE, tensor_parallel=8, data_parallel=1, global_batch_size=1)  # no traffic but of the layers
FASTEST_LINK = 100.0 / CLUSTER.node_link_scale  # what a cluster may say
FRACTIONS = pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])


def parts(fraction: float, *, link_scale: float, overlap: str = "backward") -> Breakdown:
    """The parts of an iteration whose collectives take a share of the SMs, on links of another speed."""
    cluster = replace(CLUSTER, node_link_scale=CLUSTER.node_link_scale * min(link_scale, FASTEST_LINK))
    stack = stack_with(STACK, {"overlap.node_link_sm_fraction": fraction, "overlap.tensor_parallel": overlap})
    return predicted(MODEL, cluster, stack, LAYOUT).breakdown


@FRACTIONS
def test_beside_a_longer_collective_a_product_stretches_by_the_sms_it_lost(fraction: float) -> None:
    """It takes g / (1 - f), all of it hidden: the pair takes c, however many SMs the collective has."""
    none, some = (parts(each, link_scale=1e-3) for each in (0.0, fraction))
    assert none.tensor_parallel_exposed_s > 10 * none.matmul_s
    hidden_s = none.tensor_parallel_exposed_s - some.tensor_parallel_exposed_s
    assert hidden_s == pytest.approx(some.communication_slowdown_s, rel=1e-9)
    assert some.communication_slowdown_s / parts(0.05, link_scale=1e-3).communication_slowdown_s == pytest.approx(
        fraction / (1 - fraction) / (0.05 / 0.95), rel=1e-9
    )
    assert some.total_s == pytest.approx(none.total_s, rel=1e-12)


@FRACTIONS
def test_beside_a_longer_product_a_collective_is_hidden_and_takes_its_share(fraction: float) -> None:
    """The pair takes g + f * c: nothing more is exposed, and the product is slower while it runs."""
    exposed = {name: parts(fraction, link_scale=1e3, overlap=name).tensor_parallel_exposed_s for name in ("none", "backward")}
    found = parts(fraction, link_scale=1e3)
    hidden_s = exposed["none"] - exposed["backward"]
    assert hidden_s > 0
    assert found.communication_slowdown_s == pytest.approx(fraction * hidden_s, rel=1e-9)
    assert found.tensor_parallel_exposed_s == pytest.approx(parts(0.0, link_scale=1e3).tensor_parallel_exposed_s, rel=1e-12)


def test_software_that_fuses_pairs_hides_nothing_behind_another_product() -> None:
    """PyTorch's pass finds a product that takes or makes what is moved; gradients of inputs are sums, whose reduction waits."""
    stacks = {
        each: stack_with(STACK, {"overlap.tensor_parallel": "pipelined", "overlap.independent": each}) for each in (True, False)
    }
    alone = stack_with(STACK, {"overlap.tensor_parallel": "none"})
    exposed = {
        each: predicted(MODEL, CLUSTER, stack, LAYOUT).breakdown.tensor_parallel_exposed_s for each, stack in stacks.items()
    }
    assert exposed[True] < exposed[False] < predicted(MODEL, CLUSTER, alone, LAYOUT).breakdown.tensor_parallel_exposed_s
    backward = {
        each: stack_with(STACK, {"overlap.tensor_parallel": "backward", "overlap.independent": each}) for each in (True, False)
    }
    parts_of = {each: predicted(MODEL, CLUSTER, stack, LAYOUT).breakdown for each, stack in backward.items()}
    assert parts_of[False].communication_slowdown_s == 0.0 < parts_of[True].communication_slowdown_s
