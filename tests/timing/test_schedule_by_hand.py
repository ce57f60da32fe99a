"""What an iteration adds to its passes: own runs, waits of ranks, steps of the optimizer, and how sure all that is."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from perfmodel.count.busiest import greatest_normal
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.exchange.presets import cluster_preset, gpu_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.evidence.own_runs import OwnShift
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.data_parallel import DataParallel
from perfmodel.timing.kernels import kernel_time_s, plain_matmul_time_s
from perfmodel.timing.schedule import PassPair, mean_waiting_s, optimizer_steps, pipelined
from perfmodel.timing.timed_operators import Pass
from perfmodel.timing.uncertainty import Uncertainty, uncertainty
from tests.count.mixtures import SMALL, layout_of, mixture_setup
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL, CLUSTER = model_preset("llama-3.1-8b"), cluster_preset("dgx-h100")
CORE = stack_preset("megatron-core")


def predicted(cluster: Cluster = CLUSTER, stack: SoftwareStack = CORE, **changes: Any) -> StagePrediction:
    """The prediction of a changed ramp stage."""
    return predict_stage(setup_of(MODEL, replace(RAMP_STAGE, **changes), stack, cluster=cluster))


def test_own_runs_stretch_every_part_alike() -> None:
    """Runs that took twice as long double all of them, and none where there are no runs."""
    shift = OwnShift(runs=1, kin="any", shift=math.log(2.0), remaining=0.5)
    own = replace(CLUSTER, evidence=replace(CLUSTER.evidence, own_shifts=(shift,)))
    plain, longer = (dict(predicted(cluster).breakdown.items()) for cluster in (CLUSTER, own))
    assert plain["matmul_s"] > 0
    assert {part: float(seconds) for part, seconds in longer.items()} == pytest.approx(
        {part: 2 * float(seconds) for part, seconds in plain.items()}, rel=1e-12
    )


RESTLESS = replace(CLUSTER, rank_dispersion_s=1e-4)
DEGREES: dict[str, Any] = {"tensor_parallel": 2, "data_parallel": 2, "pipeline_parallel": 4, "global_batch_size": 16}


def test_ranks_wait_along_each_axis_for_what_they_compute_between_two_meetings() -> None:
    """sum of e(n) * sqrt(D * T * S): T all but the wait itself and the bubble, in which nobody computes."""
    steady, restless = predicted(**DEGREES), predicted(RESTLESS, **DEGREES)
    parts = steady.breakdown
    busy_s = float(parts.total_s - parts.pipeline_bubble_s)
    assert float(parts.pipeline_bubble_s) > 0.1 * busy_s
    meetings = restless.work.meetings
    assert {name: float(ranks) for name, (ranks, _) in meetings.items()} == {"tensor_parallel": 2, "data_parallel": 2}
    expected = sum(math.sqrt(1e-4 * busy_s * float(times) / math.pi) for _, times in meetings.values())
    assert float(restless.breakdown.rank_waiting_s) == pytest.approx(expected, rel=1e-6)


def test_the_greatest_of_very_many_is_that_of_the_table() -> None:
    """Of 5 and 20 normal numbers 1.16296 and 1.86748 (Tippett 1925); an array in any order."""
    assert np.asarray(greatest_normal(np.array([[20, 5], [1, 20]]))).ravel().tolist() == pytest.approx(
        [1.86748, 1.16296, 0.0, 1.86748], abs=2e-5
    )


def test_what_stages_wait_for_each_other_knows_no_messages() -> None:
    """A network a tenth as fast changes nothing of it, where nothing else crosses nodes."""
    settings: dict[str, Any] = {"tensor_parallel": 8, "pipeline_parallel": 3, "data_parallel": 1, "global_batch_size": 8}
    stack = stack_with(CORE, {"overlap.pipeline": False})
    waits = []
    for scale in (1.0, 0.1):
        cluster = replace(CLUSTER, network_scale=CLUSTER.network_scale * scale)
        work = iteration(setup_of(MODEL, replace(RAMP_STAGE, **settings), stack, cluster=cluster))
        waits.append(float(mean_waiting_s(work, cluster=cluster, stack=stack)))
    assert waits[0] == pytest.approx(waits[1], rel=1e-9)
    assert waits[0] > 0


def test_one_stage_among_several_waits_for_nothing() -> None:
    """No bubble and no message of one, 3 * (p - 1) of even stages of 1 and 2."""
    degrees = np.array([1, 2, 4])
    layout = replace(RAMP_STAGE, pipeline_parallel=degrees, data_parallel=1, tensor_parallel=1, global_batch_size=8)
    one = PassPair(forward=Pass(parts=Breakdown(matmul_s=1.0)), backward=Pass(parts=Breakdown(matmul_s=2.0)))
    whole = PassPair(forward=one.forward * degrees, backward=one.backward * degrees)
    found = pipelined([one, one, one], whole, 0.25, layout=layout, stack=CORE)
    assert np.asarray(found.pipeline_bubble_s).tolist() == [0, 3, 9]
    assert np.asarray(found.pipeline_parallel_exposed_s)[0] == 0 < np.asarray(found.pipeline_parallel_exposed_s)[1]
    hidden = pipelined([one, one, one], whole, 0.25, layout=layout, stack=stack_with(CORE, {"overlap.hide_all": True}))
    assert np.asarray(hidden.pipeline_parallel_exposed_s).tolist() == [0, 0, 0]


def test_a_fuller_stage_between_makes_no_pipeline_of_two_slower() -> None:
    """Anything may stand in its place where there is none."""
    one = PassPair(forward=Pass(parts=Breakdown(matmul_s=1.0)), backward=Pass(parts=Breakdown(matmul_s=2.0)))
    slow = PassPair(forward=one.forward * 100, backward=one.backward * 100)
    layout = replace(RAMP_STAGE, pipeline_parallel=2, data_parallel=1, tensor_parallel=1, global_batch_size=8)
    whole = PassPair(forward=one.forward * 2, backward=one.backward * 2)
    assert float(pipelined([one, slow, one], whole, 0.0, layout=layout, stack=CORE).total_s) == (8 + 1) * 3


def test_weights_are_cast_with_every_gather_of_a_step() -> None:
    """Four micro-batches of sharded parameters cast them four times, once where they are gathered once."""
    for sharding, times in (("zero3", 4), ("zero1", 1)):
        stack = stack_with(CORE, {"host.launch_s": 0.0, "low_precision.parameter_gather": False})
        layout = replace(RAMP_STAGE, sharding=sharding, precision="fp8", data_parallel=8, global_batch_size=32)
        steps = {
            step.operator.name: step
            for step in optimizer_steps(iteration(setup_of(MODEL, layout, stack)), CLUSTER, stack)
            if isinstance(step.operator, MemoryBound)
        }
        cast = steps["optimizer.quantise_weights"]
        assert isinstance(cast.operator, MemoryBound)
        assert float(cast.operator.repeats) == times
        once_s = float(kernel_time_s(cast.operator, cluster=CLUSTER, stack=stack))
        assert float(cast.free_s) == pytest.approx(times * once_s, rel=1e-12)


def mixed(**layout: Any) -> Iteration:
    """A mixture whose first of two pipeline stages has no experts."""
    kinds = MappingProxyType({"experts": LayerKind(feed_forward="experts"), "dense": LayerKind(feed_forward="dense")})
    model = replace(SMALL, layer_kinds=kinds, layer_pattern=("experts",), first_layers=("dense", "dense"))
    stack = stack_with(CORE, {"states.pipeline_split": "layers", "overlap.data_parallel": True, "overlap.hide_all": False})
    return iteration(mixture_setup(model, layout_of(expert_parallel=2, **layout), stack, "dgx-h100"))


@pytest.mark.parametrize("sharding", ["none", "zero1", "zero3"])
def test_stages_with_experts_and_without_expose_what_each_exposes(sharding: str) -> None:
    """Nothing of experts where there are none."""
    degrees = {"pipeline_parallel": np.array([1, 2]), "data_parallel": np.array([8, 4])}

    def exposed(work: Iteration) -> Any:
        moved = DataParallel(work=work, cluster=CLUSTER, stack=work.setup.stack)
        return moved.breakdown(forward_s=2e-5, backward_s=5e-5).data_parallel_exposed_s

    together = np.broadcast_to(exposed(mixed(sharding=sharding, **degrees)), 2).tolist()
    alone = [exposed(mixed(sharding=sharding, pipeline_parallel=p, data_parallel=d)) for p, d in ((1, 8), (2, 4))]
    assert together == pytest.approx([float(each) for each in alone], rel=1e-12)
    assert together[0] != together[1]


def test_coefficients_of_each_shape_time_it_as_alone() -> None:
    """Equal shapes whose efficiencies differ are not timed once for all."""
    gpu = gpu_preset("h100-sxm-80gb")
    law = gpu.matmul("bf16")
    efficiencies = np.linspace(0.5, 0.9, 80)
    product = Matmul(name="fc1", rows=np.full(80, 4096.0), columns=4096, inner=4096, precision="bf16")
    together = plain_matmul_time_s(product, with_numbers(law, {"efficiency": efficiencies}), gpu=gpu, compute_scale=1.0)
    alone = [
        float(
            plain_matmul_time_s(
                replace(product, rows=4096), with_numbers(law, {"efficiency": each}), gpu=gpu, compute_scale=1.0
            )
        )
        for each in efficiencies
    ]
    assert np.asarray(together).tolist() == pytest.approx(alone, rel=1e-12)
    assert len(set(alone)) == 80


def test_own_runs_narrow_an_interval_in_its_logarithm() -> None:
    """A number that halves or doubles the time, and a discrepancy of nothing: half of it leaves a root of two either way."""
    found = uncertainty(np.array([4.0, 8.0, 2.0]), ["a"], remaining=0.5)
    assert (found.low_s, found.high_s) == pytest.approx((4 / math.sqrt(2), 4 * math.sqrt(2)), rel=1e-12)
    assert found.half_widths_s == {"a": 3.0}
    assert found.ends_s == {"a": (8.0, 2.0)}
    assert found.numbers_s == {"a": 1.5}
    alone = uncertainty(np.array([4.0]), [], Discrepancy(half_width=math.log(3.0)))
    assert (alone.low_s, alone.high_s) == pytest.approx((4 / 3, 12), rel=1e-12)
    assert alone.discrepancy_s == pytest.approx(4 * (3 - 1 / 3) / 2, rel=1e-12)
    nothing = uncertainty(np.array([4.0]), [])
    assert (nothing.low_s, nothing.high_s, nothing.shares) == (4.0, 4.0, {})


def test_parts_of_an_interval_are_what_own_runs_leave() -> None:
    """Each half as wide where they leave half; shares are those before, ranked by the greatest of many layouts."""
    widths = {
        "cluster.gpu.x": np.array([1.0, 5.0]),
        "cluster.compute_scale": np.array([3.0, 3.0]),
        "stack.y": np.array([0.0, 0.0]),
    }
    found = Uncertainty(low_s=0.0, high_s=0.0, half_widths_s=widths, ends_s={}, discrepancy_s=4.0, remaining=0.5)
    parts = {name: np.broadcast_to(half_s, 2).tolist() for name, half_s in found.parts_s.items()}
    assert parts == {"coefficients": [0.5, 2.5], "machine": [1.5, 1.5], "discrepancy": [2.0, 2.0]}
    assert list(found.shares) == ["cluster.gpu.x", "cluster.compute_scale"]
    assert np.asarray(found.shares["cluster.gpu.x"]).tolist() == pytest.approx([1 / 26, 25 / 50])
