"""The FLOPs are those that torch counts while transformers' own networks run forward and backward.

FlopCounterMode counts matrix products alone, as count/operators.py does. What differs is a closed form in its own test:
rows that pad the vocabulary (never in transformers).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import hardware_flop, model_flop
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack
from tests.count.meta_networks import meta_network, network_flop
from tests.setups import setup_of
from tests.stacks import stack_with

pytestmark = pytest.mark.slow

FUSED = stack_preset("megatron-core")
SEQUENCE_LENGTH = 512
ONE_GPU = Layout(
    precision="bf16",
    tensor_parallel=1,
    data_parallel=1,
    sequence_parallel=False,
    sharding="none",
    recompute="none",
    micro_batch_size=1,
    global_batch_size=1,
    sequence_length=SEQUENCE_LENGTH,
)

# Their real widths, with vocabularies that need no padding on one GPU; two layers tell the layers from the head.
LLAMA = replace(model_preset("llama-3.1-8b"), layers=2)
NEMOTRON = replace(model_preset("nemotron-4-15b"), layers=2)
WIDE_NEMOTRON = replace(model_preset("nemotron-4-340b"), layers=2)
GPT = replace(model_preset("gpt-3-175b"), layers=2, vocab_size=51200)
NARROW = replace(
    LLAMA, name="narrow", hidden_size=256, attention_heads=16, kv_heads=8, head_size=24, ffn_hidden_size=640, biases=True
)
FAMILIES = [LLAMA, NEMOTRON, WIDE_NEMOTRON, GPT, NARROW]


def name_of(value: object) -> str | None:
    """Name a model in a test id."""
    return value.name if isinstance(value, TransformerModel) else None


def predicted(model: TransformerModel, layout: Layout = ONE_GPU, *, stack: SoftwareStack = FUSED) -> Numeric:
    """Predict the hardware FLOPs of one GPU in one iteration."""
    return hardware_flop(iteration(setup_of(model, layout, stack)).operators)


def counted(network: Any, sequences: int = 1) -> int:
    """Count one micro-batch with torch."""
    return network_flop(network, sequences=sequences, sequence_length=SEQUENCE_LENGTH)


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm"])
@pytest.mark.parametrize("micro_batch_size", [1, 2])
@pytest.mark.parametrize("model", FAMILIES, ids=name_of)
def test_flop_are_those_that_torch_counts(model: TransformerModel, micro_batch_size: int, stack: str) -> None:
    """One iteration of one micro-batch costs exactly what FlopCounterMode counts, attention fused or not."""
    layout = replace(ONE_GPU, micro_batch_size=micro_batch_size, global_batch_size=micro_batch_size)
    assert predicted(model, layout, stack=stack_preset(stack)) == counted(meta_network(model), micro_batch_size)


def test_micro_batches_cost_as_many_times_what_torch_counts_for_one() -> None:
    """Three micro-batches of one sequence cost three times one."""
    assert predicted(NEMOTRON, replace(ONE_GPU, global_batch_size=3)) == 3 * counted(meta_network(NEMOTRON))


def test_a_padded_vocabulary_costs_hardware_flop_and_no_model_flop() -> None:
    """Transformers pads nothing: hardware FLOPs exceed its count by 6 * tokens * h for every row of padding."""
    model = replace(NARROW, vocab_size=1003)
    padding = 6 * SEQUENCE_LENGTH * (1024 - 1003) * model.hidden_size
    network = counted(meta_network(model))
    assert predicted(model) == network + padding
    assert model_flop(iteration(setup_of(model, ONE_GPU, FUSED)).operators) == pytest.approx(network, rel=1e-14)


@pytest.mark.parametrize("tensor_parallel", [2, 4, 8])
@pytest.mark.parametrize("model", [LLAMA, NEMOTRON, NARROW], ids=name_of)
def test_one_shard_costs_what_torch_counts_for_a_model_of_its_widths(model: TransformerModel, tensor_parallel: int) -> None:
    """One GPU multiplies what transformers does for a model whose widths, all but the hidden size, are divided by t."""
    part = replace(
        model,
        attention_heads=int(model.attention_heads) // tensor_parallel,
        kv_heads=int(model.kv_heads) // tensor_parallel,
        ffn_hidden_size=int(model.ffn_hidden_size) // tensor_parallel,
        vocab_size=int(model.padded_vocab_size(tensor_parallel)) // tensor_parallel,
    )
    assert predicted(model, replace(ONE_GPU, tensor_parallel=tensor_parallel)) == counted(meta_network(part))


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("tensor_parallel", [2, 4, 8])
@pytest.mark.parametrize("model", FAMILIES, ids=name_of)
def test_shards_share_the_model_flop(model: TransformerModel, tensor_parallel: int, *, sequence_parallel: bool) -> None:
    """T GPUs together do the model FLOPs of one GPU that holds the whole model, heads and KV heads dividing by t."""
    layout = replace(ONE_GPU, tensor_parallel=tensor_parallel, sequence_parallel=sequence_parallel)
    shard = model_flop(iteration(setup_of(model, layout, FUSED)).operators)
    whole = model_flop(iteration(setup_of(model, ONE_GPU, FUSED)).operators)
    assert tensor_parallel * shard == pytest.approx(whole, rel=1e-14)


def test_copied_kv_heads_cost_hardware_flop() -> None:
    """On 16 ranks the 8 KV heads are projected twice: 6 * tokens * h * 2 * 8 heads more a layer."""
    model = replace(LLAMA, vocab_size=16 * 128 * 60)  # no padding on 16 ranks either
    copies = 6 * SEQUENCE_LENGTH * model.layers * model.hidden_size * 2 * 8 * model.head_size
    assert 16 * predicted(model, replace(ONE_GPU, tensor_parallel=16)) == predicted(model) + copies


def test_copied_kv_heads_cost_no_model_flop() -> None:
    """The published convention counts each KV head once, on however many ranks it is projected."""
    shard = model_flop(iteration(setup_of(LLAMA, replace(ONE_GPU, tensor_parallel=16), FUSED)).operators)
    assert 16 * shard == pytest.approx(model_flop(iteration(setup_of(LLAMA, ONE_GPU, FUSED)).operators), rel=1e-12)


@pytest.mark.parametrize("model", [LLAMA, NEMOTRON], ids=name_of)
@pytest.mark.parametrize("stops_early", [False, True])
def test_full_recompute_is_what_torch_counts_with_checkpointed_layers(model: TransformerModel, *, stops_early: bool) -> None:
    """Every layer runs again with torch's reentrant checkpoint (and Megatron's); the other kind stops before its last product.

    It has every tensor back by then that the layer kept.
    """
    network = meta_network(model)
    for layer in network.model.layers:
        _checkpoint(layer, reentrant=not stops_early)
    stack = stack_with(FUSED, {"fusion.recompute_stops_early": stops_early})
    assert predicted(model, replace(ONE_GPU, recompute="full"), stack=stack) == counted(network)


def _checkpoint(layer: Any, *, reentrant: bool) -> None:
    plain = layer.forward

    def checkpointed(hidden: torch.Tensor, **others: Any) -> Any:
        again = lambda stream: plain(stream, **others)  # noqa: E731
        return checkpoint(again, hidden, use_reentrant=reentrant, preserve_rng_state=False)

    layer.forward = checkpointed


HEADS, LENGTH, WIDTH = 4, 32, 16
FORWARD_SQUARE = 4 * HEADS * LENGTH * LENGTH * WIDTH  # both products of the forward pass, mask ignored


def _query(device: str) -> torch.Tensor:
    return torch.zeros(1, HEADS, LENGTH, WIDTH, device=device, dtype=torch.bfloat16, requires_grad=True)


@pytest.mark.parametrize("causal", [False, True])
def test_torch_counts_attention_on_the_cpu_as_nothing(*, causal: bool) -> None:
    """The trap: the fused CPU kernel is not in torch's table, so an oracle run with it would miss all of attention."""
    query = _query("cpu")
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(query, query, query, is_causal=causal).sum().backward()
    assert counter.get_total_flops() == 0


@pytest.mark.parametrize("causal", [False, True])
def test_torch_counts_a_causal_mask_as_full_attention(*, causal: bool) -> None:
    """Formed from matrix products, attention costs 4 * heads * s^2 * d forwards and twice that backwards, masked or not."""
    query = _query("meta")
    with FlopCounterMode(display=False) as counter:
        scaled_dot_product_attention(query, query, query, is_causal=causal).sum().backward()
    assert counter.get_total_flops() == 3 * FORWARD_SQUARE


@pytest.mark.parametrize("causal", [False, True])
def test_torch_counts_the_scores_that_flash_attention_forms_again(*, causal: bool) -> None:
    """The trap: of the GPU's fused kernel torch counts 5 products backwards; the published convention counts 4."""
    query = _query("meta")
    with FlopCounterMode(display=False) as counter:
        output, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, query, query, 0.0, causal)
        output.sum().backward()
    assert counter.get_total_flops() == 3.5 * FORWARD_SQUARE
