"""The FLOPs folded over the operator list equal the equations of the papers, for every layout, recompute mode and stack.

Symbols: B global_batch_size, s sequence_length, L layers, h hidden_size, q query_size, V vocab_size, t tensor_parallel.
Numbers are given as arrays where they can be, so that each test also says that they broadcast.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.operators import FusedAttention, Matmul, MemoryBound, gradients, hardware_flop, model_flop
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from tests.setups import layer_of, setup_of
from tests.stacks import stack_with

GPT3 = model_preset("gpt-3-175b")
LLAMA = model_preset("llama-3.1-8b")
NEMOTRON = model_preset("nemotron-4-15b")
WIDE_HEADS = replace(LLAMA, name="heads wider than the stream", head_size=192, vocab_size=128_003)
MODELS = [GPT3, LLAMA, NEMOTRON, WIDE_HEADS]
STACKS = ["megatron-core", "megatron-lm"]  # fused and unfused attention

EVERY_DEGREE = Layout(
    precision="bf16",
    tensor_parallel=np.array([1, 2, 4, 8]),
    data_parallel=4,
    sequence_parallel=True,
    sharding="zero1",
    recompute="none",
    micro_batch_size=np.array([[1], [2], [4]]),
    global_batch_size=64,
    sequence_length=2048,
)


def name_of(value: object) -> str | None:
    """Name a model in a test id."""
    return value.name if isinstance(value, TransformerModel) else None


def work_of(model: TransformerModel, layout: Layout, stack: str = "megatron-core") -> Iteration:
    """List the operators of one iteration."""
    return iteration(setup_of(model, layout, stack_preset(stack)))


def over_all_gpus(flop: Numeric, layout: Layout) -> Numeric:
    """Scale FLOPs of one GPU in one iteration to all GPUs, per token."""
    return flop * layout.gpus / layout.tokens_per_iteration


def head_flop_per_token(model: TransformerModel, layout: Layout) -> Numeric:
    """Count the logits over the padded vocabulary, forward and backward: 6 * h * V."""
    return 6 * model.hidden_size * model.padded_vocab_size(layout.tensor_parallel)


def layer_flop_per_token(model: TransformerModel, layout: Layout) -> Numeric:
    """Count all layers, forward and backward: the published formula without its logits."""
    return model_flop_per_token(model, layout.sequence_length) - 6 * model.hidden_size * model.vocab_size


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_model_flop_per_token_is_one_number_for_every_layout(
    model: TransformerModel, recompute: str, stack: str, *, sequence_parallel: bool
) -> None:
    """Degrees, micro-batches, recompute and fusion move the model FLOPs about and change nothing of their sum."""
    layout = replace(EVERY_DEGREE, recompute=recompute, sequence_parallel=sequence_parallel)
    per_token = over_all_gpus(model_flop(work_of(model, layout, stack).operators), layout)
    assert np.shape(per_token) == (3, 4)
    assert per_token == pytest.approx(np.full((3, 4), model_flop_per_token(model, layout.sequence_length)), rel=1e-13)


@pytest.mark.parametrize("sequence_length", [1, 512, 4096, 131072])
def test_model_flop_follow_the_sequence_length(sequence_length: int) -> None:
    """The fold equals the formula from one token, where attention is nothing, to where it is most of the work."""
    layout = replace(EVERY_DEGREE, sequence_parallel=False, sequence_length=sequence_length)
    per_token = over_all_gpus(model_flop(work_of(LLAMA, layout).operators), layout)
    assert per_token == pytest.approx(np.full((3, 4), model_flop_per_token(LLAMA, sequence_length)), rel=1e-13)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp8"])
def test_flop_do_not_depend_on_precision(precision: str) -> None:
    """Narrower numbers cost as many FLOPs."""
    wide, narrow = (work_of(LLAMA, replace(EVERY_DEGREE, precision=p)).operators for p in ("bf16", precision))
    assert np.array_equal(hardware_flop(narrow), hardware_flop(wide))


def test_gpt3_costs_what_the_sequence_parallelism_paper_counts() -> None:
    """arXiv:2205.05198, appendix A: 72 * B * L * s * h^2 * (1 + s / (6 h) + V / (12 h L)), with 4 h wide MLPs."""
    s, h, layers, vocabulary = 2048, 12288, 96, 50257
    published = 72 * layers * h**2 * (1 + s / (6 * h) + vocabulary / (12 * h * layers))
    assert model_flop_per_token(GPT3, s) == pytest.approx(published, rel=1e-14)


@pytest.mark.parametrize(
    ("layers", "hidden_size", "heads", "gpus", "sequences", "iteration_time_s", "published_mfu"),
    [
        (48, 6144, 64, 8, 4, 1.10, 0.415),
        (96, 12288, 96, 64, 64, 13.75, 0.514),
        (105, 20480, 128, 280, 280, 37.83, 0.560),
        (128, 25600, 160, 512, 512, 71.49, 0.563),
    ],
)
def test_published_times_give_the_published_mfu(
    layers: int, hidden_size: int, heads: int, gpus: int, sequences: int, iteration_time_s: float, published_mfu: float
) -> None:
    """arXiv:2205.05198, Table 5, prints both, on A100s of 312e12 FLOP/s; the times are rounded to 10 ms, up to 0.5 %."""
    model = replace(
        GPT3,
        layers=layers,
        hidden_size=hidden_size,
        attention_heads=heads,
        kv_heads=heads,
        head_size=hidden_size // heads,
        ffn_hidden_size=4 * hidden_size,
        vocab_size=51200,
    )
    mfu = model_flop_per_token(model, 2048) * sequences * 2048 / (gpus * 312e12 * iteration_time_s)
    assert mfu == pytest.approx(published_mfu, rel=0.005)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_gpt3_with_full_recompute_costs_what_megatron_counts(*, sequence_parallel: bool) -> None:
    """arXiv:2104.04473, section 5.1: 96 * B * s * L * h^2 * (1 + s / (6 h) + V / (16 L h)), V padded."""
    layout = replace(EVERY_DEGREE, recompute="full", sequence_parallel=sequence_parallel)
    s, h, layers = 2048, 12288, 96
    vocabulary = GPT3.padded_vocab_size(EVERY_DEGREE.tensor_parallel)
    published = 96 * layers * h**2 * (1 + s / (6 * h) + vocabulary / (16 * layers * h))
    per_token = over_all_gpus(hardware_flop(work_of(GPT3, layout, "megatron-lm").operators), layout)
    assert per_token == pytest.approx(np.broadcast_to(published, (3, 4)), rel=1e-13)


def test_nemotron_15b_costs_94_gflop_a_token() -> None:
    """Nemotron-4 15B at 4096 tokens: 6 * (12.48e9 in layers + 1.57e9 in logits) + 12 * 32 * 6144 * 4096 = 94.0e9."""
    assert model_flop_per_token(NEMOTRON, 4096) == pytest.approx(94.0e9, abs=0.05e9)


@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_flop_per_token_is_6_for_each_parameter_that_multiplies_and_the_attention_square(model: TransformerModel) -> None:
    """The formula is 6 FLOPs for each weight of the matrices (not norms, biases or a lookup) + 12 * L * q * s."""
    hidden, kv = model.hidden_size, model.kv_size
    mlp = hidden * model.ffn_hidden_size * (3 if model.activation == "swiglu" else 2)
    projections = 2 * hidden * model.query_size + 2 * hidden * kv
    weights = model.layers * (projections + mlp) + model.vocab_size * hidden
    square = 12 * model.layers * model.query_size * 2048
    assert model_flop_per_token(model, 2048) == pytest.approx(6 * weights + square, rel=1e-15)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_without_recompute_hardware_flop_exceed_model_flop_by_the_padding(model: TransformerModel, stack: str) -> None:
    """Rows that pad the vocabulary cost 6 * h a token each; nothing else is hardware FLOPs only."""
    work = work_of(model, EVERY_DEGREE, stack).operators
    extra = over_all_gpus(hardware_flop(work) - model_flop(work), EVERY_DEGREE)
    padding = 6 * model.hidden_size * (model.padded_vocab_size(EVERY_DEGREE.tensor_parallel) - model.vocab_size)
    per_token = float(model_flop_per_token(model, 2048))
    assert extra == pytest.approx(np.broadcast_to(padding, (3, 4)), abs=1e-13 * per_token)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_selective_recompute_runs_the_forward_attention_square_again(model: TransformerModel, stack: str) -> None:
    """Selective recompute costs 4 * L * q * s FLOPs a token more: scores and weighted sum, once more."""
    selective = replace(EVERY_DEGREE, recompute="selective")
    plain_flop = hardware_flop(work_of(model, EVERY_DEGREE, stack).operators)
    extra = over_all_gpus(hardware_flop(work_of(model, selective, stack).operators) - plain_flop, selective)
    assert extra == pytest.approx(np.full((3, 4), 4.0 * model.layers * model.query_size * 2048), rel=1e-9)


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("model", MODELS, ids=name_of)
def test_full_recompute_costs_a_third_more_in_layers_and_nothing_in_the_head(model: TransformerModel, stack: str) -> None:
    """Layers run four times the forward work instead of three; logits are never formed again."""
    layout = replace(EVERY_DEGREE, recompute="full")
    per_token = over_all_gpus(hardware_flop(work_of(model, layout, stack).operators), layout)
    expected = 4 / 3 * layer_flop_per_token(model, layout) + head_flop_per_token(model, layout)
    assert per_token == pytest.approx(np.broadcast_to(expected, (3, 4)), rel=1e-13)


def test_arrays_of_layouts_count_what_each_layout_counts() -> None:
    """The number for t = 4 and b = 2 is the same, to the last bit, alone and among others."""
    alone = replace(EVERY_DEGREE, tensor_parallel=4, micro_batch_size=2)
    among = np.asarray(hardware_flop(work_of(LLAMA, EVERY_DEGREE).operators))
    assert among[1, 2] == hardware_flop(work_of(LLAMA, alone).operators)


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_blocks_add_up_to_the_iteration(recompute: str) -> None:
    """micro_batches * (embedding + L * layer + head) + synchronisation is the sum over all operators."""
    work = work_of(LLAMA, replace(EVERY_DEGREE, recompute=recompute))
    embedding, layer, head = (hardware_flop(block.operators) for block in (work.embedding, layer_of(work).again, work.head))
    total = work.layout.micro_batches * (embedding + LLAMA.layers * layer + head) + hardware_flop(work.synchronisation)
    assert hardware_flop(work.operators) == pytest.approx(total, rel=1e-13)


def test_a_linear_has_one_data_and_one_weight_gradient_of_its_own_size() -> None:
    """dX = dY W^T is rows x inner and dW = X^T dY is inner x columns, each as many FLOPs as the forward product."""
    forward = Matmul(name="linear", rows=6, columns=10, inner=14, precision="bf16", weight_gradient_bytes=2)
    data, weight = gradients(forward)
    assert isinstance(data, Matmul)
    assert isinstance(weight, Matmul)
    assert (data.phase, data.rows, data.columns, data.inner) == (DATA_GRADIENT, 6, 14, 10)
    assert (weight.phase, weight.rows, weight.columns, weight.inner) == (WEIGHT_GRADIENT, 14, 10, 6)
    assert data.flop == weight.flop == forward.flop == 2 * 6 * 10 * 14


def test_a_product_of_activations_has_two_data_gradients() -> None:
    """Attention scores have no weight: nothing is accumulated, and both factors get a gradient."""
    product = Matmul(name="scores", rows=6, columns=10, inner=14, batch=3, precision="bf16", has_weight=False)
    assert [gradient.phase for gradient in gradients(product)] == [DATA_GRADIENT, DATA_GRADIENT]


def test_fused_attention_costs_what_its_products_cost() -> None:
    """One kernel of b sequences and n heads: 4 * b * n * s^2 * d forwards, twice that backwards."""
    core = FusedAttention(
        name="core", sequences=3, heads=5, kv_heads=1, head_size=7, query_length=11, key_length=11, precision="bf16"
    )
    (backward,) = gradients(core)
    assert isinstance(backward, FusedAttention)
    assert core.flop == 4 * 3 * 5 * 11**2 * 7
    assert backward.flop == 2 * core.flop


def test_memory_bound_operators_cost_no_flop() -> None:
    """Norms, residuals and activation functions are counted in bytes alone, as the published convention does."""
    assert hardware_flop([MemoryBound(name="norm", moved_bytes=1e9)]) == 0


def test_products_that_do_not_accumulate_leave_that_to_a_kernel_for_each_weight() -> None:
    """P * (2 + 2*4) bytes: it reads the 2-byte product, reads and writes the fp32 gradient, of every weight of a product.

    Those are all parameters but the embedding and the norms: Llama has no biases.
    """
    stack = stack_with(stack_preset("megatron-core"), {"fusion.gradient_accumulation": False, "states.gradient_bytes": 4})
    layout = replace(EVERY_DEGREE, sequence_parallel=False)
    work = iteration(setup_of(LLAMA, layout, stack))
    kernels = [op for op in work.operators if isinstance(op, MemoryBound) and op.name.endswith(".accumulate")]
    shard = shard_parameter_count(LLAMA, tensor_parallel=layout.tensor_parallel)
    moved = sum(op.repeats * op.moved_bytes for op in kernels) / layout.micro_batches
    weights = shard.attention + shard.mlp + shard.head
    assert moved == pytest.approx(np.broadcast_to(weights * (2 + 2 * 4), (3, 4)), rel=1e-14)
    assert {op.phase for op in kernels} == {WEIGHT_GRADIENT}


@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize("recompute", ["none", "full"])
@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_each_weight_gradient_is_added_once_right_after_it_is_formed(
    precision: str, recompute: str, *, sequence_parallel: bool
) -> None:
    """By the product itself, or by the kernel that follows it; products of activations are added to nothing."""
    layout = replace(EVERY_DEGREE, precision=precision, recompute=recompute, sequence_parallel=sequence_parallel)
    for fused in (True, False):
        stack = stack_with(stack_preset("megatron-lm"), {"fusion.gradient_accumulation": fused})
        work = iteration(setup_of(LLAMA, layout, stack))
        backward = (*work.head.backward, *layer_of(work).again.backward)
        formed = [op for op in backward if isinstance(op, Matmul) and op.phase == WEIGHT_GRADIENT]
        followers = [backward[backward.index(op) + 1].name for op in formed if not op.accumulates]
        assert [op.name for op in formed if op.accumulates] == ([op.name for op in formed] if fused else [])
        assert followers == ([] if fused else [f"{op.name}.accumulate" for op in formed])
        assert sum(op.name.endswith(".accumulate") for op in work.operators) == len(followers)


def test_norms_and_casts_say_what_kernels_run_them() -> None:
    """Families by which timing finds their coefficients; all else is elementwise, but Adam."""
    operators = work_of(LLAMA, replace(EVERY_DEGREE, precision="fp8")).operators
    families = {op.name: op.family for op in operators if isinstance(op, MemoryBound)}
    assert {name for name, family in families.items() if family == "norm"} == {
        "layer.attention.norm",
        "layer.mlp.norm",
        "head.norm",
    }
    assert {name for name, family in families.items() if family == "cast"} == {
        *(name for name in families if name.endswith(".quantise")),
        "optimizer.quantise_weights",
    }
    assert [name for name, family in families.items() if family == "optimizer"] == ["optimizer.adam"]


def test_attention_has_the_kv_heads_of_its_rank() -> None:
    """8 KV heads over 1 to 8 ranks, and one copy each beyond."""
    layout = replace(EVERY_DEGREE, tensor_parallel=np.array([1, 4, 8, 16]), sequence_parallel=False)
    core = next(op for op in layer_of(work_of(LLAMA, layout)).again.forward if isinstance(op, FusedAttention))
    assert np.array_equal(np.asarray(core.kv_heads), [8, 2, 1, 1])
    assert np.array_equal(np.asarray(core.heads), [32, 8, 4, 2])
    assert core.causal


def test_an_eager_softmax_moves_a_score_five_times_as_often_as_a_fused_one() -> None:
    """Scale, mask, fp32 and cast are passes of their own; backwards four times."""
    found = {}
    for fused in (True, False):
        stack = stack_with(stack_preset("megatron-lm"), {"fusion.softmax": fused})
        layout = replace(EVERY_DEGREE, tensor_parallel=1)
        found[fused] = [
            op
            for op in layer_of(iteration(setup_of(GPT3, layout, stack))).again.operators
            if op.name == "layer.attention.softmax" and isinstance(op, MemoryBound)
        ]
    ratios = [eager.moved_bytes / once.moved_bytes for eager, once in zip(found[False], found[True], strict=True)]
    assert [float(np.max(ratio)) for ratio in ratios] == [5.0, 4.0]
    assert np.array_equal(found[False][0].saved_bytes, 3 * found[True][0].saved_bytes)
