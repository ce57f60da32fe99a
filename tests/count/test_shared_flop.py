"""Are the model FLOPs of all GPUs together those of the published formula, however layers, tokens and batches are shared out?

MFU is a quotient of them: a GPU's model FLOPs times the GPUs are model_flop_per_token times the tokens of an iteration.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.count.flops import model_flop_per_token
from perfmodel.count.iteration import iteration
from perfmodel.count.model_counts import model_counts
from perfmodel.count.operators import hardware_flop, model_flop
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import predict_stage
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

LLAMA = model_preset("llama-3.1-8b")
GPT3 = model_preset("gpt-3-175b")
NEMOTRON = model_preset("nemotron-4-15b")
FUSED = stack_preset("megatron-core")
UNFUSED = stack_with(FUSED, {"fusion.attention": False})
LAYOUT = replace(RAMP_STAGE, tensor_parallel=1, data_parallel=4, global_batch_size=256, sequence_length=2048)

AXES: dict[str, dict[str, Any]] = {
    "tensor": {"tensor_parallel": 8},
    "pipeline": {"pipeline_parallel": 4},
    "interleaved": {"pipeline_parallel": 4, "virtual_pipeline": 2},
    "uneven": {"pipeline_parallel": 5},
    "deep": {"pipeline_parallel": 34},
    "zero bubble": {"pipeline_parallel": 4, "pipeline_schedule": "zb-2p"},
    "context": {"context_parallel": 4},
    "data": {"data_parallel": 64},
    "tensor and pipeline": {"tensor_parallel": 2, "pipeline_parallel": 8},
    "all": {"tensor_parallel": 2, "pipeline_parallel": 4, "virtual_pipeline": 2, "context_parallel": 8, "data_parallel": 8},
}


def of_all_gpus(model: TransformerModel, layout: Layout, **changes: Any) -> Numeric:
    """Model FLOPs of one token."""
    layout = replace(layout, **changes)
    flop = iteration(setup_of(model, layout, FUSED)).fold(model_flop)
    return flop * layout.gpus / layout.tokens_per_iteration


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("model", [LLAMA, NEMOTRON, GPT3], ids=lambda model: model.name)
def test_gpus_share_the_model_flop_of_a_token(model: TransformerModel, axis: str, recompute: str) -> None:
    """On any axis, and on all at once."""
    found = of_all_gpus(model, LAYOUT, recompute=recompute, **AXES[axis])
    assert found == pytest.approx(model_flop_per_token(model, 2048), rel=1e-13)


@pytest.mark.parametrize("sharding", ["none", "zero1", "zero2", "zero3", "hsdp"])
def test_sharding_costs_no_flop(sharding: str) -> None:
    """It moves parameters, not work."""
    replicas = 2 if sharding == "hsdp" else 1
    found = of_all_gpus(LLAMA, LAYOUT, sharding=sharding, data_parallel_replicas=replicas)
    assert found == of_all_gpus(LLAMA, LAYOUT)


@settings(deadline=None)
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 34),
    st.sampled_from([1, 2, 4, 16]),
    st.integers(1, 8),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1024, 8192, 131072]),
)
def test_no_layout_changes_the_model_flop_of_a_token(
    tensor: int, pipeline: int, context: int, data: int, micro: int, length: int
) -> None:
    """Nor does the micro-batch."""
    layout = replace(LAYOUT, tensor_parallel=tensor, pipeline_parallel=pipeline, context_parallel=context, data_parallel=data)
    found = of_all_gpus(LLAMA, layout, micro_batch_size=micro, global_batch_size=8 * micro * data, sequence_length=length)
    assert found == pytest.approx(model_flop_per_token(LLAMA, length), rel=1e-13)


@pytest.mark.parametrize("axis", [axis for axis in AXES if axis not in ("context", "all")])
def test_unfused_attention_is_shared_out_too(axis: str) -> None:
    """But not over ranks of a sequence, which is refused."""
    layout = replace(LAYOUT, **AXES[axis])
    flop = iteration(setup_of(LLAMA, layout, UNFUSED)).fold(model_flop) * layout.gpus / layout.tokens_per_iteration
    assert flop == pytest.approx(model_flop_per_token(LLAMA, 2048), rel=1e-13)


@pytest.mark.parametrize("layers", [0, 1, 8, 32])
@pytest.mark.parametrize("pipeline", [1, 4])
def test_each_layer_that_runs_again_costs_one_forward_pass_more(layers: int, pipeline: int) -> None:
    """A third of a layer's model FLOPs for each of the layers that every stage counts, no more than it has."""
    layout = replace(LAYOUT, recompute="full", recompute_layers=min(layers, 32 // pipeline), pipeline_parallel=pipeline)
    work = iteration(setup_of(LLAMA, layout, FUSED))
    again = min(layers * pipeline, 32) / 32
    logits = 6 * LLAMA.hidden_size * LLAMA.vocab_size
    in_layers = model_flop_per_token(LLAMA, 2048) - logits
    per_token = (work.fold(hardware_flop) - work.fold(model_flop)) * layout.gpus / layout.tokens_per_iteration
    padding = 6 * LLAMA.hidden_size * (LLAMA.padded_vocab_size(1) - LLAMA.vocab_size)
    assert per_token == pytest.approx(again * in_layers / 3 + padding, rel=1e-9, abs=1e-3)


@pytest.mark.parametrize("axis", ["tensor", "pipeline", "uneven", "context", "all"])
def test_utilisation_is_of_all_gpus_not_of_the_busiest(axis: str) -> None:
    """MFU = model FLOPs of a token * tokens / (time * GPUs * peak)."""
    cluster = cluster_preset("dgx-h100")
    predicted = predict_stage(setup_of(LLAMA, replace(LAYOUT, **AXES[axis]), FUSED, cluster=cluster))
    flop = predicted.model_flop_per_token * predicted.layout.tokens_per_iteration
    capacity_flop = predicted.iteration_time_s * predicted.layout.gpus * cluster.gpu.peak("bf16")
    assert predicted.mfu == pytest.approx(flop / capacity_flop, rel=1e-13)
    assert predicted.hfu >= predicted.mfu


def test_arrays_of_degrees_share_the_same_flop() -> None:
    """Stages down, ranks of a sequence across."""
    stages, context = np.array([[1], [4], [8]]), np.array([1, 2, 8])
    found = of_all_gpus(LLAMA, LAYOUT, pipeline_parallel=stages, context_parallel=context)
    assert found == pytest.approx(np.full((3, 3), float(model_flop_per_token(LLAMA, 2048))), rel=1e-13)


def test_a_model_is_counted_at_the_length_that_most_are_pretrained_with() -> None:
    """4,096 tokens, unless it has fewer positions: 12 * layers * hidden * tokens more of attention (PaLM, appendix B)."""
    short, long, free = (model_counts(replace(NEMOTRON, max_positions=most)) for most in (1024, 131072, None))
    assert long == free
    attention = 12 * float(NEMOTRON.layers) * float(NEMOTRON.hidden_size) * (4096 - 1024)
    assert long.model_flop_per_token - short.model_flop_per_token == pytest.approx(attention)
