"""What is served, on what, and how it is asked: one setup of a server, and one load on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Final

import numpy as np

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, plain
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.layer_kinds import STATE_MIXERS
from perfmodel.spec.models.model import TransformerModel, divisors
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.formats import CacheFormat, WeightFormat
from perfmodel.spec.serving.profile import ServingProfile

SERVED_ATTENTION = ("full", "sliding", "indexed", "latent", *STATE_MIXERS, "linear")
MOST_GPUS: Final = 100_000  # of one server


@dataclass(frozen=True, kw_only=True, eq=False)
class ServingSetup:
    """One replica of a model on the GPUs of one engine.

    Matrices are split over `tensor_parallel` GPUs of one node. `attention_replicas` of them share no sequence: attention is
    then split over the others alone (data-parallel attention). Experts lie whole on `expert_parallel` groups of the GPUs, split
    over the rest.
    """

    model: TransformerModel
    cluster: Cluster
    profile: ServingProfile
    engine: Engine
    weights: WeightFormat
    cache: CacheFormat
    tensor_parallel: int = 1
    attention_replicas: int = 1
    expert_parallel: int = 1

    def __post_init__(self) -> None:
        for kind in self.model.kinds.values():
            if kind.attention not in (*SERVED_ATTENTION, "none"):
                known = ", ".join(SERVED_ATTENTION)
                raise NotSupportedError(f"serving {kind.attention} layers is not covered; {known} attention is", key="model")
        if not 1 <= self.tensor_parallel <= MOST_GPUS:
            raise InputError(f"{plain(self.tensor_parallel)} is not from 1 to {MOST_GPUS:,}", key="tensor_parallel")
        _check_divides(self.attention_replicas, self.tensor_parallel, "GPUs", "attention_replicas")
        _check_divides(self.expert_parallel, self.tensor_parallel, "GPUs", "expert_parallel")
        for heads in (self.model.attention_heads, *self._own_heads()):
            _check_divides(self.attention_tensor, heads, "attention heads", "tensor_parallel")
        if self.model.state_space is not None:
            _check_divides(self.attention_tensor, self.model.state_space.heads, "heads of Mamba-2", "tensor_parallel")
        if self.model.delta is not None:
            _check_divides(self.attention_tensor, self.model.delta.key_heads, "key heads of the delta rule", "tensor_parallel")
        if self.expert_parallel > 1 and self.model.mixture is None:
            raise InputError("this model has no experts to spread", key="expert_parallel")

    def _own_heads(self) -> Iterator[Numeric]:
        """Attention heads of the kinds of layers that have another number of them."""
        yield from (kind.attention_heads for kind in self.model.kinds.values() if kind.attention_heads is not None)

    @cached_property
    def layers(self) -> Mapping[str, Numeric]:
        """How many layers there are of each kind."""
        model = self.model
        return {name: model.layers_of(name, 0, model.layers) for name in model.kinds}

    @property
    def attention_tensor(self) -> int:
        """GPUs that the heads of one sequence are split over."""
        return self.tensor_parallel // self.attention_replicas

    @property
    def expert_tensor(self) -> int:
        """GPUs that each expert is split over."""
        return self.tensor_parallel // self.expert_parallel

    @property
    def circuits(self) -> str:
        """The format in which products with many rows run: that of the weights where the GPU has it, else 16 bits."""
        return self.weights.circuits if self.weights.circuits in self.cluster.gpu.peak_flop_per_s else self.wide

    @property
    def wide(self) -> str:
        """The format of 16 bits in which everything else runs."""
        return self.cluster.gpu.wide_precision


def _check_divides(degree: int, size: Numeric, what: str, key: str) -> None:
    if degree < 1 or np.remainder(size, degree):
        ways = ", ".join(map(str, divisors(float(size))[:12]))
        raise InputError(f"{plain(degree)} does not divide {plain(size)} {what}; {ways} would", key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What clients ask: tokens of a prompt, and tokens that come back; means where they vary."""

    input_tokens: Numeric
    output_tokens: Numeric

    def __post_init__(self) -> None:
        for key in ("input_tokens", "output_tokens"):
            if not np.all(np.asarray(getattr(self, key)) >= 1):
                raise InputError(f"{plain(getattr(self, key))} is less than 1", key=key)

    @property
    def total_tokens(self) -> Numeric:
        """Tokens of a sequence when it ends."""
        return self.input_tokens + self.output_tokens

    @property
    def mean_context(self) -> Numeric:
        """Tokens that a sequence has in the cache on average while it decodes: the prompt and half of what comes back."""
        return self.input_tokens + self.output_tokens / 2.0
