"""Latent attention is counted once: its matrices, its core over heads of two sizes, what a sequence-parallel group gathers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.flops import attention_flop_per_token, model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, FusedAttention, Matmul, model_flop
from perfmodel.count.parameters import parameter_count
from perfmodel.errors import InputError
from perfmodel.spec.models.layer_parts import LatentAttention
from perfmodel.spec.models.model import TransformerModel
from tests.count.mixtures import SMALL, layout_of, mixture_setup

LATENT = LatentAttention(query_rank=24, kv_rank=8, nope_head_size=12, rotary_head_size=4, value_head_size=10)
MODEL: TransformerModel = replace(SMALL, name="latent", mixture=None, latent=LATENT, kv_heads=4)
HIDDEN, HEADS = 64, 4


def test_parameters_are_those_of_both_narrow_vectors_and_what_comes_out_of_them() -> None:
    """h*l_q + l_q*a*(n + r) + h*(l + r) + l*a*(n + v) + a*v*h, and a norm of each narrow vector."""
    matrices = HIDDEN * 24 + 24 * HEADS * 16 + HIDDEN * 12 + 8 * HEADS * 22 + HEADS * 10 * HIDDEN
    count = parameter_count(MODEL)
    assert count.attention == MODEL.layers * matrices
    assert count.norms == MODEL.layers * (2 * HIDDEN + 24 + 8) + HIDDEN


def test_queries_without_a_rank_come_out_of_the_stream() -> None:
    """h*a*(n + r), and one norm fewer: DeepSeek-V2-Lite and Moonlight."""
    direct = replace(MODEL, latent=replace(LATENT, query_rank=0))
    saved = HIDDEN * 24 + 24 * HEADS * 16 - HIDDEN * HEADS * 16
    assert parameter_count(MODEL).attention - parameter_count(direct).attention == MODEL.layers * saved


def test_the_core_meets_keys_of_one_size_and_values_of_another() -> None:
    """6*a*(d + v)*s FLOPs a token of a layer, forward and backward."""
    assert attention_flop_per_token(MODEL, 128) == MODEL.layers * 6 * HEADS * (16 + 10) * 128


@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize("rank", [0, 24])
def test_operators_add_up_to_the_closed_form(tensor: int, rank: int) -> None:
    """Whoever holds the heads; matrices that every rank holds are counted by its own tokens."""
    model = replace(MODEL, latent=replace(LATENT, query_rank=rank))
    layout = layout_of(tensor_parallel=tensor)
    total = iteration(mixture_setup(model, layout)).fold(model_flop) * layout.gpus
    assert total == pytest.approx(model_flop_per_token(model, 128) * layout.tokens_per_iteration, rel=1e-12)


def test_narrow_vectors_are_gathered_not_the_stream() -> None:
    """(l_q + l + r) numbers a token come to each rank of a sequence-parallel group, and their gradients go back."""
    (blocks,) = iteration(mixture_setup(MODEL, layout_of(tensor_parallel=2))).layers.values()
    calls = {op.name: op for op in blocks.plain.operators if isinstance(op, Collective) and "latent" in op.name}
    assert {name: (call.kind, float(call.payload_bytes)) for name, call in calls.items()} == {
        "layer.attention.latent.gather": ("all_gather", 2.0 * 128 * (24 + 8 + 4)),
        "layer.attention.latent.scatter_gradient": ("reduce_scatter", 2.0 * 128 * (24 + 8 + 4)),
    }


def test_the_core_keeps_queries_keys_and_values_as_they_are() -> None:
    """2*T*a*(2*d + v) bytes and a statistic a head."""
    (blocks,) = iteration(mixture_setup(MODEL, layout_of())).layers.values()
    (core,) = [op for op in blocks.plain.forward if isinstance(op, FusedAttention)]
    assert float(core.saved_bytes) == 2 * 128 * HEADS * (2 * 16 + 10) + 4 * 128 * HEADS
    (projection,) = [op for op in blocks.plain.forward if isinstance(op, Matmul) and op.name == "layer.attention.projection"]
    assert projection.inner == HEADS * 10


def test_a_head_is_both_of_its_parts() -> None:
    """A model whose head_size is another is refused."""
    with pytest.raises(InputError, match=r"nope_head_size"):
        replace(MODEL, head_size=12)


def test_layer_norms_of_narrow_vectors_have_biases() -> None:
    """Two numbers for each of theirs."""
    model = replace(MODEL, norm="layernorm")
    assert parameter_count(model).norms == 2 * parameter_count(MODEL).norms
