"""Is the interval the root of the sum of squares of what each uncertain number does alone?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.evidence.run_evidence import NO_EVIDENCE, RunEvidence
from perfmodel.spec.evidence.spread import moved, uncertain_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.precision import RECIPES
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.uncertainty import LEAST_SPREAD, Estimate, Uncertainty, uncertainty, with_ends
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("nemotron-4-15b")
CLUSTER = replace(
    cluster_preset("dgx-h100"), compute_scale=1.0, node_link_scale=1.0, network_scale=1.0, gpu_speed_deviation=0.01, spread={}
)
STACK = stack_preset("megatron-core")
SCALES = ("compute_scale", "node_link_scale", "network_scale", "gpu_speed_deviation")
Time = Callable[[Cluster, SoftwareStack], Numeric]


def interval(time_s: Time, spread: Mapping[str, Numeric], dimensions: int = 0, **scales: Any) -> Uncertainty:
    """The interval of a time that depends on scalars of a cluster which are known to within `spread`."""
    cluster = replace(CLUSTER, spread=spread, **scales)
    paths, at_the_ends, stack, _ = with_ends(cluster, STACK, RECIPES["bf16"], dimensions, messages=True)
    times = np.asarray(time_s(at_the_ends, stack))
    shape = np.broadcast_shapes(times.shape, (1 + 2 * len(paths), *(1,) * dimensions))
    return uncertainty(np.broadcast_to(times, shape), paths)


def predicted(cluster: Cluster = CLUSTER, stack: SoftwareStack = STACK, **changes: Any) -> StagePrediction:
    """The prediction of the first ramp stage, or of a changed one."""
    return predict_stage(setup_of(MODEL, replace(RAMP_STAGE, **changes), stack, cluster=cluster))


def half_width(found: Uncertainty) -> Numeric:
    """Half of the interval."""
    return (found.high_s - found.low_s) / 2


def test_a_time_of_certain_numbers_has_no_interval() -> None:
    """No spread, a spread of 0, or a spread of what the time does not depend on."""
    for spread in ({}, {"network_scale": 0.0}, {"node_link_scale": 0.5}):
        found = interval(lambda cluster, _: 3.0 * cluster.network_scale, spread)
        assert found.low_s == found.high_s == 3.0


def test_one_number_alone_moves_the_time_to_its_own_ends() -> None:
    """T / (1 + s) to T * (1 + s) of a time in proportion, the other way round of one in inverse proportion."""
    spread = {"network_scale": 0.25}
    for time_s in (lambda cluster, _: 4.0 * cluster.network_scale, lambda cluster, _: 4.0 / cluster.network_scale):
        found = interval(time_s, spread)
        assert found.low_s == pytest.approx(4 / 1.25)
        assert found.high_s == pytest.approx(4 * 1.25)


def test_independent_numbers_add_up_as_the_root_of_their_squares() -> None:
    """Of the logarithms of what each alone does to the time: factors of 2^3 and 2^4 make 2^5, above and below."""
    spread = {"node_link_scale": 1.0, "network_scale": 1.0}
    found = interval(lambda cluster, _: cluster.node_link_scale**3 * cluster.network_scale**4, spread)
    assert found.high_s == pytest.approx(2.0**5)
    assert found.low_s == pytest.approx(2.0**-5)


def test_what_operators_share_moves_them_all_at_once() -> None:
    """Four equal terms: twice the width where one number serves them all, to first order, of that where each has its own."""
    spread = dict.fromkeys(SCALES, 0.02)
    shared = interval(lambda cluster, _: 4.0 * cluster.network_scale, spread)
    apart = interval(lambda cluster, _: sum(getattr(cluster, name) / getattr(CLUSTER, name) for name in SCALES), spread)
    assert half_width(shared) == pytest.approx(half_width(apart) * len(SCALES) ** 0.5, rel=0.02)


def test_a_time_that_either_end_makes_longer_is_not_shorter_at_either() -> None:
    """A least time stays the low end: |log c| is 0 at c = 1."""
    found = interval(lambda cluster, _: 1.0 + np.abs(np.log(cluster.network_scale)), {"network_scale": 0.5})
    assert found.low_s == 1.0
    assert found.high_s == pytest.approx(1 + np.log(1.5))


@given(st.floats(0.02, 2.9), st.floats(0.02, 2.9), st.sampled_from(SCALES))
def test_a_wider_spread_never_gives_a_narrower_interval(one: float, other: float, name: str) -> None:
    """At either end."""
    time = lambda cluster, _: 1.0 / cluster.compute_scale + sum(getattr(cluster, each) for each in SCALES)  # noqa: E731
    narrow, wide = (interval(time, {name: spread, "network_scale": 0.3}) for spread in sorted((one, other)))
    if name != "network_scale":
        assert wide.low_s <= narrow.low_s <= narrow.high_s <= wide.high_s


@pytest.mark.parametrize(("spread", "moves"), [(0.0, False), (0.01, False), (0.0199, False), (0.02, True), (0.021, True)])
def test_what_is_known_to_within_2_percent_is_left_out(spread: float, moves: bool) -> None:
    """Each end of a number costs as much as a prediction; those known well bring next to nothing."""
    found = interval(lambda cluster, _: 1.0 * cluster.network_scale, {"network_scale": spread})
    assert half_width(found) == pytest.approx(((1 + spread) - 1 / (1 + spread)) / 2 if moves else 0)
    assert ("cluster.network_scale" in found.half_widths_s) == moves
    assert found.half_widths_s.get("cluster.network_scale", 0.0) == pytest.approx(half_width(found), rel=1e-3)


def test_shares_are_those_of_the_variance_and_sum_to_one() -> None:
    """Greatest first; what moves nothing has none."""
    spread = {"compute_scale": 0.1, "node_link_scale": 0.1, "network_scale": 0.1}
    found = interval(lambda cluster, _: 3.0 * cluster.node_link_scale + 4.0 * cluster.network_scale, spread)
    assert list(found.shares) == ["cluster.network_scale", "cluster.node_link_scale"]
    assert list(found.shares.values()) == pytest.approx([16 / 25, 9 / 25])


def without_runs(cluster: Cluster) -> Cluster:
    """The cluster as if nobody had measured runs on such GPUs."""
    return replace(cluster, evidence=NO_EVIDENCE)


def test_the_discrepancy_widens_what_numbers_leave_open() -> None:
    """As one more independent part, with its share; a half width of ln 2 alone reaches from half of the time to twice."""
    cluster = without_runs(cluster_preset("dgx-h100"))
    evidence = RunEvidence(name="runs", cells={"any": (float(np.log(2.0)), 0.1, 0.1, 0.1, 9, 3)})
    bare, widened = predicted(cluster), predicted(replace(cluster, evidence=evidence))
    assert widened.iteration_time_s == bare.iteration_time_s
    for end, known in zip(widened.iteration_time_interval_s, bare.iteration_time_interval_s, strict=True):
        squares = [np.log(float(each / bare.iteration_time_s)) ** 2 for each in (end, known)]
        assert squares[0] - squares[1] == pytest.approx(np.log(2.0) ** 2)
    parts = widened.uncertainty.parts_s
    assert parts["discrepancy"] == pytest.approx(0.75 * float(bare.iteration_time_s))
    known_s2 = sum(float(half_s) ** 2 for half_s in widened.uncertainty.half_widths_s.values())
    assert float(parts["coefficients"]) ** 2 + float(parts["machine"]) ** 2 == pytest.approx(known_s2)
    assert sum(widened.uncertainty.shares.values()) == pytest.approx(known_s2 / (known_s2 + float(parts["discrepancy"]) ** 2))


def test_an_estimate_does_not_know_its_unit() -> None:
    """Unless it is told what it cannot be less than: every quantile of a millionth as much is a millionth as much."""
    one, small = (Estimate(median=unit, low=0.8 * unit, high=1.3 * unit) for unit in (1.0, 1e-6))
    for probability in (0.01, 0.05, 0.5, 0.95, 0.99):
        assert small.quantile(probability) == pytest.approx(1e-6 * float(one.quantile(probability)), rel=1e-12)
    assert replace(one, least=0.9).quantile(0.05) == 0.9


def test_the_clocks_of_a_cluster_are_part_of_the_machine() -> None:
    """Its own numbers are; those of its GPU, of its links and of the stack are coefficients."""
    half_widths_s = {
        "cluster.compute_scale": 3.0,
        "cluster.network_scale": 4.0,
        "cluster.gpu.kernels.x": 1.0,
        "stack.host.y": 1.0,
    }
    found = Uncertainty(low_s=0.0, high_s=0.0, half_widths_s=half_widths_s, ends_s={}, discrepancy_s=2.0)
    assert found.parts_s == pytest.approx({"coefficients": np.sqrt(2.0), "machine": 5.0, "discrepancy": 2.0})


def test_a_prediction_names_what_makes_it_unsure() -> None:
    """All of its variance, by key paths of numbers that the cluster and the stack call uncertain."""
    cluster = without_runs(cluster_preset("dgx-h100"))
    shares = predicted(cluster).uncertainty.shares
    stated = dict([*uncertain_numbers(cluster, "cluster."), *uncertain_numbers(STACK, "stack.")])
    assert set(shares) <= set(stated)
    assert sum(shares.values()) == pytest.approx(1)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_the_interval_of_a_prediction_is_that_of_predictions_at_the_ends() -> None:
    """Each uncertain number moved by hand, one prediction after the other, and their squares of their logarithms added up."""
    cluster = without_runs(cluster_preset("dgx-h100"))
    found = predicted(cluster)
    gained: Numeric = 0.0
    lost: Numeric = 0.0
    for path, spread in [*uncertain_numbers(cluster, "cluster."), *uncertain_numbers(STACK, "stack.")]:
        if spread >= LEAST_SPREAD:
            times = [
                predicted(moved(cluster, {path: factor}, "cluster."), moved(STACK, {path: factor}, "stack.")).iteration_time_s
                for factor in (1 + spread, 1 / (1 + spread))
            ]
            gained += np.log(max(found.iteration_time_s / min(times), 1.0)) ** 2
            lost += np.log(max(max(times) / found.iteration_time_s, 1.0)) ** 2
    low_s, high_s = found.iteration_time_interval_s
    assert low_s == pytest.approx(found.iteration_time_s * np.exp(-(gained**0.5)), rel=1e-12)
    assert high_s == pytest.approx(found.iteration_time_s * np.exp(lost**0.5), rel=1e-12)


def test_no_interval_reaches_below_nothing() -> None:
    """However wide: gains multiply."""
    found = interval(lambda cluster, _: 1.0 / (cluster.compute_scale * cluster.network_scale), dict.fromkeys(SCALES, 3.0))
    assert 0 < found.low_s < found.high_s


def test_the_time_itself_is_that_without_any_spread() -> None:
    """Bit for bit: what is uncertain changes the interval and nothing else."""
    sure = replace(cluster_preset("dgx-h100"), spread={})
    assert predicted(sure).iteration_time_s == predicted(cluster_preset("dgx-h100")).iteration_time_s


STAGES = {"pipeline_parallel": 8, "tensor_parallel": 1, "data_parallel": 1, "global_batch_size": 16}
RING = {"context_parallel": 8, "tensor_parallel": 1, "data_parallel": 1, "sequence_length": 2048}


@pytest.mark.parametrize(
    ("layout", "norms"),
    [
        ({"precision": "bf16"}, "fused"),
        ({"precision": "fp8"}, "eager"),
        ({"precision": "fp16"}, "compiled"),
        ({"sharding": "zero3"}, "fused"),
        (STAGES, "fused"),
        (RING, "fused"),
    ],
)
def test_numbers_that_no_kernel_is_timed_by_are_not_moved(layout: dict[str, Any], norms: str) -> None:
    """8-bit products and casts of a 16-bit run, norms of other stacks, all-to-alls: they could only have moved nothing."""
    cluster, stack = cluster_preset("dgx-h100"), stack_with(STACK, {"fusion.norms": norms})
    found = predicted(cluster, stack, **layout)
    stated = dict([*uncertain_numbers(cluster, "cluster."), *uncertain_numbers(stack, "stack.")])
    left_out = [
        path for path, spread in stated.items() if path not in found.uncertainty.half_widths_s and spread >= LEAST_SPREAD
    ]
    assert left_out
    factors = dict.fromkeys(left_out, 1.5)
    again = predicted(moved(cluster, factors, "cluster."), moved(stack, factors, "stack."), **layout)
    assert again.iteration_time_s == found.iteration_time_s


def test_every_cluster_of_an_array_has_an_interval_of_its_own() -> None:
    """Spreads and scalars of three clusters, against two layouts, each as alone."""
    scales, spreads = np.array([0.5, 1.0, 2.0]), np.array([0.0, 0.1, 0.5])
    time: Time = lambda cluster, _: np.array([[1.0], [2.0]]) / cluster.network_scale  # noqa: E731
    together = interval(time, {"network_scale": spreads, "compute_scale": 0.1}, 2, network_scale=scales)
    assert np.shape(together.low_s) == np.shape(together.high_s) == (2, 3)
    for column, (scale, spread) in enumerate(zip(scales, spreads, strict=True)):
        alone = interval(lambda cluster, _: 2.0 / cluster.network_scale, {"network_scale": spread}, network_scale=scale)
        assert np.asarray(together.low_s)[1, column] == pytest.approx(alone.low_s)
        assert np.asarray(together.high_s)[1, column] == pytest.approx(alone.high_s)


def test_clusters_of_one_name_are_not_taken_for_each_other() -> None:
    """Cached ends are those of equal specs, whatever they are called."""
    wide = replace(cluster_preset("dgx-h100"), spread={"network_scale": 0.9})
    narrow = replace(wide, spread={"network_scale": 0.1})
    widths = [half_width(predicted(cluster).uncertainty) for cluster in (wide, narrow, wide)]
    assert widths[0] == widths[2] > widths[1]
