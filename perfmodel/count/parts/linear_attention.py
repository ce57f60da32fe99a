"""One matrix in the place of attention, through which tokens do not meet: what a search left of a layer's attention (DeciLM).

Source: modeling_decilm.py beside the weights of nvidia/Llama-3_1-Nemotron-51B-Instruct, DeciLMLinearAttention; every rank of a
tensor-parallel group multiplies its own tokens with all of it.
"""

from __future__ import annotations

from perfmodel.count.blocks import Block
from perfmodel.count.declarations import Component, LayerPart, Linear
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel


def linear_attention(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h x h, whole on every rank."""
    del tensor_parallel
    linear = Linear(
        name=f"{name}.linear",
        component=Component.ATTENTION,
        role=Role.PRODUCT,
        inner=model.hidden_size,
        columns=model.hidden_size,
        is_replicated=True,
    )
    return LayerPart(others={"linear": linear}, norm_before=model.pre_norms, norm_behind=model.post_norms)


def linear_core_flop(model: TransformerModel, kind: LayerKind, seen: Numeric) -> Numeric:
    """0: nothing is counted beside the linear."""
    del model, kind
    return 0.0 * seen


def linear_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """The product of the tokens of each rank."""
    del kind, name
    return write.own_linear(declared.others["linear"], write.tokens / write.token_shards)
