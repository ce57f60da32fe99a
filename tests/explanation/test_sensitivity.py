"""Is what a number does to the time the difference of two predictions, with the sign that physics wants?"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from perfmodel.exchange.presets import cluster_preset, preset_names, stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.explanation.levers import coefficients, levers
from perfmodel.explanation.sensitivity import Effect, Sensitivity, sensitivity
from perfmodel.prediction import predict, predict_stage
from perfmodel.spec.evidence.spread import uncertain_numbers
from tests.search.layouts.layouts import CLUSTER, LAYOUTS, MODEL, STACKS, predicted
from tests.setups import setup_of

CORE = stack_preset("megatron-core")
HELPS = re.compile(r".*(bandwidth_bytes_per_s|efficiency|peak_flop_per_s\.\w+|compute_scale|network_scale|node_link_scale)$")
HURTS = re.compile(r".*(latency_s|fixed_s|launch_s|iteration_s|tree_start_s|scale_exponent|s_per_root_byte|own_shard)$")


@cache
def moved(layout: str, stack: str = "megatron-core") -> Sensitivity:
    """One layout under every lever."""
    return sensitivity(setup_of(MODEL, LAYOUTS[layout], stack_preset(stack), cluster=CLUSTER))


def effect_of(name: str, layout: str, stack: str = "megatron-core") -> Effect:
    """That of one lever."""
    return next(effect for effect in moved(layout, stack).effects() if effect.lever.name == name)


@pytest.mark.parametrize("stack", preset_names("stacks"))
def test_where_nothing_is_moved_is_the_prediction(stack: str) -> None:
    """To the last bit, for every stack."""
    software = stack_preset(stack)
    layout = LAYOUTS["dense"]
    times = sensitivity(setup_of(MODEL, layout, software, cluster=CLUSTER)).breakdown.total_s
    assert times[0] == predict_stage(setup_of(MODEL, layout, software, cluster=CLUSTER)).iteration_time_s  # type: ignore[index]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_where_nothing_is_moved_every_layout_is_its_prediction(layout: str) -> None:
    """For every kind of layout, too."""
    assert moved(layout).breakdown.total_s[0] == predicted(layout).iteration_time_s  # type: ignore[index]


@pytest.mark.parametrize(
    "path",
    [
        "cluster.links.node.bandwidth_bytes_per_s",
        "cluster.links.network.bandwidth_bytes_per_s",
        "cluster.gpu.memory_bandwidth_bytes_per_s",
        "cluster.gpu.peak_flop_per_s.bf16",
        "cluster.gpu.kernels.matmul.bf16.efficiency",
        "cluster.gpu.kernels.memory_bound.elementwise.fixed_s",
        "cluster.links.node.collectives.all_gather.s_per_root_byte",
        "cluster.gpu_speed_deviation",
        "stack.fusion.loss_forward_bytes",
        "stack.overlap.bucket_parameters",
        "stack.overlap.node_link_sm_fraction",
    ],
)
def test_an_effect_is_the_difference_of_two_predictions(path: str) -> None:
    """The number 10 % up and 10 % down, as --set would have it."""
    run = read_candidates("nemotron-4-15b")[0].run
    stage = run.stages[0]
    found = sensitivity(setup_of(run.model, run.layout(stage), run.stack, cluster=run.cluster))
    value = coefficients(run.cluster, run.stack)[path].value
    now_s = float(predict(run).stages[0][1].iteration_time_s)
    alone = [effect for effect in found.effects() if [each.path for each in effect.lever.coefficients] == [path]]
    for factor, shift in ((1.1, alone[0].up), (0.9, alone[0].down)):
        other = read_candidates("nemotron-4-15b", [(path, value * factor)])[0].run
        change = float(predict(other).stages[0][1].iteration_time_s) / now_s - 1.0
        assert shift.change == pytest.approx(change, abs=1e-12)
        assert shift.step == pytest.approx(factor - 1.0)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_bandwidth_never_slows_and_more_latency_never_speeds_up(layout: str, stack: str) -> None:
    """Every rate and efficiency helps or does nothing, every fixed time costs or does nothing."""
    for effect in moved(layout, stack).effects():
        for each in effect.lever.coefficients:
            if HELPS.fullmatch(each.path):
                assert effect.up.change <= 1e-12, each.path
                assert effect.down.change >= -1e-12, each.path
            if HURTS.fullmatch(each.path):
                assert effect.up.change >= -1e-12, each.path
                assert effect.down.change <= 1e-12, each.path


def test_numbers_that_belong_together_move_together() -> None:
    """A peak rate 10 % up in every precision is another prediction."""
    layout = LAYOUTS["fp8"]
    rates = {name: rate * 1.1 for name, rate in CLUSTER.gpu.peak_flop_per_s.items()}
    faster = replace(CLUSTER, gpu=replace(CLUSTER.gpu, peak_flop_per_s=rates))
    change = (
        float(predict_stage(setup_of(MODEL, layout, CORE, cluster=faster)).iteration_time_s / predicted("fp8").iteration_time_s)
        - 1.0
    )
    assert effect_of("peak rate", "fp8").up.change == pytest.approx(change, rel=1e-9)


@pytest.mark.parametrize("name", ["NVLink 4 (H100) bandwidth", "InfiniBand NDR 400G bandwidth", "NVLink 4 (H100) latency"])
def test_links_are_nothing_to_a_stack_that_hides_everything(name: str) -> None:
    """Nor to one GPU."""
    assert not effect_of(name, "dense", "ideal").matters
    assert not effect_of(name, "one GPU").matters
    assert effect_of(name, "dense").matters


def test_those_that_help_most_come_first() -> None:
    """Ranked by what the direction that helps saves."""
    changes = [effect.helping.change for effect in moved("dense").effects()]
    assert changes == sorted(changes)
    assert all(effect.helping.change <= effect.hurting.change for effect in moved("dense").effects())


def test_headlines_are_what_a_person_asks_for_first() -> None:
    """By the name of the very link; each number alone is there too, unless it is a headline by itself."""
    every = levers(CLUSTER, CORE)
    names = [lever.name for lever in every if lever.headline]
    assert names[:4] == ["NVLink 4 (H100) bandwidth", "InfiniBand NDR 400G bandwidth", "GPU memory bandwidth", "peak rate"]
    assert {"network latency", "kernel launch time"} <= set(names)
    alone = [lever.coefficients[0].path for lever in every if len(lever.coefficients) == 1]
    assert sorted(alone) == sorted(coefficients(CLUSTER, CORE))
    assert len(alone) == len(set(alone))


def test_every_uncertain_number_can_be_moved() -> None:
    """Whatever has a spread has an effect of its own."""
    uncertain = {path for path, _ in (*uncertain_numbers(CLUSTER, "cluster."), *uncertain_numbers(CORE, "stack."))}
    assert uncertain <= set(coefficients(CLUSTER, CORE))


def test_whole_numbers_and_sizes_of_one_number_are_not_moved() -> None:
    """Nobody has 8.8 GPUs in a node, or 2.2 bytes in a gradient."""
    known = set(coefficients(CLUSTER, CORE))
    held = {
        "cluster.gpus_per_node",
        "cluster.nics_per_node",
        "cluster.gpu.streaming_multiprocessors",
        "stack.states.gradient_bytes",
    }
    held |= {"cluster.links.node.measured_bandwidth_bytes_per_s", "cluster.busy_share"}
    assert not held & known


def test_a_factor_of_shared_memory_is_a_lever_where_memory_is_shared() -> None:
    """Of the cores of a CPU; GPUs have a memory each."""

    def factors(cluster: str) -> list[str]:
        return [path for path in coefficients(cluster_preset(cluster), CORE) if path.endswith("busy_factor")]

    assert factors("dgx-h100") == []
    assert factors("amd-epyc-2-cores")


def test_a_number_goes_no_further_than_it_may() -> None:
    """An efficiency of 0.95 rises to 1; work beside the listed operators does not become negative."""
    assert effect_of("cluster.gpu.kernels.matmul.bf16.memory_efficiency", "dense").up.step == pytest.approx(1 / 0.9496 - 1)
    unlisted = effect_of("stack.host.unlisted_work", "dense")
    assert (unlisted.down.step, unlisted.down.change) == (0.0, 0.0)
    assert unlisted.up.change > 0
    assert unlisted.helping == unlisted.down


def test_parts_of_the_iteration_have_effects_of_their_own() -> None:
    """Changes of the parts, weighed with their sizes, are the change of the whole."""
    found, name = moved("dense"), "NVLink 4 (H100) bandwidth"
    total_s = float(predicted("dense").iteration_time_s)
    changed_s = 0.0
    for part, seconds in predicted("dense").breakdown.items():
        if np.any(seconds):
            effect = next(each for each in found.effects(getattr(found.breakdown, part)) if each.lever.name == name)
            changed_s += effect.up.change * float(seconds)
    assert changed_s / total_s == pytest.approx(effect_of(name, "dense").up.change, rel=1e-9)


def test_a_part_that_is_nothing_has_no_effects() -> None:
    """No bubble, nothing behind it."""
    assert moved("dense").effects(moved("dense").breakdown.pipeline_bubble_s) == ()


def test_rows_are_a_table() -> None:
    """One a lever, in order."""
    rows = moved("dense").rows()
    assert len(rows) == len(moved("dense").levers)
    assert [row["time_change"] for row in rows] == sorted(row["time_change"] for row in rows)
