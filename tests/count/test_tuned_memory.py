"""What a GPU holds at each moment of a fine-tuning, part by part and to the byte, against sums by hand.

Llama 3.1 8B: h = 4096, keys and values of v = 1024, MLPs of f = 14336, V = 128256, 32 layers; T tokens; adapters of rank 16.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import MemoryBytes, memory_bytes
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.memory.tuned import Moment, TunedStates, tuned_states
from perfmodel.count.operators import Collective, MemoryBound
from perfmodel.count.parameters import parameter_count
from perfmodel.count.tuning.trained import tuned_numbers, tuned_wire_bytes
from perfmodel.spec.models.layer_kinds import LayerKind
from tests.tunings import tuned_setup

T, H, V, F, VOCABULARY, LAYERS = 2048, 4096, 1024, 14336, 128256, 32
P = 8_030_261_248
TABLES = 2 * VOCABULARY * H
ADAPTERS = 41_943_040  # as Unsloth and PEFT print it: 32 * 16 * ((h + h) + 2 * (h + v) + (h + h) + 3 * (h + f))
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)  # 4 bits, 8 of a scale for 64 numbers, 32 of a scale for 256 of these
QUANTISED = P - TABLES - 65 * H  # matrices of layers
STREAM = 2 * T * H
NORM = 10 * T * H  # a chain in fp32 keeps a copy, what it scales, and that in 16 bits
CHUNKED = {"stack__fusion__loss_chunks": 10**9}  # a loss in so many pieces that nothing of it is left


def memory(**settings: Any) -> MemoryBytes:
    """Of one GPU."""
    return memory_bytes(iteration(tuned_setup(**settings)))


def states(**settings: Any) -> TunedStates:
    """What it holds of states."""
    setup = tuned_setup(**settings)
    assert setup.tuning is not None
    return tuned_states(setup, iteration(setup).stages.first, setup.tuning)


def formed_again(*, quantised: bool = False) -> float:
    """What a layer with adapters everywhere keeps beside its input, the gradient of fc2's input, and the largest weight.

    Norms; inputs of adapters, three times h and once f; seven narrow results; queries, keys, values and statistics of their
    core; gate, function and both halves of the MLP.
    """
    kept = 2 * NORM + T * (2 * (3 * H + F) + 2 * 16 * 7 + 2 * (H + 2 * V) + 4 * 32 + 3 * 2 * F)
    return kept - STREAM + 2 * T * F + (2 * H * F if quantised else 0)


def test_a_moment_is_all_that_is_there() -> None:
    """The sum of its six parts."""
    moment = Moment(parameters=1.0, gradients=2.0, optimizer=4.0, activations=8.0, loss=16.0, scratch=32.0)
    assert moment.total == 63.0


def test_adapters_of_a_large_vocabulary_peak_at_the_loss() -> None:
    """16-bit weights, fp32 adapters with two states each, inputs of all layers and of the last norm, 12 bytes a logit."""
    found, stack = memory(), tuned_setup().stack.states
    kept, loss = LAYERS * STREAM + NORM, 12 * T * VOCABULARY
    assert dict(found.items()) == {
        "parameters_bytes": 2 * P + 4 * ADAPTERS,
        "gradients_bytes": 0,
        "optimizer_bytes": 8 * ADAPTERS,
        "activations_bytes": kept,
        "loss_bytes": loss,
        "scratch_bytes": 0,
        "workspaces_bytes": stack.workspace_bytes,
        "communication_bytes": 0,
        "framework_bytes": stack.framework_bytes,
        "fragmentation_bytes": pytest.approx(0.22 * (kept + loss), rel=1e-12),
    }


def test_a_loss_in_pieces_peaks_where_the_last_layer_runs_again() -> None:
    """Inputs of all layers, one layer whole, and of a logit as much as software holds until then."""
    found = memory(**CHUNKED)
    assert found.activations_bytes == pytest.approx(LAYERS * STREAM + formed_again(), rel=1e-12)
    assert found.loss_bytes == pytest.approx(6 * T * VOCABULARY / 10**9, rel=1e-12)
    held = memory(stack__fusion__loss_peak_bytes=1.0, stack__tuning__loss_held_bytes=5.0)
    assert (held.loss_bytes, held.activations_bytes) == (5 * T * VOCABULARY, found.activations_bytes)


def test_quantised_weights_are_narrow_and_one_of_them_is_widened() -> None:
    """Matrices of layers in nf4; the vocabulary, norms and adapters as they are."""
    found = memory(training="qlora", stack__tuning__keeps_inputs=False, **CHUNKED)
    assert found.parameters_bytes == pytest.approx(NF4 * QUANTISED + 2 * (P - QUANTISED) + 4 * ADAPTERS, rel=1e-12)
    assert found.activations_bytes == pytest.approx(LAYERS * STREAM + formed_again(quantised=True), rel=1e-12)


def test_earlier_micro_batches_leave_gradients_beside_the_loss() -> None:
    """4 bytes of each number of an adapter; in software that holds a buffer for them, of the first one too."""
    assert memory(micro_batches=2).gradients_bytes == 4 * ADAPTERS
    assert memory(stack__tuning__holds_gradients=True).gradients_bytes == 4 * ADAPTERS
    again = memory(micro_batches=2, **CHUNKED)
    assert (again.gradients_bytes, again.activations_bytes) == (4 * ADAPTERS, memory(**CHUNKED).activations_bytes)


def test_a_full_fine_tuning_of_few_tokens_peaks_when_it_steps() -> None:
    """Parameters, gradients, both states and a copy, 2 bytes each; what the passes had is gone."""
    found = memory(training="full", weights="bf16", optimizer="adamw", sequence_length=16)
    parts = dict(found.items())
    assert [parts[f"{name}_bytes"] for name in ("parameters", "gradients", "optimizer", "scratch")] == [
        2 * P,
        2 * P,
        4 * P,
        2 * P,
    ]
    assert found.activations_bytes == found.loss_bytes == found.fragmentation_bytes == 0


def test_without_states_a_full_fine_tuning_peaks_when_all_gradients_are_there() -> None:
    """One layer whole beside them; inputs of the others are gone. Norms, inputs of products, core, output, MLP."""
    found = memory(training="full", weights="bf16", optimizer="sgd", **CHUNKED)
    kept = 2 * NORM + T * (2 * (3 * H + F) + 2 * (H + 2 * V) + 4 * 32 + 3 * 2 * F)
    assert found.activations_bytes == pytest.approx(kept - STREAM + 2 * T * F, rel=1e-12)
    assert (found.gradients_bytes, found.optimizer_bytes, found.scratch_bytes, found.loss_bytes) == (2 * P, 0, 0, 0)


def test_autocast_keeps_16_bit_copies_of_fp32_weights() -> None:
    """2 bytes of each number of a matrix of a layer, where nothing runs again; weights in 16 bits are no copies."""
    settings = {"training": "full", "weights": "bf16", "optimizer": "sgd", "recompute": "none", "micro_batch_size": 8}
    narrow = memory(**settings)
    layer = 2 * NORM + T * (2 * (3 * H + F) + 2 * (H + 2 * V) + 4 * 32 + 3 * 2 * F)
    assert narrow.activations_bytes == pytest.approx(8 * (LAYERS * layer + NORM + 2 * T * H), rel=1e-12)
    wide = memory(**(settings | {"weights": "fp32"}), stack__fusion__norms="eager_fp32")
    assert wide.activations_bytes - narrow.activations_bytes == pytest.approx(2 * QUANTISED, rel=1e-12)


@pytest.mark.parametrize(
    ("live", "regathers", "of_layers"),
    [(0.0, True, 2 / 32), (1e9, True, 1e9 / (P - TABLES)), (1e12, True, 1.0), (0.0, False, 1.0)],
)
def test_shards_are_gathered_two_layers_at_a_time_or_as_many_as_stay(live: float, regathers: bool, of_layers: float) -> None:
    """And the vocabulary; all of it where software gathers nothing twice."""
    found = states(gpus=4, sharding="zero3", stack__tuning__live_parameters=live, stack__states__regathers_parameters=regathers)
    whole = 2 * P + 4 * ADAPTERS
    assert found.parameters == pytest.approx(whole / 4, rel=1e-12)
    assert found.gathered == pytest.approx(2 * TABLES + of_layers * (whole - 2 * TABLES), rel=1e-12)
    assert found.gradients == pytest.approx(4 * ADAPTERS / 4, rel=1e-12)
    assert found.unreduced == pytest.approx(4 * ADAPTERS * 2 / 32, rel=1e-12)
    assert found.optimizer == pytest.approx(8 * ADAPTERS / 4, rel=1e-12)
    assert found.step == pytest.approx(4 * ADAPTERS / 4, rel=1e-12)


def test_copies_of_a_trained_vocabulary_are_gathered_with_it() -> None:
    """Both beside their originals, and none of them in the mean layer: a deeper model gathers no less."""
    found = states(gpus=4, sharding="zero3", trained_parts=("embedding", "head"))
    of_layers = 2 * (P - TABLES) + 4 * ADAPTERS
    assert found.gathered == pytest.approx(2 * 2 * TABLES + 2 / 32 * of_layers, rel=1e-12)
    head = states(gpus=4, sharding="zero3", trained_parts=("head",))
    assert head.gathered == pytest.approx(2 * TABLES + 2 * TABLES / 2 + 2 / 32 * of_layers, rel=1e-12)


def test_sharded_software_holds_its_own_share_of_the_loss_and_of_checkpoints() -> None:
    """Inputs of layers as often as it says, and of each logit as many bytes as it says for shards."""
    sharded = {"gpus": 2, "sharding": "zero3", "stack__fusion__loss_peak_bytes": 1.0}
    one, three = (
        memory(**sharded, stack__tuning__sharded_checkpoints=times, stack__tuning__sharded_loss_held_bytes=times + 4.0)
        for times in (1, 3)
    )
    assert (one.loss_bytes, three.loss_bytes) == (5 * T * VOCABULARY, 7 * T * VOCABULARY)
    assert three.activations_bytes - one.activations_bytes == pytest.approx(2 * LAYERS * STREAM, rel=1e-12)


def test_a_moment_of_shards_has_what_is_gathered_but_not_while_it_steps() -> None:
    """A step on shards alone, with a copy of each gradient."""
    settings = {"training": "full", "weights": "bf16", "optimizer": "adamw", "gpus": 2, "sharding": "zero3"}
    few = memory(**settings, sequence_length=16)
    assert (few.parameters_bytes, few.gradients_bytes, few.optimizer_bytes, few.scratch_bytes) == (P, P, 2 * P, P)
    many = memory(**settings, micro_batch_size=8)
    assert many.parameters_bytes == pytest.approx(P + 2 * TABLES + 2 / 32 * 2 * (P - TABLES), rel=1e-12)


AS_THE_STACK: dict[str, Any] = {
    "stack": "hf-deepspeed", "training": "full", "weights": "stack", "optimizer": "adamw",
    "stack__states__parameter_bytes": 2.0, "stack__states__gradient_bytes": 2.0, "stack__states__reduced_gradient_bytes": 3.0,
    "stack__states__optimizer_bytes": 12.0, "stack__states__step_gradient_bytes": 4.0, "stack__states__casts_shards": False,
    "stack__states__accumulated_gradient_bytes": 0.0, "stack__states__regathers_parameters": True,
    "stack__tuning__live_parameters": 0.0,
}  # fmt: skip


def test_a_full_fine_tuning_may_hold_its_parameters_as_the_stack_does() -> None:
    """2 + 2 + 12 bytes a parameter, and the fp32 copy of a gradient that steps; a smaller optimizer has a master copy too."""
    found = states(**AS_THE_STACK)
    assert (found.parameters, found.gradients, found.optimizer, found.step) == (2 * P, 2 * P, 12 * P, 4 * P)
    frozen = states(**AS_THE_STACK, frozen_parts="embedding head")
    trained = P - TABLES
    assert (frozen.parameters, frozen.gradients, frozen.optimizer) == (2 * P, 2 * trained, 12 * trained)
    assert states(**(AS_THE_STACK | {"optimizer": "sgd_momentum"})).optimizer == 8 * P
    assert states(**(AS_THE_STACK | {"stack__states__accumulated_gradient_bytes": 4.0})).gradients == 6 * P


def test_masters_of_shards_may_be_all_that_is_kept_of_them() -> None:
    """Software that casts shards when it gathers them has no 16-bit ones."""
    sharded = AS_THE_STACK | {"gpus": 2, "sharding": "zero3"}
    copies, cast = (states(**(sharded | {"stack__states__casts_shards": each})) for each in (False, True))
    assert (copies.parameters, cast.parameters) == (P, 0)
    assert copies.gathered == cast.gathered == pytest.approx(2 * TABLES + 2 / 32 * 2 * (P - TABLES), rel=1e-12)
    assert (cast.gradients, cast.optimizer, cast.step) == (P, 6 * P, 2 * P)


def test_parameters_as_the_stack_has_them_travel_as_it_says() -> None:
    """2 bytes of each are gathered, 3 of each trained one reduced."""
    setup = tuned_setup(**AS_THE_STACK, frozen_parts="head")
    assert setup.tuning is not None
    wire = tuned_wire_bytes(setup, parameter_count(setup.model), setup.tuning)
    assert (wire.gathered, wire.reduced) == (2 * P, 3 * (P - VOCABULARY * H))


def test_what_the_host_holds_is_not_there() -> None:
    """Shards of parameters, states and step; gradients too, where both are the host's and leave as they are formed."""
    settings = {"training": "full", "weights": "bf16", "optimizer": "adamw", "gpus": 2, "sharding": "zero3"}
    plain, held = states(**settings), states(**settings, offload="optimizer parameters")
    assert (held.parameters, held.gradients, held.optimizer, held.step) == (0, 0, 0, 0)
    assert (held.gathered, held.unreduced) == (plain.gathered, plain.unreduced)
    unsharded = states(**(settings | {"sharding": "zero2"}), offload="optimizer")
    assert (unsharded.parameters, unsharded.gradients, unsharded.optimizer) == (2 * P, P, 0)


def test_copies_of_parts_that_are_trained_stand_beside_their_originals() -> None:
    """PEFT keeps both of a head that is trained beside adapters; its gradient and states are as wide as it is."""
    plain, more = states(), states(trained_parts="head")
    assert more.parameters - plain.parameters == 2 * VOCABULARY * H
    assert more.gradients - plain.gradients == 2 * VOCABULARY * H
    assert more.optimizer - plain.optimizer == 4 * VOCABULARY * H


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw", 2 + 2 * 4 + 2 * 2 + 2 * 2),
        ("adamw_fused", 2 + 2 * 4 + 2 * 2),
        ("adamw_8bit", 2 + 4 * (1 + 4 / 256) + 2 * 2),
        ("sgd", 2 + 2 * 2),
    ],
)
def test_a_step_reads_gradients_and_reads_and_writes_states_and_parameters(optimizer: str, expected: float) -> None:
    """And a temporary copy, of what it has one; the norm reads each gradient once. On shards, of a rank's own."""
    for gpus, settings in ((1, {}), (2, {"gpus": 2, "sharding": "zero3"})):
        work = iteration(tuned_setup(training="full", weights="bf16", optimizer=optimizer, **settings))
        moved = {op.name: float(op.moved_bytes) for op in work.synchronisation if isinstance(op, MemoryBound)}
        assert moved[f"optimizer.{optimizer}"] == pytest.approx(P * expected / gpus, rel=1e-12)
        assert moved["optimizer.gradient_norm"] == pytest.approx(P * 2 / gpus, rel=1e-12)
        kernels = {op.name: op.kernels for op in work.synchronisation if isinstance(op, MemoryBound)}
        assert (kernels[f"optimizer.{optimizer}"], kernels["optimizer.gradient_norm"]) == (4, 2)
        (norm,) = [op for op in work.synchronisation if op.name == "optimizer.gradient_norm.all_reduce"]
        assert isinstance(norm, Collective)
        assert (norm.payload_bytes, norm.group.ranks) == (4, gpus)


def test_an_array_of_micro_batch_sizes_moves_from_one_moment_to_another() -> None:
    """Few tokens peak when it steps, many at the loss: each as alone."""
    setup = {"training": "full", "weights": "bf16", "optimizer": "adamw"}
    sizes = [1, 64]
    alone = [memory(**setup, micro_batch_size=size) for size in sizes]
    assert float(alone[0].loss_bytes) == 0 < float(alone[1].loss_bytes)
    assert float(alone[1].scratch_bytes) == 0 < float(alone[0].scratch_bytes)
    assert np.all(np.asarray([float(each.total_bytes) for each in alone]) > 0)


def test_gradients_of_shards_are_whole_in_two_layers_while_passes_run() -> None:
    """Beside a share of earlier ones; at the end of all of them beside a share of all."""
    lora = {"gpus": 2, "sharding": "zero3", **CHUNKED}
    whole = 4 * ADAPTERS
    assert memory(**lora).gradients_bytes == whole * 2 / 32
    assert memory(**lora, micro_batches=2).gradients_bytes == whole / 2 + whole * 2 / 32
    full = memory(training="full", weights="bf16", optimizer="sgd", **lora)
    assert full.gradients_bytes == P + 2 * (P - TABLES) * 2 / 32


def test_positions_are_gathered_with_the_vocabulary() -> None:
    """2 bytes of each number of their table."""
    learned = {"model__position": "learned", "model__max_positions": 2048}
    plain, more = (states(gpus=4, sharding="zero3", **settings) for settings in ({}, learned))
    assert more.gathered - plain.gathered == pytest.approx(2 * 2048 * H, rel=1e-9)


def test_the_norm_of_embeddings_keeps_its_input() -> None:
    """As any norm does."""
    assert memory(model__embedding_norm=True).activations_bytes - memory().activations_bytes == NORM


def test_a_step_of_trained_parameters_has_a_temporary_copy_of_some_optimizers() -> None:
    """2 bytes of a parameter in 16 bits, 4 of an adapter in fp32."""
    for settings, copy in (({"training": "full", "weights": "bf16"}, 2), ({}, 4)):
        setup = tuned_setup(optimizer="adamw", **settings)
        found = state_bytes(setup.layout, setup.stack, setup.tuning)
        assert (found.step, found.parameter, found.gradient, found.all_gradients, found.optimizer) == (copy,) * 4 + (2 * copy,)


def test_ranks_of_replicas_have_buffers() -> None:
    """One group of several ranks; the peak is that of its moment beside them."""
    found, stack = memory(gpus=2), tuned_setup().stack.states
    assert found.communication_bytes == stack.communication_buffer_bytes
    assert memory().communication_bytes == 0


def test_layers_of_two_kinds_keep_what_as_many_of_one_keep() -> None:
    """Windows change nothing of what fused attention keeps."""
    setup = tuned_setup()
    kinds = MappingProxyType({"local": LayerKind(attention="sliding", window=1024), "global": LayerKind()})
    mixed = replace(setup, model=replace(setup.model, layer_kinds=kinds, layer_pattern=("local", "local", "global")))
    assert memory_bytes(iteration(mixed)).activations_bytes == memory().activations_bytes


def test_a_joined_linear_without_a_gate_has_one_adapter() -> None:
    """Of squared ReLU: 32 * 16 * (6144 + 24576)."""
    setup = tuned_setup(model="nemotron-4-15b", adapter_targets="fc1")
    assert setup.tuning is not None
    found = tuned_numbers(setup.model, parameter_count(setup.model), {"": 32}, setup.tuning)
    assert found.adapters == 32 * 16 * (6144 + 24576)
    (blocks,) = iteration(setup).layers.values()
    assert [op.name for op in blocks.plain.forward if op.name.endswith("adapter_in")] == ["layer.mlp.fc1.adapter_in"]


def test_experts_in_fp32_are_cast_with_all_other_matrices() -> None:
    """2 bytes of each number of Mixtral's layers, where nothing runs again."""
    settings = {"model": "mixtral-8x7b", "training": "full", "optimizer": "sgd", "recompute": "none", "micro_batch_size": 8}
    narrow, wide = (memory(**settings, weights=weights) for weights in ("bf16", "fp32"))
    held = parameter_count(tuned_setup(**settings, weights="bf16").model)
    matrices = held.attention + held.mlp + held.experts
    assert wide.activations_bytes - narrow.activations_bytes == pytest.approx(2 * matrices, rel=1e-9)


def test_a_frozen_embedding_is_looked_up() -> None:
    """And normed, where it is."""
    names = [op.name for op in iteration(tuned_setup(model__embedding_norm=True)).embedding.forward]
    assert names == ["embedding.lookup", "embedding.norm"]
