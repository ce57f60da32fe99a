"""What a decoder-only transformer is made of: the architecture, with no word on how it is trained."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np

from perfmodel.errors import InputError
from perfmodel.spec.fields import Numeric, Spec, check_fields, choice, count, flag, number, plain, text

GATED_ACTIVATIONS = ("swiglu", "geglu")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class TransformerModel(Spec):
    """A dense decoder: `layers` of attention and MLP between an embedding and a vocabulary head.

    `vocab_padding_multiple` is Megatron's make-vocab-size-divisible-by: the vocabulary is padded to a multiple of it times
    the tensor-parallel degree. `dropout` says that the training keeps dropout masks. Errors: InputError.
    """

    name: str = text()
    layers: Numeric = count()
    hidden_size: Numeric = count()
    attention_heads: Numeric = count()
    kv_heads: Numeric = count()
    head_size: Numeric = count()
    ffn_hidden_size: Numeric = count()
    activation: str = choice("gelu", "swiglu", "geglu", "squared_relu")
    norm: str = choice("layernorm", "rmsnorm")
    position: str = choice("rotary", "learned", default="rotary")
    rotary_fraction: float = number("ratio", above=0.0, maximum=1.0, default=1.0)
    max_positions: Numeric | None = number("count", minimum=1, integer=True, optional=True, default=None)  # when learned
    biases: bool = flag(default=False)
    dropout: bool = flag(default=False)
    tied_embeddings: bool = flag(default=False)
    vocab_size: Numeric = count()
    vocab_padding_multiple: int = count(default=128)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.position == "learned" and self.max_positions is None:
            raise InputError("missing; learned positions need their number", key="max_positions")
        if not np.all(np.remainder(self.attention_heads, self.kv_heads) == 0):
            heads = f"{plain(self.attention_heads)} attention heads{_divisors_text(self.attention_heads)}"
            raise InputError(f"{plain(self.kv_heads)} does not divide {heads}", key="kv_heads")

    @property
    def gated(self) -> bool:
        """Whether the MLP multiplies its activation with a second projection."""
        return self.activation in GATED_ACTIVATIONS

    @property
    def query_size(self) -> Numeric:
        """Width of all query heads together."""
        return self.attention_heads * self.head_size

    @property
    def kv_size(self) -> Numeric:
        """Width of all key heads together (and of all value heads)."""
        return self.kv_heads * self.head_size

    def padded_vocab_size(self, tensor_parallel: Numeric) -> Numeric:
        """The vocabulary that is really multiplied with: ceil(V / (multiple * t)) * multiple * t.

        Source: Megatron-LM, `_vocab_size_with_padding`.

        >>> from perfmodel.exchange.presets import model_preset
        >>> float(model_preset("gpt-3-175b").padded_vocab_size(8))
        51200.0
        """
        multiple = self.vocab_padding_multiple * tensor_parallel
        return np.ceil(self.vocab_size / multiple) * multiple


def divisors(value: float) -> list[int]:
    """All whole numbers that divide `value`, in rising order.

    >>> divisors(12), divisors(4097 * 4)
    ([1, 2, 3, 4, 6, 12], [1, 2, 4, 17, 34, 68, 241, 482, 964, 4097, 8194, 16388])
    """
    whole = int(value)
    small = [d for d in range(1, isqrt(whole) + 1) if whole % d == 0]
    return small + [whole // d for d in reversed(small) if d * d < whole]


def _divisors_text(value: Numeric) -> str:
    return "" if np.ndim(value) else f"; {', '.join(str(d) for d in divisors(float(value)))} would"
