"""Every operator of a layer with latent attention and experts, in tables by hand: what it moves, keeps and launches.

8 sequences of T = 128 tokens on 8 GPUs: two tensor-parallel ranks of 64 tokens each, experts over four ranks. h = 64 numbers
of the stream, four heads of 12 + 4 and 10, narrow vectors of 24, 8 and 4; eight experts of 40, two for each token, the busiest
rank with half as many rows again as the mean: 96 of each of its two experts, 192 of both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from perfmodel.count.blocks import Block
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.count.parameters import layer_parameters
from perfmodel.spec.models.layer_parts import LatentAttention, Mixture, described
from perfmodel.spec.models.model import TransformerModel
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.count.operator_rows import payloads, products, traffic
from tests.stacks import stack_with

MODEL: Final = replace(
    SMALL,
    kv_heads=4,
    latent=LatentAttention(query_rank=24, kv_rank=8, nope_head_size=12, rotary_head_size=4, value_head_size=10),
    mixture=Mixture(
        experts=8, experts_per_token=2, ffn_hidden_size=40, shared_experts=1, shared_ffn_hidden_size=48, shared_gate=True
    ),
)
EAGER: Final = {
    "fusion.norms": "fused",
    "fusion.rotary": False,
    "fusion.activation": False,
    "fusion.gradient_accumulation": True,
    "fusion.separate_projections": False,
    "experts.dispatcher": "alltoall",
    "experts.products": "streams",
    "experts.router_kernels": 7,
    "experts.router_backward_kernels": 5,
    "experts.keeps_outputs": False,
    "experts.fused_biases": False,
    "experts.padded_rows": 64,
    "low_precision.products": "layer",
    "low_precision.scaling": "delayed",
    "host.graphed": (),
}
OWN, T, H = 64, 128, 64
SIZE = 2 * OWN * H  # the share of the stream that a rank has between linears
ROWS = 192  # of both experts of a rank


def layer(settings: dict[str, Any] | None = None, model: TransformerModel = MODEL, **layout: Any) -> Block:
    """The layer under a stack with other settings."""
    degrees: dict[str, Any] = {"tensor_parallel": 2, "data_parallel": 4, "expert_parallel": 4, "expert_load": 1.5}
    stack = stack_with(STACK, EAGER | (settings or {}))
    (blocks,) = iteration(mixture_setup(model, layout_of(**(degrees | layout)), stack, "dgx-h100")).layers.values()
    plain: Block = blocks.plain
    return plain


def test_latent_attention_moves_norms_rotations_and_a_residual() -> None:
    """Fused norms read and write; three numbers backwards. Queries and keys of two heads are rotated in 12 kernels."""
    narrow, wide = 2 * OWN * 8, 2 * OWN * 24
    rotary = 2 * 2 * T * (2 * 16 + 2 * 16)
    assert traffic(layer(), "layer.attention.") == {
        "norm": (2 * SIZE, 1, 3 * SIZE, 1, SIZE),
        "kv_norm": (2 * narrow, 1, 3 * narrow, 1, narrow),
        "query_norm": (2 * wide, 1, 3 * wide, 1, wide),
        "rotary": (rotary, 12, rotary, 12, 0),
        "residual": (3 * SIZE, 1, 3 * SIZE, 1, 0),
    }
    assert traffic(layer({"fusion.rotary": True}))["layer.attention.rotary"] == (rotary, 2, rotary, 2, 0)


def test_latent_attention_keeps_each_input_once() -> None:
    """A rank's own tokens of what narrow products read; all tokens of what heads give to the projection, ten numbers each."""
    assert products(layer(), "layer.attention.") == {
        "kv_down": (1, OWN, 64, 8 + 4, 1, 2 * OWN * 64),
        "query_down": (1, OWN, 64, 24, 1, 0),
        "query_up": (1, T, 24, 2 * 16, 1, 2 * OWN * 24),
        "kv_up": (1, T, 8, 2 * (12 + 10), 1, 2 * OWN * 8),
        "projection": (1, T, 2 * 10, 64, 1, 2 * T * 20),
    }


def test_queries_out_of_the_stream_gather_it_and_fewer_narrow_numbers() -> None:
    """Without a rank of queries the vectors of keys and values alone come to every rank."""
    direct = replace(MODEL, latent=LatentAttention(kv_rank=8, nope_head_size=12, rotary_head_size=4, value_head_size=10))
    calls = payloads(layer(model=direct), "layer.attention.")
    assert ("latent.gather", "all_gather", 2 * T * (8 + 4)) in calls
    assert ("query.gather", "all_gather", 2 * T * H) in calls


def test_a_mixture_moves_scores_copies_and_halves_of_its_experts() -> None:
    """10 passes over fp32 scores; rows put in order before and after they travel; function and weights in one kernel."""
    scores, ordered, sorted_rows = 4 * OWN * 8, 2 * H * (OWN + 2 * OWN), 2 * H * 2 * ROWS
    half, shared = 2 * ROWS * 40, 2 * T * 24
    assert traffic(layer(), "layer.mlp.") == {
        "norm": (2 * SIZE, 1, 3 * SIZE, 1, SIZE),
        "route": (10 * scores, 7, 5 * scores, 5, 2 * scores),
        "permute": (ordered, 1, ordered, 1, 0),
        "sort": (sorted_rows, 1, sorted_rows, 1, 0),
        "activation": (3 * half, 1, (5 + 3) * half, 2, 2 * half),
        "unsort": (sorted_rows, 1, sorted_rows, 1, 0),
        "unpermute": (ordered, 1, ordered, 1, 0),
        "shared.activation": (5 * shared, 2, 13 * shared, 4, 3 * shared),
        "shared.add": (3 * SIZE, 1, 0, 1, 0),
        "residual": (3 * SIZE, 1, 3 * SIZE, 1, 0),
    }


def test_products_of_a_mixture_keep_their_rows() -> None:
    """The router keeps the input that the shared experts read too; of two experts each is launched on a stream."""
    assert products(layer(), "layer.mlp.") == {
        "router": (1, OWN, 64, 8, 1, 2 * OWN * 64),
        "fc1": (2, 96, 64, 80, 2, 2 * ROWS * 64),
        "fc2": (2, 96, 40, 64, 2, 2 * ROWS * 40),
        "shared.fc1": (1, T, 64, 48, 1, 0),
        "shared.fc2": (1, T, 24, 64, 1, 2 * T * 24),
        "shared.gate": (1, OWN, 64, 1, 1, 0),
    }
    assert products(layer({"experts.products": "grouped"}))["layer.mlp.fc1"][4] == 1


def test_copies_travel_there_and_back_both_ways() -> None:
    """2 bytes of 128 copies of 64 numbers, half as many again on the busiest rank; backwards in the other order."""
    copies = 2 * 2 * OWN * H * 1.5
    calls = [call for call in payloads(layer(), "layer.mlp.") if "shared" not in call[0]]
    assert calls == [
        ("dispatch", "all_to_all", copies), ("combine", "all_to_all", copies),
        ("combine", "all_to_all", copies), ("dispatch", "all_to_all", copies),
    ]  # fmt: skip


def test_ranks_that_share_each_expert_gather_behind_the_dispatch_and_add_up_before_the_combine() -> None:
    """Twice the copies of each; of two experts on four ranks by twos, a rank has rows of all eight: 96 of each."""
    block = layer(expert_parallel=2, expert_tensor_parallel=2)
    sent = 2 * 2 * OWN * H * 1.5
    both = [
        ("dispatch", "all_to_all", sent), ("expert_tensor.gather", "all_gather", 2 * sent),
        ("expert_tensor.scatter", "reduce_scatter", 2 * sent), ("combine", "all_to_all", sent),
    ]  # fmt: skip
    back = [
        ("combine", "all_to_all", sent), ("expert_tensor.gather", "all_gather", 2 * sent),
        ("expert_tensor.scatter", "reduce_scatter", 2 * sent), ("dispatch", "all_to_all", sent),
    ]  # fmt: skip
    assert [call for call in payloads(block, "layer.mlp.") if "shared" not in call[0]] == [*both, *back]
    assert products(block)["layer.mlp.fc1"] == (4, 96, 64, 40, 4, 2 * 4 * 96 * 64)


@pytest.mark.parametrize("dispatcher", ["deepep", "allgather"])
def test_software_that_copies_tokens_where_they_arrive_moves_received_rows(dispatcher: str) -> None:
    """Read and written once on each way; nothing is sorted."""
    moved = traffic(layer({"experts.dispatcher": dispatcher}), "layer.mlp.")
    rows = 2 * H * 2 * ROWS
    assert (moved["permute"], moved["unpermute"]) == ((rows, 1, rows, 1, 0), (rows, 1, rows, 1, 0))
    assert not {"sort", "unsort"} & moved.keys()


def test_outputs_of_experts_that_are_weighed_are_kept() -> None:
    """Read and written, three backwards; the function is then a chain as anywhere else, and keeps its gate."""
    moved = traffic(layer({"experts.keeps_outputs": True}), "layer.mlp.")
    half, output = 2 * ROWS * 40, 2 * ROWS * H
    assert moved["weigh"] == (2 * output, 1, 3 * output, 1, output)
    assert moved["activation"] == (5 * half, 2, 13 * half, 4, 3 * half)


def test_a_function_behind_clamps_is_fused_and_they_are_not() -> None:
    """11 passes of one half, 18 backwards, both halves kept twice; the bias of results 28 bytes and 40."""
    moved = traffic(layer(model=replace(MODEL, biases=True)), "layer.mlp.")
    numbers = ROWS * 40
    assert moved["activation"] == (11 * 2 * numbers, 5, 18 * 2 * numbers, 5, 4 * 2 * numbers)
    assert moved["output_bias"] == (28 * ROWS * H, 2 * 2 + 2, 40 * ROWS * H, 6 * 2 + 2, 0)


def test_fused_products_leave_nothing_to_move_between_them() -> None:
    """Function and casts end the product before them; what they keep stays."""
    moved = traffic(layer({"experts.products": "fused"}, precision="fp8"), "layer.mlp.")
    half = 2 * 2 * 128 * 40
    assert moved["activation"] == (0, 0, 0, 0, 2 * half)
    assert moved["fc2.quantise"][:2] == (0, 0)
    assert moved["fc1.quantise"][2:4] == (0, 0)


@pytest.mark.parametrize(("scaling", "reads", "kernels"), [("delayed", 1, 1 + 1), ("current", 2, 3 + 1)])
def test_operands_of_experts_are_cast_one_by_one(scaling: str, reads: int, kernels: int) -> None:
    """Rows up to whole multiples of 64: 128 of each expert; what is read, an operand of 1 byte and its transpose."""
    settings = {"low_precision.scaling": scaling}
    moved = traffic(layer(settings, precision="fp8"), "layer.mlp.")
    each, rows = 2 * reads + 1 + 1, 2 * 128
    assert moved["fc1.quantise"] == (each * rows * 64, 2 * kernels, each * rows * 80, 2 * kernels, 0)
    assert moved["fc2.quantise"] == (each * rows * 40, 2 * kernels, each * rows * 64, 2 * kernels, 0)
    assert products(layer(settings, precision="fp8"))["layer.mlp.fc1"] == (2, 128, 64, 80, 2, rows * 64)
    joined = traffic(layer(settings | {"experts.products": "grouped"}, precision="fp8"), "layer.mlp.")
    assert joined["fc1.quantise"] == (each * rows * 64, 1, each * rows * 80, 2, 0)


def test_a_latent_mixture_moves_narrow_rows() -> None:
    """24 numbers of each copy in place of 64; the router's input serves the product that narrows it, too."""
    narrow = replace(MODEL, mixture=replace(MODEL.mixture, latent_size=24)) if MODEL.mixture else MODEL
    block = layer(model=narrow)
    moved, found = traffic(block, "layer.mlp."), products(block, "layer.mlp.")
    assert moved["permute"] == (2 * 24 * 3 * OWN, 1, 2 * 24 * 3 * OWN, 1, 0)
    assert list(found)[:4] == ["router", "latent_down", "fc1", "fc2"]
    assert found["latent_down"] == (1, OWN, 64, 24, 1, 0)
    assert found["latent_up"] == (1, OWN, 24, 64, 1, 2 * OWN * 24)
    assert found["fc2"] == (2, 96, 40, 24, 2, 2 * ROWS * 40)


def test_a_rank_with_one_expert_sorts_nothing() -> None:
    """Of eight experts over eight ranks."""
    moved = traffic(layer(expert_parallel=8), "layer.mlp.")
    assert not {"sort", "unsort"} & moved.keys()
    assert "permute" in moved


@pytest.mark.parametrize(("products_of", "copies"), [("layer", 2), ("mlp", 1)])
def test_gradients_of_wide_linears_travel_once_beside_others_with_scales_of_blocks(products_of: str, copies: int) -> None:
    """A byte and a 32nd of a number, in both orders, where the projection takes 8 bits; 2 bytes once where it does not."""
    degrees: dict[str, Any] = {"precision": "mxfp8", "expert_parallel": 1, "expert_load": 1.0}
    block = layer({"low_precision.products": products_of}, replace(SMALL, mixture=None), **degrees)
    calls = {name: payload for name, _, payload in payloads(block)}
    each = 2 * (1 + 1 / 32) if copies == 2 else 2
    assert calls["layer.attention.projection.gather_gradient"] == pytest.approx(each * T * H, rel=1e-12)
    assert calls["layer.mlp.fc2.gather_gradient"] == pytest.approx(2 * (1 + 1 / 32) * T * H, rel=1e-12)


def test_scores_of_unfused_attention_are_capped_in_three_kernels() -> None:
    """Divided, tanh, multiplied: 6 and 7 passes over 2 bytes of 4 * 128 * 128 scores, of which the tanh's result is kept."""
    capped = replace(SMALL, mixture=None, softcaps=("attention",))
    block = layer({"fusion.attention": False}, capped, tensor_parallel=1, data_parallel=8, expert_parallel=1, expert_load=1.0)
    scores = 2 * 4 * 128 * 128
    assert traffic(block)["layer.attention.softcap"] == (6 * scores, 3, 7 * scores, 3, scores)


def test_rotations_of_latent_attention_name_their_kernel() -> None:
    """The fused one, or the chain that stands for it."""
    for fused, kernel in ((True, "fused_rotary"), (False, "rotary")):
        block = layer({"fusion.rotary": fused})
        (rotary,) = [op for op in block.forward if op.name == "layer.attention.rotary"]
        assert getattr(rotary, "kernel", "") == kernel


@pytest.mark.parametrize(("overlap", "gathered", "scattered"), [("none", 1, 1), ("backward", 1, 1), ("pipelined", 2, 2)])
def test_products_are_cut_into_a_piece_for_each_rank_where_software_cuts_them(
    overlap: str, gathered: int, scattered: int
) -> None:
    """Those that a gather feeds, and those that feed a scatter, in no more pieces than the software makes."""
    settings = {"overlap.tensor_parallel": overlap, "overlap.hide_all": False, "overlap.scattered_pieces": 4}
    dense = replace(SMALL, mixture=None)
    block = layer(settings, dense, expert_parallel=1, expert_load=1.0)
    pieces = {op.name: float(op.pieces) for op in block.forward if isinstance(op, Matmul)}
    assert (pieces["layer.attention.qkv"], pieces["layer.mlp.fc2"]) == (gathered, scattered)
    many = layer(
        settings | {"overlap.scattered_pieces": 3},
        dense,
        tensor_parallel=4,
        data_parallel=2,
        expert_parallel=1,
        expert_load=1.0,
    )
    pieces = {op.name: float(op.pieces) for op in many.forward if isinstance(op, Matmul)}
    cut = overlap == "pipelined"
    assert (pieces["layer.attention.qkv"], pieces["layer.mlp.fc2"]) == ((4, 3) if cut else (1, 1))


def test_an_array_of_expert_ranks_casts_one_by_one_where_a_rank_has_several() -> None:
    """Two experts each of four ranks, one of eight."""
    together = layer(precision="fp8", expert_parallel=np.array([4, 8]))
    for place, ranks in enumerate((4, 8)):
        alone = layer(precision="fp8", expert_parallel=ranks)
        for name in ("layer.mlp.fc1.quantise", "layer.mlp.fc2.quantise"):
            both, one = (next(op for op in block.forward if op.name == name) for block in (together, alone))
            for what in ("kernels", "calls", "moved_bytes"):
                assert np.broadcast_to(getattr(both, what), 2)[place] == getattr(one, what), (name, what)


def test_matrices_of_a_mixture_that_every_rank_holds_are_the_narrow_ones() -> None:
    """Router, gate of the shared expert, and both sides of a latent mixture: 64 * (8 + 1 + 2 * 24)."""
    narrow = replace(MODEL, mixture=replace(described(MODEL.mixture, "mixture"), latent_size=24), latent=None)
    assert layer_parameters(narrow, "", tensor_parallel=1).replicated == 64 * (8 + 1 + 2 * 24)


def test_a_function_of_one_half_behind_biases_has_no_clamps() -> None:
    """It moves and keeps what it does without biases, which the product before it adds."""
    plain, biased = (
        traffic(layer(model=replace(MODEL, biases=biases, activation="gelu")), "layer.mlp.") for biases in (False, True)
    )
    assert biased["activation"] == plain["activation"]


def test_batches_before_tokens_are_copied_where_two_ranks_gather() -> None:
    """Read and written around each call of the stream; one rank copies nothing."""
    settings = {"fusion.batch_first": True, "overlap.tensor_parallel": "none"}
    dense = replace(SMALL, mixture=None)
    for tensor in (1, 2):
        block = layer(settings, dense, tensor_parallel=tensor, data_parallel=4, expert_parallel=1, expert_load=1.0)
        copies = [op for op in block.forward if op.name.endswith(".copy")]
        assert len(copies) == 4
        expected = {(0.0, 0.0)} if tensor == 1 else {(2.0 * 2 * T * H, 1.0)}
        assert {(float(op.moved_bytes), float(op.kernels)) for op in copies if isinstance(op, MemoryBound)} == expected
