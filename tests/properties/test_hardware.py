"""Is better hardware ever slower, and does more memory ever fit less?

Each number of a cluster grows as one array, so that five clusters are one prediction. What a faster clock cannot help may stay
the same; nothing may get longer by more than rounding, with three exceptions that have their reasons:

- Weight gradients that a schedule puts into the bubbles (zb-*) are shorter on a faster GPU, and fill them less. Where the CPU
  is what a pass waits for, that is all that changes: these schedules are tried beside a CPU that nothing waits for.
- A GPU that waits for its CPU draws less, and its power limit allows higher clocks (timing/passes.py). The waiting is counted
  at clocks that nothing holds down, so that a faster CPU may cost up to S^(1/4), S = 1 + full_load_slowdown: of k seconds of
  kernels and h of the CPU, T = max(h, k*S*(k/h)^(1/3)) is k*S where h = k, and least, k*S^(3/4), where both are equal.
  Counted at the clocks that the limit then allows, T = max(h, k*S) and no faster CPU costs anything: blocks at the clocks of
  their own duty alone. On the published runs that is as good (median error of dense models 2.8 % for 2.7, of mixtures 8.0 for
  7.9), but 273 of 703 move by up to 2.7 %, and what stacks and evidence learned from them would have to be learned anew.
- The closed form of a pipeline is the longest of a few paths, less what stages run meanwhile, and within a bound of the events
  (timing/pipeline.py): another path may be the longest on faster GPUs. Seen here: less than a thousandth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest
from hypothesis import given

from perfmodel.prediction import fit_odds, predict_stage, stage_breakdown
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.setup import Setup
from tests.properties.depth import examples
from tests.properties.runs import DrawnRun, runs

FACTORS: Final = np.array([1.0, 1.03, 1.4, 3.0, 20.0])
ROUNDING: Final = 1e-9
NO_HOST: Final = 1e-12
PATHS: Final = 1e-3  # what another longest path of a pipeline may cost


def with_gpu(cluster: Cluster, **numbers: Any) -> Cluster:
    """The cluster with other numbers of its GPU."""
    return with_numbers(cluster, {"gpu": with_numbers(cluster.gpu, numbers)})


def faster_network(cluster: Cluster, times: Numeric) -> Cluster:
    """NICs of more bandwidth."""
    link = with_numbers(cluster.links.network, {"bandwidth_bytes_per_s": cluster.links.network.bandwidth_bytes_per_s * times})
    return with_numbers(cluster, {"links": with_numbers(cluster.links, {"network": link})})


def faster_links(cluster: Cluster, times: Numeric) -> Cluster:
    """Links of more bandwidth inside the node."""
    link = with_numbers(cluster.links.node, {"bandwidth_bytes_per_s": cluster.links.node.bandwidth_bytes_per_s * times})
    return with_numbers(cluster, {"links": with_numbers(cluster.links, {"node": link})})


def faster_memory(cluster: Cluster, times: Numeric) -> Cluster:
    """Memory of more bandwidth."""
    return with_gpu(cluster, memory_bandwidth_bytes_per_s=cluster.gpu.memory_bandwidth_bytes_per_s * times)


def higher_peaks(cluster: Cluster, times: Numeric) -> Cluster:
    """Every peak rate higher."""
    return with_gpu(cluster, peak_flop_per_s={name: rate * times for name, rate in cluster.gpu.peak_flop_per_s.items()})


def faster_clocks(cluster: Cluster, times: Numeric) -> Cluster:
    """All GPUs run at higher clocks."""
    return with_numbers(cluster, {"compute_scale": cluster.compute_scale * times})


def healthier_network(cluster: Cluster, times: Numeric) -> Cluster:
    """More of the network's rate is had."""
    return with_numbers(cluster, {"network_scale": cluster.network_scale * times})


def healthier_links(cluster: Cluster, times: Numeric) -> Cluster:
    """More of the rate of the node's links is had."""
    return with_numbers(cluster, {"node_link_scale": cluster.node_link_scale * times})


def faster_host(cluster: Cluster, times: Numeric) -> Cluster:
    """A faster CPU."""
    return with_numbers(cluster, {"host_scale": cluster.host_scale / times})


def larger_cache(cluster: Cluster, times: Numeric) -> Cluster:
    """A larger L2 cache."""
    return with_gpu(cluster, cache_bytes=cluster.gpu.cache_bytes * times)


def more_alike(cluster: Cluster, times: Numeric) -> Cluster:
    """GPUs that differ less in speed."""
    return with_numbers(cluster, {"gpu_speed_deviation": cluster.gpu_speed_deviation / times})


def faster_host_link(cluster: Cluster, times: Numeric) -> Cluster:
    """A link of more bandwidth to the host's memory, where there is one."""
    rate = cluster.gpu.host_bytes_per_s
    return cluster if rate is None else with_gpu(cluster, host_bytes_per_s=rate * times)


BETTER: Final = [
    faster_host_link,
    faster_network,
    faster_links,
    faster_memory,
    higher_peaks,
    faster_clocks,
    healthier_network,
    healthier_links,
    faster_host,
    larger_cache,
    more_alike,
]


def on(setup: Setup, cluster: Cluster) -> Setup:
    """The same on another cluster."""
    return replace(setup, cluster=cluster)


def beside_a_ready_host(setup: Setup) -> Setup:
    """The same, where a schedule puts weight gradients into bubbles beside a CPU that nothing waits for."""
    if setup.layout.pipeline_schedule == "1f1b":
        return setup
    return on(setup, with_numbers(setup.cluster, {"host_scale": NO_HOST}))


def most_slower(better: Callable[..., Cluster], setup: Setup) -> float:
    """By what share an iteration may get longer on better hardware."""
    if better is faster_host and setup.cluster.gpu.full_load_slowdown:
        return float((1.0 + setup.cluster.gpu.full_load_slowdown) ** 0.25 - 1.0)
    return PATHS if int(setup.layout.pipeline_parallel) > 1 else ROUNDING


@pytest.mark.parametrize("better", BETTER)
@examples(20)
@given(drawn=runs())
def test_better_hardware_is_never_slower(better: Callable[[Cluster, Numeric], Cluster], drawn: DrawnRun) -> None:
    """Bandwidths, peaks, clocks and the CPU, one at a time, up to twenty times."""
    setup = beside_a_ready_host(drawn.setup)
    seconds = np.broadcast_to(stage_breakdown(on(setup, better(setup.cluster, FACTORS))).total_s, FACTORS.shape)
    assert np.all(np.diff(seconds) <= most_slower(better, setup) * seconds[:-1]), seconds.tolist()


@examples(30)
@given(drawn=runs())
def test_more_memory_fits_as_well_and_takes_as_long(drawn: DrawnRun) -> None:
    """The odds rise with capacity to 1, and the time does not know of it."""
    setup = drawn.setup
    larger = on(
        setup, with_gpu(setup.cluster, memory_bytes=setup.cluster.gpu.memory_bytes * np.array([0.01, 0.5, 1.0, 2.0, 1e6]))
    )
    predicted = predict_stage(larger)
    odds = np.asarray(fit_odds(larger, predicted.memory))
    assert np.all(np.diff(odds) >= 0)
    assert odds[-1] == pytest.approx(1.0)
    assert np.all(np.diff(np.asarray(predicted.fits).astype(int)) >= 0)
    assert np.size(predicted.iteration_time_s) == 1
