"""Grouped queries whose keys an indexer chooses (MiniMax-M3): its products in training, what a server keeps, runs and reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import CachedAttention, FusedAttention, Matmul
from perfmodel.count.parameters import layer_parameters, parameter_count
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.count.serving.sparse import KeyChoice
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.model.supported import check_supported
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import Indexer
from tests.layouts import RAMP_STAGE
from tests.model.small_models import ONE_RANK
from tests.setups import setup_of

LLAMA = model_preset("llama-3.1-8b")
INDEXER = Indexer(heads=4, head_size=64, tokens=2048)
INDEXED = replace(LLAMA, name="indexed", layer_kinds={"only": LayerKind(attention="indexed")}, indexer=INDEXER)
SERVER = replace(serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), model=INDEXED)


def test_an_indexer_has_queries_a_key_and_norms_of_both() -> None:
    """h*a_i*d_i + h*d_i + 2*d_i a layer, whole on every rank."""
    plain, indexed = parameter_count(LLAMA), parameter_count(INDEXED)
    assert indexed.total - plain.total == 32 * (4096 * 4 * 64 + 4096 * 64 + 2 * 64)
    held = [layer_parameters(INDEXED, "only", tensor_parallel=tensor) for tensor in (1, 4)]
    assert held[0].replicated == held[1].replicated == 4096 * 5 * 64
    flop = model_flop_per_token(INDEXED, 4096) - model_flop_per_token(LLAMA, 4096)
    assert flop == 6 * 32 * 4096 * 5 * 64


def test_in_training_every_token_sees_all_before_it() -> None:
    """Both products of the indexer run for the tokens of each rank; the core is that of full attention."""
    layout = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=4, sequence_parallel=True)
    plain, indexed = (iteration(setup_of(model, layout)).layers[kind].plain for model, kind in ((LLAMA, ""), (INDEXED, "only")))
    own = [op for op in indexed.forward if isinstance(op, Matmul) and "index" in op.name]
    assert [(op.rows, op.columns) for op in own] == [
        (layout.tokens_per_micro_batch / 2, 256),
        (layout.tokens_per_micro_batch / 2, 64),
    ]
    assert not any(op.saved_bytes for op in own)
    cores = [next(op for op in block.forward if isinstance(op, FusedAttention)) for block in (plain, indexed)]
    assert cores[0].window is None
    assert (cores[1].window, cores[1].flop) == (None, cores[0].flop)


def test_a_server_keeps_a_key_of_the_indexer_too() -> None:
    """2*8*128 numbers of 2 bytes, and d_i bytes with a scale of 4."""
    assert cache_bytes_per_token(SERVER, INDEXED.kinds["only"]) == 2 * 8 * 128 * 2 + 64 + 4


def operators(tokens: ForwardPass) -> list[Any]:
    """Those of the layers."""
    return [op for op in forward_operators(SERVER, tokens) if op.name.startswith("layer.attention")]


def test_a_decoding_sequence_reads_the_keys_that_are_chosen() -> None:
    """Out of 10,000 scores; without the keys of the indexer, which the choice has read."""
    found = operators(ForwardPass(sequences=3.0, context=10_000.0))
    (choice,) = (op for op in found if isinstance(op, KeyChoice))
    (core,) = (op for op in found if isinstance(op, CachedAttention))
    assert (choice.scores, choice.read_bytes) == (30_000.0, 30_000.0 * 68)
    assert (core.window, core.cache_bytes) == (2048, 2 * 8 * 128 * 2)


@pytest.mark.parametrize(("length", "window"), [(2048.0, None), (2049.0, 2048)])
def test_tokens_of_long_prompts_meet_as_many_keys_as_are_chosen(length: float, window: int | None) -> None:
    """Those of prompts that are no longer see all before them, and nothing is chosen."""
    found = operators(ForwardPass(prompts=2.0, prompt_tokens=length))
    (core,) = (op for op in found if isinstance(op, FusedAttention))
    assert (core.window, core.sequences) == (window, 2.0)
    assert any(isinstance(op, KeyChoice) for op in found) == (window is not None)


def test_what_chooses_is_described_where_it_is_used() -> None:
    """And nowhere else; the reference model has none."""
    with pytest.raises(InputError, match="indexer: missing; some layers have indexed"):
        replace(INDEXED, indexer=None)
    with pytest.raises(InputError, match="indexer: no layer has indexed"):
        replace(LLAMA, indexer=INDEXER)
    with pytest.raises(NotSupportedError, match="no layers with attention indexed"):
        check_supported(INDEXED, ONE_RANK)
