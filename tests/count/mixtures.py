"""Mixtures of experts that tests count: DeepSeek-V3 in NVIDIA's layouts, and a small one whose numbers are easy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from perfmodel.count.operators import Operator
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_parts import Mixture
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

DEEPSEEK: Final = replace(model_preset("deepseek-v3"), multi_token_layers=1)
STACK: Final = stack_preset("megatron-bridge")
SMALL: Final = TransformerModel(
    name="small mixture",
    layers=4,
    hidden_size=64,
    attention_heads=4,
    kv_heads=2,
    head_size=16,
    ffn_hidden_size=96,
    activation="swiglu",
    norm="rmsnorm",
    vocab_size=256,
    mixture=Mixture(experts=8, experts_per_token=2, ffn_hidden_size=32, shared_experts=1, shared_ffn_hidden_size=48),
)


def layout_of(**settings: Any) -> Layout:
    """Layout of a mixture on eight replicas of four sequences each."""
    plain: dict[str, Any] = {
        "precision": "bf16",
        "tensor_parallel": 1,
        "data_parallel": 8,
        "sequence_parallel": True,
        "sharding": "zero1",
        "recompute": "none",
        "micro_batch_size": 1,
        "global_batch_size": 32,
        "sequence_length": 128,
    }
    return Layout(**(plain | settings))


def mixture_setup(model: TransformerModel, layout: Layout, stack: SoftwareStack = STACK, cluster: str = "gb200-nvl72") -> Setup:
    """What a layout of a mixture is counted and timed for."""
    return Setup(model=model, cluster=cluster_preset(cluster), stack=stack, layout=layout)


def of_role(operators: Iterable[Operator], *roles: Role) -> list[Operator]:
    """Keep the operators of some roles."""
    return [op for op in operators if op.role in roles]


PUBLISHED: Final = layout_of(  # of DeepSeek-V3, arXiv:2603.07685
    tensor_parallel=1,
    pipeline_parallel=4,
    virtual_pipeline=4,
    expert_parallel=64,
    data_parallel=64,
    global_batch_size=4096,
    sequence_length=4096,
    pipeline_layout="Et*4|(tttt|)*14tmL",
)
