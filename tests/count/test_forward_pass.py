"""What a forward pass of a served model runs: products, cache reads, messages, against closed forms and training's counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from perfmodel.count.busiest import busiest_load
from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, MemoryBound
from perfmodel.count.parameters import parameter_count
from perfmodel.count.roles import EXPERT_PRODUCTS, Role
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct, forward_operators
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup
from perfmodel.exchange.tables.serving_models import named_served_model
from perfmodel.spec.serving.setup import ServingSetup


def products(setup: ServingSetup, tokens: ForwardPass) -> list[ServedProduct]:
    """The products of a pass."""
    return [each for each in forward_operators(setup, tokens) if isinstance(each, ServedProduct)]


def test_a_decode_pass_reads_every_matrix_of_a_dense_model_once() -> None:
    """Weights of all products are the parameters less the embedding and the norms."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb")
    read = sum(each.repeats * each.inner * each.columns for each in products(setup, ForwardPass(sequences=1, context=10)))
    held = parameter_count(setup.model)
    assert read == held.attention + held.mlp + held.head


def test_products_of_a_prompt_have_a_third_of_trainings_flop() -> None:
    """Prefill is the forward pass: 1/3 of 6*N, with the head on one row alone."""
    setup, length = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), 4096
    tokens = ForwardPass(prompts=1, prompt_tokens=length)
    operators = [each for each in forward_operators(setup, tokens) if isinstance(each, ServedProduct | FusedAttention)]
    head = next(each for each in operators if each.role is Role.LOGITS)
    flop = sum(each.repeats * each.flop for each in operators) + (length - 1) * head.flop
    assert flop == pytest.approx(length * model_flop_per_token(setup.model, length) / 3, rel=1e-9)


@pytest.mark.parametrize(("tensor", "expected"), [(1, 131072), (8, 16384), (16, 16384)])
def test_more_ranks_than_kv_heads_copy_them(tensor: int, expected: Any) -> None:
    """2 * 32 layers * max(1, 8/t) heads * 128 * 2 bytes of Llama-3.1-8B."""
    setup = serving_setup("llama-3.1-8b", gpu="gb200", tensor_parallel=tensor)
    assert cache_bytes_per_token(setup, setup.model.kinds[""]) * setup.model.layers == expected


def test_the_cache_of_latent_attention_is_narrow_and_not_split() -> None:
    """61 layers * (512 + 64) numbers of DeepSeek-V3, on every rank."""
    for tensor in (1, 8):
        setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=tensor)
        kinds = setup.model.kinds.values()
        assert [cache_bytes_per_token(setup, kind) for kind in kinds] == [2 * 576] * len(kinds)


def test_a_window_bounds_what_a_query_reads() -> None:
    """Sliding layers of gpt-oss read 128 tokens however long the context is; full ones all."""
    setup = serving_setup("gpt-oss-20b", gpu="h100-sxm-80gb", precision="mxfp4")
    tokens = ForwardPass(sequences=2, context=5000)
    cores = [each for each in forward_operators(setup, tokens) if isinstance(each, CachedAttention)]
    assert sorted(float(each.keys) for each in cores) == [128, 5000]
    assert {float(each.repeats) for each in cores} == {12}


@pytest.mark.parametrize(("rows", "met"), [(1, 8), (10000, 128)])
def test_few_rows_meet_few_experts_and_many_meet_all(rows: int, met: int) -> None:
    """k of one row, but for what uneven loads leave out of it, all E of very many; every copy has its row."""
    setup = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb")
    found = products(setup, ForwardPass(sequences=rows, context=10))
    of_experts = [each for each in found if each.role in EXPERT_PRODUCTS]
    assert [float(each.batch) for each in of_experts] == pytest.approx([met, met], rel=0.01)
    assert [float(each.batch * each.rows) for each in of_experts] == pytest.approx([8 * rows, 8 * rows])


def test_expert_parallel_ranks_hold_whole_experts_and_as_many_bytes() -> None:
    """Spread or split over four ranks, a rank reads a quarter of all experts."""
    tokens = ForwardPass(sequences=10000, context=10)
    split = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", tensor_parallel=4)
    spread = replace(split, expert_parallel=4)
    sizes = [
        sum(float(each.batch * each.inner * each.columns) for each in products(setup, tokens) if each.role in EXPERT_PRODUCTS)
        for setup in (split, spread)
    ]
    assert sizes[0] == pytest.approx(sizes[1])


def test_each_part_of_a_layer_reduces_its_stream_once() -> None:
    """Two all-reduces a layer and one of the embedding, of rows * h * 2 bytes; none on one GPU."""
    tokens = ForwardPass(sequences=16, context=10)
    for tensor, expected in ((1, 0), (8, 2 * 80 + 1)):
        setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=tensor)
        calls = [
            each for each in forward_operators(setup, tokens) if isinstance(each, Collective) and each.kind == "all_reduce"
        ]
        assert sum(each.repeats for each in calls) == expected
        assert all(each.payload_bytes == 16 * 8192 * 2 for each in calls)


def test_formats_of_few_bits_leave_head_and_router_wide() -> None:
    """nvfp4 of a mixture holds experts in 4 bits; attention, router and head stay in 16."""
    setup = serving_setup("qwen3-30b-a3b", gpu="b200", precision="nvfp4")
    sizes = {each.name: each.weight_bytes for each in products(setup, ForwardPass(sequences=1, context=1))}
    assert sizes["layer.mlp.fc1"] == 0.5625
    assert sizes["layer.attention.qkv"] == sizes["layer.mlp.router"] == sizes["head.logits"] == 2


def test_many_loads_broadcast_like_one() -> None:
    """Arrays of sequences give what each of them gives alone."""
    setup, numbers = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb"), np.array([1.0, 8.0, 64.0])
    together = [each.read_bytes for each in products(setup, ForwardPass(sequences=numbers, context=100))]
    for place, number in enumerate(numbers):
        alone = [each.read_bytes for each in products(setup, ForwardPass(sequences=number, context=100))]
        assert [float(np.asarray(each)[place]) for each in together] == [float(each) for each in alone]


def test_replicas_of_attention_send_nothing_after_it() -> None:
    """Each GPU has whole sequences: one exchange a layer, for the experts; two replicas of four GPUs reduce among four."""

    def payloads(replicas: int) -> dict[str, tuple[float, float]]:
        setup = serving_setup(
            "qwen3-235b-a22b", gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=8, attention_replicas=replicas
        )
        calls = [
            each for each in forward_operators(setup, ForwardPass(sequences=64, context=100)) if isinstance(each, Collective)
        ]
        return {each.name: (float(each.payload_bytes), float(each.group.ranks)) for each in calls if each.kind == "all_reduce"}

    stream = 2.0 * 64 * 4096
    assert payloads(1)["layer.attention.all_reduce"] == (stream, 8)
    assert payloads(2)["layer.attention.all_reduce"] == (stream / 2, 4)
    assert "layer.attention.all_reduce" not in payloads(8)
    assert payloads(8)["layer.mlp.all_reduce"] == (stream, 8)


def test_attention_beside_an_mlp_is_summed_with_it() -> None:
    """Falcon's layers send once."""
    setup = serving_setup(named_served_model("tiiuae/falcon-40b"), gpu="h100-sxm-80gb", tensor_parallel=4)
    calls = [each for each in forward_operators(setup, ForwardPass(sequences=8, context=100)) if isinstance(each, Collective)]
    assert sorted(each.name for each in calls) == ["embedding.all_reduce", "head.gather", "layer.mlp.all_reduce"]


def test_copies_of_tokens_are_written_as_operands_and_read_as_results() -> None:
    """R*k copies of h numbers in the format of the products and in 16 bits, R rows read and written once."""
    for precision, operand in (("bf16", 2.0), ("fp8", 1.0)):
        setup = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", precision=precision)
        operators = forward_operators(setup, ForwardPass(sequences=10, context=100))
        (moved,) = [each for each in operators if each.name.endswith(".permute")]
        assert isinstance(moved, MemoryBound)
        assert moved.moved_bytes == 2048 * (80 * (operand + 2.0) + 2 * 2.0 * 10)


def moved(setup: ServingSetup, tokens: ForwardPass) -> dict[str, tuple[float, float]]:
    """The bytes and the kernels of every operator between products, by its name, of one layer of its kind."""
    found = [each for each in forward_operators(setup, tokens) if isinstance(each, MemoryBound)]
    return {each.name: (float(each.moved_bytes), float(each.kernels)) for each in found}


def test_what_a_dense_model_moves_between_products() -> None:
    """Llama-3.1-70B on four ranks, 3 sequences and 2 prompts of 5 tokens: 13 rows of 8,192 numbers, 5 of them sampled."""
    setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=4)
    stream = 2 * 13 * 8192
    assert moved(setup, ForwardPass(sequences=3, context=9, prompts=2, prompt_tokens=5)) == {
        "embedding.lookup": (2 * stream, 1),
        "layer.attention.norm": (4 * stream, 1),
        "layer.attention.rotary": (2 * 13 * (2 * 16 + 2) * 128 + 13 * 2 * 2 * 128 * 2, 1),
        "layer.mlp.norm": (4 * stream, 1),
        "layer.mlp.activation": (3 * 2 * 13 * 28672 / 4, 1),
        "head.norm": (4 * 2 * 5 * 8192, 1),
        "head.sample": (3 * 4 * 5 * 128256, 3),
    }


def test_what_a_mixture_moves_between_products() -> None:
    """Qwen3-30B-A3B, half of its experts on two ranks each: scores, copies of tokens there and back, activations."""
    even = replace(engine_preset("vllm"), expert_scatter=None)
    setup = serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", engine=even, tensor_parallel=4, expert_parallel=2)
    found = moved(setup, ForwardPass(sequences=16, context=9))
    copies = 16 * 8 / 2
    assert found["layer.mlp.route"] == (2 * 4 * 16 * 128, 2)
    assert found["layer.mlp.permute"] == (2 * 2 * (copies + 16) * 2048, 2)  # each copy and each row written and read once
    assert found["layer.mlp.activation"] == (3 * 2 * copies * 768 / 2, 1)
    assert found["layer.attention.qk_norm"] == (2 * 16 * 2 * (32 + 4) * 128 / 4, 1)


def test_an_activation_without_a_gate_reads_one_input() -> None:
    """Two passes over the width of the MLP, not three."""
    setup = serving_setup("nemotron-4-15b", gpu="h100-sxm-80gb")
    assert moved(setup, ForwardPass(sequences=1, context=9))["layer.mlp.activation"] == (2 * 2 * 24576, 1)


def test_replicas_of_attention_share_no_sequence() -> None:
    """Of 16 sequences each of two replicas has 8, with heads split over two ranks; the MLP sees all."""
    setup = serving_setup("llama-3.1-70b", gpu="h100-sxm-80gb", tensor_parallel=4, attention_replicas=2)
    tokens = ForwardPass(sequences=16, context=100, prompts=2, prompt_tokens=50)
    by_name = {each.name: each for each in forward_operators(setup, tokens) if isinstance(each, ServedProduct)}
    assert [float(by_name[f"layer.{name}"].rows) for name in ("attention.qkv", "mlp.fc1")] == [8 + 50, 16 + 100]
    assert by_name["layer.attention.qkv"].columns == (64 + 2 * 8) * 128 / 2
    (cached,) = {each.name: each for each in forward_operators(setup, tokens) if isinstance(each, CachedAttention)}.values()
    (prompt,) = {each.name: each for each in forward_operators(setup, tokens) if isinstance(each, FusedAttention)}.values()
    assert (cached.sequences, cached.heads, cached.read_bytes) == (8, 32, 8 * 100 * 2 * 4 * 128 * 2)
    assert (prompt.sequences, prompt.heads, prompt.kv_heads, prompt.query_length) == (1, 32, 4, 50)


def test_a_product_reads_weights_once_and_its_rows_twice() -> None:
    """batch * (b*inner*columns + 2*rows*(inner + columns)) bytes, b = 1 of fp8."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", precision="fp8")
    first = {each.name: each for each in products(setup, ForwardPass(sequences=3, context=1))}["layer.mlp.fc2"]
    assert first.read_bytes == 14336 * 4096 + 2 * 3 * (14336 + 4096)


def test_attention_over_a_latent_cache_computes_for_every_head() -> None:
    """2 * B * a * k * (d + v) FLOPs: 128 heads on 4 ranks, 576 numbers to compare, 512 to add up; 576 are read once."""
    setup = serving_setup("deepseek-v3", gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=4)
    cores = [
        each for each in forward_operators(setup, ForwardPass(sequences=2, context=100)) if isinstance(each, CachedAttention)
    ]
    assert {float(each.flop) for each in cores} == {2 * 2 * 32 * 100 * (576 + 512)}
    assert {float(each.read_bytes) for each in cores} == {2 * 100 * 576 * 2}


def test_ranks_gather_the_logits_of_sampled_rows() -> None:
    """5 rows of the whole padded vocabulary in 2 bytes; one rank gathers nothing."""
    for tensor, expected in ((1, []), (4, [2 * 5 * 128256])):
        setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", tensor_parallel=tensor)
        calls = forward_operators(setup, ForwardPass(sequences=3, context=9, prompts=2, prompt_tokens=5))
        gathered = [float(each.payload_bytes) for each in calls if isinstance(each, Collective) and each.kind == "all_gather"]
        assert gathered == expected


def test_further_operators_between_products_of_rarer_models() -> None:
    """Norms behind parts, norms of both narrow vectors, shared experts, gates behind heads; five rows each."""
    gemma = moved(serving_setup("gemma-2-9b", gpu="h100-sxm-80gb"), ForwardPass(sequences=5, context=9))
    assert {f"layer.full.{part}.{norm}" for part in ("attention", "mlp") for norm in ("norm", "post_norm")} <= gemma.keys()
    assert gemma["layer.full.mlp.post_norm"] == (4 * 2 * 5 * 3584, 1)
    latent = moved(serving_setup("deepseek-v3", gpu="h200-sxm-141gb", tensor_parallel=8), ForwardPass(sequences=5, context=9))
    assert latent["layer.dense.attention.qk_norm"] == (2 * 2 * 5 * (1536 + 512), 1)
    shared = serving_setup("qwen2-57b-a14b", gpu="h100-sxm-80gb", tensor_parallel=4)
    assert moved(shared, ForwardPass(sequences=5, context=9))["layer.mlp.shared.activation"] == (3 * 2 * 5 * 20480 / 4, 1)
    assert moved(shared, ForwardPass(sequences=5, context=9))["layer.mlp.shared.sum"] == (6 * 2 * 5 * 3584, 2)
    gated = serving_setup("qwen3-next-80b-a3b", gpu="h100-sxm-80gb", tensor_parallel=4)
    assert moved(gated, ForwardPass(sequences=5, context=9))["layer.full.attention.gate"] == (7 * 2 * 5 * 16 * 256 / 4, 2)
    narrow = replace(gated, model=replace(gated.model, value_head_size=128))
    found = moved(narrow, ForwardPass(sequences=5, context=9))["layer.full.attention.gate"]
    assert found == ((3 * 128 + 2 * (256 + 128)) * 2 * 5 * 16 / 4, 2)
    by_head = replace(narrow, model=replace(narrow.model, gate_by_head=True))
    assert moved(by_head, ForwardPass(sequences=5, context=9))["layer.full.attention.gate"] == (2 * 128 * 2 * 5 * 16 / 4, 1)


def test_prompts_alone_read_no_cache_and_have_a_head_of_keys_on_every_rank() -> None:
    """8 KV heads on 16 ranks are copied; a prompt attends to itself."""
    operators = forward_operators(
        serving_setup("llama-3.1-8b", gpu="gb200", tensor_parallel=16), ForwardPass(prompts=2, prompt_tokens=5)
    )
    assert not [each for each in operators if isinstance(each, CachedAttention)]
    (prompt,) = [each for each in operators if isinstance(each, FusedAttention)]
    assert (prompt.heads, prompt.kv_heads, prompt.sequences) == (2, 1, 2)


def test_two_ranks_reduce_their_stream() -> None:
    """As four do."""
    setup = serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", tensor_parallel=2)
    calls = [each for each in forward_operators(setup, ForwardPass(sequences=4, context=9)) if isinstance(each, Collective)]
    assert sum(float(each.repeats) for each in calls if each.kind == "all_reduce") == 2 * 32 + 1


@pytest.mark.parametrize(
    ("model", "precision", "narrow"),
    [
        ("qwen3-30b-a3b", "mxfp4", {"mlp.fc1"}),
        ("qwen3-30b-a3b", "fp8", {"mlp.fc1", "attention.qkv"}),
        ("llama-3.1-8b", "nvfp4", {"mlp.fc1", "attention.qkv"}),
        ("llama-3.1-8b", "mxfp4", {"mlp.fc1", "attention.qkv"}),
    ],
)
def test_mixtures_keep_wide_what_their_format_leaves(model: str, precision: str, narrow: set[str]) -> None:
    """Dense models have all matrices of layers in it."""
    setup = serving_setup(model, gpu="b200", precision=precision)
    found = {each.name.removeprefix("layer."): each for each in products(setup, ForwardPass(sequences=1, context=1))}
    assert {name for name in ("mlp.fc1", "attention.qkv") if found[name].weight_bytes < 2} == narrow


@pytest.mark.parametrize(("tensor", "sent"), [(1, 0.0), (4, 2 * 4 * 16.0)])
def test_norms_of_all_heads_together_send_their_squares(tensor: int, sent: float) -> None:
    """Ranks that hold some heads of MiniMax-M2 reduce two sums of 4 bytes a row, of queries and of keys; one rank has all."""
    model = named_served_model("MiniMaxAI/MiniMax-M2.5")
    setup = serving_setup(model, gpu="h200-sxm-141gb", precision="fp8", tensor_parallel=tensor)
    every = forward_operators(setup, ForwardPass(sequences=16.0, context=10.0))
    squares = [each for each in every if isinstance(each, Collective) and each.name.endswith("norm_all_reduce")]
    assert sum(float(each.payload_bytes) for each in squares) == sent
    assert [each.repeats for each in squares] == [62] * (tensor > 1)


def test_norms_by_head_send_nothing() -> None:
    """Every rank has whole heads."""
    setup = serving_setup("qwen3-235b-a22b", gpu="h200-sxm-141gb", tensor_parallel=4)
    every = forward_operators(setup, ForwardPass(sequences=16.0, context=10.0))
    assert not [each for each in every if each.name.endswith("norm_all_reduce")]


def test_the_busiest_replica_reads_a_prompt_as_a_whole() -> None:
    """Of one prompt one of four replicas has all, of eight each has two; sequences are dealt out evenly."""
    for prompts, own in ((1.0, 1.0), (0.5, 0.5), (3.0, 1.0), (8.0, 2.0)):
        shared = ForwardPass(sequences=40, prompts=prompts, prompt_tokens=100).shared_by(4)
        assert (float(shared.prompts), float(shared.sequences)) == (own, 10)


def test_the_busiest_replica_has_a_sequence_as_a_whole() -> None:
    """Of fewer than replicas one each, whose cache one of eight GPUs reads alone; of more an even share."""
    for sequences, own in ((0.0, 0.0), (1.0, 1.0), (5.0, 1.0), (8.0, 1.0), (20.0, 2.5)):
        assert float(ForwardPass(sequences=sequences, context=9.0).shared_by(8).sequences) == own


def test_the_busiest_rank_of_experts_sets_the_pace() -> None:
    """More experts are met, and more rows by each, than on average; none differ where all ranks have every expert."""
    spread, whole = (
        serving_setup("qwen3-30b-a3b", gpu="h100-sxm-80gb", tensor_parallel=4, expert_parallel=ranks) for ranks in (4, 1)
    )
    even = replace(spread, engine=replace(spread.engine, expert_scatter=None))
    for rows in (4, 4096):
        busy, mean = (
            [each for each in products(one, ForwardPass(sequences=rows)) if each.role in EXPERT_PRODUCTS]
            for one in (spread, even)
        )
        load = busiest_load(ranks=4, experts=128, per_token=8, tokens=rows, scatter=spread.engine.expert_scatter or 0.0)
        assert float(busy[0].batch * busy[0].rows) == pytest.approx(float(load * mean[0].batch * mean[0].rows))
        assert float(busy[0].batch) > 0.999 * float(mean[0].batch)
    one, other = (
        products(each, ForwardPass(sequences=64))
        for each in (whole, replace(whole, engine=replace(whole.engine, expert_scatter=None)))
    )
    copies = [float(each.batch * each.rows) for each in other]
    assert [float(each.batch * each.rows) for each in one] == pytest.approx(copies)
