"""What parts of a layer are made of beside heads and an MLP: mixtures of experts, latent attention, mixers that keep a state.

A kind of layer (spec/models/layer_kinds.py) says which of them it has; a model describes each once.
"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np

from perfmodel.errors import InputError
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, Spec, anywhere, check_fields, count, flag, number, part, plain

WIDEST_HEAD: Final = 4096  # of latent attention and mixers that keep a state: kernels of theirs have tiles of 64 to 256 numbers
WIDEST_RANK: Final = 1_000_000  # of latent vectors: DeepSeek-V3 has 1,536 and 512
LONGEST_CONVOLUTION: Final = 256  # tokens: causal-conv1d has 2 to 4

S = TypeVar("S", bound=Spec)


def described(section: S | None, key: str) -> S:
    """A section of a model that some kind of layer has. Errors: InputError where the model has none."""
    if section is None:
        raise InputError("missing; some layers have what it describes", key=key)
    return section


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Mixture(Spec):
    """A mixture of experts: a router sends each token to some of many MLPs, beside one that all tokens pass.

    ffn_hidden_size          width of one routed expert; `shared_ffn_hidden_size` that of all shared experts together
    shared_gate              what shared experts give is weighed by a number that each token has for them
    router_bias              the router's product has a bias
    own_norms                routed and shared experts have a norm of their own each, behind them, beside that which both may
                             have; routed ones have one before them too, and the router one that is scaled by learned numbers
    groups                   of experts, of which a token meets `groups_per_token` at most: node-limited routing
    latent_size              routed experts act on tokens projected to this width, where they are narrower than the stream
    capacity_factor          an expert takes this many times the mean number of tokens, padded to it, and drops others; none:
                             all

    Errors: InputError.
    """

    experts: Numeric = count()
    experts_per_token: Numeric = count()
    ffn_hidden_size: Numeric = count()
    shared_experts: Numeric = count(minimum=0, default=0)
    shared_ffn_hidden_size: Numeric = count(minimum=0, default=0)
    shared_gate: bool = flag(default=False)
    router_bias: bool = flag(default=False)
    own_norms: bool = flag(default=False)
    groups: Numeric = count(default=1)
    groups_per_token: Numeric = count(default=1)
    latent_size: Numeric | None = number("count", minimum=1, integer=True, optional=True, default=None)
    capacity_factor: Numeric | None = number("ratio", above=0, optional=True, default=None)

    def __post_init__(self) -> None:
        check_fields(self)
        if np.any(np.asarray(self.experts_per_token) > self.experts):
            raise InputError(f"a token cannot meet more than {self.experts:g} experts", key="experts_per_token")
        if np.any(np.remainder(self.experts, self.groups)):
            raise InputError(f"{self.groups:g} groups do not divide {self.experts:g} experts", key="groups")
        if np.any(np.asarray(self.groups_per_token) > self.groups):
            raise InputError(f"a token cannot meet more than {self.groups:g} groups", key="groups_per_token")
        if np.any(np.asarray(self.shared_experts) > 0) and np.any(np.asarray(self.shared_ffn_hidden_size) == 0):
            raise InputError("missing; shared experts need their width", key="shared_ffn_hidden_size")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Indexer(Spec):
    """What chooses the `tokens` that attention reads of those before a token (DeepSeek-V3.2, arXiv:2512.02556).

    `heads` queries of `head_size` numbers meet one key of each token; their weighted sum is its score. That of grouped queries
    (MiniMax-M3) has a head for each of theirs, no weights, and chooses blocks of tokens.
    """

    heads: Numeric = count()
    head_size: Numeric = count(maximum=WIDEST_HEAD)
    tokens: Numeric = count()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class LatentAttention(Spec):
    """Multi-head latent attention (arXiv:2405.04434): keys and values of all heads come out of one narrow vector a token.

    query_rank          width of the vector that queries come out of; 0: they come out of the stream
    kv_rank             width of the one that keys and values come out of
    nope_head_size      of each head's queries and keys, without positions; beside them `rotary_head_size` with positions, whose
                        keys all heads share
    value_head_size     of each head's values
    indexer             what chooses the tokens that a token sees; without one it sees all before it
    """

    query_rank: Numeric = count(minimum=0, maximum=WIDEST_RANK, default=0)
    kv_rank: Numeric = count(maximum=WIDEST_RANK)
    nope_head_size: Numeric = count(maximum=WIDEST_HEAD)
    rotary_head_size: Numeric = count(maximum=WIDEST_HEAD)
    value_head_size: Numeric = count(maximum=WIDEST_HEAD)
    indexer: Indexer | None = part(Indexer, optional=True, default=None)

    @property
    def head_size(self) -> Numeric:
        """Head size of queries and keys: the part with positions and the part without."""
        return self.nope_head_size + self.rotary_head_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StateSpace(Spec):
    """A Mamba-2 mixer (arXiv:2405.21060): heads that keep a state of `state_size` numbers for each of theirs.

    `groups` of heads share what writes into the state and reads from it; `convolution` tokens meet before it, and chunks of
    `chunk_size` tokens are scanned at a time.
    """

    heads: Numeric = count()
    head_size: Numeric = count(maximum=WIDEST_HEAD)
    groups: Numeric = count()
    state_size: Numeric = count(maximum=WIDEST_HEAD)
    convolution: Numeric = count(maximum=LONGEST_CONVOLUTION, default=4)
    chunk_size: Numeric = count(default=128)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class GatedDelta(Spec):
    """A gated delta mixer (arXiv:2412.06464): linear attention whose state forgets, and is corrected by what it predicts.

    Queries and keys have `key_heads`, values and gates `value_heads`, which share the former. With a `gate_rank` each channel
    of the keys forgets at a rate of its own, and these and the gates come out of vectors of that width: Kimi's delta attention
    (arXiv:2510.26692), whose keys have as many heads as its values.
    """

    key_heads: Numeric = count()
    value_heads: Numeric = count()
    key_head_size: Numeric = count(maximum=WIDEST_HEAD)
    value_head_size: Numeric = count(maximum=WIDEST_HEAD)
    convolution: Numeric = count(maximum=LONGEST_CONVOLUTION, default=4)
    chunk_size: Numeric = count(default=64)
    gate_rank: Numeric = count(minimum=0, maximum=WIDEST_RANK, default=0)

    def __post_init__(self) -> None:
        check_fields(self)
        if np.any((np.asarray(self.gate_rank) > 0) & (np.asarray(self.key_heads) != self.value_heads)):
            raise InputError(f"{plain(self.key_heads)} are not the {plain(self.value_heads)} heads of values", key="key_heads")

    @property
    def has_rates_by_channel(self) -> bool:
        """Whether each channel of the keys forgets at a rate of its own, and not each head."""
        return anywhere(np.asarray(self.gate_rank) > 0)
