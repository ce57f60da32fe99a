"""The folds over the operator list equal the equations of the papers: FLOPs, activation bytes, messages and buckets.

Symbols: b micro_batch_size, s sequence_length, h hidden_size, a attention_heads, L layers, t tensor_parallel, P parameters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel.count.iteration import Iteration, iteration, model_flop_per_token
from perfmodel.count.memory import activation_bytes, memory_bytes
from perfmodel.count.operators import (
    BACKWARD_PHASES,
    DATA_GRADIENT,
    FORWARD,
    RECOMPUTE,
    WEIGHT_GRADIENT,
    Collective,
    Operator,
    hardware_flop,
    model_flop,
)
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.synchronisation import GRADIENT_REDUCTION, PARAMETER_GATHER, buckets
from perfmodel.exchange.presets import model_preset, stack_preset
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, ProcessGroup
from perfmodel.spec.model import TransformerModel

FUSED = stack_preset("megatron-core")
UNFUSED = stack_preset("megatron-lm")
GPT3 = model_preset("gpt-3-175b")
LLAMA = model_preset("llama-3.1-8b")
NEMOTRON = model_preset("nemotron-4-15b")
MODELS = [GPT3, LLAMA, NEMOTRON, model_preset("nemotron-4-340b")]
SEQUENCE_LENGTH = 2048
LAYOUT = Layout(
    precision="bf16",
    tensor_parallel=8,
    data_parallel=4,
    sequence_parallel=True,
    sharding="zero1",
    recompute="none",
    micro_batch_size=1,
    global_batch_size=64,
    sequence_length=SEQUENCE_LENGTH,
)
DEGREES = np.array([1, 2, 4, 8])
MICRO_BATCHES = np.array([[1], [2], [4]])
EVERY_DEGREE = replace(LAYOUT, tensor_parallel=DEGREES, micro_batch_size=MICRO_BATCHES)


def name_of(value: object) -> str | None:
    """Name a model in a test id."""
    return value.name if isinstance(value, TransformerModel) else None


# --- FLOPs


@pytest.mark.parametrize("stack", [FUSED, UNFUSED], ids=["fused", "unfused"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=name_of)
