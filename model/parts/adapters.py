"""What is trained beside frozen linears: two narrow matrices, whose product is added to the weight (LoRA, arXiv:2106.09685).

y = x W^T + s * (x A^T) B^T, with A of rank x inner, B of columns x rank, and s = alpha / rank. B begins at 0, so that the model
does. Both are fp32, and multiply in the precision of the activations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch

from perfmodel.model.operators import operator
from perfmodel.model.parts.attention import GroupedQueryAttention
from perfmodel.model.parts.feed_forward import Mlp
from perfmodel.model.parts.linears import Linear, add_to_main
from perfmodel.spec.phases import DATA_GRADIENT, WEIGHT_GRADIENT
from perfmodel.spec.tuning.fine_tuning import FineTuning

ALIKE: Final = {"key": "of keys", "value": "of keys", "gate": "of the MLP", "fc1": "of the MLP"}  # whose results are as wide
ALPHA: Final = 2.0  # times the rank: how much adapters weigh (PEFT's usual lora_alpha); no count depends on it


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, y: torch.Tensor, x: torch.Tensor, _: torch.Tensor, adapter: Adapter) -> torch.Tensor:
        context.adapter, names = adapter, adapter.names
        with operator(names.first_product):
            narrow = x @ adapter.into.to(x.dtype).T
        with operator(names.second_product):
            wide = narrow @ adapter.out.to(x.dtype).T
        with operator(names.total):
            y[:, adapter.first : adapter.last].add_(wide, alpha=adapter.scale)
        context.save_for_backward(x, narrow)
        context.mark_dirty(y)
        return y

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        (x, narrow), adapter, names = context.saved_tensors, context.adapter, context.adapter.names
        with operator(names.total, DATA_GRADIENT):
            dy = gradients[0][:, adapter.first : adapter.last] * adapter.scale
        with operator(names.second_product, WEIGHT_GRADIENT):
            add_to_main(adapter.out, dy.T @ narrow)
        with operator(names.second_product, DATA_GRADIENT):
            dn = dy @ adapter.out.to(dy.dtype)
        with operator(names.first_product, WEIGHT_GRADIENT):
            add_to_main(adapter.into, dn.T @ x)
        with operator(names.first_product, DATA_GRADIENT):
            dx = dn @ adapter.into.to(dn.dtype)
        return gradients[0], dx, None, None


@dataclass(frozen=True, slots=True)
class Names:
    """What the operators of an adapter are called: those of one input count together, and so do those with equal results."""

    first_product: str
    second_product: str
    total: str


class Adapter(torch.nn.Module):
    """Beside the columns `first` to `last` of a linear."""

    def __init__(self, names: Names, inner: int, first: int, last: int, *, rank: int) -> None:
        super().__init__()
        self.names, self.first, self.last, self.scale = names, first, last, ALPHA
        self.into = torch.nn.Parameter(torch.empty(rank, inner, dtype=torch.float32))
        self.out = torch.nn.Parameter(torch.empty(last - first, rank, dtype=torch.float32))

    def forward(self, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The result of the linear on x, and what the adapter adds to it."""
        result: torch.Tensor = _Adapted.apply(y, x, self.into, self)
        return result

    @torch.no_grad()
    def begin(self, chance: torch.Generator) -> None:
        """A uniform within 1 / sqrt(inner), as torch begins a linear; B zero."""
        bound = self.into.shape[1] ** -0.5
        self.into.uniform_(-bound, bound, generator=chance)
        self.out.zero_()

    @property
    def merged(self) -> torch.Tensor:
        """What it adds to the rows of its weight: s * B A."""
        return self.scale * (self.out @ self.into)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an adapter may stand: beside some columns of a linear, under the name that people have for them."""

    target: str
    linear: Linear
    first: int
    last: int


def places(module: torch.nn.Module) -> Iterator[Place]:
    """Every place for an adapter in a part of a layer."""
    if isinstance(module, GroupedQueryAttention):
        query, kv = module.heads * module.head_size, module.kv_heads * module.head_size
        ends = (("query", 0, query), ("key", query, query + kv), ("value", query + kv, query + 2 * kv))
        yield from (Place(target, module.qkv, first, last) for target, first, last in (*ends, ("qkv", 0, query + 2 * kv)))
        yield Place("projection", module.projection, 0, len(module.projection.weight))
    elif isinstance(module, Mlp):
        wide = len(module.fc1.weight)
        gated = module.kind in ("swiglu", "geglu")
        if gated:
            yield Place("gate", module.fc1, 0, wide // 2)
        yield Place("fc1", module.fc1, wide // 2 if gated else 0, wide)
        yield Place("fc2", module.fc2, 0, len(module.fc2.weight))


def add_adapters(model: torch.nn.Module, tuning: FineTuning) -> None:
    """Freeze all parameters of a model, and put adapters beside the linears that a fine-tuning names."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for module in list(model.modules()):
        chosen = [place for place in places(module) if tuning.has_adapter(place.target)]
        for place in chosen:
            beside = [each for each in chosen if each.linear is place.linear]
            alike = [each for each in beside if ALIKE.get(each.target) == ALIKE.get(place.target)]
            of_input, of_result = (f"{each.linear.name.rpartition('.')[0]}.{each.target}" for each in (beside[0], alike[0]))
            names = Names(f"{of_input}.adapter_in", f"{of_result}.adapter_out", f"{of_input}.adapter_sum")
            sizes = (place.linear.weight.shape[1], place.first, place.last)
            place.linear.adapters.append(Adapter(names, *sizes, rank=int(tuning.adapter_rank)))


def adapters_of(model: torch.nn.Module) -> list[Adapter]:
    """All adapters of a model, in the order of its modules."""
    return [module for module in model.modules() if isinstance(module, Adapter)]


@torch.no_grad()
def merge(model: torch.nn.Module) -> None:
    """Add what adapters add to the weights themselves; the model then computes the same without them."""
    for linear in [module for module in model.modules() if isinstance(module, Linear)]:
        for adapter in linear.adapters:
            linear.weight[adapter.first : adapter.last].add_(adapter.merged)
        linear.adapters = torch.nn.ModuleList()
