"""What layers that predict tokens farther hold, run and cost, and both ends of a model, in sums and tables by hand.

A small mixture: h = 64, V = 256, T = 128 tokens; a layer with eight experts has 12,288 parameters of attention, 512 of the
router, 9,216 of the shared expert, 128 of norms and 8 * 6,144 of experts. One that predicts farther joins 2h numbers, and has
three norms.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import pytest

from perfmodel.count.blocks import Block
from perfmodel.count.flops import attention_flop_per_token, model_flop_per_token
from perfmodel.count.iteration import Iteration, iteration, modules_that_run
from perfmodel.count.operators import Collective, Matmul, MemoryBound, hardware_flop
from perfmodel.count.parameters import active_parameter_count, held_parameters, layer_parameters, parameter_count
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.count.operator_rows import products, traffic
from tests.stacks import stack_with

FURTHER: Final = replace(SMALL, multi_token_layers=2)
DENSE_LAYER, EXPERTS, TABLE = 12_288 + 512 + 9_216 + 128, 8 * 6_144, 256 * 64
JOINED: Final = 2 * 64 * 64 + 3 * 64
T, SIZE = 128, 2 * 128 * 64
PLAIN: Final = {
    "fusion.norms": "fused",
    "fusion.gathered_logits": False,
    "fusion.recomputed_inputs": False,
    "fusion.gradient_accumulation": True,
    "fusion.loss_forward_bytes": 20.0,
    "fusion.loss_backward_bytes": 10.0,
    "fusion.loss_chunks": 4.0,
    "states.gradient_bytes": 4.0,
    "states.overwrites_gradients": False,
}


def work(model: TransformerModel, **layout: Any) -> Iteration:
    """An iteration on eight replicas."""
    return iteration(mixture_setup(model, layout_of(**layout), stack_with(STACK, PLAIN), "dgx-h100"))


def test_a_model_with_two_further_layers_has_both_and_their_projections() -> None:
    """Experts are counted with the others; what else a further layer has, and its projection and norms, apart."""
    plain, further = parameter_count(SMALL), parameter_count(FURTHER)
    assert further.experts - plain.experts == 2 * EXPERTS
    assert further.multi_token == 2 * (DENSE_LAYER + JOINED)
    assert further.replicated - plain.replicated == 2 * 512
    assert further.total - plain.total == 2 * (DENSE_LAYER + JOINED + EXPERTS)
    assert plain.replicated == 4 * 512


@pytest.mark.parametrize(("tied", "table"), [(False, TABLE), (True, 0)])
def test_the_last_stage_holds_further_layers_with_an_embedding_of_their_own(tied: bool, table: int) -> None:
    """One more copy of the table where the head is no copy of it already; the first stage has none of all that."""
    model = replace(FURTHER, tied_embeddings=tied)
    last = held_parameters(model, {"": 2}, embedding=0, head=1, tensor_parallel=1)
    assert last.multi_token == 2 * (DENSE_LAYER + JOINED) + table
    assert (last.experts, last.replicated, last.embedding, last.head) == ((2 + 2) * EXPERTS, (2 + 2) * 512, 0, TABLE)
    first = held_parameters(model, {"": 2}, embedding=1, head=0, tensor_parallel=1)
    assert (first.multi_token, first.experts, first.head, first.embedding) == (0, 2 * EXPERTS, 0, TABLE)
    alone = held_parameters(model, {"": 4}, tensor_parallel=1)
    assert alone.multi_token == 2 * (DENSE_LAYER + JOINED)
    assert alone.head == (0 if tied else TABLE)


def test_a_bias_of_the_head_lies_with_the_head() -> None:
    """One number a token of the vocabulary, on the last stage alone."""
    biased = replace(SMALL, biases_of=("head",))
    first, last = (held_parameters(biased, {"": 2}, embedding=1 - head, head=head, tensor_parallel=2) for head in (0, 1))
    assert (first.head, last.head) == (0, (TABLE + 256) / 2)


def test_a_layer_is_its_matrices_and_its_norms() -> None:
    """Of all experts of one rank of four."""
    found = layer_parameters(SMALL, "", tensor_parallel=1)
    assert (found.matrices, found.total) == (DENSE_LAYER - 128 + EXPERTS, DENSE_LAYER + EXPERTS)


def test_a_token_passes_two_experts_of_eight_and_no_further_layer() -> None:
    """A quarter of the experts' parameters."""
    assert active_parameter_count(FURTHER) == 2 * TABLE + 64 + 4 * (DENSE_LAYER + EXPERTS / 4)


def test_each_further_layer_costs_a_layer_a_projection_and_logits() -> None:
    """6 FLOPs for each parameter that a token passes (no router), 12*q*s of attention, and the vocabulary once more."""
    more = float(model_flop_per_token(FURTHER, T)) - float(model_flop_per_token(SMALL, T))
    assert more == 2 * (6 * (12_288 + 9_216 + EXPERTS / 4 + 2 * 64 * 64 + TABLE) + 12 * 64 * T)
    one = replace(SMALL, multi_token_layers=1)
    assert float(model_flop_per_token(one, T)) - float(model_flop_per_token(SMALL, T)) == more / 2
    assert attention_flop_per_token(FURTHER, T) == (4 + 2) * 12 * 64 * T


def test_further_layers_run_behind_the_head() -> None:
    """Of each: an embedding, two norms, a product of a rank's own tokens, a layer, and all of the head again."""
    plain, further = work(SMALL).head, work(FURTHER).head
    twice = {op.name: float(op.repeats) for op in further.forward if isinstance(op, MemoryBound | Matmul)}
    assert {
        name: twice[name] for name in ("embedding.lookup", "multi_token.norm", "multi_token.embedding_norm")
    } == dict.fromkeys(("embedding.lookup", "multi_token.norm", "multi_token.embedding_norm"), 2.0)
    names = [op.name for op in further.forward]
    assert [names.count(each.name) for each in plain.forward] == [2] * len(plain.forward)
    rows = products(further, "multi_token.")
    assert rows["projection"][:4] == (1, T, 128, 64)
    assert rows["projection"][-1] == 2 * 2 * T * 128
    assert traffic(further, "multi_token.")["embedding_norm"][:4] == (2 * SIZE, 1, 3 * SIZE, 1)


def test_a_rank_projects_its_own_tokens_of_further_layers() -> None:
    """Half of them where two ranks share a sequence, of which it keeps both inputs."""
    rows = products(work(FURTHER, tensor_parallel=2, data_parallel=4).head)["multi_token.projection"]
    assert rows == (1, T / 2, 128, 64, 1, 2 * 2 * T / 2 * 128)


def hardware(block: Block) -> float:
    """FLOPs of both passes, with the router's."""
    return float(hardware_flop(block.operators))


def test_the_head_of_two_further_layers_costs_three_heads_and_two_layers() -> None:
    """With their projections."""
    plain, further = work(SMALL), work(FURTHER)
    (layer,) = plain.layers.values()
    expected = 3 * hardware(plain.head) + 2 * hardware(layer.plain) + 2 * 6 * T * 2 * 64 * 64
    assert hardware(further.head) == pytest.approx(expected, rel=1e-12)


CAPPED: Final = replace(SMALL, softcaps=("logits",), scales=("logits", "embedding", "branches"), embedding_norm=True)


def test_both_ends_move_streams_logits_and_a_table() -> None:
    """A lookup reads and writes the stream twice, and backwards the table's gradient; logits are scaled, capped and lost."""
    found, logits = work(CAPPED), 2 * T * 256
    assert traffic(found.embedding, "embedding.") == {
        "lookup": (4 * SIZE, 3, 3 * SIZE + TABLE * (2 * 2 + 2 * 4), 4, 0),
        "scale": (2 * SIZE, 1, 2 * SIZE, 1, 0),
        "norm": (2 * SIZE, 1, 3 * SIZE, 1, SIZE),
    }
    assert traffic(found.head, "head.") == {
        "norm": (2 * SIZE, 1, 3 * SIZE, 1, SIZE),
        "scale": (2 * logits, 1, 2 * logits, 1, 0),
        "softcap": (6 * logits, 3, 7 * logits, 3, logits / 4),
        "loss": (20 * T * 256, 8, 10 * T * 256, 4, 0),
    }
    assert products(found.head)["head.logits"] == (1, T, 64, 256, 1, SIZE)
    (layer,) = found.layers.values()
    scales = {name: row for name, row in traffic(layer.plain, "layer.").items() if name.endswith(".scale")}
    assert scales == dict.fromkeys(("attention.scale", "mlp.scale"), (2 * SIZE, 1, 2 * SIZE, 1, 0))


def test_learned_positions_are_one_kernel_and_two_streams_more() -> None:
    """Looked up and added."""
    learned = replace(SMALL, position="learned", max_positions=128)
    assert traffic(work(learned).embedding)["embedding.lookup"][:2] == (6 * SIZE, 4)


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_ranks_reduce_what_they_looked_up_and_exchange_three_numbers_a_token(sequence_parallel: bool) -> None:
    """The norm behind the embedding comes after that."""
    found = work(CAPPED, tensor_parallel=2, data_parallel=4, sequence_parallel=sequence_parallel)
    names = [op.name.partition(".")[2] for op in found.embedding.forward]
    assert names == ["lookup", "scatter" if sequence_parallel else "all_reduce", "scale", "norm"]
    (exchange,) = [op for op in found.head.forward if isinstance(op, Collective) and "loss" in op.name]
    assert (exchange.payload_bytes, exchange.repeats) == (4 * T, 3)
    further = work(FURTHER, tensor_parallel=2, data_parallel=4, sequence_parallel=sequence_parallel).head
    assert [op.repeats for op in further.forward if op.name == exchange.name] == [3, 3 * 2]


def test_what_runs_backwards_keeps_nothing() -> None:
    """Its bytes are those of the forward pass."""
    found = work(CAPPED)
    (layer,) = found.layers.values()
    back = [op for block in (found.embedding, found.head, layer.plain) for op in block.backward]
    assert {op.saved_bytes for op in back if not isinstance(op, Collective)} == {0}
    assert {op.phase for op in back} > {DATA_GRADIENT}


def test_a_gate_of_heads_reads_both_and_keeps_both() -> None:
    """Queries come with as many numbers again; the sigmoid and the product are two kernels and 3 passes, backwards one of 5."""
    (layer,) = work(replace(SMALL, attention_gate=True)).layers.values()
    assert products(layer.plain, "layer.attention.")["qkv"][:4] == (1, T, 64, 2 * 64 + 2 * 32)
    assert traffic(layer.plain, "layer.attention.")["gate"] == (3 * SIZE, 2, 5 * SIZE, 1, 2 * SIZE)
    (qkv,) = [op for op in layer.plain.forward if isinstance(op, Matmul) and op.name == "layer.attention.qkv"]
    assert qkv.useful == 1
    (copied,) = work(replace(SMALL, attention_gate=True), tensor_parallel=4, data_parallel=2).layers.values()
    (qkv,) = [op for op in copied.plain.forward if isinstance(op, Matmul) and op.name == "layer.attention.qkv"]
    assert (qkv.columns, qkv.useful * qkv.columns) == (2 * 16 + 2 * 16, 2 * 16 + 2 * 8)  # one KV head copied to two ranks each


def test_gradients_of_further_layers_are_overwritten_once_and_added_to_later() -> None:
    """Of four micro-batches the first overwrites, in each of two further layers."""
    settings = {"fusion.gradient_accumulation": False, "states.overwrites_gradients": True}
    stack = stack_with(STACK, PLAIN | settings)
    head = iteration(mixture_setup(FURTHER, layout_of(), stack, "dgx-h100")).head
    repeats = {op.name: float(op.repeats) for op in head.backward if "multi_token.projection." in op.name}
    assert repeats == {"multi_token.projection.overwrite": 2 / 4, "multi_token.projection.accumulate": 2 * 3 / 4}


def test_a_gate_comes_with_the_queries_where_projections_are_apart() -> None:
    """Twice as many columns as queries alone."""
    stack = stack_with(STACK, PLAIN | {"fusion.separate_projections": True, "fusion.joined_heads": False})
    (layer,) = iteration(mixture_setup(replace(SMALL, attention_gate=True), layout_of(), stack, "dgx-h100")).layers.values()
    rows = products(layer.plain, "layer.attention.")
    assert [rows[name][3] for name in ("query", "key", "value")] == [2 * 64, 32, 32]


def test_one_norm_may_serve_attention_and_a_mixture() -> None:
    """Parts that are parallel read what one norm gave."""
    counts = {each: parameter_count(replace(SMALL, parallel_residual=each)).norms for each in ("none", "one_norm", "two_norms")}
    assert counts == {"none": (2 * 4 + 1) * 64, "one_norm": (4 + 1) * 64, "two_norms": (2 * 4 + 1) * 64}


def test_modules_run_where_some_layer_has_something_of_them() -> None:
    """Shared experts and activations of mixtures in a model whose first layer is dense; no up-projections without latents."""
    kinds = MappingProxyType({"experts": LayerKind(feed_forward="experts"), "dense": LayerKind(feed_forward="dense")})
    mixed = replace(SMALL, layer_kinds=kinds, layer_pattern=("experts",), first_layers=("dense",))
    for model, has in ((mixed, {"moe", "moe_act", "shared_experts", "mlp"}), (replace(SMALL, mixture=None), {"mlp"})):
        found = set(modules_that_run(mixture_setup(model, layout_of(), STACK)))
        assert found == {"core_attn", "layernorm"} | has


@pytest.mark.parametrize(
    ("norm", "norms", "row"),
    [
        ("rmsnorm", "fused", (2 * SIZE, 1, 3 * SIZE, 1, SIZE)),
        ("rmsnorm", "compiled", (2 * SIZE, 1, 3 * SIZE, 1, SIZE)),
        ("rmsnorm", "eager", (2 * SIZE, 1, 3 * SIZE, 1, 3 * SIZE)),
        ("rmsnorm", "eager_fp32", (36 * T * 64, 6, 84 * T * 64, 12, 10 * T * 64)),
        ("layernorm", "eager", (2 * SIZE, 1, 3 * SIZE, 1, SIZE)),
        ("layernorm", "eager_fp32", (2 * SIZE, 1, 3 * SIZE, 1, SIZE)),
    ],
)
def test_norms_of_eager_operators_keep_more_than_their_input(norm: str, norms: str, row: tuple[float, ...]) -> None:
    """PyTorch's RMS norm what its weight scales too, twice; layer norm is one kernel in any software."""
    stack = stack_with(STACK, PLAIN | {"fusion.norms": norms})
    head = iteration(mixture_setup(replace(SMALL, norm=norm), layout_of(), stack, "dgx-h100")).head
    assert traffic(head)["head.norm"] == row
