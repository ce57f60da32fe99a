"""Is a prediction over arrays bit for bit the loop of single predictions?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.refusals import check_setup
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LAYOUTS = 400
PIPELINES = 120
STEP = 8  # one of so many is predicted alone: a single prediction takes some 15 ms


def random_layouts() -> dict[str, Any]:
    """Degrees and sizes of 400 layouts that can exist for Nemotron-4 15B."""
    draw = np.random.default_rng(15)
    tensor = draw.choice([1, 2, 4, 8, 16], LAYOUTS)
    data = draw.integers(1, 400, LAYOUTS)
    micro = draw.integers(1, 9, LAYOUTS)
    batch = micro * data * draw.integers(1, 33, LAYOUTS)
    length = draw.choice([1024, 2048, 4096, 8192, 32768], LAYOUTS)
    return {
        "tensor_parallel": tensor,
        "data_parallel": data,
        "micro_batch_size": micro,
        "global_batch_size": batch,
        "sequence_length": length,
    }


def with_bandwidths(cluster: Cluster, network: Any, node: Any) -> Cluster:
    """The cluster with other rates of its links."""
    link = replace(cluster.links.network, bandwidth_bytes_per_s=network)
    return replace(cluster, links=replace(cluster.links, network=link), node_link_scale=node)


def numbers(prediction: StagePrediction) -> dict[str, Any]:
    """Every number of a prediction by name."""
    parts = dict(prediction.breakdown.items())
    parts |= dict(prediction.memory.items())
    low, high = prediction.iteration_time_interval_s
    names = ("iteration_time_s", "mfu", "hfu", "model_flop_per_token", "headroom_bytes", "fits", "tokens_per_s_per_gpu")
    return parts | {"low": low, "high": high} | {name: getattr(prediction, name) for name in names}


def random_pipelines(*, interleaved: bool, fewest: int) -> dict[str, Any]:
    """Stages, pieces and ranks of a sequence of 120 layouts of 62 layers; a fourth have one rank a sequence."""
    draw = np.random.default_rng(62)
    stages = np.maximum(draw.choice([1, 1, 2, 4, 8, 16], PIPELINES), fewest)
    pieces = np.where(stages > 1, draw.choice([1, 2, 4], PIPELINES), 1) if interleaved else np.ones(PIPELINES, dtype=int)
    data, micro = 2 * draw.integers(2, 20, PIPELINES), draw.integers(1, 5, PIPELINES)
    return {
        "pipeline_parallel": stages,
        "virtual_pipeline": np.where(stages * pieces > 64, 1, pieces),
        "context_parallel": draw.choice([1, 2, 4, 8], PIPELINES),
        "tensor_parallel": draw.choice([1, 2, 8], PIPELINES),
        "data_parallel": data,
        "micro_batch_size": micro,
        "global_batch_size": micro * data * stages * draw.integers(1, 5, PIPELINES),
        "sequence_length": draw.choice([4096, 16384], PIPELINES),
    }


def assert_equal_to_a_loop(stack: str, categories: dict[str, Any], *, fewest: int) -> None:
    """Predict all of `random_pipelines` in one call, and every sixth of them alone: to the last bit."""
    model, cluster, software = replace(model_preset("llama-3.1-8b"), layers=62), cluster_preset("dgx-h100"), stack_preset(stack)
    categories = {"precision": "bf16", "sequence_parallel": True, **categories}
    layouts = random_pipelines(interleaved="pipeline_schedule" not in categories, fewest=fewest)
    many = Layout(**categories, **layouts)
    check_setup(setup_of(model, many, cluster=cluster))
    together = numbers(predict_stage(setup_of(model, many, software, cluster=cluster)))
    for index in range(0, PIPELINES, 6):
        sizes: dict[str, Any] = {name: int(values[index]) for name, values in layouts.items()}
        alone = numbers(predict_stage(setup_of(model, Layout(**categories, **sizes), software, cluster=cluster)))
        for name, value in alone.items():
            assert np.broadcast_to(together[name], (PIPELINES,))[index] == value, (name, sizes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stack", "categories"),
    [
        ("megatron-core", {"sharding": "zero1", "recompute": "none"}),
        ("megatron-core", {"sharding": "zero2", "recompute": "selective", "pipeline_schedule": "zb-1p"}),
        ("generic", {"sharding": "none", "recompute": "full", "pipeline_schedule": "zb-2p", "precision": "fp8"}),
        ("torchtitan", {"sharding": "zero3", "recompute": "selective"}),
        ("torchtitan", {"sharding": "hsdp", "data_parallel_replicas": 2, "recompute": "none"}),
        ("ideal", {"sharding": "zero1", "recompute": "full", "sequence_parallel": False}),
    ],
)
def test_arrays_of_pipelines_give_exactly_what_a_loop_gives(stack: str, categories: dict[str, Any]) -> None:
    """Stages, pieces, ranks of a sequence and micro-batches; single ranks among them."""
    assert_equal_to_a_loop(stack, categories, fewest=2)


@pytest.mark.parametrize("sharding", ["zero1", "zero3"])
def test_one_stage_among_pipelines_gives_exactly_what_it_gives_alone(sharding: str) -> None:
    """It has no bubble, not even one of rounding."""
    assert_equal_to_a_loop("megatron-core", {"sharding": sharding, "recompute": "none"}, fewest=1)


@pytest.mark.parametrize("stages", [1, 2, 8])
def test_arrays_of_layers_that_run_again_give_exactly_what_a_loop_gives(stages: int) -> None:
    """From none to all of a stage of four, beside a pipeline of eight."""
    model, cluster, software = model_preset("llama-3.1-8b"), cluster_preset("dgx-h100"), stack_preset("megatron-core")
    again, pipelines = np.array([0, 1, 3, 4]), np.array([[stages], [8]])
    layout = replace(RAMP_STAGE, recompute="full", global_batch_size=96 * 32)
    many = replace(layout, recompute_layers=again, pipeline_parallel=pipelines)
    together = numbers(predict_stage(setup_of(model, many, software, cluster=cluster)))
    for row, column in np.ndindex(2, 4):
        one = replace(layout, recompute_layers=int(again[column]), pipeline_parallel=int(pipelines[row, 0]))
        for name, value in numbers(predict_stage(setup_of(model, one, software, cluster=cluster))).items():
            assert np.broadcast_to(together[name], (2, 4))[row, column] == value, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stack", "categories"),
    [
        ("megatron-core", {"precision": "bf16", "sequence_parallel": True, "sharding": "zero1", "recompute": "none"}),
        ("megatron-core", {"precision": "fp8", "sequence_parallel": True, "sharding": "zero1", "recompute": "full"}),
        ("megatron-lm", {"precision": "fp16", "sequence_parallel": False, "sharding": "none", "recompute": "selective"}),
        ("ideal", {"precision": "bf16", "sequence_parallel": False, "sharding": "zero1", "recompute": "none"}),
    ],
)
def test_arrays_of_layouts_and_bandwidths_give_exactly_what_a_loop_gives(stack: str, categories: dict[str, Any]) -> None:
    """400 random layouts, with link rates of their own, in one call, and every eighth of them alone."""
    model, cluster, software = model_preset("nemotron-4-15b"), cluster_preset("dgx-h100"), stack_preset(stack)
    layouts = random_layouts()
    draw = np.random.default_rng(4)
    network, node = draw.uniform(1e10, 1e11, LAYOUTS), draw.uniform(0.5, 1.5, LAYOUTS)
    together = numbers(
        predict_stage(
            setup_of(model, Layout(**categories, **layouts), software, cluster=with_bandwidths(cluster, network, node))
        )
    )
    for index in range(0, LAYOUTS, STEP):
        sizes: dict[str, Any] = {name: int(values[index]) for name, values in layouts.items()}
        layout = Layout(**categories, **sizes)
        single_cluster = with_bandwidths(cluster, float(network[index]), float(node[index]))
        alone = numbers(predict_stage(setup_of(model, layout, software, cluster=single_cluster)))
        for name, value in alone.items():
            assert np.broadcast_to(together[name], (LAYOUTS,))[index] == value, name


def test_axes_broadcast_against_each_other() -> None:
    """A column of tensor-parallel degrees against a row of data-parallel ones gives the table of both."""
    layout = Layout(
        precision="bf16",
        sequence_parallel=True,
        sharding="zero1",
        recompute="none",
        tensor_parallel=np.array([[1], [2], [4], [8]]),
        data_parallel=np.array([16, 32, 64]),
        micro_batch_size=1,
        global_batch_size=768,
        sequence_length=4096,
    )
    predicted = predict_stage(
        setup_of(model_preset("nemotron-4-15b"), layout, stack_preset("megatron-core"), cluster=cluster_preset("dgx-h100"))
    )
    assert np.shape(predicted.iteration_time_s) == (4, 3)
    low, high = predicted.iteration_time_interval_s
    assert np.all((low < predicted.iteration_time_s) & (predicted.iteration_time_s < high))


def test_other_layouts_beside_it_change_no_bit_of_a_prediction() -> None:
    """Intervals, parts and memory of one layout among hundreds, among three and on its own."""
    categories: dict[str, Any] = {"precision": "fp8", "sequence_parallel": True, "sharding": "zero1", "recompute": "full"}
    model, cluster, software = model_preset("nemotron-4-15b"), cluster_preset("dgx-h100"), stack_preset("torchtitan")
    layouts = random_layouts()
    many, few, one = (
        numbers(
            predict_stage(
                setup_of(
                    model, Layout(**categories, **{name: each[:n] for name, each in layouts.items()}), software, cluster=cluster
                )
            )
        )
        for n in (LAYOUTS, 3, 1)
    )
    for name, value in many.items():
        assert np.array_equal(np.broadcast_to(value, (LAYOUTS,))[:3], np.broadcast_to(few[name], (3,))), name
        assert np.broadcast_to(value, (LAYOUTS,))[0] == np.broadcast_to(one[name], (1,))[0], name


def test_numbers_of_models_clusters_and_stacks_broadcast_too() -> None:
    """Layers down, clocks across, launch times behind: each entry is the prediction of its three numbers."""
    model, cluster, software = model_preset("nemotron-4-15b"), cluster_preset("dgx-h100"), stack_preset("megatron-core")
    layers, clocks, hosts = (8, 32), (0.8, 0.9, 1.0), (1e-6, 1e-3)
    together = numbers(
        predict_stage(
            setup_of(
                replace(model, layers=np.array(layers)[:, None, None]),
                RAMP_STAGE,
                stack_with(software, {"host.launch_s": np.array(hosts)}),
                cluster=replace(cluster, compute_scale=np.array(clocks)[:, None]),
            )
        )
    )
    for index in np.ndindex(2, 3, 2):
        one = setup_of(
            replace(model, layers=layers[index[0]]),
            RAMP_STAGE,
            stack_with(software, {"host.launch_s": hosts[index[2]]}),
            cluster=replace(cluster, compute_scale=clocks[index[1]]),
        )
        for name, value in numbers(predict_stage(one)).items():
            assert np.broadcast_to(together[name], (2, 3, 2))[index] == value, name
