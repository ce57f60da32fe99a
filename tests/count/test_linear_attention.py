"""One matrix in the place of attention: whole on every rank, without a core, heads or a cache."""

from __future__ import annotations

from dataclasses import replace

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, hardware_flop
from perfmodel.count.parameters import layer_parameters
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.models.layer_kinds import LayerKind
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

LLAMA = model_preset("llama-3.1-8b")
KINDS = {"full": LayerKind(), "linear": LayerKind(attention="linear")}
MODEL = replace(LLAMA, name="half linear", layer_kinds=KINDS, layer_pattern=("full", "linear"))
LAYOUT = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=4, sequence_parallel=True)


def test_it_is_a_matrix_as_wide_as_the_stream_on_every_rank() -> None:
    """h*h, with the norm before it; an MLP behind."""
    for tensor in (1, 4):
        held = layer_parameters(MODEL, "linear", tensor_parallel=tensor)
        assert held.attention == held.replicated == 4096 * 4096
        assert held.norms == 2 * 4096


def test_its_flop_do_not_grow_with_the_sequence() -> None:
    """6*h*h a token and layer: twice as many tokens add what 16 layers of full attention do."""
    full, half = (model_flop_per_token(model, 8192) - model_flop_per_token(model, 4096) for model in (LLAMA, MODEL))
    assert full == 2 * half
    short = replace(MODEL, layer_kinds={"linear": KINDS["linear"]}, layer_pattern=())
    mlp = 6.0 * 3 * 4096 * 14336
    assert model_flop_per_token(short, 4096) == 32 * (6.0 * 4096 * 4096 + mlp) + 6.0 * 4096 * LLAMA.vocab_size


def test_ranks_multiply_their_own_tokens() -> None:
    """One product, which keeps its input; nothing is sent for it."""
    forward = iteration(setup_of(MODEL, LAYOUT)).layers["linear"].plain.forward
    own = [op for op in forward if op.name.startswith("layer.linear.attention")]
    (product,) = (op for op in own if isinstance(op, Matmul))
    tokens = LAYOUT.tokens_per_micro_batch / 2
    assert (product.rows, product.inner, product.columns) == (tokens, 4096, 4096)
    assert product.saved_bytes == 2 * tokens * 4096
    assert hardware_flop([product]) == 2 * tokens * 4096 * 4096
    assert not any(isinstance(op, Collective | FusedAttention) for op in own)


def test_a_server_keeps_and_reads_nothing_for_it() -> None:
    """A product, a norm before it, and no message."""
    setup = replace(serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), model=MODEL, tensor_parallel=2)
    assert cache_bytes_per_token(setup, KINDS["linear"]) == 0
    found = forward_operators(setup, ForwardPass(sequences=3.0, context=100.0, prompts=1.0, prompt_tokens=50.0))
    own = [op for op in found if op.name.startswith("layer.linear.attention")]
    assert [op.name for op in own if isinstance(op, ServedProduct)] == ["layer.linear.attention.linear"]
    assert not any(isinstance(op, Collective | FusedAttention | CachedAttention) for op in own)
    assert {op.name.rpartition(".")[2] for op in own} == {"norm", "linear"}
