"""Does the list of operators say what the iteration runs, take the time of its parts, and own up to what was measured?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, is_attention_core
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.coefficients import Evidence
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.confidence import WORDS
from perfmodel.timing.ledger import Entry, ledger, seconds_of_a_gpu
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
CORE = stack_preset("megatron-core")
LAYOUTS = {
    "bf16": RAMP_STAGE,
    "fp8": replace(RAMP_STAGE, precision="fp8", recompute="full", micro_batch_size=2, global_batch_size=384),
    "plain": replace(RAMP_STAGE, sequence_parallel=False, sharding="none", recompute="selective", data_parallel=12),
    "context": replace(RAMP_STAGE, context_parallel=4, data_parallel=24, sharding="zero3"),
    "some layers": replace(RAMP_STAGE, recompute="full", recompute_layers=5, sharding="hsdp", data_parallel_replicas=2),
}
PIPELINE = replace(RAMP_STAGE, pipeline_parallel=4, virtual_pipeline=2, data_parallel=24, sharding="zero2")


def entries(layout: Layout, stack: SoftwareStack = CORE, cluster: Cluster = CLUSTER) -> list[Entry]:
    """The list of one layout."""
    return list(ledger(work_of(layout, stack), gpus=layout.gpus, cluster=cluster, stack=stack))


def work_of(layout: Layout, stack: SoftwareStack) -> Iteration:
    """The operators of one iteration."""
    return iteration(setup_of(MODEL, layout, stack))


def summed_s(listed: list[Entry], **kinds: Any) -> float:
    """Seconds of an iteration in entries of the given kinds of operator: compute, once or in every micro-batch."""
    return sum(
        float(entry.repeats * entry.seconds)
        for entry in listed
        if not isinstance(entry.operator, Collective)
        and (entry.operator.phase == OPTIMIZER) == kinds.get("once", False)
        and ("core" not in kinds or is_attention_core(entry.operator) == kinds["core"])
        and ("product" not in kinds or isinstance(entry.operator, Matmul) == kinds["product"])
    )


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm-2022", "torchtitan-eager"])
@pytest.mark.parametrize("layout", [*LAYOUTS.values(), PIPELINE], ids=[*LAYOUTS, "pipeline"])
def test_the_list_has_every_operator_that_runs_as_often_as_it_runs(layout: Layout, stack: str) -> None:
    """In the order of the iteration, by name, phase and repeats; groups of one do not run."""
    software = stack_preset(stack)
    listed = [(each.operator.name, each.operator.phase, each.repeats) for each in entries(layout, software)]
    runs = [
        (op.name, op.phase, repeats)
        for op, repeats in work_of(layout, software).executions()
        if not (isinstance(op, Collective) and op.group.ranks == 1)
    ]
    assert listed == runs


def test_groups_of_one_run_no_collectives() -> None:
    """One GPU lists its kernels alone."""
    alone = replace(RAMP_STAGE, tensor_parallel=1, data_parallel=1, global_batch_size=4)
    listed = entries(alone)
    assert not [each for each in listed if isinstance(each.operator, Collective)]
    kernels = [op for op, _ in work_of(alone, CORE).executions() if not isinstance(op, Collective)]
    assert [each.operator for each in listed] == kernels


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm-2022", "torchtitan-eager"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compute_on_the_list_sums_to_the_parts_of_the_iteration(layout: str, stack: str) -> None:
    """Products, attention and memory-bound operators; those of the optimizer step beside what the CPU and the network take."""
    software = stack_with(stack_preset(stack), {"overlap.hide_all": True})
    parts = predict_stage(setup_of(MODEL, LAYOUTS[layout], software, cluster=CLUSTER)).breakdown
    listed = entries(LAYOUTS[layout], software)
    assert summed_s(listed, core=False, product=True) == pytest.approx(float(parts.matmul_s))
    assert summed_s(listed, core=True) == pytest.approx(float(parts.attention_s))
    assert summed_s(listed, core=False, product=False) == pytest.approx(float(parts.memory_bound_s))
    assert summed_s(listed, once=True) == pytest.approx(float(parts.optimizer_s - software.host.iteration_s))


def test_the_list_of_a_pipeline_is_that_of_all_its_stages() -> None:
    """Compute of even stages, four times that of one; its messages too: seven boundaries between eight pieces.

    On GPUs that no power limit holds down: a bubble raises the clocks of the others.
    """
    steady = replace(CLUSTER, gpu=replace(CLUSTER.gpu, full_load_slowdown=0.0))
    model = replace(MODEL, layers=30)  # with embedding and head 32: the ends hold three layers, the others four
    software = stack_with(CORE, {"overlap.hide_all": True, "states.pipeline_split": "layers"})
    listed = list(ledger(iteration(setup_of(model, PIPELINE, software)), gpus=PIPELINE.gpus, cluster=steady, stack=software))
    plain = replace(PIPELINE, pipeline_parallel=1, virtual_pipeline=1, data_parallel=24 * 4, global_batch_size=384 * 4)
    alone = list(ledger(iteration(setup_of(model, plain, software)), gpus=plain.gpus, cluster=steady, stack=software))
    assert summed_s(listed) == pytest.approx(summed_s(alone))
    messages = {each.operator.name: each.repeats for each in listed if each.operator.name.startswith("pipeline.")}
    assert messages == dict.fromkeys(("pipeline.send_activations", "pipeline.send_gradients"), 7 * PIPELINE.micro_batches)


@pytest.mark.parametrize("layout", [*LAYOUTS.values(), PIPELINE, replace(RAMP_STAGE, tensor_parallel=1, data_parallel=1)])
def test_a_gpu_runs_its_share_of_the_list(layout: Layout) -> None:
    """The stages of a pipeline share the passes, and all take the optimizer step; collectives of one do not run."""
    stages = layout.pipeline_parallel
    listed = [
        (
            each.operator.name,
            each.operator.phase,
            float(each.repeats * each.seconds) / (1 if each.operator.phase == OPTIMIZER else stages),
        )
        for each in entries(layout)
    ]
    own = seconds_of_a_gpu(work_of(layout, CORE), gpus=layout.gpus, cluster=CLUSTER, stack=CORE)
    taken = [(operator.name, operator.phase, float(seconds)) for operator, seconds in own]
    assert [each[:2] for each in taken] == [each[:2] for each in listed]
    assert [each[2] for each in taken] == pytest.approx([each[2] for each in listed], rel=1e-12)


def test_what_is_neither_launched_late_nor_hidden_nor_unlisted_is_the_iteration() -> None:
    """Without overlap every second of the list, collectives too, is a second of the iteration."""
    bare = stack_with(
        CORE,
        {
            "overlap.tensor_parallel": "none",
            "overlap.context_parallel_exchange": "all_gather",
            "overlap.data_parallel": False,
            "host.operator_s": 0.0,
            "host.launch_s": 0.0,
            "host.pass_s": 0.0,
            "host.iteration_s": 0.0,
            "host.unlisted_work": 1.0,
        },
    )
    for layout in LAYOUTS.values():
        listed = sum(float(each.repeats * each.seconds) for each in entries(layout, bare))
        predicted = float(predict_stage(setup_of(MODEL, layout, bare, cluster=CLUSTER)).iteration_time_s)
        assert listed == pytest.approx(predicted)


def test_every_operator_of_the_list_has_one_of_four_words() -> None:
    """And the products of a measured GPU are never as unsure as a datasheet."""
    listed = entries(RAMP_STAGE)
    assert {each.confidence for each in listed} <= set(WORDS)
    assert {each.confidence for each in listed if isinstance(each.operator, Matmul)} <= set(WORDS[:3])


def test_a_product_is_as_sure_as_its_sizes() -> None:
    """Measured where the table has them, extrapolated where it ends below."""
    kernels = CLUSTER.gpu.kernels

    def word(**sizes: tuple[float, ...]) -> str:
        known = replace(kernels.matmul["bf16"], evidence=Evidence(basis="measured", sizes=sizes))
        gpu = replace(CLUSTER.gpu, kernels=replace(kernels, matmul={"bf16": known}))
        listed = entries(RAMP_STAGE, cluster=replace(CLUSTER, gpu=gpu))
        return next(each.confidence for each in listed if each.operator.name == "layer.mlp.fc1")

    assert word(rows=(4096.0,), columns=(3072.0,), inner=(6144.0,)) == "measured"
    assert word(rows=(1024.0, 8192.0), columns=(3072.0,), inner=(6144.0,)) == "interpolated"
    assert word(rows=(4096.0,), columns=(256.0, 1024.0), inner=(6144.0,)) == "extrapolated"


def test_both_directions_of_attention_have_evidence_of_their_own() -> None:
    """A forward kernel that was measured says nothing of the backward one."""
    kernels = CLUSTER.gpu.kernels
    forward = replace(kernels.attention_forward, evidence=Evidence(basis="measured"))
    backward = replace(kernels.attention_backward, evidence=Evidence(basis="datasheet"))
    gpu = replace(CLUSTER.gpu, kernels=replace(kernels, attention_forward=forward, attention_backward=backward))
    listed = entries(replace(RAMP_STAGE, recompute="full"), cluster=replace(CLUSTER, gpu=gpu))
    words = [(each.operator.phase, each.confidence) for each in listed if isinstance(each.operator, FusedAttention)]
    assert words == [("forward", "measured"), ("recompute", "measured"), ("data_gradient", "datasheet")]


def test_collectives_over_nodes_are_as_sure_as_the_number_of_nodes() -> None:
    """96 lone GPUs of as many nodes lie between 64 and 128; 8 of a node were measured, at sizes on both sides of this one."""
    words = {each.operator.name: each.confidence for each in entries(RAMP_STAGE)}
    assert words["optimizer.reduce_gradients"] == "interpolated"
    assert words["layer.attention.qkv.gather"] == "interpolated"
    few = {
        each.operator.name: each.confidence for each in entries(replace(RAMP_STAGE, data_parallel=64, global_batch_size=256))
    }
    many = {
        each.operator.name: each.confidence for each in entries(replace(RAMP_STAGE, data_parallel=256, global_batch_size=1024))
    }
    assert few["optimizer.reduce_gradients"] == "measured"
    assert many["optimizer.reduce_gradients"] == "extrapolated"


def test_collectives_over_whole_nodes_need_the_links_inside_them_too() -> None:
    """On links that were never measured no group that uses them is measured."""
    link = CLUSTER.links.node
    guessed = replace(link, collectives=replace(link.collectives, evidence=Evidence(basis="transferred")))
    cluster = replace(CLUSTER, links=replace(CLUSTER.links, node=guessed))
    words = {each.operator.name: each.confidence for each in entries(replace(RAMP_STAGE, data_parallel=64), cluster=cluster)}
    assert words["optimizer.gradient_norm.all_reduce"] == "extrapolated"  # of all GPUs: whole nodes
    assert words["optimizer.reduce_gradients"] == "measured"  # of one GPU a node: no link inside
