"""What a part of a layer is made of: its linears, declared once, as one rank of a tensor-parallel group holds them.

Operators, parameters, FLOPs, kept inputs, messages and what a checkpoint holds are folds over these declarations. Parts are
declared in attention.py and feed_forward.py, the matrices of the vocabulary in vocabulary.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from typing import Final

from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.tuning.fine_tuning import FineTuning


class Component(StrEnum):
    """What a parameter belongs to."""

    ATTENTION = "attention"
    FEED_FORWARD = "mlp"
    EXPERTS = "experts"
    HEAD = "head"


LOW_PRECISION_COMPONENTS: Final = {  # by what a stack says of its low-precision products
    "mlp": (Component.FEED_FORWARD, Component.EXPERTS),
    "layer": (Component.ATTENTION, Component.FEED_FORWARD, Component.EXPERTS),
    "all": (Component.ATTENTION, Component.FEED_FORWARD, Component.EXPERTS, Component.HEAD),
}


def takes_low_precision(component: Component, products: str) -> bool:
    """Whether the linears of a component are among the `products` that a stack runs in low precision.

    Errors: NotSupportedError for a choice of products that is not known here.
    """
    if products not in LOW_PRECISION_COMPONENTS:
        raise NotSupportedError(f"low-precision products of {products} are not counted", key="low_precision.products")
    return component in LOW_PRECISION_COMPONENTS[products]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertShards:
    """Over how many ranks the experts of a layer are spread, and over how many each of them."""

    ranks: Numeric = 1
    tensor: Numeric = 1


UNSHARDED: Final = ExpertShards()


def expert_shards(layout: Layout) -> ExpertShards:
    """How a layout spreads experts."""
    return ExpertShards(ranks=layout.expert_parallel, tensor=layout.expert_tensor_parallel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """One matrix of `inner` x `columns` numbers on a rank, and the bias of its columns; or several alike.

    A bias of split columns is split with them; one of whole columns is whole on every rank. `useful` is the share of the
    columns that the published convention counts. Of `number` matrices on a rank a token passes `per_token`, over all ranks.
    One that `is_replicated` is whole on every tensor-parallel rank, which multiplies its own tokens with it.
    """

    name: str
    component: Component
    role: Role
    inner: Numeric
    columns: Numeric
    useful: Numeric = 1.0
    has_bias: bool = False
    number: Numeric = 1
    per_token: Numeric = 1
    is_replicated: bool = False
    called: str = ""  # by those who put adapters beside it

    @property
    def parameters(self) -> Numeric:
        """number * inner * columns, and a bias for each column."""
        weights = self.number * self.inner * self.columns
        return weights + self.number * self.columns if self.has_bias else weights

    @property
    def model_flop_per_token(self) -> Numeric:
        """6 * inner * columns * useful * per_token: a multiplication and an addition, forward and twice backward."""
        return 6.0 * self.inner * self.columns * self.useful * self.per_token


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What is trained beside a frozen linear: inner x rank into a narrow vector, and rank x columns out of it.

    Sources: LoRA, arXiv:2106.09685; DoRA, arXiv:2402.09353, which has a magnitude for each column beside them.
    """

    linear: Linear
    rank: Numeric
    has_magnitudes: bool

    @property
    def parameters(self) -> Numeric:
        """number * rank * (inner + columns), and with magnitudes a number for each column."""
        linear = self.linear
        each = self.rank * (linear.inner + linear.columns) + (linear.columns if self.has_magnitudes else 0)
        return linear.number * each


def adapter_of(linear: Linear, tuning: FineTuning) -> Adapter | None:
    """The adapter beside a linear, where a fine-tuning has one there."""
    if not linear.called or not tuning.has_adapter(linear.called):
        return None
    return Adapter(linear=linear, rank=tuning.adapter_rank, has_magnitudes=tuning.has_magnitudes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projections:
    """Column-parallel linears of one input: as one product, and the columns by name of those that some software has instead."""

    joined: Linear
    apart: Mapping[str, Numeric] = field(default_factory=dict)

    @property
    def separate(self) -> tuple[Linear, ...]:
        """The linears of that software, beside each other; the joined one where none has them apart."""
        part, _, _ = self.joined.name.rpartition(".")
        apart = (
            replace(self.joined, name=f"{part}.{name}", columns=columns, called=name) for name, columns in self.apart.items()
        )
        return tuple(apart) or (self.joined,)

    def adapters(self, tuning: FineTuning) -> tuple[Adapter, ...]:
        """One beside each linear that has a name of its own, or one beside all of them as one."""
        linears = (self.joined, *self.separate) if self.apart else (self.joined,)
        each = (adapter_of(linear, tuning) for linear in linears)
        return tuple(adapter for adapter in each if adapter is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPart:
    """One half of a layer: projections out of the stream, what works on their result, and the linear back into the stream.

    `others` are matrices of it beside these, by what they are for; `inner_norms` counts the parameters of norms that lie
    between its linears, `inner_vectors` all that is neither a matrix nor a norm.
    """

    into: Projections | None = None
    out: Linear | None = None
    others: Mapping[str, Linear] = field(default_factory=dict)
    norm_before: bool  # of the stream's width, and so is the one behind
    norm_behind: bool
    inner_norms: Numeric = 0
    inner_vectors: Numeric = 0

    @property
    def projections(self) -> Projections:
        """The linears that the part begins with. Errors: TypeError for a part without any."""
        if self.into is None:
            raise TypeError("this part of a layer declares no projections")
        return self.into

    @property
    def output(self) -> Linear:
        """The linear back into the stream of a part that ends with one."""
        if self.out is None:
            raise TypeError("this part of a layer declares no linear back into the stream")
        return self.out

    @property
    def norms(self) -> int:
        """How many norms of the stream's width it has."""
        return self.norm_before + self.norm_behind

    @property
    def linears(self) -> tuple[Linear, ...]:
        """Every matrix of it, once."""
        ends = (self.into.joined if self.into else None, *self.others.values(), self.out)
        return tuple(linear for linear in ends if linear is not None)

    @property
    def tensors(self) -> int:
        """Its matrices and norms of the stream's width; ignored: biases, and norms and vectors inside it."""
        return len(self.linears) + self.norms

    @property
    def separate(self) -> tuple[Linear, ...]:
        """Every matrix of it, where projections of one input are a matrix each."""
        into = self.into.separate if self.into else ()
        return (*into, *self.others.values(), *((self.out,) if self.out else ()))

    def adapters(self, tuning: FineTuning) -> tuple[Adapter, ...]:
        """The adapters that a fine-tuning puts beside its linears, in the order of these."""
        joined = (self.into.joined,) if self.into and self.into.apart else ()
        each = (adapter_of(linear, tuning) for linear in (*joined, *self.separate))
        return tuple(adapter for adapter in each if adapter is not None)

    def parameters_of(self, component: Component) -> Numeric:
        """Parameters of its linears that belong to a component; its norms are counted apart."""
        total: Numeric = 0
        for linear in self.linears:
            if linear.component is component:
                total = total + linear.parameters
        return total

    @property
    def replicated_parameters(self) -> Numeric:
        """Parameters of the matrices that every tensor-parallel rank has whole."""
        total: Numeric = 0
        for linear in self.linears:
            if linear.is_replicated:
                total = total + linear.parameters
        return total

    @property
    def model_flop_per_token(self) -> Numeric:
        """Model FLOPs of its linears for one token."""
        first, *others = (linear.model_flop_per_token for linear in self.linears)
        total: Numeric = sum(others, first)
        return total
