"""Layers of several kinds: sliding-window attention beside full attention, counted, timed and held in memory."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import transformers
from torch import nn

from perfmodel.count.declarations import Component
from perfmodel.count.flops import attention_flop_per_token, model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.layer import layer_parts
from perfmodel.count.operators import FusedAttention, Matmul, model_flop, saved_bytes
from perfmodel.count.parameters import parameter_count
from perfmodel.count.parts.part_kinds import ATTENTION, FEED_FORWARD
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.models.layer_kinds import ATTENTION_KINDS, FEED_FORWARD_KINDS, LayerKind
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.refusals import check_setup, may_exist
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

LLAMA = model_preset("llama-3.1-8b")
GEMMA = model_preset("gemma-2-9b")
MISTRAL = model_preset("mistral-7b-v0.1")
SMALL = replace(RAMP_STAGE, tensor_parallel=2, data_parallel=4, micro_batch_size=1, global_batch_size=128, sequence_length=8192)
PARALLEL: list[dict[str, Any]] = [
    {},
    {"pipeline_parallel": 4},
    {"pipeline_parallel": 4, "virtual_pipeline": 2},
    {"pipeline_parallel": 8, "virtual_pipeline": 4},
    {"pipeline_parallel": 3},
    {"pipeline_parallel": 4, "pipeline_schedule": "zb-h1"},
    {"recompute": "full"},
    {"recompute": "full", "recompute_layers": 3, "pipeline_parallel": 4},
    {"recompute": "full", "recompute_layers": 3, "pipeline_parallel": 4, "virtual_pipeline": 2},
    {"recompute": "selective", "sharding": "zero3"},
]


def mixed(window: int, pattern: str = "local local global", model: TransformerModel = LLAMA) -> TransformerModel:
    """The same model with layers of two kinds."""
    kinds = MappingProxyType({"local": LayerKind(attention="sliding", window=window), "global": LayerKind()})
    return replace(model, layer_kinds=kinds, layer_pattern=tuple(pattern.split()))


def sliding(window: int) -> TransformerModel:
    """Llama 3.1 8B with a window in every layer."""
    kinds = MappingProxyType({"sliding": LayerKind(attention="sliding", window=window)})
    return replace(LLAMA, layer_kinds=kinds)


def figures(predicted: StagePrediction) -> dict[str, float]:
    """Every number of a prediction that does not name its operators."""
    return {name: float(value) for name, value in predicted.quantities().items()}


def meta_parameters(config: Any) -> int:
    """Parameters of the model that transformers builds."""
    with transformers.modeling_utils.torch.device("meta"):
        network: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in network.parameters())


def test_gemma_2_has_the_parameters_of_transformers() -> None:
    """With the norms behind each part, and tied embeddings."""
    config = transformers.Gemma2Config(
        num_hidden_layers=42,
        hidden_size=3584,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        intermediate_size=14336,
    )
    assert parameter_count(GEMMA).total == meta_parameters(config) == 9_241_705_984


def test_mistral_7b_has_the_parameters_of_transformers() -> None:
    """All of its layers slide; a window has no parameters."""
    config = transformers.MistralConfig()
    assert parameter_count(MISTRAL).total == meta_parameters(config) == 7_241_732_096


@pytest.mark.parametrize("changes", PARALLEL, ids=str)
def test_windows_that_hold_the_whole_sequence_change_nothing(changes: dict[str, Any]) -> None:
    """Time, interval, parts and memory are those of layers that are all alike, whatever the pipeline does with them."""
    layout = replace(SMALL, **changes)
    alike = figures(predict_stage(setup_of(LLAMA, layout)))
    assert figures(predict_stage(setup_of(mixed(8192), layout))) == pytest.approx(alike, rel=1e-12)


@pytest.mark.parametrize(
    ("stages", "pieces", "pattern"), list(product((1, 2, 4, 8), (1, 2, 4), ("a b", "a a a a a b", "b a a")))
)
def test_the_stages_hold_every_layer_of_each_kind_once(stages: int, pieces: int, pattern: str) -> None:
    """First, all between, and last."""
    kinds = MappingProxyType({"a": LayerKind(attention="sliding", window=64), "b": LayerKind()})
    model = replace(LLAMA, layer_kinds=kinds, layer_pattern=tuple(pattern.split()))
    work = iteration(setup_of(model, replace(SMALL, pipeline_parallel=stages, virtual_pipeline=pieces if stages > 1 else 1)))
    first, middle, last = work.stages
    for kind in model.kinds:
        ends = first.held.every[kind] + (last.held.every[kind] if stages > 1 else 0)
        assert ends + work.split.between.every[kind] == model.layers_of(kind, 0, 32)
    assert sum(middle.held.every.values()) <= middle.layers


def test_the_fullest_middle_stage_is_the_one_with_most_full_layers() -> None:
    """Eight stages of four layers; in a period of six one layer is full, so no stage has more than one, and some none."""
    work = iteration(setup_of(mixed(512, "local local local local local global"), replace(SMALL, pipeline_parallel=8)))
    assert float(work.stages.middle.held.every["global"]) == 1.0
    assert float(work.stages.first.held.every["global"]) == 0.0


def test_arrays_of_pipelines_are_those_of_single_ones() -> None:
    """Numbers broadcast, with several kinds as with one."""
    numbers: dict[str, Any] = {
        "pipeline_parallel": np.array([1, 2, 4, 8, 4]),
        "virtual_pipeline": np.array([1, 2, 1, 4, 4]),
        "sequence_length": np.array([8192, 4096, 1024, 512, 16384]),
    }
    stages = numbers["pipeline_parallel"]
    many = predict_stage(setup_of(mixed(1024), replace(SMALL, **numbers)))
    for place in range(len(stages)):
        own: dict[str, Any] = {name: int(values[place]) for name, values in numbers.items()}
        alone = replace(SMALL, **own)
        one = predict_stage(setup_of(mixed(1024), alone))
        for name, value in one.quantities().items():
            together = np.broadcast_to(np.asarray(many.quantities()[name]), stages.shape)[place]
            assert together == pytest.approx(float(value), rel=1e-12), name


@pytest.mark.parametrize("stack", ["megatron-core", "megatron-lm"])
def test_operators_count_the_flops_of_the_closed_form(stack: str) -> None:
    """Fused and unfused: a windowed layer counts min(window, s) keys a query, a full one s."""
    layout = replace(SMALL, tensor_parallel=1, data_parallel=1, sequence_parallel=False, global_batch_size=1)
    for model in (mixed(1024), GEMMA, MISTRAL):
        work = iteration(setup_of(model, layout, stack_preset(stack)))
        counted = model_flop(work.operators) / layout.sequence_length
        assert counted == pytest.approx(model_flop_per_token(model, layout.sequence_length), rel=1e-12)


def test_attention_flops_of_a_pattern_are_those_of_its_layers() -> None:
    """21 of Gemma's 42 layers see 4,096 of 8,192 keys: three quarters of full attention."""
    full = 12 * 42 * GEMMA.query_size * 8192
    assert attention_flop_per_token(GEMMA, 8192) == 0.75 * full
    assert attention_flop_per_token(GEMMA, 4096) == full / 2


@pytest.mark.parametrize(("length", "window"), [(512, 512), (512, 64), (512, 1), (300, 7), (64, 1000)])
def test_a_query_meets_as_many_keys_as_the_mask_leaves(length: int, window: int) -> None:
    """Against the mask itself: the law leaves out half a key a query, on the diagonal."""
    query, key = np.mgrid[:length, :length]
    mask = (key <= query) & (query - key < window)
    core = FusedAttention(
        name="core",
        sequences=1,
        heads=1,
        kv_heads=1,
        head_size=64,
        query_length=length,
        key_length=length,
        precision="bf16",
        window=window,
    )
    seen = min(window, length)
    assert float(core.mean_keys) == pytest.approx(mask.sum() / length - seen / (2 * length), rel=1e-12)


def test_a_window_keeps_what_full_attention_keeps() -> None:
    """Queries, keys, values and one statistic a query."""
    layers = iteration(setup_of(mixed(256), SMALL)).layers
    assert saved_bytes(layers["local"].plain.forward) == saved_bytes(layers["global"].plain.forward)


def test_every_kind_of_part_that_a_model_may_have_is_counted() -> None:
    """A kind that is only named is refused, never taken for another."""
    assert set(ATTENTION) == set(ATTENTION_KINDS) - {"none"}
    assert set(FEED_FORWARD) == set(FEED_FORWARD_KINDS) - {"none"}


def test_kinds_have_names_of_their_own() -> None:
    """Where there are several; the layers of one kind are called as they always were."""
    names = {op.name for blocks in iteration(setup_of(mixed(256), SMALL)).layers.values() for op in blocks.plain.forward}
    assert {"layer.local.attention.core", "layer.global.attention.core"} <= names
    (blocks,) = iteration(setup_of(MISTRAL, SMALL)).layers.values()
    assert "layer.attention.core" in {op.name for op in blocks.plain.forward}


def test_shorter_windows_take_less_time() -> None:
    """At 32k tokens; a window of the whole sequence is none."""
    layout = replace(SMALL, sequence_length=32768, tensor_parallel=8)
    times = [
        float(predict_stage(setup_of(sliding(window), layout)).breakdown.attention_s) for window in (512, 4096, 16384, 32768)
    ]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(float(predict_stage(setup_of(LLAMA, layout)).breakdown.attention_s), rel=1e-12)
    assert times[0] < times[-1] / 8


def test_windows_over_ranks_of_a_sequence_are_not_covered() -> None:
    """Said as such, and left out of searches."""
    setup = setup_of(MISTRAL, replace(SMALL, context_parallel=2))
    with pytest.raises(NotSupportedError, match="sliding attention over 2 ranks"):
        check_setup(setup)
    assert not may_exist(setup)


@pytest.mark.parametrize("model", [LLAMA, GEMMA, model_preset("gpt-3-175b")], ids=lambda model: model.name)
def test_declared_parameters_are_those_of_the_operators(model: TransformerModel) -> None:
    """The weights of a layer are the products of its forward pass, inner by columns."""
    for kind, blocks in iteration(setup_of(model, SMALL)).layers.items():
        parts = layer_parts(model, model.kinds[kind], SMALL.tensor_parallel)
        linears = [linear for part in parts for linear in part.linears]
        products = [op for op in blocks.plain.forward if isinstance(op, Matmul) and op.has_weight]
        assert sum(float(op.columns * op.inner) for op in products) == sum(float(each.inner * each.columns) for each in linears)
        assert {each.component for each in linears} == {Component.ATTENTION, Component.FEED_FORWARD}
