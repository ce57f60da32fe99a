"""The feed-forward part of a layer: its linears, and what lies between them.

Each kind is a row of FEED_FORWARD: what it declares, and the memory-bound operators between its linears.

Symbols: h hidden_size, f ffn_hidden_size, t tensor_parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component, LayerPart, Linear, Projections
from perfmodel.count.operators import MemoryBound
from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layer_kinds import LayerKind
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedForwardKind:
    """How one kind of feed-forward part is counted: its linears, and the operators between them."""

    declaration: Callable[[TransformerModel, Numeric, str], LayerPart]
    between: Callable[[Setup, str], Block]


def feed_forward_kind(kind: LayerKind) -> FeedForwardKind:
    """How the feed-forward part of a kind of layer is counted. Errors: NotSupportedError for one that nothing here counts."""
    if kind.feed_forward not in FEED_FORWARD:
        problem = f"{kind.feed_forward} feed-forward parts are not counted; {', '.join(FEED_FORWARD)} are"
        raise NotSupportedError(problem, key="feed_forward")
    return FEED_FORWARD[kind.feed_forward]


def dense_mlp(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h x f out of the stream, twice when a gate is multiplied with it, and f x h back into it."""
    ffn = model.ffn_hidden_size / tensor_parallel
    joined = Linear(
        name=f"{name}.fc1",
        component=Component.FEED_FORWARD,
        role=Role.PRODUCT,
        inner=model.hidden_size,
        columns=(2 * model.ffn_hidden_size if model.gated else model.ffn_hidden_size) / tensor_parallel,
        has_bias=model.has_bias("mlp"),
    )
    apart = {"gate": ffn, "fc1": ffn} if model.gated else {}
    return LayerPart(
        into=Projections(joined=joined, apart=apart),
        out=Linear(
            name=f"{name}.fc2",
            component=Component.FEED_FORWARD,
            role=Role.OUTPUT_PRODUCT,
            inner=ffn,
            columns=model.hidden_size,
            has_bias=model.has_bias("mlp"),
        ),
        norm_before=model.pre_norms and model.parallel_residual != "one_norm",
        norm_behind=model.post_norms,
    )


class Traffic(NamedTuple):
    """How often an activation function reads or writes as many numbers as the MLP is wide, and in how many kernels."""

    forward_passes: int
    backward_passes: int
    forward_kernels: int = 1
    backward_kernels: int = 1


FUSED_ACTIVATION: Final = {
    "gelu": Traffic(2, 3),
    "relu": Traffic(2, 3),
    "squared_relu": Traffic(2, 3),
    "swiglu": Traffic(3, 5),
    "geglu": Traffic(3, 5),
}
# PyTorch's own kernels. GELU and ReLU are one. relu(x) ** 2: relu 2, pow 2; backwards x ** 1, * 2, * gradient 7, relu 3. A
# gated one: its function 2, product 3; backwards two products 6, the function 3, joining both halves 4.
EAGER_ACTIVATION: Final = {
    "gelu": Traffic(2, 3),
    "relu": Traffic(2, 3),
    "squared_relu": Traffic(4, 10, 2, 4),
    "swiglu": Traffic(5, 13, 2, 4),
    "geglu": Traffic(5, 13, 2, 4),
}


def activation(setup: Setup, name: str) -> Block:
    """The activation function: one kernel where the stack fuses it, else PyTorch's chain.

    Keeps its input (both halves when gated); a gated chain keeps its gate too. ReLU needs its result alone, which the product
    behind it keeps, unless that keeps a narrower copy or none.
    """
    model, layout, fusion = setup.model, setup.layout, setup.stack.fusion
    fused = fusion.squared_relu if model.activation == "squared_relu" else fusion.activation
    traffic = (FUSED_ACTIVATION if fused else EAGER_ACTIVATION)[model.activation]
    one = layout.recipe.activation_bytes * layout.tokens_per_micro_batch * (model.ffn_hidden_size / layout.tensor_parallel)
    is_kept_behind = model.activation == "relu" and not layout.recipe.casts and not fusion.recomputed_inputs
    return local(
        MemoryBound(
            name=f"{name}.activation",
            kernel=f"fused_{model.activation}" if fused and model.gated else model.activation,
            precision=layout.recipe.rest,
            moved_bytes=traffic.forward_passes * one,
            backward_bytes=traffic.backward_passes * one,
            kernels=traffic.forward_kernels,
            backward_kernels=traffic.backward_kernels,
            saved_bytes=((2 if fused else 3) if model.gated else 0 if is_kept_behind else 1) * one,
        )
    )


FEED_FORWARD: Final = {"dense": FeedForwardKind(declaration=dense_mlp, between=activation)}
