"""What a fine-tuning runs and holds, against closed forms, published counts and torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
import torch

from perfmodel.count.declarations import Adapter, Component, Linear
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.memory.tuned import TunedStates, peak_moment, tuned_states
from perfmodel.count.operators import Matmul, MemoryBound, Operator, model_flop
from perfmodel.count.parameters import parameter_count
from perfmodel.count.roles import Role
from perfmodel.count.tuning.trained import TunedNumbers, tuned_numbers, tuned_wire_bytes
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.tables.tuning_models import named_tuned_model
from perfmodel.spec.phases import FORWARD, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.spec.refusals import check_setup
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import FineTuning
from tests.tunings import tuned_setup


def numbers_of(setup: Setup) -> TunedNumbers:
    """What is trained and frozen of the model of a setup."""
    assert setup.tuning is not None
    layers = dict.fromkeys(setup.model.kinds, setup.model.layers)
    return tuned_numbers(setup.model, parameter_count(setup.model), layers, setup.tuning)


@pytest.mark.parametrize(
    ("model", "rank", "targets", "printed"),
    [
        ("meta-llama/Llama-2-7b-hf", 8, ("query", "value"), 4_194_304),  # PEFT prints it for every LoRA of this model
        ("meta-llama/Llama-2-7b-hf", 64, (), 159_907_840),
        ("stabilityai/stablelm-base-alpha-3b", 8, ("query", "value"), 2_097_152),  # LitGPT resource-tables.md
        ("meta-llama/Llama-2-13b-hf", 8, ("query", "value"), 6_553_600),
        ("tiiuae/falcon-40b", 8, ("query", "value"), None),
    ],
)
def test_adapters_have_the_parameters_that_software_prints(
    model: str, rank: int, targets: tuple[str, ...], printed: int | None
) -> None:
    """The sum of r * (in + out) over the linears with an adapter."""
    described = named_tuned_model(model)
    tuning = FineTuning(training="lora", weights="bf16", adapter_rank=rank, adapter_targets=targets)
    numbers = tuned_numbers(described, parameter_count(described), {"": described.layers}, tuning)
    hidden, kv, query = described.hidden_size, described.kv_size, described.query_size
    expected = printed if printed is not None else described.layers * rank * (2 * hidden + query + kv)
    assert numbers.adapters == expected


def test_one_adapter_beside_joined_projections_has_one_first_matrix() -> None:
    """r * (h + q + 2*v), against r * (3*h + q + 2*v) of three adapters."""
    joined, apart = (numbers_of(tuned_setup(adapter_targets=each)) for each in ("qkv", "query key value"))
    assert apart.adapters - joined.adapters == 32 * 16 * 2 * 4096


def test_magnitudes_are_one_number_a_column() -> None:
    """DoRA has as many numbers more as the linears have columns: q + 2*v + h + 2*f + h of a layer."""
    more = numbers_of(tuned_setup(training="dora")).adapters - numbers_of(tuned_setup()).adapters
    assert more == 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)


def test_an_adapter_is_what_gets_a_gradient_in_torch() -> None:
    """A frozen linear with two matrices beside it: r * (k + n) numbers have one."""
    linear, first, second = (torch.nn.Linear(*shape, bias=False) for shape in ((48, 32), (48, 4), (4, 32)))
    linear.weight.requires_grad_(False)
    given = torch.randn(5, 48, requires_grad=True)
    (linear(given) + second(first(given))).sum().backward()
    trained = sum(each.numel() for module in (linear, first, second) for each in module.parameters() if each.grad is not None)
    declared = Linear(name="one", component=Component.ATTENTION, role=Role.PRODUCT, inner=48, columns=32, called="query")
    assert Adapter(linear=declared, rank=4, has_magnitudes=False).parameters == trained


def products(work: Iteration, role: Role | None = None) -> list[Matmul]:
    """The products of one layer with a role, or those of its linears."""
    (blocks,) = work.layers.values()
    linears = (Role.PRODUCT, Role.OUTPUT_PRODUCT)
    return [op for op in blocks.again.operators if isinstance(op, Matmul) and (op.role is role if role else op.role in linears)]


def test_frozen_linears_have_no_weight_gradient() -> None:
    """Only the products of adapters have."""
    work = iteration(tuned_setup())
    phases = {op.phase for op in products(work)}
    assert WEIGHT_GRADIENT not in phases
    assert WEIGHT_GRADIENT in {op.phase for op in products(work, Role.ADAPTER)}


def test_a_token_takes_four_flops_a_frozen_parameter_and_six_an_adapters() -> None:
    """4 * N + 6 * A, and attention in full, 12 * L * q * s; the embedding multiplies nothing."""
    setup = tuned_setup(recompute="none")
    numbers, model, tokens = numbers_of(setup), setup.model, setup.layout.tokens_per_iteration
    frozen = parameter_count(model).total - parameter_count(model).embedding - parameter_count(model).norms
    expected = 4 * frozen + 6 * numbers.adapters + 12 * model.layers * model.query_size * setup.layout.sequence_length
    assert iteration(setup).fold(model_flop) / tokens == pytest.approx(expected, rel=1e-12)


def test_quantised_weights_are_widened_in_each_of_three_passes() -> None:
    """Of all numbers of a layer b + 2 bytes forwards, again when the layer runs again, and backwards."""
    setup = tuned_setup(training="qlora")
    assert setup.tuning is not None
    (blocks,) = iteration(setup).layers.values()
    moved: dict[str, float] = {}
    for op in blocks.again.operators:
        if isinstance(op, MemoryBound) and op.role is Role.DEQUANTISE:
            moved[op.phase] = moved.get(op.phase, 0.0) + float(op.moved_bytes)
    layer = (parameter_count(setup.model).attention + parameter_count(setup.model).mlp) / setup.model.layers
    assert len(moved) == 3
    assert list(moved.values()) == pytest.approx([layer * (setup.tuning.weight_format.bytes + 2)] * 3)
    assert {FORWARD, RECOMPUTE} < moved.keys()


def test_double_quantised_nf4_takes_4127_thousandths_of_bits() -> None:
    """4 bits, 8 of a scale for 64 numbers, 32 of a scale for 256 such scales."""
    assert FineTuning(training="qlora", weights="nf4-dq").weight_format.bytes * 8 == pytest.approx(4.127, abs=5e-4)


def states_per_parameter(**settings: object) -> float:
    """Bytes of all states of a parameter of the model when the optimizer steps, on all GPUs together."""
    setup = tuned_setup(training="full", **settings)
    assert setup.tuning is not None
    work = iteration(setup)
    held = tuned_states(setup, work.stages.first, setup.tuning)
    total = held.parameters + held.gradients + held.optimizer + held.step
    return float(total * setup.layout.gpus / parameter_count(setup.model).total)


@pytest.mark.parametrize(
    ("weights", "optimizer", "expected"),
    [
        ("bf16", "adamw", 10.0),  # 2 + 2 + 4 + 2: measured by fms-acceleration on 7B models
        ("fp32", "adamw", 20.0),  # 4 + 4 + 8 + 4
        ("bf16", "adamw_fused", 8.0),
        ("bf16", "adamw_8bit", 2 + 2 + 2 * (1 + 4 / 256)),
        ("bf16", "sgd", 4.0),
        ("bf16", "sgd_momentum", 6.0),
        ("bf16", "lion", 8.0),
    ],
)
def test_full_fine_tuning_holds_so_many_bytes_a_parameter(weights: str, optimizer: str, expected: float) -> None:
    """Weights, gradients, states, and what the step allocates."""
    assert states_per_parameter(weights=weights, optimizer=optimizer) == pytest.approx(expected, rel=1e-12)


def test_shards_hold_their_part_of_everything() -> None:
    """Two GPUs hold 20 bytes of a parameter between them when they step."""
    assert states_per_parameter(weights="fp32", gpus=2, sharding="zero3") == pytest.approx(20.0, rel=1e-12)


def test_adafactor_keeps_rows_and_columns() -> None:
    """4 bytes for each row and column of each matrix, and for all of 65 norms: less than a thousandth of Adam's states."""
    setup = tuned_setup(training="full", weights="bf16", optimizer="adafactor")
    assert setup.tuning is not None
    held = tuned_states(setup, iteration(setup).stages.first, setup.tuning)
    h, f, v = 4096, 14336, 1024
    layer = (h + h) + 2 * (h + v) + (h + h) + 2 * (h + f) + (f + h)
    assert held.optimizer == 4 * (32 * layer + 2 * (128256 + h) + 65 * h)


def test_adafactor_keeps_rows_and_columns_of_both_matrices_of_an_adapter() -> None:
    """r x in and out x r: in + out + 2*r numbers, 4 bytes each."""
    setup = tuned_setup(optimizer="adafactor", adapter_rank=16, adapter_targets=["query", "value"])
    assert setup.tuning is not None
    held = tuned_states(setup, iteration(setup).stages.first, setup.tuning)
    hidden, value = 4096, 1024
    assert held.optimizer == 4 * 32 * ((hidden + hidden + 32) + (hidden + value + 32))


def test_gradients_are_there_before_the_loss_only_of_earlier_micro_batches() -> None:
    """A step with one micro-batch peaks with none of them, or in the step; with several all of them stand beside the loss."""
    one, two = (
        memory_bytes(iteration(tuned_setup(training="full", weights="bf16", micro_batch_size=32, micro_batches=number)))
        for number in (1, 2)
    )
    assert (one.gradients_bytes, two.gradients_bytes) == (0, 2 * parameter_count(tuned_setup().model).total)


def test_the_parts_of_the_peak_are_those_of_its_moment() -> None:
    """What PyTorch allocates is the moment and the workspace of its libraries."""
    setup = tuned_setup(training="qlora")
    assert setup.tuning is not None
    work = iteration(setup)
    memory, moment = memory_bytes(work), peak_moment(work, work.stages.first, setup.tuning)
    assert memory.allocated_bytes == pytest.approx(moment.total + memory.workspaces_bytes, rel=1e-12)


@pytest.mark.parametrize(("what", "part"), [("optimizer", "optimizer_bytes"), ("parameters", "parameters_bytes")])
def test_what_the_host_holds_takes_less_of_the_gpu(what: str, part: str) -> None:
    """Optimizer states vanish; of parameters stays what is gathered at a time."""
    plain = memory_bytes(iteration(tuned_setup(gpus=2, sharding="zero3", training="full", weights="bf16")))
    held = memory_bytes(iteration(tuned_setup(gpus=2, sharding="zero3", training="full", weights="bf16", offload=what)))
    assert getattr(held, part) < getattr(plain, part)
    assert held.total_bytes < plain.total_bytes


def test_two_layers_of_gradients_are_whole_where_they_are_sharded() -> None:
    """The one that runs and the one that is reduced, 2 of 32, whatever the vocabulary; none where no rank has a share."""

    def states(sharding: str) -> TunedStates:
        setup = tuned_setup(gpus=4, sharding=sharding, training="full", weights="bf16")
        assert setup.tuning is not None
        return tuned_states(setup, iteration(setup).stages.first, setup.tuning)

    alone, sharded = states("none"), states("zero3")
    assert alone.unreduced == 0
    vocabulary = 2 * 128256 * 4096 * 2  # bytes of embedding and head
    assert sharded.unreduced == pytest.approx((alone.gradients - vocabulary) * 2 / 32)
    assert sharded.gradients == pytest.approx(alone.gradients / 4)


def test_muon_orthogonalises_each_matrix_of_every_layer() -> None:
    """Five rounds of X X^T, its square and their sum times X, of seven matrices of 32 layers; the short side is the rows."""
    work = iteration(tuned_setup(training="full", weights="bf16", optimizer="muon"))
    products = [op for op in work.synchronisation if isinstance(op, Matmul)]
    assert {float(op.repeats) for op in products} == {5 * 32}
    h, v, f = 4096, 1024, 14336
    sides = [(h, h), (v, h), (v, h), (h, h), (h, f), (h, f), (h, f)]
    expected = sum(2 * short * short * (2 * long + short) for short, long in sides)
    assert sum(float(op.repeats * op.flop) for op in products) == pytest.approx(5 * 32 * expected)


def test_a_step_on_the_host_needs_no_room_on_the_gpu() -> None:
    """What an optimizer forms in passing is formed where it steps."""
    settings = {"gpus": 2, "sharding": "zero3", "training": "full", "weights": "bf16", "optimizer": "adamw"}

    def room(**more: str) -> float:
        setup = tuned_setup(**settings, **more)
        assert setup.tuning is not None
        return float(tuned_states(setup, iteration(setup).stages.first, setup.tuning).step)

    assert room() > 0
    assert room(offload="optimizer") == 0


@pytest.mark.parametrize(("stack", "passes"), [("hf-peft-plain", 5), ("hf-peft-fused", 3)])
def test_the_sum_of_an_adapter_moves_its_result_once_a_pass(stack: str, passes: int) -> None:
    """passes * T * (sum of columns) numbers of 4 bytes, as fp32 adapters give them, and casts of their inputs."""
    work = iteration(tuned_setup(stack=stack, adapter_targets=["query", "value"], recompute="none"))
    (blocks,) = work.layers.values()
    sums = sums_of(blocks.plain.forward)
    tokens, hidden, value = 2048, 4096, 1024
    results, inputs = tokens * (hidden + value), tokens * 2 * hidden
    casts = (2 + 4) * inputs
    assert sum(float(op.moved_bytes) for op in sums) == passes * 4 * results + casts
    backward = (passes - 1) * 4 * results + 3 * 2 * inputs + casts  # the gradient is scaled, and those of inputs added up
    assert sum(float(op.moved_bytes) for op in sums_of(blocks.plain.backward)) == backward


def sums_of(operators: Iterable[Operator]) -> list[MemoryBound]:
    """Those in which results of adapters are added to what they lie beside."""
    return [op for op in operators if isinstance(op, MemoryBound) and op.name.endswith("adapter_sum")]


def test_checkpoints_in_the_host_leave_two_layers_on_the_gpu() -> None:
    """All but two of the 32 inputs of layers are gone, 2 bytes a number."""
    settings = {"training": "qlora", "micro_batch_size": 8}
    plain, held = (memory_bytes(iteration(tuned_setup(**settings, **more))) for more in ({}, {"offload": "activations"}))
    assert plain.activations_bytes - held.activations_bytes == pytest.approx(30 * 8 * 2048 * 4096 * 2, rel=1e-12)


def test_a_frozen_model_is_neither_stepped_nor_reduced() -> None:
    """Gradients on the wire are those of adapters, 4 bytes each; nf4 parameters travel as they are held."""
    setup = tuned_setup(training="qlora", gpus=2, sharding="zero3")
    assert setup.tuning is not None
    numbers, wire = numbers_of(setup), tuned_wire_bytes(setup, parameter_count(setup.model), setup.tuning)
    assert wire.reduced == 4 * numbers.adapters
    assert wire.gathered == pytest.approx(
        numbers.narrow * setup.tuning.weight_format.bytes + 2 * numbers.wide + 4 * numbers.adapters
    )


def test_frozen_parts_of_a_full_fine_tuning_get_no_gradient() -> None:
    """A frozen vocabulary leaves the layers and the norms."""
    count = parameter_count(tuned_setup().model)
    numbers = numbers_of(tuned_setup(training="full", weights="bf16", frozen_parts="embedding head"))
    assert (numbers.trained, numbers.wide) == (count.total - count.embedding - count.head, count.embedding + count.head)


def test_arrays_of_micro_batches_peak_as_single_ones_do() -> None:
    """Many layouts at once have the memory of each alone."""
    setup = tuned_setup(training="qlora", micro_batches=4, micro_batch_size=1)
    sizes = np.array([1, 2, 4])
    many = memory_bytes(iteration(replace(setup, layout=replace(setup.layout, micro_batch_size=sizes)))).total_bytes
    alone = [
        memory_bytes(iteration(replace(setup, layout=replace(setup.layout, micro_batch_size=int(n))))).total_bytes
        for n in sizes
    ]
    assert np.broadcast_to(many, 3).tolist() == pytest.approx(alone)


def test_a_frozen_embedding_has_no_backward_pass() -> None:
    """Nothing below the first layer is trained; a trained one writes a dense gradient."""
    frozen, trained = (iteration(tuned_setup(**more)).embedding for more in ({}, {"trained_parts": "embedding"}))
    assert frozen.backward == ()
    assert len(trained.backward) == 1


def test_a_quantised_base_may_widen_the_stream() -> None:
    """Checkpoints of 4 bytes a number where software makes norms fp32, and of 2 where it does not."""
    wide, narrow = (
        memory_bytes(iteration(tuned_setup(training="qlora", stack=stack, micro_batch_size=8))).activations_bytes
        for stack in ("hf-peft", "hf-peft-plain")
    )
    assert wide - narrow == pytest.approx(
        32 * 8 * 2048 * 4096 * 2, rel=0.05
    )  # the final norm and what is formed again differ too


def test_bitsandbytes_keeps_the_inputs_of_quantised_linears() -> None:
    """Without recompute those of fc2 and the MLP beside what adapters of queries and values keep: f and h numbers.

    That of the projection is the output of attention, which fused attention keeps whatever the projection does.
    """
    settings = {"training": "qlora", "recompute": "none", "adapter_targets": "query value"}
    setup = tuned_setup(**settings)
    work = tuned_setup(**settings, stack__tuning__keeps_inputs=False)
    kept, dropped = (memory_bytes(iteration(each)).activations_bytes for each in (setup, work))
    layer = 14336 + 4096  # into fc2, and both of gate and fc1, which share it
    assert kept - dropped == pytest.approx(32 * 2048 * layer * 2, rel=1e-9)


def test_software_may_keep_checkpoints_twice_beside_shards() -> None:
    """One more set of all inputs of layers, 2 bytes a number, where the loss in pieces is nothing."""
    settings = {"gpus": 2, "sharding": "zero3", "micro_batch_size": 8, "stack__fusion__loss_chunks": 1000}
    once, twice = (
        memory_bytes(iteration(tuned_setup(**settings, stack__tuning__sharded_checkpoints=number))) for number in (1, 2)
    )
    assert twice.activations_bytes - once.activations_bytes == pytest.approx(32 * 8 * 2048 * 4096 * 2, rel=1e-9)


def test_quantised_layers_are_narrow_and_the_rest_is_wide() -> None:
    """Of Llama 3.1 8B: attention and feed-forward of 32 layers; norms, embedding and head stay as they are."""
    found = numbers_of(tuned_setup(training="qlora"))
    h, v, f = 4096, 1024, 14336
    narrow = 32 * (2 * h * h + 2 * h * v + 3 * h * f)
    assert found.narrow == narrow
    assert found.wide == 8_030_261_248 - narrow


def test_muon_shares_its_matrices_out_over_shards() -> None:
    """Each rank orthogonalises the matrices that it owns."""
    settings = {"training": "full", "weights": "bf16", "optimizer": "muon"}
    alone, shared = (iteration(tuned_setup(**settings, **more)) for more in ({}, {"gpus": 4, "sharding": "zero3"}))
    whole, quarter = (
        sum(float(op.repeats) for op in work.synchronisation if isinstance(op, Matmul)) for work in (alone, shared)
    )
    assert quarter == pytest.approx(whole / 4)


def test_layers_without_a_part_have_no_adapters_of_it() -> None:
    """49 of 80 layers of Nemotron Super have attention, 8 of its heads keys; MLPs are as wide as each layer has them."""
    setup = tuned_setup(model="nemotron-super-49b", training="qlora", weights="nf4-dq")
    model, rank, tuning = setup.model, 16, setup.tuning
    assert tuning is not None
    check_setup(setup)
    layers = {kind: model.layers_of(kind, 0, model.layers) for kind in model.kinds}
    numbers = tuned_numbers(model, parameter_count(model), layers, tuning)
    attention = 49 * (4 * 8192 + 2 * 8192 + 2 * 1024)
    widths = [model.seen_in(model.kinds[model.kind_at(layer)]).ffn_hidden_size for layer in range(80)]
    assert numbers.adapters == rank * (attention + sum(3 * (8192 + float(width)) for width in widths))
    with pytest.raises(NotSupportedError, match="adapters beside mamba2 attention are not covered"):
        check_setup(replace(setup, model=model_preset("nemotron-h-56b")))
