"""What one forward pass of a served model runs on a GPU: tokens of prompts, and one token of each sequence with a past.

The declarations of layer parts are those of training; there is no backward pass, keys and values of earlier tokens are in a
cache, and the head multiplies sampled rows alone.

Symbols: B sequences that decode, n tokens of each in the cache, P prompts of S tokens, R = B + P*S rows, t tensor_parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, lru_cache
from typing import Final, NamedTuple

import numpy as np

from perfmodel.count.busiest import busiest_load, share_met
from perfmodel.count.declarations import Component, ExpertShards, LayerPart, Linear
from perfmodel.count.layer import layer_name, layer_parts
from perfmodel.count.operators import CachedAttention, Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.parts.experts import OWN_NORMS
from perfmodel.count.parts.layer_embeddings import has_layer_embeddings, layer_numbers, layer_projection
from perfmodel.count.parts.vocabulary import head_linear
from perfmodel.count.roles import Role
from perfmodel.count.serving.mixers import mixer_operators
from perfmodel.count.serving.served_attention import attention_operators
from perfmodel.count.serving.sparse import KeyChoice, SparseAttention
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.layout import ProcessGroup
from perfmodel.spec.models.layer_kinds import BORROWED, STATE_MIXERS, TOKENWISE, LayerKind
from perfmodel.spec.models.layer_parts import described
from perfmodel.spec.precision import FP32_BYTES, operand_bytes
from perfmodel.spec.serving.formats import WIDE, WIDE_BYTES
from perfmodel.spec.serving.setup import ServingSetup

ROUTER_KERNELS: Final = 2  # scores to chosen experts, and the order of tokens
MOVES: Final = 2  # of tokens to their experts and back
GATED_SUM: Final = 6  # numbers moved for one of shared experts that is multiplied with a gate and added to the others' result


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardPass:
    """The tokens of one pass of one replica; numbers broadcast.

    `sequences` decode, each over `context` tokens of the cache; `prompts` of `prompt_tokens` each are read.
    """

    sequences: Numeric = 0.0
    context: Numeric = 0.0
    prompts: Numeric = 0.0
    prompt_tokens: Numeric = 0.0

    @property
    def rows(self) -> Numeric:
        """Tokens that pass every layer: B + P*S."""
        return self.sequences + self.prompts * self.prompt_tokens

    @property
    def sampled(self) -> Numeric:
        """Rows that the head multiplies: the last of each sequence and prompt."""
        return self.sequences + self.prompts

    def shared_by(self, replicas: Numeric) -> ForwardPass:
        """What the busiest of several replicas of attention has of it, which the others wait for.

        They are dealt out evenly; of fewer prompts or sequences than replicas, or parts of one, it has one as a whole.

        >>> ForwardPass(sequences=64, prompts=1.5, prompt_tokens=1000).shared_by(8).rows.item()
        1008.0
        """
        prompts, sequences = (
            np.maximum(each / replicas, np.minimum(np.asarray(each, dtype=float), 1.0))
            for each in (self.prompts, self.sequences)
        )
        return replace(self, sequences=sequences, prompts=prompts)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedProduct(Matmul):
    """A product whose weights are held in a format of their own: `weight_bytes` a number, timed by `law` with few rows.

    One that runs `beside` others on another stream starts while they run. Of experts, `choices` are those of all tokens of the
    pass, also of experts on other GPUs.
    """

    weight_bytes: Numeric
    law: str
    beside: bool
    choices: Numeric = 0.0

    @property
    def read_bytes(self) -> Numeric:
        """The weights once, the rows read and written in 16 bits."""
        weights = self.weight_bytes * self.inner * self.columns
        return self.batch * (weights + WIDE_BYTES * self.rows * (self.inner + self.columns))


ServedOperator = (
    ServedProduct | CachedAttention | FusedAttention | KeyChoice | SparseAttention | MemoryBound | Collective | Matmul
)  # the last: of a scan


def forward_operators(setup: ServingSetup, tokens: ForwardPass) -> tuple[ServedOperator, ...]:
    """The operators of one GPU for one pass, in the order in which they run; `repeats` counts layers of one kind."""
    writer = _PassOperators(setup, tokens)
    operators = [*writer.embedding()]
    for name in setup.model.kinds:
        seen = _seen_in(setup, name)
        operators += _PassOperators(seen, tokens, repeats=setup.layers[name]).layer(name, seen.model.kinds[name])
    return (*operators, *writer.head())


@lru_cache(maxsize=256)
def _seen_in(setup: ServingSetup, name: str) -> ServingSetup:
    """The server as if all layers of its model had the sizes that a kind of layer has of its own."""
    kind = setup.model.kinds[name]
    return replace(setup, model=setup.model.seen_in(kind)) if kind.own else setup


class DeclaredLayer(NamedTuple):
    """The parts of a layer, None for one that its kind has not."""

    attention: LayerPart | None
    feed_forward: LayerPart | None
    own_input: LayerPart | None


@lru_cache(maxsize=256)
def _declared(setup: ServingSetup, name: str) -> DeclaredLayer:
    """What the parts of a kind of layer declare: the same for every pass of a server."""
    model, kind, called = setup.model, setup.model.kinds[name], layer_name(setup.model, name)
    shards = ExpertShards(ranks=setup.expert_parallel, tensor=setup.expert_tensor)
    of_attention, of_all = (
        list(layer_parts(model, kind, tensor, called, shards)) for tensor in (setup.attention_tensor, setup.tensor_parallel)
    )
    own_input = of_all.pop() if has_layer_embeddings(model) else None
    return DeclaredLayer(
        attention=of_attention[0] if kind.attention != "none" else None,
        feed_forward=of_all[-1] if kind.feed_forward != "none" else None,
        own_input=own_input,
    )


class _PassOperators:
    """Writes down the parts of one pass, each of which it `repeats` so often."""

    def __init__(self, setup: ServingSetup, tokens: ForwardPass, *, repeats: Numeric = 1) -> None:
        self.setup, self.model, self.tokens, self.repeats = setup, setup.model, tokens, repeats
        self.own = tokens.shared_by(setup.attention_replicas)
        self.tensor = setup.tensor_parallel
        self.group = ProcessGroup(name=TENSOR.name, ranks=self.tensor, stride=1, axis=TENSOR)
        self.stream_bytes = WIDE_BYTES * tokens.rows * self.model.hidden_size

    def embedding(self) -> Iterator[ServedOperator]:
        yield self._moved("embedding.lookup", Role.LOOKUP, 2 * self.stream_bytes, kernel="lookup")
        yield from self._all_reduce("embedding.all_reduce")
        if has_layer_embeddings(self.model):
            size = WIDE_BYTES * self.tokens.rows * layer_numbers(self.model)
            yield self._moved("embedding.layer_lookup", Role.LOOKUP, 2 * size, kernel="lookup")
            yield self._product(layer_projection(self.model, self.tensor), self.tokens.rows)
            yield self._moved("embedding.layer_norm", Role.NORM, 4 * size / self.tensor, kernel=self.model.norm_kind.kernel)

    def layer(self, name: str, kind: LayerKind) -> Iterator[ServedOperator]:
        """Attention and feed-forward part of one layer."""
        setup, called, rows = self.setup, layer_name(self.model, name), self.own.rows
        attention, feed_forward, own_input = _declared(setup, name)
        if attention is not None:
            width = None if kind.attention in STATE_MIXERS else self._normed_width(kind)
            yield from self._norms(f"{called}.attention", attention, rows, width)
            if self.model.qk_norm == "width" and width is not None:  # ranks add up the squares of what their heads have
                yield from self._all_reduce(f"{called}.attention.norm_all_reduce", rows, setup.attention_tensor, 2 * FP32_BYTES)
            yield from self._linears(attention, rows)
            if kind.attention not in TOKENWISE:  # that of these is whole on every rank
                yield from self._core(kind, f"{called}.attention")
                if self.model.parallel_residual == "none" or kind.feed_forward == "none":  # else it is added to that of the MLP
                    yield from self._all_reduce(f"{called}.attention.all_reduce", rows, setup.attention_tensor)
        if feed_forward is not None:
            yield from self._norms(f"{called}.mlp", feed_forward, self.tokens.rows, self._normed_by_experts(kind), "own_norms")
            yield from self._linears(feed_forward, self.tokens.rows)
            yield from self._between(feed_forward, f"{called}.mlp")
            of_experts = setup.attention_replicas > 1 and kind.feed_forward == "experts"
            yield from self._all_reduce(f"{called}.mlp.all_reduce", role=Role.COMBINE if of_experts else Role.COLLECTIVE)
        if own_input is not None:
            yield from self._norms(f"{called}.input", own_input, self.tokens.rows, None)
            yield from self._linears(own_input, self.tokens.rows)
            moved = 3 * WIDE_BYTES * self.tokens.rows * own_input.output.inner
            yield self._moved(f"{called}.input.activation", Role.ELEMENTWISE, moved, kernel=self.model.activation)
            yield from self._all_reduce(f"{called}.input.all_reduce")

    def head(self) -> Iterator[ServedOperator]:
        """Final norm and logits of sampled rows, which ranks gather; then the choice of tokens."""
        linear, sampled = head_linear(self.model, self.tensor), self.tokens.sampled
        yield self._norm("head.norm", sampled)
        yield self._product(linear, sampled)
        logits = sampled * linear.columns
        if self.tensor > 1:
            payload = WIDE_BYTES * logits * self.tensor
            yield self._call("head.gather", "all_gather", payload, self.group)
        yield self._moved("head.sample", Role.LOSS, 3 * FP32_BYTES * logits * self.tensor, kernels=3, kernel="sample")

    def _linears(self, declared: LayerPart, rows: Numeric) -> Iterator[ServedOperator]:
        for linear in declared.linears:
            yield self._product(linear, rows)

    def _product(self, linear: Linear, rows: Numeric) -> ServedProduct:
        """One matrix; of experts those that some token meets, of the n on a rank, with the rows that this leaves to each.

        The rank is the busiest one, whom the others wait for: as many tokens as its copies stand for (count/busiest.py).
        """
        batch: Numeric = 1.0
        choices: Numeric = 0.0
        if linear.component is Component.EXPERTS:
            mixture = described(self.model.mixture, "mixture")
            choices = rows * mixture.experts_per_token
            rows = rows * self._busiest
            chance = mixture.experts_per_token / mixture.experts
            met = share_met(chance=chance, tokens=rows, scatter=self.setup.engine.expert_scatter or 0.0)
            batch = linear.number * np.maximum(met, 1e-9)
            rows = rows * chance / np.maximum(met, 1e-9)
        narrow = self._is_narrow(linear)
        weights = self.setup.weights
        return ServedProduct(
            name=linear.name,
            role=linear.role,
            repeats=self.repeats,
            rows=rows,
            columns=linear.columns,
            inner=linear.inner,
            batch=batch,
            precision=self.setup.circuits if narrow else self.setup.wide,
            weight_bytes=weights.bytes if narrow else WIDE_BYTES,
            law=weights.law if narrow else WIDE,
            beside=(linear.role is Role.SHARED_EXPERT and self._is_beside()) or self._is_of_keys(linear),
            choices=choices,
        )

    def _is_of_keys(self, linear: Linear) -> bool:
        """Whether it gives an indexer's keys or weights, which a second stream does beside its queries in CUDA graphs."""
        return linear.role is Role.INDEX_KEY and self._has_graph()

    @cached_property
    def _busiest(self) -> Numeric:
        """Copies of tokens on the busiest of the ranks that experts are dealt out to, over their mean."""
        setup, mixture = self.setup, described(self.model.mixture, "mixture")
        if setup.engine.expert_scatter is None:
            return 1.0
        return busiest_load(
            ranks=setup.expert_parallel,
            experts=mixture.experts,
            per_token=mixture.experts_per_token,
            tokens=self.tokens.rows,
            scatter=setup.engine.expert_scatter,
        )

    def _is_beside(self) -> bool:
        """Whether shared experts run on a stream of their own: in CUDA graphs of engines that do so."""
        return self.setup.engine.shared_beside and self._has_graph()

    def _has_graph(self) -> bool:
        """Whether one CUDA graph has the whole pass: not with prompts, whose graphs are piecewise or of no tokens at all."""
        return not anywhere(np.asarray(self.tokens.prompts) > 0)

    def _is_narrow(self, linear: Linear) -> bool:
        return is_narrow(self.setup, linear.component) and linear.role is not Role.ROUTER

    def _core(self, kind: LayerKind, name: str) -> Iterator[ServedOperator]:
        """What lies between the projections of a layer: attention, or a mixer that keeps a state."""
        own = self.own
        if kind.attention in STATE_MIXERS:
            tokens = {"sequences": own.sequences, "prompts": own.prompts, "prompt_tokens": own.prompt_tokens}
            yield from (replace(each, repeats=self.repeats) for each in mixer_operators(self.setup, kind, name, **tokens))
        else:
            yield from attention_operators(self.setup, kind, name, own, self.repeats)

    def _between(self, declared: LayerPart, name: str) -> Iterator[ServedOperator]:
        """The activation function; of experts also the choice, and moving tokens to them and back."""
        model, rows, passes = self.model, self.tokens.rows, 3 if self.model.gated else 2
        if model.mixture is None or declared.out is not None:
            numbers = rows * model.ffn_hidden_size / self.tensor
            yield self._moved(f"{name}.activation", Role.ELEMENTWISE, passes * WIDE_BYTES * numbers, kernel=model.activation)
            return
        mixture = model.mixture
        copies = rows * mixture.experts_per_token / self.setup.expert_parallel * self._busiest
        scores = FP32_BYTES * rows * mixture.experts
        yield self._moved(f"{name}.route", Role.ROUTER, 2 * scores, kernels=ROUTER_KERNELS, kernel="route")
        operand = operand_bytes(self.setup.circuits)  # of a copy that a product reads; its result is in 16 bits
        moved = ((operand + WIDE_BYTES) * copies + MOVES * WIDE_BYTES * rows) * model.hidden_size
        yield self._moved(f"{name}.permute", Role.PERMUTE, moved, kernels=MOVES, kernel="permute")
        moved = passes * WIDE_BYTES * copies * mixture.ffn_hidden_size / self.setup.expert_tensor
        yield self._moved(f"{name}.activation", Role.EXPERT_ACTIVATION, moved, kernel=model.activation)
        if anywhere(np.asarray(mixture.shared_ffn_hidden_size) > 0):
            moved = passes * WIDE_BYTES * rows * mixture.shared_ffn_hidden_size / self.tensor
            yield self._moved(f"{name}.shared.activation", Role.SHARED_EXPERT, moved, kernel=model.activation)
        if mixture.shared_gate:
            moved = GATED_SUM * WIDE_BYTES * rows * model.hidden_size
            yield self._moved(f"{name}.shared.sum", Role.SHARED_EXPERT, moved, kernels=2, kernel="gated_sum")

    def _normed_width(self, kind: LayerKind) -> Numeric:
        """Numbers of a token that norms inside attention take: queries and keys, or the narrow vectors of latent attention."""
        if kind.attention == "latent":
            latent = described(self.model.latent, "latent")
            return latent.query_rank + latent.kv_rank
        model = self.model
        keys = 0 if model.kv == BORROWED else model.kv_size
        values = model.kv_heads * model.value_size if keys and model.qk_norm == "head_and_values" else 0
        return (model.query_size + keys + values) / self.setup.attention_tensor

    def _normed_by_experts(self, kind: LayerKind) -> Numeric:
        """Numbers of a token that norms inside a mixture of experts take."""
        mixture = self.model.mixture if kind.feed_forward == "experts" else None
        return OWN_NORMS * self.model.hidden_size if mixture and mixture.own_norms else 0.0

    def _norms(
        self, name: str, declared: LayerPart, rows: Numeric, inner_width: Numeric | None, inner: str = "qk_norm"
    ) -> Iterator[ServedOperator]:
        """Norms of the stream, each with the residual connection before it in one kernel; `inner` ones in one.

        The norm within a mixer, which has no `inner_width`, is one of its own operators.
        """
        for each in range(declared.norms):
            yield self._norm(f"{name}.{'post_norm' if each else 'norm'}", rows)
        if inner_width is not None and anywhere(np.asarray(declared.inner_norms) > 0):
            yield self._moved(f"{name}.{inner}", Role.NORM, 2 * WIDE_BYTES * rows * inner_width, kernel="qk_norm")

    def _norm(self, name: str, rows: Numeric) -> MemoryBound:
        moved = 4 * WIDE_BYTES * rows * self.model.hidden_size
        return self._moved(name, Role.NORM, moved, kernel=self.model.norm_kind.kernel)

    def _moved(self, name: str, role: Role, moved_bytes: Numeric, *, kernels: int = 1, kernel: str) -> MemoryBound:
        return MemoryBound(name=name, role=role, repeats=self.repeats, moved_bytes=moved_bytes, kernels=kernels, kernel=kernel)

    def _call(
        self, name: str, kind: str, payload_bytes: Numeric, group: ProcessGroup, role: Role = Role.COLLECTIVE
    ) -> Collective:
        return Collective(name=name, role=role, kind=kind, repeats=self.repeats, payload_bytes=payload_bytes, group=group)

    def _all_reduce(
        self,
        name: str,
        rows: Numeric | None = None,
        ranks: int = 0,
        row_bytes: Numeric = 0.0,
        role: Role = Role.COLLECTIVE,
    ) -> Iterator[Collective]:
        """Partial sums of the stream of some rows, or of all, over ranks that split a sequence, or all.

        Where attention is data-parallel, rows of all replicas are gathered for the rest of a layer and scattered after it, as
        many bytes as one all-reduce over all ranks; that of attention is over the ranks of a replica, and none for one. A row
        has hidden_size numbers unless it has `row_bytes`. Around experts that is the way of tokens to them and back.
        """
        rows, ranks = self.tokens.rows if rows is None else rows, ranks or self.tensor
        if ranks > 1:
            group = replace(self.group, ranks=ranks)
            payload = rows * (row_bytes or WIDE_BYTES * self.model.hidden_size)
            yield self._call(name, "all_reduce", payload, group, role)


def is_narrow(setup: ServingSetup, component: Component) -> bool:
    """Whether the matrices of a component are in the format of the weights: those of layers, less what mixtures keep wide."""
    weights, mixed = setup.weights, setup.model.mixture is not None
    return {
        Component.ATTENTION: weights.narrow_attention or not mixed,
        Component.FEED_FORWARD: weights.narrow_mlp or not mixed,
        Component.EXPERTS: True,
        Component.HEAD: False,
    }[component]
