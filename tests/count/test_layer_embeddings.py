"""Embeddings that every layer has of its own (Gemma 3n, Gemma 4): parameters, FLOPs, bytes, in training and in a server."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import stage_memory_bytes
from perfmodel.count.operators import Collective, Matmul, MemoryBound, model_flop
from perfmodel.count.parameters import parameter_count, shard_parameter_count
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.count.serving.memory import weight_bytes
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.layout import Layout
from perfmodel.spec.refusals import check_setup
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

LLAMA = model_preset("llama-3.1-8b")  # L 32, h 4096
OWN = replace(LLAMA, name="own", layer_embedding_size=256, layer_vocab_size=100_000)
NUMBERS = 32 * 256  # of a token, for all layers
ONCE = 4096 * NUMBERS + 256  # the projection and its norm
EACH = 2 * 4096 * 256 + 4096  # of a layer: gate, projection, norm
ALONE = replace(RAMP_STAGE, tensor_parallel=1, sequence_length=4096)


def work(model: Any = OWN, layout: Layout = ALONE) -> Iteration:
    """An iteration."""
    return iteration(setup_of(model, layout))


def test_parameters_are_a_table_a_projection_and_two_matrices_a_layer() -> None:
    """V_l*L*p + h*L*p + p, and L*(2*h*p + h); ranks share all but norms."""
    plain, own = parameter_count(LLAMA), parameter_count(OWN)
    assert own.embedding - plain.embedding == 100_000 * NUMBERS
    assert own.total - plain.total == 100_000 * NUMBERS + ONCE + 32 * EACH
    shards = [shard_parameter_count(model, tensor_parallel=4) for model in (LLAMA, OWN)]
    norms = 256 + 32 * 4096
    assert shards[1].total - shards[0].total == (100_000 * NUMBERS + ONCE + 32 * EACH - norms) / 4 + norms


def test_flop_are_those_of_its_matrices() -> None:
    """6*(h*L*p + L*2*h*p) a token, the lookup none; operators have as many."""
    flop = 6.0 * (4096 * NUMBERS + 32 * 2 * 4096 * 256)
    assert model_flop_per_token(OWN, 4096) - model_flop_per_token(LLAMA, 4096) == flop
    counted = []
    for model in (LLAMA, OWN):
        found = work(model)
        counted.append(model_flop(found.embedding.operators) + 32 * model_flop(found.layers[""].plain.operators))
    assert (counted[1] - counted[0]) / ALONE.tokens_per_micro_batch == pytest.approx(flop, rel=1e-12)


def test_a_token_is_looked_up_for_all_layers_at_once() -> None:
    """4*e*T*L*p bytes forwards; backwards 3, and the dense gradient of the table; ranks of a group add up what they found."""
    layout = replace(ALONE, tensor_parallel=2, data_parallel=4)
    block = work(layout=layout).embedding
    (lookup,) = (op for op in block.forward if op.name == "embedding.layer_lookup")
    assert isinstance(lookup, MemoryBound)
    size = 2.0 * layout.tokens_per_micro_batch * NUMBERS
    assert lookup.moved_bytes == 4 * size
    stream = next(op for op in block.forward if op.name == "embedding.lookup")
    assert isinstance(stream, MemoryBound)
    dense = stream.backward_bytes - 3 * 2.0 * layout.tokens_per_micro_batch * 4096
    table = LLAMA.padded_vocab_size(2) * 4096 / 2
    assert lookup.backward_bytes - 3 * size == pytest.approx(dense / table * 100_000 * NUMBERS / 2)
    (reduce,) = (op for op in block.forward if op.name == "embedding.layer_all_reduce")
    assert isinstance(reduce, Collective)
    assert reduce.payload_bytes == size


def test_what_was_looked_up_and_the_projection_are_added_up() -> None:
    """Two numbers read and one written of each of L*p/t, forwards; its gradient is read and written, scaled, backwards."""
    layout = replace(ALONE, tensor_parallel=2, data_parallel=4)
    (added,) = (op for op in work(layout=layout).embedding.forward if op.name == "embedding.layer_sum")
    assert isinstance(added, MemoryBound)
    numbers = layout.tokens_per_micro_batch * NUMBERS / 2
    assert (added.moved_bytes, added.backward_bytes) == (3 * 2 * numbers, 2 * 2 * numbers)


def test_a_layer_has_a_gate_and_a_way_back() -> None:
    """h x p/t and p/t x h behind the MLP, a norm behind them, and a residual connection."""
    forward = work(layout=replace(ALONE, tensor_parallel=2, data_parallel=4)).layers[""].plain.forward
    own = [op for op in forward if op.name.startswith("layer.input.")]
    products = [(op.inner, op.columns) for op in own if isinstance(op, Matmul)]
    assert products == [(4096, 128), (128, 4096)]
    names = {op.name.rpartition(".")[2] for op in own}
    assert names >= {"gate", "activation", "projection", "post_norm", "residual"}
    assert forward[-1].name == "layer.input.residual"


def test_memory_of_training_holds_the_parameters() -> None:
    """Two bytes a parameter, of table, projections and norms."""
    plain, own = (stage_memory_bytes(work(model), work(model).stages.first) for model in (LLAMA, OWN))
    held = parameter_count(OWN).total - parameter_count(LLAMA).total
    assert own.parameters_bytes - plain.parameters_bytes == pytest.approx(2 * held, rel=1e-9)


def test_a_server_runs_it_and_holds_it() -> None:
    """Two products a layer and one of the embedding, two lookups; weights in 16 bits."""
    plain, own = (replace(serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), model=model) for model in (LLAMA, OWN))
    held = parameter_count(OWN).total - parameter_count(LLAMA).total
    assert weight_bytes(own) - weight_bytes(plain) == pytest.approx(2 * held, rel=1e-12)
    passes = [forward_operators(setup, ForwardPass(sequences=3.0, context=10.0)) for setup in (plain, own)]
    names = [{op.name: op for op in each} for each in passes]
    more = {name: op for name, op in names[1].items() if name not in names[0]}
    assert {name for name, op in more.items() if isinstance(op, ServedProduct)} == {
        "embedding.layer_projection", "layer.input.gate", "layer.input.projection",
    }  # fmt: skip
    assert {name for name, op in more.items() if not isinstance(op, ServedProduct)} == {
        "embedding.layer_lookup", "embedding.layer_norm", "layer.input.norm", "layer.input.activation",
    }  # fmt: skip
    lookup = more["embedding.layer_lookup"]
    assert isinstance(lookup, MemoryBound)
    assert lookup.moved_bytes == 2 * 2 * 3 * NUMBERS


def test_layers_of_one_stage_are_given_what_the_embedding_looked_up() -> None:
    """Other stages would have to be sent it."""
    with pytest.raises(NotSupportedError, match="layers with embeddings of their own over 4 stages are not covered"):
        check_setup(setup_of(OWN, replace(RAMP_STAGE, tensor_parallel=1, pipeline_parallel=4)))


def test_ranks_share_the_numbers_of_each_layer() -> None:
    """A rank of a tensor-parallel group has a whole number of them."""
    odd = replace(OWN, layer_embedding_size=25)
    with pytest.raises(InputError, match=r"2 does not divide 25 numbers of each layer's embeddings .*; 1, 5, 25 would"):
        check_setup(setup_of(odd, replace(RAMP_STAGE, tensor_parallel=2)))


def test_a_size_without_a_vocabulary_is_refused() -> None:
    """And the other way round."""
    changed: list[dict[str, Any]] = [{"layer_embedding_size": 256}, {"layer_vocab_size": 1000}]
    for changes in changed:
        with pytest.raises(InputError, match="need their size and their vocabulary"):
            replace(LLAMA, **changes)
