"""Every part of the memory of a small dense model, to the byte, against sums by hand.

Four layers of h = 64, four heads of 16 with two of keys and values, gated MLPs of f = 96, V = 256; T = 128 tokens. A layer
keeps T * 1488 bytes: five inputs of 2h, queries, keys and values with an fp32 number a head, both halves and the result of its
function; the head keeps its norm's input and its own. A layer has 30,720 parameters of matrices and 128 of norms.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from perfmodel.count.data_parallel import windows
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes, stage_activation_bytes, stage_memory_bytes
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.operators import Collective
from perfmodel.count.parameters import held_parameters, most_parameters
from perfmodel.count.roles import Role
from perfmodel.spec.models.layer_parts import LatentAttention
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import RECOMPUTE
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.stacks import stack_with

DENSE: Final = replace(SMALL, mixture=None)
T, LAYER, HEAD, LOGITS, MATRICES, TABLE = 128, 128 * 1488, 128 * 256, 128 * 256, 30_720, 16_384
P: Final = 2 * TABLE + 4 * (MATRICES + 128) + 64
PLAIN: Final = {
    "overlap.overfills_buckets": False,
    "fusion.attention": True,
    "fusion.norms": "fused",
    "fusion.rotary": False,
    "fusion.activation": True,
    "fusion.separate_projections": False,
    "fusion.recomputed_inputs": False,
    "fusion.gathered_inputs": False,
    "fusion.gathered_logits": False,
    "fusion.fp32_stream": False,
    "fusion.loss_peak_bytes": 12.0,
    "fusion.parallel_loss_bytes": 0.0,
    "fusion.loss_chunks": 1.0,
    "states.parameter_bytes": 2.0,
    "states.gradient_bytes": 4.0,
    "states.reduced_gradient_bytes": 3.0,
    "states.accumulated_gradient_bytes": 0.0,
    "states.step_gradient_bytes": 4.0,
    "states.optimizer_bytes": 12.0,
    "states.bucket_buffers": 0.0,
    "states.casts_shards": False,
    "states.regathers_parameters": True,
    "states.keeps_stage_outputs": False,
    "states.pipeline_split": "layers",
    "states.workspace_bytes": 7.0,
    "states.framework_bytes": 11.0,
    "states.communication_buffer_bytes": 1000.0,
    "states.fragmentation": 0.25,
    "overlap.bucket_rule": "size",
    "overlap.bucket_parameters": 1000.0,
    "overlap.bucket_parameters_per_rank": 0.0,
    "low_precision.products": "layer",
    "low_precision.parameter_gather": False,
}


def work(settings: dict[str, Any] | None = None, model: TransformerModel = DENSE, **layout: Any) -> Iteration:
    """An iteration on eight replicas of four micro-batches."""
    return iteration(mixture_setup(model, layout_of(**layout), stack_with(STACK, PLAIN | (settings or {})), "dgx-h100"))


def memory(settings: dict[str, Any] | None = None, model: TransformerModel = DENSE, **layout: Any) -> MemoryBytes:
    """Bytes of the worst stage."""
    return memory_bytes(work(settings, model, **layout))


def test_every_part_of_one_gpu_is_the_sum_by_hand() -> None:
    """States; layers and head; 12 bytes a logit; an eighth of the optimizer; one group of ranks; a quarter lost."""
    kept, loss = 4 * LAYER + HEAD, 12 * LOGITS
    assert {name: float(each) for name, each in memory().items()} == {
        "parameters_bytes": 2 * P,
        "gradients_bytes": 4 * P,
        "optimizer_bytes": 12 * P / 8,
        "activations_bytes": kept,
        "loss_bytes": loss,
        "scratch_bytes": 0,
        "workspaces_bytes": 7,
        "communication_bytes": 1000,
        "framework_bytes": 11,
        "fragmentation_bytes": (kept + loss) / 4,
    }


def test_the_norm_of_embeddings_keeps_its_input_on_the_first_stage() -> None:
    """2h bytes of a token for each of two micro-batches in flight; nothing on the last."""
    normed, plain = (
        work({}, model, pipeline_parallel=2, data_parallel=4) for model in (replace(DENSE, embedding_norm=True), DENSE)
    )
    for place, more in (("first", 2 * 2 * T * 64), ("last", 0)):
        with_it, without = (stage_memory_bytes(each, getattr(each.stages, place)).activations_bytes for each in (normed, plain))
        assert with_it - without == more


def test_ranks_that_share_logits_hold_their_part_or_all_of_them() -> None:
    """Half of 256 columns each, with 3 bytes more of a logit; or every rank all columns."""
    degrees: dict[str, Any] = {"tensor_parallel": 2, "data_parallel": 4}
    assert memory({"fusion.parallel_loss_bytes": 3.0}, **degrees).loss_bytes == (12 + 3) * LOGITS / 2
    assert memory({"fusion.gathered_logits": True}, **degrees).loss_bytes == 12 * LOGITS


def test_gradients_of_shards_are_whole_before_they_are_reduced() -> None:
    """Of two layers and the vocabulary, 2 bytes each, where the loss and the head have left less; learned positions too."""
    chunks = {"fusion.loss_chunks": 1e9}
    for model, more in ((DENSE, 0), (replace(DENSE, position="learned", max_positions=100, spare_positions=2), 102 * 64)):
        for sharding in ("zero2", "zero3"):
            found = memory(chunks, model, sharding=sharding)
            whole = 2 * MATRICES + 2 * TABLE + more
            assert found.activations_bytes == pytest.approx(4 * LAYER + 2 * whole, abs=1e-3)
            assert found.gradients_bytes == 4 * (P + more) / 8
    assert memory(chunks, sharding="zero1").activations_bytes == 4 * LAYER + HEAD


def test_shards_are_gathered_for_two_layers_and_the_vocabulary() -> None:
    """2 bytes of an eighth, and of 2 * 30,720 + 2 * 16,384 numbers; all where nothing is gathered twice."""
    assert memory(sharding="zero3").parameters_bytes == 2 * P / 8 + 2 * (2 * MATRICES + 2 * TABLE)
    assert memory({"states.regathers_parameters": False}, sharding="zero3").parameters_bytes == 2 * P / 8 + 2 * P
    assert memory({"states.casts_shards": True}, sharding="zero3").parameters_bytes == 2 * (2 * MATRICES + 2 * TABLE)


def test_stages_of_a_pipeline_hold_their_parameters_whole() -> None:
    """Two of four layers and one matrix of the vocabulary; gradients are never sharded there."""
    found = work(sharding="zero3", pipeline_parallel=2, data_parallel=4)
    first = stage_memory_bytes(found, found.stages.first)
    held = TABLE + 2 * (MATRICES + 128)
    assert (first.parameters_bytes, first.gradients_bytes) == (2 * held, 4 * held)
    assert first.optimizer_bytes == 12 * held / 4


def test_buffers_of_buckets_stand_beside_the_gradients() -> None:
    """Two of 1000 numbers, 3 bytes each; none where no other rank has the same parameters, nor more than all."""
    assert memory({"states.bucket_buffers": 2.0}).communication_bytes == pytest.approx(1000 + 2 * 3 * 1000, rel=1e-12)
    whole = {"states.bucket_buffers": 2.0, "overlap.bucket_parameters": 1e9}
    assert memory(whole).communication_bytes == 1000 + 2 * 3 * P
    assert memory(whole, data_parallel=1, global_batch_size=4).communication_bytes == 0


def test_a_stage_keeps_what_it_sent_on_of_every_micro_batch_in_flight() -> None:
    """2h bytes a token on all stages but the last: with three stages 3, 2 and 0 of them."""
    settings: dict[str, Any] = {"pipeline_parallel": 2, "data_parallel": 4}
    kept, plain = (work({"states.keeps_stage_outputs": each}, **settings) for each in (True, False))
    more, less = (stage_memory_bytes(each, each.stages.first).activations_bytes for each in (kept, plain))
    assert more - less == 2 * 2 * T * 64
    settings = {"pipeline_parallel": 4, "data_parallel": 2}
    kept, plain = (work({"states.keeps_stage_outputs": each}, **settings) for each in (True, False))
    for place, number in (("first", 4), ("middle", 3), ("last", 0)):
        more, less = (stage_memory_bytes(each, getattr(each.stages, place)).activations_bytes for each in (kept, plain))
        assert more - less == number * 2 * T * 64


def test_a_master_copy_in_a_wider_buffer_takes_no_copy_of_gradients() -> None:
    """16-bit gradients are copied to step: 4 + 2 * 4 + 2 * 12 + 2 bytes move; those added up in fp32 beside them are not."""
    layout = layout_of()
    for copy, gradient, every, step in ((0.0, 2, 2, 4), (4.0, 4, 6, 0)):
        stack = stack_with(STACK, PLAIN | {"states.gradient_bytes": 2.0, "states.accumulated_gradient_bytes": copy})
        found = state_bytes(layout, stack)
        assert (found.gradient, found.all_gradients, found.step) == (gradient, every, step)
        assert (found.optimizer, found.adam) == (12, 4 + 2 * step + 2 * 12 + 2)
    many = stack_with(STACK, PLAIN | {"states.gradient_bytes": 2.0, "states.accumulated_gradient_bytes": np.array([0.0, 4.0])})
    assert np.asarray(state_bytes(layout, many).gradient).tolist() == [2, 4]


def test_a_copy_of_gradients_takes_room_in_the_step_of_what_a_rank_owns() -> None:
    """4 bytes of an eighth of the parameters, less what activations and the loss had."""
    found = memory(
        {"states.gradient_bytes": 2.0, "fusion.loss_chunks": 1e9}, sharding="none", recompute="full", sequence_length=4
    )
    assert found.scratch_bytes == pytest.approx(4 * P - float(found.activations_bytes), abs=1e-3)


def kept(settings: dict[str, Any] | None = None, model: TransformerModel = DENSE, **layout: Any) -> float:
    """Bytes that one of four layers keeps."""
    found = work(settings, model, **layout)
    return float(stage_activation_bytes(found, found.stages.first)) / 4


def test_scores_of_unfused_attention_run_again() -> None:
    """A layer keeps everything else: softmax in eager kernels keeps 6 bytes of each of 4 * 128 * 128 scores."""
    unfused = {"fusion.attention": False, "fusion.wide_attention": "unfused", "fusion.softmax": False}
    whole, again = kept(unfused), kept(unfused, recompute="selective")
    assert whole - again == 6 * 4 * 128 * 128
    assert again == LAYER - 4 * 4 * T


def test_modules_that_run_again_free_what_they_form() -> None:
    """Norms free the inputs of qkv and fc1; an MLP all but its first input."""
    assert LAYER - kept(recompute="selective", recompute_modules=("layernorm",)) == 2 * 2 * T * 64
    assert LAYER - kept(recompute="selective", recompute_modules=("mlp",)) == T * (2 * 2 * 96 + 2 * 96)


SECOND: Final = {"fusion.selective_recompute": "every_second_product"}


@pytest.mark.parametrize("settings", [{}, {"fusion.recomputed_inputs": True}])
def test_every_second_result_of_seven_linears_is_kept(settings: dict[str, Any]) -> None:
    """Input, queries, values and gate; output and statistics of the core; the last result, unless a compiler sees it unread."""
    plain = T * (2 * (64 + 64 + 32 + 96) + 4 * (2 * 16 + 4))
    assert kept(SECOND | settings, recompute="selective") == plain + (0 if settings else 2 * T * 64)


@pytest.mark.parametrize("tensor", [1, 2])
def test_every_second_result_of_latent_attention_is_kept(tensor: int) -> None:
    """Narrow vectors of a rank's own tokens, the projection's result, and fc1; none after eight linears."""
    latent = LatentAttention(query_rank=24, kv_rank=8, nope_head_size=12, rotary_head_size=4, value_head_size=10)
    model = replace(DENSE, kv_heads=4, latent=latent)
    found = kept(SECOND, model, recompute="selective", tensor_parallel=tensor, data_parallel=4)
    linears = 2 * T * (12 / tensor + 24 / tensor + 64 + 96 / tensor)
    assert found == 2 * T * 64 / tensor + linears + T * 4 / tensor * (2 * 10 + 4)


def test_one_of_two_stages_decides_what_is_needed() -> None:
    """The last with a large vocabulary, the first with a small one."""
    for vocab_size, place in ((2**20, "last"), (128, "first")):
        found = work({}, replace(DENSE, vocab_size=vocab_size), pipeline_parallel=2, data_parallel=4, sequence_length=32)
        each = stage_memory_bytes(found, getattr(found.stages, place))
        assert memory_bytes(found) == each
        assert each.total_bytes > min(float(stage_memory_bytes(found, stage).total_bytes) for stage in found.stages)


def test_two_ranks_share_what_they_reduce_and_gather() -> None:
    """Half of everything, two layers and the vocabulary whole; a collective of two takes scratch."""
    found = memory({"fusion.loss_chunks": 1e9}, sharding="zero3", data_parallel=2, global_batch_size=8)
    whole = 2 * MATRICES + 2 * TABLE
    assert found.parameters_bytes == 2 * P / 2 + 2 * whole
    assert found.activations_bytes == pytest.approx(4 * LAYER + 2 * whole, abs=1e-3)
    two = work(data_parallel=2, global_batch_size=8, sequence_length=2, sharding="zero1")
    scratch = memory_bytes(two, scratch={"reduce_scatter": 100.0})
    passes = float(scratch.activations_bytes + scratch.loss_bytes)
    sent = [op for op in two.synchronisation if isinstance(op, Collective) and op.kind == "reduce_scatter"]
    payload = max(float(op.payload_bytes) for op in sent)
    assert float(scratch.scratch_bytes) == pytest.approx(100 * payload - passes, rel=1e-12)


def test_all_of_a_pipeline_is_reduced_and_gathered_once() -> None:
    """Of two stages as of four; without stages with every one of four micro-batches."""
    for stages, times in ((1, 4), (2, 1), (4, 1)):
        layout = layout_of(
            pipeline_parallel=stages, data_parallel=8 // stages, global_batch_size=32 // stages, sharding="zero2"
        )
        assert windows(Role.GRADIENT_REDUCTION, layout) == times
        assert windows(Role.PARAMETER_GATHER, layout) == 1


def test_scores_run_again_right_before_the_first_gradient_that_needs_them() -> None:
    """Behind the gradients of the projection; a whole layer runs again before all of its gradients."""
    unfused = {"fusion.attention": False, "fusion.wide_attention": "unfused"}
    for recompute, place in (("selective", 2), ("full", 0)):
        (blocks,) = work(unfused, recompute=recompute).layers.values()
        phases = [op.phase for op in blocks.again.backward]
        names = [op.name for op in blocks.again.backward if not isinstance(op, Collective)]
        first = phases.index(RECOMPUTE)
        assert (first == 0) == (place == 0)
        if place:
            assert blocks.again.backward[first - 1].name == "layer.attention.projection"
            assert names.count("layer.attention.scores") == 3


def test_the_largest_count_is_that_of_the_largest_total() -> None:
    """Wherever it stands; of arrays place by place."""
    small, large = (held_parameters(DENSE, {"": layers}, tensor_parallel=1) for layers in (1, 4))
    assert most_parameters([large, small]) == most_parameters([small, large]) == large
    assert most_parameters([small]) == small


def test_an_array_of_ranks_shares_what_each_shares() -> None:
    """One rank holds all of its parameters, two and eight gather them."""
    degrees = np.array([1, 2, 8])
    together = memory({"fusion.loss_chunks": 1e9}, sharding="zero3", data_parallel=degrees, global_batch_size=4 * degrees)
    for place, ranks in enumerate(degrees):
        alone = memory(
            {"fusion.loss_chunks": 1e9}, sharding="zero3", data_parallel=int(ranks), global_batch_size=4 * int(ranks)
        )
        for name, each in together.items():
            assert float(np.broadcast_to(each, 3)[place]) == pytest.approx(float(dict(alone.items())[name]), rel=1e-12), name
