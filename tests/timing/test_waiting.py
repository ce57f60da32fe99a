"""What do ranks wait for the last of them, by the closed forms of order statistics and random walks?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.busiest import greatest_normal
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.phases import OPTIMIZER
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("llama-3.1-8b")
PLAIN = stack_with(stack_preset("megatron-core"), {"overlap.data_parallel": False})
STEADY = cluster_preset("dgx-h100")
RESTLESS = replace(STEADY, rank_dispersion_s=1e-4)


def layout(**degrees: Any) -> Layout:
    """The ramp's layout with other degrees, of which those that are not given are 1."""
    alone: dict[str, Any] = {"tensor_parallel": 1, "data_parallel": 1, "sequence_parallel": False, "sharding": "none"}
    return replace(RAMP_STAGE, **(alone | {"global_batch_size": 4 * degrees.get("data_parallel", 1)} | degrees))


def parts(cluster: Any = RESTLESS, stack: Any = PLAIN, **degrees: Any) -> Any:
    """The breakdown of such a layout."""
    return predict_stage(setup_of(MODEL, layout(**degrees), stack, cluster=cluster)).breakdown


@pytest.mark.parametrize(("ranks", "expected"), [(1, 0.0), (2, 1 / math.sqrt(math.pi)), (3, 1.5 / math.sqrt(math.pi))])
def test_the_greatest_of_few_normal_numbers_is_known_exactly(ranks: int, expected: float) -> None:
    """One is its mean; of two and of three there are closed forms."""
    assert float(greatest_normal(ranks)) == pytest.approx(expected, abs=1e-6)


def test_the_greatest_of_many_grows_as_the_root_of_their_logarithm() -> None:
    """Tippett's table of 1925, and below sqrt(2 ln n) everywhere."""
    assert greatest_normal(np.array([5, 10, 100, 1000])) == pytest.approx([1.16296, 1.53875, 2.50759, 3.24144], abs=1e-5)
    many = 2.0 ** np.arange(1, 21)
    assert np.all(np.diff(greatest_normal(many)) > 0)
    assert np.all(greatest_normal(many) < np.sqrt(2.0 * np.log(many)))


def test_nobody_waits_where_nothing_was_measured_or_nobody_else_is_there() -> None:
    """The part is not even there."""
    assert "rank_waiting_s" not in dict(parts(STEADY, tensor_parallel=2).items())
    assert parts().rank_waiting_s == 0
    hidden = stack_with(PLAIN, {"overlap.hide_all": True})
    assert "rank_waiting_s" not in dict(parts(stack=hidden, tensor_parallel=2).items())


def test_two_ranks_wait_as_a_random_walk_between_their_meetings() -> None:
    """1/sqrt(pi) * sqrt(D * T * S): S the collectives of the passes, T everything but the wait."""
    with_wait, without = parts(tensor_parallel=2), parts(STEADY, tensor_parallel=2)
    work = iteration(setup_of(MODEL, layout(tensor_parallel=2), PLAIN, cluster=RESTLESS))
    meetings = sum(
        float(repeats)
        for operator, repeats in work.executions()
        if isinstance(operator, Collective) and operator.group.ranks == 2 and operator.phase != OPTIMIZER
    )
    expected = math.sqrt(1e-4 * float(without.total_s) * meetings / math.pi)
    assert float(with_wait.rank_waiting_s) == pytest.approx(expected, rel=1e-6)
    assert float(with_wait.total_s) == pytest.approx(float(without.total_s) + expected)


def test_replicas_meet_once_an_iteration() -> None:
    """However many collectives the optimizer step has: they follow one another at once."""
    without = float(parts(STEADY, data_parallel=2).total_s)
    assert float(parts(data_parallel=2).rank_waiting_s) == pytest.approx(math.sqrt(1e-4 * without / math.pi), rel=1e-6)
    sharded = {"data_parallel": 2, "sharding": "zero1"}
    without = float(parts(STEADY, **sharded).total_s)
    assert float(parts(**sharded).rank_waiting_s) == pytest.approx(math.sqrt(1e-4 * without / math.pi), rel=1e-6)


def test_ranks_of_experts_are_those_of_the_replicas() -> None:
    """Exchanges of tokens and the reduction of gradients are meetings of the same GPUs."""
    mixture = model_preset("mixtral-8x7b")
    experts = layout(data_parallel=2, expert_parallel=2)
    work = iteration(setup_of(mixture, experts, PLAIN, cluster=RESTLESS))
    assert set(work.meetings) == {"data_parallel"}
    ranks, times = work.meetings["data_parallel"]
    exchanges = sum(
        float(repeats)
        for operator, repeats in work.executions()
        if isinstance(operator, Collective) and operator.group.ranks == 2 and operator.phase != OPTIMIZER
    )
    assert (float(ranks), float(times)) == (2, exchanges + 1)


def test_stages_of_a_pipeline_meet_nobody_in_their_messages() -> None:
    """What they wait is a bubble; a stage meets its own ranks as often as it has layers."""
    whole = iteration(setup_of(MODEL, layout(tensor_parallel=2), PLAIN)).meetings["tensor_parallel"][1]
    piped = iteration(setup_of(MODEL, layout(tensor_parallel=2, pipeline_parallel=2, global_batch_size=4), PLAIN)).meetings
    assert set(piped) == {"tensor_parallel"}
    assert float(piped["tensor_parallel"][1]) == pytest.approx(float(whole) / 2, rel=0.05)


def test_an_array_of_layouts_waits_as_each_alone() -> None:
    """Numbers broadcast; one rank among them waits for nobody."""
    degrees = np.array([1, 2, 4])
    together = parts(tensor_parallel=degrees).rank_waiting_s
    alone = [float(parts(tensor_parallel=int(each)).rank_waiting_s) for each in degrees]
    assert list(map(float, together)) == pytest.approx(alone, rel=1e-12)
    assert alone[0] == 0


def test_a_spread_of_the_measure_widens_the_interval() -> None:
    """Of an iteration that waits, and of none else."""
    unsure = replace(RESTLESS, rank_dispersion_s=1e-2, spread={**RESTLESS.spread, "rank_dispersion_s": 3.0})
    sure = replace(RESTLESS, rank_dispersion_s=1e-2)

    def width(cluster: Any, **degrees: Any) -> float:
        low_s, high_s = predict_stage(setup_of(MODEL, layout(**degrees), PLAIN, cluster=cluster)).iteration_time_interval_s
        return float(high_s - low_s)

    assert width(unsure, tensor_parallel=2) > 1.01 * width(sure, tensor_parallel=2)
    assert width(unsure) == pytest.approx(width(sure))
