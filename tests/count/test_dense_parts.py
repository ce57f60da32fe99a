"""Parts in which dense models differ: what they add to parameters, bytes and kept memory, and what they leave out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from perfmodel.count.iteration import Iteration, iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator, saved_bytes
from perfmodel.count.parameters import parameter_count, shard_parameter_count
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup, may_exist
from tests.layouts import RAMP_STAGE
from tests.setups import layer_of, setup_of

SEQUENCES, LENGTH = 2, 24
ONE_GPU = Layout(
    precision="fp32",
    tensor_parallel=1,
    data_parallel=1,
    sequence_parallel=False,
    sharding="none",
    recompute="none",
    micro_batch_size=SEQUENCES,
    global_batch_size=SEQUENCES,
    sequence_length=LENGTH,
)
PLAIN = TransformerModel(
    name="plain",
    layers=3,
    hidden_size=64,
    attention_heads=4,
    kv_heads=2,
    head_size=24,
    ffn_hidden_size=160,
    activation="gelu",
    norm="layernorm",
    position="none",
    vocab_size=1024,
)
TOKENS = SEQUENCES * LENGTH
STREAM = 4 * TOKENS * 64  # bytes of the stream of a micro-batch in fp32
LLAMA = model_preset("llama-3.1-8b")
SHARDED = replace(RAMP_STAGE, tensor_parallel=4, data_parallel=2, global_batch_size=8)


def work_of(layout: Layout = ONE_GPU, *, stack: str = "reference", model: TransformerModel = PLAIN, **parts: Any) -> Iteration:
    """The operators of a model that has some other parts than the plain one."""
    return iteration(setup_of(replace(model, **parts), layout, stack_preset(stack)))


def kept(layout: Layout = ONE_GPU, *, stack: str = "reference", **parts: Any) -> float:
    """Bytes that one layer keeps."""
    return float(saved_bytes(layer_of(work_of(layout, stack=stack, **parts)).plain.forward))


def named(operators: tuple[Operator, ...], name: str) -> Operator:
    """The only operator called so."""
    (found,) = (each for each in operators if each.name == name)
    return found


class TorchLayer:
    """One layer as a few lines of torch, with the parts that are tested: an oracle of what autograd keeps."""

    def __init__(self, parts: dict[str, Any]) -> None:
        torch.manual_seed(1)
        self.parts = parts
        shapes = {"qkv": ((4 + 2 * 2) * 24, 64), "out": (64, 4 * 24), "up": (160, 64), "down": (64, 160)}
        self.weights = {name: torch.randn(shape, requires_grad=True) for name, shape in shapes.items()}
        self.norms = [torch.ones(64, requires_grad=True) for _ in range(8)]
        self.head_norms = [torch.ones(24, requires_grad=True) for _ in range(4)]

    def norm(self, place: int, x: torch.Tensor) -> torch.Tensor:
        """Layer norm with weight and bias."""
        return functional.layer_norm(x, (64,), self.norms[2 * place], self.norms[2 * place + 1])

    def attention(self, x: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values, perhaps normalised by head, to a result of the stream's width."""
        qkv = functional.linear(x, self.weights["qkv"]).view(SEQUENCES, LENGTH, 8, 24)
        q, k, v = (each.clone() for each in qkv.split([4, 2, 2], dim=2))
        if self.parts.get("qk_norm") == "head_with_bias":
            q = functional.layer_norm(q, (24,), *self.head_norms[:2])
            k = functional.layer_norm(k, (24,), *self.head_norms[2:])
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return functional.linear(mixed.transpose(1, 2).reshape(SEQUENCES, LENGTH, 96), self.weights["out"])

    def mlp(self, x: torch.Tensor) -> torch.Tensor:
        """Up, activation, down."""
        act: Callable[[torch.Tensor], torch.Tensor] = getattr(functional, self.parts.get("activation", "gelu"))
        return functional.linear(act(functional.linear(x, self.weights["up"])), self.weights["down"])

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The layer."""
        pre, post = self.parts.get("pre_norms", True), self.parts.get("post_norms", False)

        def part(run: Callable[[torch.Tensor], torch.Tensor], place: int, into: torch.Tensor) -> torch.Tensor:
            branch = run(self.norm(place, into) if pre else into)
            return self.norm(place + 1, branch) if post else branch

        match self.parts.get("parallel_residual", "none"):
            case "none":
                x = x + part(self.attention, 0, x)
                return x + part(self.mlp, 2, x)
            case "two_norms":
                return x + part(self.attention, 0, x) + part(self.mlp, 2, x)
            case _:
                normed = self.norm(0, x)
                return x + self.attention(normed) + self.mlp(normed)

    def kept_bytes(self) -> int:
        """What autograd keeps of one run, each storage once, without parameters, statistics and the input of what follows."""
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            stream = torch.randn(SEQUENCES, LENGTH, 64, requires_grad=True)
            self(stream * 1.5)
        for parameter in (*self.weights.values(), *self.norms, *self.head_norms):
            kept.pop(parameter.untyped_storage().data_ptr(), None)
        return sum(kept.values())


PARTS: list[dict[str, Any]] = [
    {"parallel_residual": "two_norms"},
    {"parallel_residual": "one_norm"},
    {"pre_norms": False, "post_norms": True},
    {"post_norms": True},
    {"qk_norm": "head_with_bias"},
    {"activation": "relu"},
    {"activation": "relu", "parallel_residual": "one_norm", "qk_norm": "head_with_bias"},
]


@pytest.mark.parametrize("parts", PARTS, ids=str)
def test_kept_memory_differs_as_that_of_torch_does(parts: dict[str, Any]) -> None:
    """To the statistics of norms, two numbers a token each (and head, of queries and keys)."""
    torch_keeps = TorchLayer(parts).kept_bytes() - TorchLayer({}).kept_bytes()
    statistics = 8 * TOKENS * (2 + (4 + 2 if "qk_norm" in parts else 0))
    assert abs(torch_keeps - (kept(**parts) - kept())) <= statistics


@pytest.mark.parametrize(
    ("parts", "streams"),
    [({"parallel_residual": "two_norms"}, -1), ({"parallel_residual": "one_norm"}, -2), ({"post_norms": True}, 2),
     ({"pre_norms": False, "post_norms": True}, 0)],
)  # fmt: skip
def test_norms_and_their_place_keep_whole_streams(parts: dict[str, Any], streams: int) -> None:
    """Of fused kernels; without sequence parallelism every rank keeps them whole."""
    assert kept(**parts) - kept() == pytest.approx(streams * STREAM, rel=1e-12)


def test_eager_rms_norms_of_one_stream_keep_it_once() -> None:
    """Each also keeps what its weight scales, and casts; two that read the same stream share no more than that."""
    eager: dict[str, Any] = {"norm": "rmsnorm", "stack": "pytorch-fsdp"}
    assert kept(**eager) - kept(**eager, parallel_residual="two_norms") == pytest.approx(STREAM, rel=1e-12)


def test_compiled_layers_without_norms_before_their_parts_keep_what_products_read() -> None:
    """A compiler forms the result of a norm again; the stream itself it keeps."""
    behind: dict[str, Any] = {"pre_norms": False, "post_norms": True}
    assert kept(stack="torchtitan", norm="rmsnorm", **behind) == pytest.approx(
        kept(stack="torchtitan", norm="rmsnorm") + 2 * STREAM, rel=1e-12
    )


def test_one_gathered_input_serves_both_parallel_parts() -> None:
    """Under sequence parallelism after one norm: a gather less each way, and one scatter of gradients less; after two, none."""

    def calls(residual: str) -> list[str]:
        layer = layer_of(work_of(SHARDED, stack="megatron-core", model=LLAMA, parallel_residual=residual)).plain
        return [op.name for op in (*layer.forward, *layer.backward) if isinstance(op, Collective)]

    serial = calls("none")
    assert calls("two_norms") == serial
    left_out = ["layer.mlp.fc1.gather", "layer.mlp.fc1.gather", "layer.mlp.fc1.reduce_input_gradient"]
    assert sorted([*calls("one_norm"), *left_out]) == sorted(serial)


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        ({"norm": "layernorm_no_bias"}, -7 * 64),
        ({"norm": "layernorm_no_parameters"}, -14 * 64),
        ({"post_norms": True}, 6 * 128),
        ({"parallel_residual": "one_norm"}, -3 * 128),
        ({"parallel_residual": "two_norms"}, 0),
        ({"qk_norm": "head"}, 3 * 2 * 24),
        ({"qk_norm": "head_with_bias"}, 3 * 4 * 24),
        ({"qk_norm": "width"}, 3 * (4 + 2) * 24),
        ({"embedding_norm": True}, 128),
        ({"biases": True}, 3 * ((4 + 2 * 2) * 24 + 64 + 160 + 64)),
        ({"biases_of": ("qkv",)}, 3 * (4 + 2 * 2) * 24),
        ({"biases_of": ("projection",)}, 3 * 64),
        ({"biases_of": ("mlp",)}, 3 * (160 + 64)),
        ({"biases_of": ("head",)}, 1024),
        ({"biases": True, "biases_of": ("mlp",)}, 3 * ((4 + 2 * 2) * 24 + 64 + 160 + 64)),
        ({"position": "learned", "max_positions": 32}, 32 * 64),
        ({"position": "learned", "max_positions": 32, "spare_positions": 2}, 34 * 64),
        ({"position": "alibi"}, 0),
        ({"softcaps": ("attention", "logits"), "scales": ("embedding", "branches", "logits")}, 0),
    ],
    ids=str,
)
def test_a_part_has_its_parameters(parts: dict[str, Any], more: int) -> None:
    """Against the plain model: three layers, seven norms, heads of 24, a vocabulary of 1,024."""
    assert parameter_count(replace(PLAIN, **parts)).total - parameter_count(PLAIN).total == more


def test_shards_hold_norms_of_heads_whole_and_norms_of_their_width_in_parts() -> None:
    """Two ranks: the weight that all heads share twice, those of a rank's own heads once; a bias of the head in parts."""

    def held(**parts: Any) -> float:
        return float(shard_parameter_count(replace(PLAIN, **parts), tensor_parallel=2).total)

    assert held(qk_norm="head") - held() == 3 * 2 * 24
    assert held(qk_norm="width") - held() == 3 * (2 + 1) * 24
    assert held(biases_of=("head",)) - held() == 512


def test_gradients_of_all_that_sequence_parallel_ranks_hold_whole_are_added_up() -> None:
    """Norms, and the biases behind row-parallel products: of each part that has one."""

    def payload(**parts: Any) -> float:
        calls = work_of(SHARDED, stack="megatron-core", model=LLAMA, **parts).synchronisation
        call = named(calls, "optimizer.norm_gradients.all_reduce")
        assert isinstance(call, Collective)
        return float(call.payload_bytes) / 2  # of bf16 gradients

    plain = payload()
    assert plain == 65 * 4096
    assert payload(biases=True) - plain == 2 * 32 * 4096
    assert payload(biases_of=("projection",)) - plain == payload(biases_of=("mlp",)) - plain == 32 * 4096
    assert payload(biases_of=("qkv",)) == plain
    assert payload(qk_norm="head") - plain == 32 * 2 * 128


def test_norms_of_queries_and_keys_read_and_write_both() -> None:
    """Of 4 and 2 heads of 24 numbers: read and written, backwards two read and one written."""
    norm = named(layer_of(work_of(qk_norm="width")).plain.forward, "layer.attention.qk_norm")
    assert isinstance(norm, MemoryBound)
    assert norm.moved_bytes == 2 * 4 * TOKENS * 6 * 24
    assert norm.backward_bytes == 3 * 4 * TOKENS * 6 * 24
    assert norm.saved_bytes == 4 * TOKENS * 6 * 24


def test_soft_caps_of_scores_cost_bytes_where_attention_is_not_fused() -> None:
    """Three elementwise kernels and one more copy of all scores; a fused kernel does so on the way."""
    scores = SEQUENCES * 4 * LENGTH * LENGTH
    eager: dict[str, Any] = {"stack": "megatron-lm", "softcaps": ("attention",)}
    cap = named(layer_of(work_of(**eager)).plain.forward, "layer.attention.softcap")
    assert isinstance(cap, MemoryBound)
    assert (cap.moved_bytes, cap.backward_bytes, cap.saved_bytes) == (24 * scores, 28 * scores, 4 * scores)
    assert kept(**eager) - kept(stack="megatron-lm") == 4 * scores
    assert kept(softcaps=("attention",)) == kept()


def test_soft_caps_of_logits_are_kept_on_the_last_stage() -> None:
    """As many numbers as there are logits, unless a compiler makes them part of the loss."""
    logits = TOKENS * 1024
    capped, plain = work_of(softcaps=("logits",)).head, work_of().head
    assert saved_bytes(capped.forward) - saved_bytes(plain.forward) == 4 * logits
    cap = named(capped.forward, "head.softcap")
    assert isinstance(cap, MemoryBound)
    assert (cap.moved_bytes, cap.backward_bytes) == (6 * 4 * logits, 7 * 4 * logits)
    compiled: dict[str, Any] = {"stack": "torchtitan", "softcaps": ("logits",)}
    assert saved_bytes(work_of(**compiled).head.forward) == saved_bytes(work_of(stack="torchtitan").head.forward)


@pytest.mark.parametrize(
    ("what", "name", "numbers"),
    [("embedding", "embedding.scale", TOKENS * 64), ("branches", "layer.mlp.scale", TOKENS * 64),
     ("branches", "layer.attention.scale", TOKENS * 64), ("logits", "head.scale", TOKENS * 1024)],
)  # fmt: skip
def test_a_constant_factor_reads_and_writes_once_each_way(what: str, name: str, numbers: int) -> None:
    """In an eager stack; a compiler makes it part of its neighbours. It keeps nothing."""
    for stack, expected in (("reference", [2 * 4 * numbers] * 2), ("torchtitan", [])):
        work = work_of(stack=stack, scales=(what,))
        every = (*work.embedding.operators, *layer_of(work).plain.operators, *work.head.operators)
        moved = [op.moved_bytes for op in every if op.name == name and isinstance(op, MemoryBound)]
        assert moved == expected
        assert sum(float(op.saved_bytes) for op in every if op.name == name and isinstance(op, MemoryBound)) == 0


def test_the_norm_of_embeddings_is_kept_for_each_micro_batch_in_flight() -> None:
    """On the first stage of a pipeline alone: four of four stages hold a stream each."""
    layout = replace(ONE_GPU, pipeline_parallel=4, global_batch_size=16 * SEQUENCES)
    deep: dict[str, Any] = {"layers": 8}
    with_norm = memory_bytes(work_of(layout, embedding_norm=True, **deep)).activations_bytes
    assert with_norm - memory_bytes(work_of(layout, **deep)).activations_bytes == pytest.approx(4 * STREAM, rel=1e-9)


@pytest.mark.parametrize("position", ["alibi", "none", "learned"])
def test_only_rotary_positions_rotate(position: str) -> None:
    """And of these only layers whose kind does."""
    for qk_norm in ("none", "head"):
        rotated = layer_of(work_of(position="rotary", qk_norm=qk_norm)).plain.forward
        assert any(op.name == "layer.attention.rotary" for op in rotated)
    others = layer_of(work_of(position=position, max_positions=64)).plain.forward
    assert not any(op.name == "layer.attention.rotary" for op in others)
    kinds = MappingProxyType({"all": LayerKind(rotary=False)})
    assert layer_of(work_of(position="rotary", layer_kinds=kinds)).plain.forward == layer_of(work_of()).plain.forward


def test_parts_change_no_products() -> None:
    """Norms, caps, factors and the place of residual connections multiply nothing."""
    everything = {
        "parallel_residual": "two_norms", "post_norms": True, "qk_norm": "head", "embedding_norm": True, "biases": True,
        "softcaps": ("attention", "logits"), "scales": ("embedding", "branches", "logits"),
    }  # fmt: skip

    def products(**parts: Any) -> list[tuple[str, float]]:
        work = work_of(**parts)
        every = (*layer_of(work).plain.operators, *work.head.operators)
        return [(op.name, float(op.flop)) for op in every if isinstance(op, Matmul)]

    assert products(**everything) == products()


def test_windows_of_the_whole_sequence_may_be_spread_over_ranks() -> None:
    """Nothing is cut off, so time and memory are those of full attention; shorter windows are refused."""
    layout = replace(SHARDED, context_parallel=2)

    def setup(window: int) -> Any:
        kinds = MappingProxyType({"sliding": LayerKind(attention="sliding", window=window)})
        return setup_of(replace(LLAMA, layer_kinds=kinds), layout)

    check_setup(setup(4096))
    assert not may_exist(setup(4095))
    full = predict_stage(setup_of(LLAMA, layout)).quantities()
    windowed = predict_stage(setup(4096)).quantities()
    assert {name: float(value) for name, value in windowed.items()} == pytest.approx(
        {name: float(value) for name, value in full.items()}, rel=1e-12
    )
    lengths = replace(layout, sequence_length=np.array([2048, 4096, 8192]))
    assert np.asarray(may_exist(replace(setup(4096), layout=lengths))).tolist() == [True, True, False]
