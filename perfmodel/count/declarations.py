"""What a part of a layer is made of: its linears, declared once, as one rank of a tensor-parallel group holds them.

Operators, parameters, FLOPs, kept inputs, messages and what a checkpoint holds are folds over these declarations. Parts are
declared in count/attention.py and count/feed_forward.py, the matrices of the vocabulary in count/vocabulary.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.spec.fields import Numeric


class Component(StrEnum):
    """What a parameter belongs to."""

    ATTENTION = "attention"
    FEED_FORWARD = "mlp"
    HEAD = "head"


LOW_PRECISION_COMPONENTS: Final = {  # by what a stack says of its low-precision products
    "mlp": (Component.FEED_FORWARD,),
    "layer": (Component.ATTENTION, Component.FEED_FORWARD),
    "all": (Component.ATTENTION, Component.FEED_FORWARD, Component.HEAD),
}


def takes_low_precision(component: Component, products: str) -> bool:
    """Whether the linears of a component are among the `products` that a stack runs in low precision.

    Errors: NotSupportedError for a choice of products that is not known here.
    """
    if products not in LOW_PRECISION_COMPONENTS:
        raise NotSupportedError(f"low-precision products of {products} are not counted", key="low_precision.products")
    return component in LOW_PRECISION_COMPONENTS[products]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One matrix of `inner` x `columns` numbers on a rank, and the bias of its columns.

    A bias of split columns is split with them; one of whole columns is whole on every rank. `useful` is the share of the
    columns that the published convention counts.
    """

    name: str
    component: Component
    role: Role
    inner: Numeric
    columns: Numeric
    useful: Numeric = 1.0
    has_bias: bool = False

    @property
    def parameters(self) -> Numeric:
        """inner * columns, and a bias for each column."""
        weights = self.inner * self.columns
        return weights + self.columns if self.has_bias else weights

    @property
    def model_flop_per_token(self) -> Numeric:
        """6 * inner * columns * useful: a multiplication and an addition, forward and twice backward."""
        return 6.0 * self.inner * self.columns * self.useful


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """Column-parallel linears of one input: as one product, and the columns by name of those that some software has instead."""

    joined: Linear
    apart: Mapping[str, Numeric] = field(default_factory=dict)

    @property
    def separate(self) -> tuple[Linear, ...]:
        """The linears of that software, beside each other; the joined one where none has them apart."""
        part, _, _ = self.joined.name.rpartition(".")
        apart = (replace(self.joined, name=f"{part}.{name}", columns=columns) for name, columns in self.apart.items())
        return tuple(apart) or (self.joined,)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPart:
    """One half of a layer: projections out of the stream, what works on their result, and the linear back into the stream."""

    into: Projections
    out: Linear
    norm_before: bool  # of the stream's width, and so is the one behind
    norm_behind: bool
    inner_norms: Numeric = 0  # parameters of norms that lie between its linears

    @property
    def norms(self) -> int:
        """How many norms of the stream's width it has."""
        return self.norm_before + self.norm_behind

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Every matrix of it, once."""
        return self.into.joined, self.out

    @property
    def parameters(self) -> Numeric:
        """Parameters of its linears; its norms are counted apart."""
        return self.into.joined.parameters + self.out.parameters

    @property
    def model_flop_per_token(self) -> Numeric:
        """Model FLOPs of its linears for one token."""
        return self.into.joined.model_flop_per_token + self.out.model_flop_per_token
