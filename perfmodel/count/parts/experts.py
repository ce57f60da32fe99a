"""A mixture of experts on one GPU: the router, tokens to the ranks of their experts and back, the products of the experts.

Symbols: T tokens of a rank between linears, h hidden_size, w what experts read (h, or latent_size), f ffn_hidden_size of an
expert, E experts, k experts_per_token, e expert_parallel, t expert_tensor_parallel, c bytes of an activation.

A rank has E/e experts, and of each of them f/t columns. It sends its T*k copies of tokens to the ranks of their experts, and
gets as many: those of e*t ranks, divided over e. `expert_load` is how many more the busiest rank has, e times the mean at most,
for which all others wait; a capacity_factor instead pads every expert to so many times the mean, and drops what is beyond. The
published convention counts neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import numpy as np

from perfmodel.count.blocks import Block, local, roles_run_again
from perfmodel.count.declarations import UNSHARDED, Component, ExpertShards, LayerPart, Linear
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.count.parts.feed_forward import activation
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere, chosen
from perfmodel.spec.layout import Layout, expert_parallel_group, expert_tensor_parallel_group
from perfmodel.spec.models.layer_parts import Mixture, described
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT

OWN_NORMS: Final = 4  # before the router, before routed experts and behind them, and behind the shared ones (Gemma 4)
SCORE_BYTES: Final = 4  # routers score in fp32
CLAMPED_PASSES: Final = (11, 18)  # of a fused function behind clamps of their own, forwards and backwards
SCORE_PASSES: Final = 10  # scores, function, choice and its mask, probabilities, counts for the loss: read and written


class Way(NamedTuple):
    """How tokens travel to experts and back: two kinds of collectives, and what ranks do before them.

    With `orders_copies` they send a copy of a token for each of its experts, in the order of these; with `sends_all` every
    token to every rank. Otherwise software sends a token once to a rank, which makes the copies.
    """

    dispatch: str
    combine: str
    orders_copies: bool = False
    sends_all: bool = False


WAYS: Final[Mapping[str, Way]] = MappingProxyType(  # by ExpertWork.dispatcher
    {
        "alltoall": Way("all_to_all", "all_to_all", orders_copies=True),
        "allgather": Way("all_gather", "reduce_scatter", sends_all=True),
        "deepep": Way("token_exchange", "token_exchange"),
        "hybridep": Way("token_exchange", "token_exchange"),
    }
)


def _mixture(model: TransformerModel) -> Mixture:
    return described(model.mixture, "mixture")


def expert_width(model: TransformerModel) -> Numeric:
    """Numbers of a token that an expert reads: its latent ones where the model has such, else all of the stream."""
    mixture = _mixture(model)
    return model.hidden_size if mixture.latent_size is None else mixture.latent_size


def routed_experts(
    model: TransformerModel, tensor_parallel: Numeric, name: str, experts: ExpertShards = UNSHARDED
) -> LayerPart:
    """h*E of the router, E/e times (w*f, twice when gated, and f*w)/t, shared experts' (2 or 3)*h*f_s, 2*h*w where w < h."""
    mixture, hidden, width = _mixture(model), model.hidden_size, expert_width(model)
    halves = 2 if model.gated else 1

    def linear(what: str, role: Role, inner: Numeric, columns: Numeric) -> Linear:
        dense = Component.FEED_FORWARD
        return Linear(name=f"{name}.{what}", component=dense, role=role, inner=inner, columns=columns)

    def routed(what: str, role: Role, inner: Numeric, columns: Numeric) -> Linear:
        return replace(
            linear(what, role, inner, columns),
            component=Component.EXPERTS,
            has_bias=model.has_bias("mlp"),
            number=mixture.experts / experts.ranks,
            per_token=mixture.experts_per_token,
        )

    router = linear("router", Role.ROUTER, hidden, mixture.experts)
    others = {"router": replace(router, useful=0.0, has_bias=mixture.router_bias, is_replicated=True)}
    if mixture.latent_size is not None:
        others["latent_down"] = replace(linear("latent_down", Role.PRODUCT, hidden, width), is_replicated=True)
        others["latent_up"] = replace(linear("latent_up", Role.PRODUCT, width, hidden), is_replicated=True)
    ffn = mixture.ffn_hidden_size / experts.tensor
    others["fc1"] = routed("fc1", Role.EXPERT, width, halves * ffn)
    others["fc2"] = routed("fc2", Role.EXPERT_OUTPUT, ffn, width)
    if anywhere(np.asarray(mixture.shared_ffn_hidden_size) > 0):
        shared, has_bias = mixture.shared_ffn_hidden_size / tensor_parallel, model.has_bias("mlp")
        others["shared_fc1"] = replace(linear("shared.fc1", Role.SHARED_EXPERT, hidden, halves * shared), has_bias=has_bias)
        others["shared_fc2"] = replace(linear("shared.fc2", Role.SHARED_EXPERT, shared, hidden), has_bias=has_bias)
        if mixture.shared_gate:
            gate = linear("shared.gate", Role.SHARED_EXPERT, hidden, 1)
            others["shared_gate"] = replace(gate, useful=0.0, is_replicated=True)
    has_norm = model.pre_norms and model.parallel_residual != "one_norm"
    norms = OWN_NORMS * hidden + mixture.experts if mixture.own_norms else 0  # the router's has a scale for each expert too
    return LayerPart(others=others, norm_before=has_norm, norm_behind=model.post_norms, inner_norms=norms)


def paired_share(layout: Layout) -> Numeric:
    """Of the passes of a stage, those that run while another micro-batch of it passes the other way: 1 - n/(m*v).

    The n first forward passes, and the n last backward passes, have no partner: 1 without a pipeline, (p + 1)/2 on average over
    the stages of 1F1B, v*p interleaved. Source: arXiv:2603.07685, section 4.2.3.
    """
    stages, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    alone = chosen(virtual > 1, virtual * stages, (stages + 1) / 2)
    return np.maximum(1.0 - alone / (layout.micro_batches * virtual), 0.0)


def routed_inside(write: StreamOperators, declared: LayerPart, name: str, shares_input: bool) -> Block:
    """Router, dispatch, experts, combine; and the shared experts, which add theirs."""
    del shares_input
    own = Routed(write, declared, name)
    block = own.norms() + write.replayed(own.router(), "router")
    if "latent_down" in declared.others:
        latent = write.own_linear(declared.others["latent_down"], own.tokens, kept_rows=0)
        block = block + write.replayed(latent, "preprocess")
    block = block + own.dispatch() + write.replayed(own.experts(), "experts") + own.combine()
    if "latent_up" in declared.others:
        block = block + write.own_linear(declared.others["latent_up"], own.tokens)
    return block + write.replayed(own.shared(), "shared_experts") + own.shared_sum()


def _inside_products(operators: tuple[Operator, ...]) -> tuple[Operator, ...]:
    """The operators, whose memory-bound ones are part of products: they keep what they keep, and move nothing."""
    return tuple(replace(op, moved_bytes=0.0, kernels=0) if isinstance(op, MemoryBound) else op for op in operators)


class Routed:
    """Writes down what lies inside one layer's mixture of experts."""

    def __init__(self, write: StreamOperators, declared: LayerPart, name: str) -> None:
        self.write, self.linears, self.name = write, declared.others, name
        self.mixture, self.work, layout = _mixture(write.model), write.stack.experts, write.layout
        self.width, self.way = expert_width(write.model), WAYS[write.stack.experts.dispatcher]
        self.tokens = write.tokens / write.token_shards
        self.copies = self.tokens * self.mixture.experts_per_token
        self.ranks, self.tensor = layout.expert_parallel, layout.expert_tensor_parallel
        capacity = self.mixture.capacity_factor
        self.load: Numeric = layout.busiest_load if capacity is None else capacity
        self.rows = self._rows_of_an_expert()
        self.has_several = 1 * (np.asarray(self.linears["fc1"].number) > 1)
        self.any_has_several = anywhere(self.has_several)

    def _rows_of_an_expert(self) -> Numeric:
        """T*k*e*t*load / E on average, up to whole multiples of padded_rows where products have few bits."""
        rows: Numeric = self.copies * self.ranks * self.tensor * self.load / self.mixture.experts
        if not self.write.recipe.casts:
            return rows
        return np.ceil(rows / self.work.padded_rows) * self.work.padded_rows

    @property
    def received(self) -> Numeric:
        """Rows of all experts of a rank."""
        return self.rows * self.linears["fc1"].number

    def router(self) -> Block:
        """The product, which keeps the input of all that follows, and the kernels that choose: T*E scores of fp32."""
        linear, scores = self.linears["router"], self.tokens * self.mixture.experts
        moved = SCORE_BYTES * SCORE_PASSES * scores
        choice = MemoryBound(
            name=f"{self.name}.route",
            role=Role.ROUTER,
            moved_bytes=moved,
            backward_bytes=moved / 2,
            kernels=self.work.router_kernels,
            backward_kernels=self.work.router_backward_kernels,
            saved_bytes=2 * SCORE_BYTES * scores,
        )
        product = self.write.own_linear(linear, self.tokens)
        return product + local(choice)

    def norms(self) -> Block:
        """Norms inside the mixture, where it has some."""
        block = Block()
        for each in range(OWN_NORMS * self.mixture.own_norms):
            block = block + self.write.norm(f"{self.name}.own_norm_{each + 1}")
        return block

    def dispatch(self) -> Block:
        """Copies of tokens in the order of their experts, to the ranks of these; backwards their gradients come home.

        An all-to-all sends a copy for each expert: tokens are put in order before it, and what comes from several ranks once
        more for several experts. Others copy tokens where they arrive.
        """
        outward = self._travel(Role.DISPATCH)
        if not self.way.orders_copies:
            return outward + self._moved("permute", 2 * self.received)
        sort = self._moved("sort", 2 * self.received, self.has_several) if self.any_has_several else Block()
        ordered = self._moved("permute", self.tokens + self.copies)
        return self.write.replayed(ordered, "preprocess") + outward + sort

    def combine(self) -> Block:
        """The other way round: what experts gave is added up where tokens came from."""
        homeward = self._travel(Role.COMBINE)
        if not self.way.orders_copies:
            return self._moved("unpermute", 2 * self.received) + homeward
        sort = self._moved("unsort", 2 * self.received, self.has_several) if self.any_has_several else Block()
        return sort + homeward + self._moved("unpermute", self.tokens + self.copies)

    def _moved(self, what: str, rows: Numeric, kernels: Numeric = 1) -> Block:
        """Rows of tokens that are read or written, forwards and backwards, where a kernel does so."""
        size = self.write.activation_bytes * rows * self.width * kernels
        moves = MemoryBound(
            name=f"{self.name}.{what}",
            role=Role.PERMUTE,
            moved_bytes=size,
            backward_bytes=size,
            kernels=kernels,
            backward_kernels=kernels,
        )
        return local(moves)

    def _travel(self, role: Role) -> Block:
        """Dispatch or combine; ranks that share each expert gather all that any of them got, and add up what they gave."""
        outward = role is Role.DISPATCH
        call = self._call(role)
        spread: tuple[Operator, ...] = self._over_expert_tensor(role) if anywhere(np.asarray(self.tensor) > 1) else ()
        forward = (call, *spread[:1]) if outward else (*spread[:1], call)
        back = replace(call, phase=DATA_GRADIENT)
        backward = (*spread[1:], back) if outward else (back, *spread[1:])
        return Block(forward=forward, backward=backward)

    def _call(self, role: Role) -> Collective:
        """What one rank sends to the ranks of its tokens' experts."""
        size, mixture = self.write.activation_bytes * self.width, self.mixture
        return Collective(
            name=f"{self.name}.{role}",
            role=role,
            kind=self.way.dispatch if role is Role.DISPATCH else self.way.combine,
            payload_bytes=size * (self.tokens * self.ranks if self.way.sends_all else self.copies * self.load),
            group=expert_parallel_group(self.write.layout),
            beside_passes=paired_share(self.write.layout) if self.work.overlap == "passes" else 0.0,
            copies=mixture.experts_per_token,
            groups=mixture.groups,
            groups_met=mixture.groups_per_token,
        )

    def _over_expert_tensor(self, role: Role) -> tuple[Operator, Operator]:
        """Forwards and backwards, over the ranks that share each expert: one gathers, the other adds up."""
        gather = Collective(
            name=f"{self.name}.expert_tensor.gather",
            role=role,
            kind="all_gather",
            payload_bytes=self.write.activation_bytes * self.copies * self.load * self.width * self.tensor,
            group=expert_tensor_parallel_group(self.write.layout),
        )
        scatter = replace(gather, name=f"{self.name}.expert_tensor.scatter", kind="reduce_scatter")
        both = (gather, scatter) if role is Role.DISPATCH else (scatter, gather)
        return both[0], replace(both[1], phase=DATA_GRADIENT)

    def experts(self) -> Block:
        """Both products of every expert of the rank, and the activation function between them.

        What the router gave weighs the input of the second; or its output, which is then kept.
        """
        write, first, last = self.write, self.linears["fc1"], self.linears["fc2"]
        calls = first.number if self.work.products == "streams" else 1
        useful = self.copies * self.tensor / self.received
        numbers = self.received * last.inner
        up = write.own_linear(first, self.rows, useful=useful, calls=calls)
        is_eager = write.model.has_bias("mlp") and not self.work.fused_biases
        between = self._clamped(numbers) if is_eager and write.model.gated else self._function(numbers)
        down = write.own_linear(last, self.rows, useful=useful, calls=calls)
        again = roles_run_again(write.layout.recompute_modules)
        is_apart = is_eager or Role.EXPERT_ACTIVATION in again  # what runs again is a kernel of its own
        if self.work.products == "fused" and not is_apart:
            # products end with the function and the cast of its result, and backwards with those of its gradient
            up = Block(forward=up.forward, backward=_inside_products(up.backward))
            between = Block(forward=_inside_products(between.forward), backward=_inside_products(between.backward))
            down = Block(forward=_inside_products(down.forward), backward=down.backward)
        block = up + between + down + (self._output_bias() if is_eager else Block())
        if not self.work.keeps_outputs:
            return block
        kept = write.activation_bytes * self.received * self.width
        weigh = MemoryBound(
            name=f"{self.name}.weigh", role=Role.EXPERT_OUTPUT, moved_bytes=2 * kept, backward_bytes=3 * kept, saved_bytes=kept
        )
        return block + local(weigh)

    def _function(self, numbers: Numeric) -> Block:
        """The activation function on so many numbers of each half, times what the router gave where that weighs its result."""
        is_weighed = not self.work.keeps_outputs
        return activation(self.write.setup, self.name, numbers, Role.EXPERT_ACTIVATION, weighed=is_weighed)

    def _clamped(self, numbers: Numeric) -> Block:
        """A gated function, fused, behind eager clamps of its halves, on so many numbers each; the product has added its bias.

        Each half is clamped and both are joined, 8 passes of one half; the function, which the router weighs, reads both and
        writes one. Backwards its gradient takes 5 passes and that of the weights 3, those of the clamps 3 each and their
        joining 4. Kept are both halves, as they were and clamped.
        """
        size = self.write.activation_bytes
        return local(
            MemoryBound(
                name=f"{self.name}.activation",
                role=Role.EXPERT_ACTIVATION,
                moved_bytes=CLAMPED_PASSES[0] * size * numbers,
                backward_bytes=CLAMPED_PASSES[1] * size * numbers,
                kernels=5,
                backward_kernels=5,
                saved_bytes=4 * size * numbers,
            )
        )

    def _output_bias(self) -> Block:
        """The bias b of what experts give, weighed as that is, expert by expert: b*p in fp32 is added, all are joined.

        28 bytes a number forwards: b*p 4, the sum 10, joined 8, cast 6. Backwards 40: cast 6, the gradient of the result 6,
        joined 4, those of bias and weights 12 each.
        """
        numbers, experts = self.received * self.width, self.linears["fc1"].number
        return local(
            MemoryBound(
                name=f"{self.name}.output_bias",
                role=Role.EXPERT_OUTPUT,
                moved_bytes=28 * numbers,
                backward_bytes=40 * numbers,
                kernels=2 * experts + 2,
                backward_kernels=6 * experts + 2,
            )
        )

    def shared(self) -> Block:
        """The MLP that all tokens pass: its input is that of the router, kept once unless its products take another format."""
        if "shared_fc1" not in self.linears:
            return Block()
        write, first, last = self.write, self.linears["shared_fc1"], self.linears["shared_fc2"]
        block = write.column_linear(first, is_kept=write.recipe.casts)
        block = block + activation(write.setup, f"{self.name}.shared", write.tokens * last.inner, Role.SHARED_EXPERT)
        block = block + write.row_linear(last)
        if "shared_gate" in self.linears:
            block = block + write.own_linear(self.linears["shared_gate"], self.tokens, kept_rows=0)
        return block

    def shared_sum(self) -> Block:
        """What the shared MLP gives is added to what experts gave, when that is back."""
        if "shared_fc1" not in self.linears:
            return Block()
        size = self.write.activation_bytes * self.tokens * self.write.model.hidden_size
        add = MemoryBound(name=f"{self.name}.shared.add", role=Role.SHARED_EXPERT, moved_bytes=3 * size, backward_bytes=0.0)
        return local(add)
