"""How much memory a layout needs: on its worst pipeline stage, by sharding, by schedule and by how much runs again.

Symbols: P parameters of a GPU, L layers, p pipeline_parallel, v virtual_pipeline, m micro-batches, n ranks that share a shard.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes, stage_activation_bytes, stage_memory_bytes
from perfmodel.count.operators import saved_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.layout import PIPELINE_SCHEDULES, SHARDINGS, Layout
from perfmodel.spec.models.model import TransformerModel
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
HUGE_VOCABULARY = replace(LLAMA, name="huge vocabulary", vocab_size=2_000_000)
STACK = stack_with(
    stack_preset("megatron-core"),
    {
        "states.parameter_bytes": 2,
        "states.gradient_bytes": 4,
        "states.optimizer_bytes": 12,
        "fusion.loss_peak_bytes": 12,
        "states.communication_buffer_bytes": 1e9,
        "states.fragmentation": 0.1,
        "fusion.selective_recompute": "attention",
        "low_precision.parameter_gather": False,
        "states.pipeline_split": "layers",
    },
)
LAYOUT = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=16, global_batch_size=16 * 64, sequence_length=8192)
PIPELINE = replace(LAYOUT, pipeline_parallel=8)


def memory(layout: Layout = LAYOUT, model: TransformerModel = LLAMA, **changes: Any) -> MemoryBytes:
    """Bytes of the worst stage."""
    layout = replace(layout, **changes)
    return memory_bytes(iteration(setup_of(model, layout, STACK)))


def stages(layout: Layout = PIPELINE, model: TransformerModel = LLAMA, **changes: Any) -> list[MemoryBytes]:
    """Bytes of the first stage, of one between, and of the last."""
    layout = replace(layout, **changes)
    work = iteration(setup_of(model, layout, STACK))
    return [stage_memory_bytes(work, stage) for stage in work.stages]


def kept(layout: Layout = PIPELINE, **changes: Any) -> float:
    """What the layers of the first stage keep of all micro-batches in flight."""
    layout = replace(layout, **changes)
    work = iteration(setup_of(LLAMA, layout, STACK))
    return float(stage_activation_bytes(work, work.stages.first))


def states_bytes(found: MemoryBytes) -> float:
    """Parameters, gradients and optimizer."""
    return float(found.parameters_bytes + found.gradients_bytes + found.optimizer_bytes)


def sharded(sharding: str, layout: Layout = LAYOUT, **changes: Any) -> MemoryBytes:
    """Memory under a sharding; hsdp keeps two copies."""
    return memory(layout, sharding=sharding, data_parallel_replicas=2 if sharding == "hsdp" else 1, **changes)


@pytest.mark.parametrize("sharding", ["zero3", "hsdp"])
def test_of_gathered_layers_two_at_a_time_have_8_bit_copies_and_their_transposes(sharding: str) -> None:
    """2 bytes more a number of both: all other layers are shards, which are not cast."""
    eight_bit, wide = (sharded(sharding, precision=precision).parameters_bytes for precision in ("fp8", "bf16"))
    layer = (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14336) / 2  # attention and MLP of one of two tensor-parallel ranks
    assert eight_bit - wide == pytest.approx(2 * 2 * layer, rel=1e-12)


def test_a_stage_of_one_layer_that_runs_again_holds_what_it_forms_again() -> None:
    """While its backward pass runs, as a stage of many holds that of one."""
    for layers in (1, 4):
        found = [
            stages(replace(PIPELINE, recompute=recompute, recompute_layers=again), replace(LLAMA, layers=8 * layers))[1]
            for recompute, again in (("none", None), ("full", None), ("full", 0))
        ]
        none, full, nothing_again = (float(each.activations_bytes) for each in found)
        assert nothing_again == none
        in_flight, stream = 7, 2 * 8192 * 4096 / 2
        layer = none / in_flight / layers
        assert full == pytest.approx(in_flight * layers * stream + layer - stream, rel=1e-12)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SHARDINGS),
    st.sampled_from([("none", None), ("selective", None), ("full", None), ("full", 2)]),
    st.sampled_from(
        [(1, 1, "1f1b"), (8, 1, "1f1b"), (4, 4, "1f1b"), (33, 1, "1f1b"), *((8, 1, s) for s in PIPELINE_SCHEDULES)]
    ),
    st.sampled_from([1, 4]),
    st.sampled_from(["bf16", "fp8"]),
)
def test_parts_sum_to_the_total(
    sharding: str, recompute: tuple[str, int | None], pipeline: tuple[int, int, str], context: int, precision: str
) -> None:
    """Whatever the layout, and none of them is negative; the worst stage is one of the stages."""
    stages_number, virtual, schedule = pipeline
    layers = None if recompute[1] is None or stages_number == 33 else recompute[1]
    changes: dict[str, Any] = {
        "recompute": recompute[0],
        "recompute_layers": layers,
        "pipeline_parallel": stages_number,
        "virtual_pipeline": virtual,
        "pipeline_schedule": schedule if stages_number > 1 else "1f1b",
        "context_parallel": context,
        "precision": precision,
    }
    found = sharded(sharding, **changes)
    values = [float(getattr(found, part.name)) for part in fields(found)]
    assert sum(values) == pytest.approx(float(found.total_bytes), rel=1e-14)
    assert min(values) >= 0
    each = stages(LAYOUT, sharding=sharding, data_parallel_replicas=2 if sharding == "hsdp" else 1, **changes)
    present = each if stages_number > 2 else [each[0], each[2]]
    assert found.total_bytes == max(float(one.total_bytes) for one in present)


@pytest.mark.parametrize(
    ("sharding", "parameters", "gradients", "optimizer"), [("none", 1, 1, 1), ("zero1", 1, 1, 16), ("hsdp", 8, 8, 8)]
)
def test_states_are_shared_out_over_their_shards(sharding: str, parameters: int, gradients: int, optimizer: int) -> None:
    """arXiv:1910.02054, figure 1: 2, 4 and 12 bytes a parameter over n; two layers and the vocabulary of parameters whole."""
    count = shard_parameter_count(LLAMA, tensor_parallel=2)
    whole = 2 * (count.attention + count.mlp) / 32 + count.embedding + count.head
    found = sharded(sharding)
    assert found.parameters_bytes == pytest.approx(2 * count.total / parameters + (2 * whole if parameters > 1 else 0))
    assert found.gradients_bytes == pytest.approx(4 * count.total / gradients)
    assert found.optimizer_bytes == pytest.approx(12 * count.total / optimizer)


@pytest.mark.parametrize("stages_number", [1, 2, 8])
@pytest.mark.parametrize("data_parallel", [4, 16, 128])
def test_more_sharding_never_needs_more(data_parallel: int, stages_number: int) -> None:
    """Parameters, gradients and optimizer: zero3 <= zero2 <= zero1 <= none."""
    changes: dict[str, Any] = {
        "data_parallel": data_parallel,
        "global_batch_size": 64 * data_parallel,
        "pipeline_parallel": stages_number,
    }
    needed = [states_bytes(sharded(sharding, **changes)) for sharding in ("none", "zero1", "zero2", "zero3")]
    assert needed == sorted(needed, reverse=True)
    assert needed[0] > needed[1]


def test_copies_of_shards_need_more_than_one() -> None:
    """zero3 <= hsdp <= none, and more with every further copy."""
    needed = [
        states_bytes(memory(sharding="hsdp", data_parallel_replicas=copies)) if copies else states_bytes(sharded("zero3"))
        for copies in (0, 2, 4, 8)
    ]
    assert needed == sorted(needed)
    assert needed[-1] < states_bytes(sharded("none"))


def test_sharding_leaves_activations_alone() -> None:
    """And the loss."""
    for part in ("activations_bytes", "loss_bytes", "fragmentation_bytes"):
        assert len({float(getattr(sharded(sharding), part)) for sharding in SHARDINGS}) == 1


def test_endless_shards_leave_what_is_gathered() -> None:
    """Two layers and the matrices of the vocabulary, in 16 bits."""
    count = shard_parameter_count(LLAMA, tensor_parallel=2)
    whole = 2 * (count.attention + count.mlp) / 32 + count.embedding + count.head
    found = sharded("zero3", data_parallel=10**6, global_batch_size=64 * 10**6)
    assert states_bytes(found) == pytest.approx(2 * whole, rel=1e-4)


def test_the_first_stage_decides_where_layers_do() -> None:
    """1F1B keeps p micro-batches on it, and one on the last."""
    first, between, last = stages(model=replace(LLAMA, vocab_size=1024))
    assert first.total_bytes > between.total_bytes > last.total_bytes
    assert memory(PIPELINE, replace(LLAMA, vocab_size=1024)) == first


def test_the_last_stage_decides_where_the_vocabulary_does() -> None:
    """It holds the logits of a micro-batch."""
    first, between, last = stages(model=HUGE_VOCABULARY, recompute="full")
    assert last.total_bytes > first.total_bytes > between.total_bytes
    assert memory(PIPELINE, HUGE_VOCABULARY, recompute="full") == last
    assert first.loss_bytes == between.loss_bytes == 0 < last.loss_bytes


def test_a_stage_between_may_decide() -> None:
    """Where the ends hold a layer less for an embedding and a head that are next to nothing."""
    model = replace(LLAMA, layers=2, vocab_size=1024)
    changes: dict[str, Any] = {"pipeline_parallel": 4, "pipeline_schedule": "zb-1p", "recompute": "full"}
    first, between, last = stages(model=model, **changes)
    assert between.total_bytes > max(first.total_bytes, last.total_bytes)
    assert memory(PIPELINE, model, **changes) == between


def test_one_stage_needs_what_all_stages_need() -> None:
    """Parameters of 8 stages sum to those of one; each keeps an eighth of the layers, of up to eight micro-batches."""
    (first, between, last), alone = stages(), memory()
    for part in ("parameters_bytes", "gradients_bytes", "optimizer_bytes"):
        parts = [getattr(each, part) for each in (first, between, last)]
        assert parts[0] + 6 * parts[1] + parts[2] == pytest.approx(float(getattr(alone, part)), rel=1e-13)
    assert kept(PIPELINE) == pytest.approx(kept(LAYOUT))


def test_stages_keep_as_many_micro_batches_as_are_in_flight() -> None:
    """8, 7 and 1 times the four layers of one."""
    first, between, last = stages()
    work = iteration(setup_of(LLAMA, PIPELINE, STACK))
    one = 4 * saved_bytes(layer_of(work).again.forward)
    assert first.activations_bytes == pytest.approx(8 * one)
    assert between.activations_bytes == pytest.approx(7 * one)
    assert last.activations_bytes == pytest.approx(one + saved_bytes(work.head.forward))


@pytest.mark.parametrize("virtual", [2, 4])
def test_interleaving_keeps_more(virtual: int) -> None:
    """1 + (p - 1)/(p*v) times what plain 1F1B keeps (arXiv:2104.04473, section 2.2)."""
    assert kept(virtual_pipeline=virtual) == pytest.approx((1 + 7 / (8 * virtual)) * kept())
    assert memory(PIPELINE, virtual_pipeline=virtual).total_bytes > memory(PIPELINE).total_bytes


def test_zb_2p_keeps_twice_what_zb_1p_keeps() -> None:
    """arXiv:2401.10241, section 2: as 1F1B on its first stage, and twice that."""
    assert kept(pipeline_schedule="zb-1p") == kept(pipeline_schedule="zb-h1") == kept()
    assert kept(pipeline_schedule="zb-2p") == 2 * kept()
    work = [iteration(setup_of(LLAMA, replace(PIPELINE, pipeline_schedule=schedule), STACK)) for schedule in ("zb-1p", "zb-2p")]
    assert saved_bytes(layer_of(work[0]).again.forward) == saved_bytes(layer_of(work[1]).again.forward)


@pytest.mark.parametrize("micro_batches", [1, 2, 5])
@pytest.mark.parametrize("schedule", PIPELINE_SCHEDULES)
def test_few_micro_batches_bound_what_is_kept(schedule: str, micro_batches: int) -> None:
    """No more than all of them."""
    layout = replace(PIPELINE, global_batch_size=16 * micro_batches, pipeline_schedule=schedule)
    assert kept(layout) == pytest.approx(
        micro_batches * 4 * saved_bytes(layer_of(iteration(setup_of(LLAMA, layout, STACK))).again.forward)
    )


@pytest.mark.parametrize("vocabulary", [1024, 500_000])
def test_a_layer_that_runs_again_and_the_loss_are_never_there_together(vocabulary: int) -> None:
    """Beside what is kept of all layers, the larger of the two counts: the layer, or the logits with the input of the head."""
    model = replace(LLAMA, vocab_size=vocabulary)
    layout = replace(LAYOUT, recompute="full")
    work, found = iteration(setup_of(model, layout, STACK)), memory(layout, model)
    of_layers = stage_activation_bytes(work, work.stages.last)
    layer = saved_bytes(layer_of(work).plain.forward) - of_layers / 32  # all but its input
    loss = saved_bytes(work.head.forward) + 12 * 8192 * model.padded_vocab_size(2) / 2
    assert found.activations_bytes + found.loss_bytes == pytest.approx(of_layers + max(layer, loss))
    assert (layer > loss) == (vocabulary == 1024)


@pytest.mark.parametrize("pipeline", [1, 8])
def test_more_layers_that_run_again_keep_less(pipeline: int) -> None:
    """In equal steps from none of them to all."""
    layers = 32 // pipeline
    layout = replace(LAYOUT, pipeline_parallel=pipeline, recompute="full")
    needed = [kept(layout, recompute_layers=each) for each in range(layers + 1)]
    assert needed == sorted(needed, reverse=True)
    assert np.diff(needed) == pytest.approx(np.full(layers, (needed[-1] - needed[0]) / layers))
    assert needed[0] == pytest.approx(kept(layout, recompute="none"))
    assert needed[-1] == pytest.approx(kept(layout))


@pytest.mark.parametrize("pipeline", [1, 8])
def test_memory_falls_from_no_recompute_to_all(pipeline: int) -> None:
    """None >= one layer >= two >= all."""
    layout = replace(LAYOUT, pipeline_parallel=pipeline, recompute="full")
    needed = [memory(layout, recompute="none"), *(memory(layout, recompute_layers=each) for each in (1, 2)), memory(layout)]
    totals = [float(each.total_bytes) for each in needed]
    assert totals == sorted(totals, reverse=True)
    assert totals[0] > totals[-1]


def test_no_layer_that_runs_again_needs_what_no_recompute_needs() -> None:
    """Nothing is formed again, so nothing is held for it."""
    small = replace(LLAMA, vocab_size=1024)
    assert memory(LAYOUT, small, recompute="full", recompute_layers=0).total_bytes == memory(LAYOUT, small).total_bytes


@pytest.mark.parametrize("context", [2, 8])
def test_context_parallelism_shares_activations_and_optimizer_out(context: int) -> None:
    """Tokens, and with them the logits; states as much as by so many replicas."""
    alone, apart = (
        memory(data_parallel=2, global_batch_size=128),
        memory(data_parallel=2, global_batch_size=128, context_parallel=context),
    )
    for part in ("activations_bytes", "loss_bytes", "optimizer_bytes"):
        assert getattr(apart, part) == pytest.approx(getattr(alone, part) / context)
    assert apart.parameters_bytes == alone.parameters_bytes


def test_every_axis_of_more_than_one_rank_has_its_buffers() -> None:
    """Tensor, data and pipeline; ranks of a sequence are among those of the data."""
    alone: dict[str, Any] = {"tensor_parallel": 1, "data_parallel": 1, "global_batch_size": 64}
    layouts: tuple[dict[str, Any], ...] = (
        alone,
        {**alone, "tensor_parallel": 2},
        {**alone, "context_parallel": 2},
        {**alone, "pipeline_parallel": 2},
        {},
    )
    assert [float(memory(**each).communication_bytes) for each in layouts] == [0, 1e9, 1e9, 1e9, 2e9]
