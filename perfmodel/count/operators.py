"""What an operator of a training iteration is, and the folds over a list of them.

An operator is one kernel, or one tight family of kernels, on one GPU, with its true sharded shape. `repeats` says how
often it runs in one iteration. Its name is the same in a prediction and in a profiled step: `layer.mlp.fc1`; its phase
tells the passes apart, its role (count/roles.py) what it is for. All numbers may be arrays that broadcast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from perfmodel.count.roles import ATTENTION_CORE, DATA_PARALLEL, Role
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, RECOMPUTE, WEIGHT_GRADIENT
from perfmodel.spec.serving.formats import WIDE


@dataclass(frozen=True, slots=True, kw_only=True)
class Matmul:
    """`batch` products of (rows x inner) by (inner x columns).

    A product without a weight multiplies two activations. `weight_gradient_bytes` is the size of one number of the gradient
    that the weight gradient is added to, by the product itself where it `accumulates`. `useful` is the share of the columns
    that the published convention counts (padding of the vocabulary and copies of KV heads are not). `saved_bytes` are what
    the forward operator keeps of a micro-batch for its gradients. Its rows run in `pieces`, where a collective beside it
    brings them, or takes them away, piece by piece. Its weight may be gathered `apart` from its layer. The CPU launches so many
    `kernels` for it, or none where a CUDA graph has it `replayed`.
    """

    name: str
    phase: str = FORWARD
    role: Role = Role.PRODUCT
    repeats: Numeric = 1
    rows: Numeric
    columns: Numeric
    inner: Numeric
    batch: Numeric = 1
    useful: Numeric = 1.0
    precision: str
    has_weight: bool = True
    weight_gradient_bytes: Numeric = 0
    accumulates: bool = True
    saved_bytes: Numeric = 0.0
    pieces: Numeric = 1
    apart: bool = False
    kernels: Numeric = 1
    replayed: bool = False

    @property
    def flop(self) -> Numeric:
        """2 * batch * rows * columns * inner, once: a multiplication and an addition each."""
        return 2.0 * self.batch * self.rows * self.columns * self.inner

    @property
    def model_flop(self) -> Numeric:
        """What the published convention counts of one execution."""
        return 0.0 * self.flop if self.phase == RECOMPUTE else self.flop * self.useful


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedAttention:
    """Attention that never writes its scores to memory: `sequences` x `heads` of queries over keys, causal or of all to all.

    `counted` is how often the published convention, which takes the full square, counts each pair of this kernel: twice where
    the kernel leaves out the half of the square that the mask hides. With a `window` a query meets no more than so many keys,
    and the convention counts no others. Values may be narrower than queries and keys: `value_size` numbers a head. Those of
    `latent` attention came out of one narrow vector a token.
    """

    name: str
    phase: str = FORWARD
    role: Role = Role.CORE
    repeats: Numeric = 1
    sequences: Numeric
    heads: Numeric
    kv_heads: Numeric
    head_size: Numeric
    value_size: Numeric | None = None
    query_length: Numeric
    key_length: Numeric
    causal: bool = True
    window: Numeric | None = None
    latent: bool = False
    counted: Numeric = 1.0
    precision: str
    saved_bytes: Numeric = 0.0
    replayed: bool = False

    @property
    def widths(self) -> Numeric:
        """Numbers of a query and a value of one head together: 2 * head_size, unless values are narrower."""
        return 2.0 * self.head_size if self.value_size is None else self.head_size + 1.0 * self.value_size

    @property
    def farthest_key(self) -> Numeric:
        """Keys that the last query meets: min(k, window)."""
        return self.key_length if self.window is None else np.minimum(self.key_length, self.window)

    @property
    def mean_keys(self) -> Numeric:
        """Keys that a query meets on average: all k, under the causal mask w * (1 - w/(2*k)) with w = min(k, window).

        >>> sizes = {"sequences": 1, "heads": 1, "kv_heads": 1, "head_size": 64, "query_length": 8, "key_length": 8}
        >>> float(FusedAttention(name="core", precision="bf16", window=4, **sizes).mean_keys)
        3.0
        """
        if not self.causal:
            return self.key_length * 1.0
        if self.window is None:
            return self.key_length / 2.0
        seen = self.farthest_key
        return seen * (1.0 - seen / (2.0 * self.key_length))

    @property
    def flop(self) -> Numeric:
        """Both products of the forward pass over the full square, 2 * b * queries * keys * widths; twice that backwards.

        With a window, keys are at most as many as it holds.

        The published convention does not halve it for causality, nor count the scores that the backward kernel forms again.
        """
        pairs = self.sequences * self.heads * self.query_length * self.farthest_key * self.counted
        forward = 2.0 * pairs * self.widths
        return 2.0 * forward if self.phase == DATA_GRADIENT else forward

    @property
    def model_flop(self) -> Numeric:
        """What the published convention counts of one execution."""
        return 0.0 * self.flop if self.phase == RECOMPUTE else self.flop


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAttention:
    """One query of each of `sequences` over `context` keys and values of a cache; `cache_bytes` of all heads for one token.

    `latent` attention reads one narrow vector for all heads: queries of `head_size`, values of `value_size` numbers.
    """

    name: str
    role: Role = Role.CORE
    phase: str = FORWARD
    repeats: Numeric
    sequences: Numeric
    context: Numeric
    window: Numeric | None
    heads: Numeric
    head_size: Numeric
    value_size: Numeric
    cache_bytes: Numeric
    law: str
    latent: bool = False
    precision: str = WIDE  # of its arithmetic: what is narrow in the cache is widened

    @property
    def keys(self) -> Numeric:
        """Keys that a query meets: all, or those of the window."""
        return self.context if self.window is None else np.minimum(self.context, self.window)

    @property
    def read_bytes(self) -> Numeric:
        """B * min(n, window) * bytes of a token."""
        return self.sequences * self.keys * self.cache_bytes

    @property
    def scores(self) -> Numeric:
        """B * a * k: what queries of all heads have of the keys that they meet."""
        return self.sequences * self.heads * self.keys

    @property
    def flop(self) -> Numeric:
        """2 * B * a * k * (d + v)."""
        return 2.0 * self.scores * (self.head_size + self.value_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBound:
    """An operator whose time is the bytes it moves: `moved_bytes` forward, `backward_bytes` in its data gradient.

    `family` is norm, elementwise, optimizer or cast: what its kernels are like, and so which coefficients time them, unless
    those of its very `kernel` (coefficients.py, MEMORY_BOUND_KERNELS and FUSED_KERNELS) are known, for numbers of its
    `precision` or of any. Of a scan, `chained` steps wait for each other, however few of them there are beside each other.
    """

    name: str
    phase: str = FORWARD
    role: Role = Role.ELEMENTWISE
    repeats: Numeric = 1
    moved_bytes: Numeric
    backward_bytes: Numeric = 0.0
    kernels: Numeric = 1
    backward_kernels: Numeric = 1
    family: str = "elementwise"
    kernel: str = ""
    precision: str = ""
    saved_bytes: Numeric = 0.0
    calls: Numeric = 1
    chained: Numeric = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """One collective call of `kind` over `group`; `payload_bytes` is the full tensor, before it is split or after it is joined.

    `partner` is (name, phase) of the matrix product that can run at the same time, or ("", "") when nothing can.
    `pipelined` marks those that only a stack which cuts products into chunks can hide, `stepwise` those that copy engines make,
    a piece from neighbour to neighbour at a time. `beside_passes` is the share of its executions beside which another
    micro-batch computes.

    A token_exchange sends `payload_bytes` of tokens in `copies` each, chosen at random among the ranks, or those of
    `groups_met` out of `groups` of experts: once to each rank of its links' domain and once to each domain beyond.
    """

    name: str
    phase: str = FORWARD
    role: Role = Role.COLLECTIVE
    repeats: Numeric = 1
    kind: str  # all_reduce | all_gather | reduce_scatter | all_to_all | token_exchange | point_to_point
    payload_bytes: Numeric
    group: ProcessGroup
    partner: tuple[str, str] = ("", "")
    pipelined: bool = False
    stepwise: bool = False
    beside_passes: Numeric = 0.0
    copies: Numeric = 1
    groups: Numeric = 1
    groups_met: Numeric = 1
    replayed: bool = False

    @property
    def wire_bytes(self) -> Numeric:
        """What each rank sends: payload * (p - 1) / p, twice that for an all-reduce; all of a single message.

        Of tokens one copy for each rank that they meet.

        >>> group = ProcessGroup(name="tensor_parallel", ranks=8, stride=1)
        >>> Collective(name="gather", kind="all_gather", payload_bytes=800, group=group).wire_bytes
        700.0
        """
        if self.kind == "point_to_point":
            return self.payload_bytes
        if self.kind == "token_exchange":
            return self.once_bytes * ranks_met(self, self.group.ranks) * (self.group.ranks - 1) / self.group.ranks
        share = self.payload_bytes * (self.group.ranks - 1) / self.group.ranks
        return 2 * share if self.kind == "all_reduce" else share

    @property
    def once_bytes(self) -> Numeric:
        """All tokens of a token exchange, a single copy of each."""
        return self.payload_bytes / self.copies


def places_met(call: Collective, places: Numeric) -> Numeric:
    """Of n places that share the experts evenly, how many the copies of a token go to on average.

    n*(1 - (1 - 1/n)^k) for k copies at random; where they keep to g of G groups, G a multiple of n, at most
    n*(1 - C(G - G/n, g)/C(G, g)).

    >>> from perfmodel.spec.layout import ProcessGroup
    >>> group = ProcessGroup(name="expert_parallel", ranks=64, stride=1)
    >>> call = Collective(
    ...     name="dispatch", kind="token_exchange", payload_bytes=1, group=group, copies=8, groups=8, groups_met=4
    ... )
    >>> [round(float(places_met(call, nodes)), 2) for nodes in (2, 4, 8)]  # arXiv:2412.19437: at most 4 nodes
    [1.97, 3.14, 4.0]
    """
    n = np.asarray(places, dtype=np.float64)
    at_random: Numeric = n * (1.0 - np.power(1.0 - 1.0 / n, np.asarray(call.copies, dtype=np.float64)))
    groups, met = np.asarray(call.groups, dtype=np.float64), np.asarray(call.groups_met, dtype=np.float64)
    if not anywhere(met < groups):
        return at_random
    missed = np.ones(np.broadcast_shapes(n.shape, groups.shape, met.shape))
    for place in range(int(np.max(met))):
        share = np.maximum(groups - groups / n - place, 0.0) / np.maximum(groups - place, 1.0)
        missed = np.where(place < met, missed * share, missed)
    return np.where((met < groups) & (n <= groups), np.minimum(n * (1.0 - missed), call.copies), at_random)


def ranks_met(call: Collective, ranks: Numeric) -> Numeric:
    """Of the ranks that share the experts, how many the copies of a token go to on average, those of its groups at most."""
    within = np.maximum(np.asarray(ranks) * call.groups_met / call.groups, 1.0)
    return places_met(replace(call, groups=1, groups_met=1), within)


Operator: TypeAlias = Matmul | FusedAttention | MemoryBound | Collective


def gradients(operator: Operator) -> tuple[Operator, ...]:
    """What the backward pass runs for one forward operator that is not a collective.

    A product Y = X W has two: dX = dY W^T and dW = X^T dY. Both factors of a batched product (attention scores) are
    activations, so both of its gradients are data gradients.
    """
    match operator:
        case Matmul(rows=rows, columns=columns, inner=inner):
            data = replace(operator, phase=DATA_GRADIENT, columns=inner, inner=columns, saved_bytes=0.0)
            weight = replace(operator, phase=WEIGHT_GRADIENT, rows=inner, inner=rows, saved_bytes=0.0)
            return data, (weight if operator.has_weight else replace(weight, phase=DATA_GRADIENT))
        case FusedAttention():
            return (replace(operator, phase=DATA_GRADIENT, saved_bytes=0.0),)
        case MemoryBound(backward_bytes=moved, backward_kernels=kernels):
            return (replace(operator, phase=DATA_GRADIENT, moved_bytes=moved, kernels=kernels, saved_bytes=0.0),)
    raise TypeError(f"{operator.name} has no gradient of its own")


def model_flop(operators: Iterable[Operator]) -> Numeric:
    """Model FLOPs of one GPU in one iteration: no recompute, full attention, no padding."""
    return _sum(op.repeats * op.model_flop for op in operators if isinstance(op, Matmul | FusedAttention))


def hardware_flop(operators: Iterable[Operator]) -> Numeric:
    """Hardware FLOPs of one GPU in one iteration: model FLOPs plus recompute and vocabulary padding."""
    return _sum(op.repeats * op.flop for op in operators if isinstance(op, Matmul | FusedAttention))


def executed_flop(operators: Iterable[Operator]) -> Numeric:
    """FLOPs that the kernels of one GPU run in one iteration: hardware FLOPs without pairs of attention that a mask hides."""
    return _sum(op.repeats * op.flop * _run_share(op) for op in operators if isinstance(op, Matmul | FusedAttention))


def _run_share(operator: Matmul | FusedAttention) -> Numeric:
    """The share of the counted FLOPs that run."""
    if isinstance(operator, Matmul):
        return 1.0
    return operator.mean_keys / (operator.farthest_key * np.maximum(operator.counted, 1.0))


def is_attention_core(operator: Operator) -> bool:
    """Whether `operator` works on queries, keys, values and scores alone."""
    return operator.role in ATTENTION_CORE


def moves_data_parallel(operator: Operator) -> bool:
    """Whether `operator` is one of the collectives that data parallelism needs for gradients and parameters."""
    return operator.role in DATA_PARALLEL


def saved_bytes(operators: Iterable[Operator]) -> Numeric:
    """Bytes that the given forward operators keep for the backward pass, each counted once."""
    return _sum(op.saved_bytes for op in operators if not isinstance(op, Collective))


def _sum(terms: Iterable[Numeric]) -> Numeric:
    """Left to right, so that one layout and many of them are added up in the same order."""
    total: Numeric = 0.0
    for term in terms:
        total = total + term
    return total
