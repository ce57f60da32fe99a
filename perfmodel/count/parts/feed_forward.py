"""The MLP of a layer, which all tokens pass: its linears, and what lies between them.

Symbols: h hidden_size, f ffn_hidden_size, t tensor_parallel.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import UNSHARDED, Component, ExpertShards, LayerPart, Linear, Projections
from perfmodel.count.operators import MemoryBound
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup


def dense_mlp(model: TransformerModel, tensor_parallel: Numeric, name: str, experts: ExpertShards = UNSHARDED) -> LayerPart:
    """h x f out of the stream, twice when a gate is multiplied with it, and f x h back into it."""
    del experts
    ffn = model.ffn_hidden_size / tensor_parallel
    joined = Linear(
        name=f"{name}.fc1",
        component=Component.FEED_FORWARD,
        role=Role.PRODUCT,
        inner=model.hidden_size,
        columns=(2 * model.ffn_hidden_size if model.gated else model.ffn_hidden_size) / tensor_parallel,
        has_bias=model.has_bias("mlp"),
        called="" if model.gated else "fc1",
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
            called="fc2",
        ),
        norm_before=model.pre_norms and model.parallel_residual != "one_norm",
        norm_behind=model.post_norms,
    )


def dense_inside(write: StreamOperators, declared: LayerPart, name: str, shares_input: bool) -> Block:
    """Projections, the activation function, the linear back into the stream."""
    numbers = write.layout.tokens_per_micro_batch * (write.model.ffn_hidden_size / write.layout.tensor_parallel)
    between = activation(write.setup, name, numbers)
    return write.projections(declared.projections, shares_input=shares_input) + between + write.row_linear(declared.output)


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


def activation(setup: Setup, name: str, numbers: Numeric, role: Role = Role.ELEMENTWISE, *, weighed: bool = False) -> Block:
    """The activation function on so many numbers of each half: one kernel where the stack fuses it, else PyTorch's chain.

    Keeps its input (both halves when gated); a gated chain keeps its gate too. ReLU needs its result alone, which the product
    behind it keeps, unless that keeps a narrower copy or none. Where a router's weights multiply the result, software has one
    kernel for both; backwards another reads input and gradient again, for the gradient of the weights.
    """
    model, layout, fusion = setup.model, setup.layout, setup.stack.fusion
    fused = fusion.squared_relu if model.activation == "squared_relu" else fusion.activation
    fused = weighed or fused
    traffic = (FUSED_ACTIVATION if fused else EAGER_ACTIVATION)[model.activation]
    again = (3 if model.gated else 2) if weighed else 0
    one = layout.recipe.activation_bytes * numbers
    is_kept_behind = model.activation == "relu" and not layout.recipe.casts and not fusion.recomputed_inputs
    return local(
        MemoryBound(
            name=f"{name}.activation",
            role=role,
            kernel=f"fused_{model.activation}" if fused and model.gated else model.activation,
            precision=layout.recipe.rest,
            moved_bytes=traffic.forward_passes * one,
            backward_bytes=(traffic.backward_passes + again) * one,
            kernels=traffic.forward_kernels,
            backward_kernels=traffic.backward_kernels + weighed,
            saved_bytes=((2 if fused else 3) if model.gated else 0 if is_kept_behind else 1) * one,
        )
    )
