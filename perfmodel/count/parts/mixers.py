"""Mixers that keep a state instead of keys and values, on one GPU: Mamba-2 and the gated delta rule, scanned chunk by chunk.

Symbols: h hidden_size, t tensor_parallel, T tokens of a micro-batch, e bytes of an activation, Q tokens of a chunk, k width of
the convolution. Of one rank: H heads of P numbers, d = H*P, G groups, states of P x N numbers (Mamba-2); K and V numbers of
keys and values, H value heads, states of p x v numbers (gated delta).

Heads are split over a tensor-parallel group, groups with them, or copied where there are fewer. What a chunk multiplies are
products without weights, in kernels of their own (Triton), which leave much to the memory between them; a GPU says how much
longer they take than such products do elsewhere (kernels.scan), and so does a stack (fusion.scan_work, delta_rule_work).
Kernels that skip what a causal mask hides inside a chunk are counted as if they did not. The published convention counts
neither chunks nor their size: its FLOPs are spread over the products that do the work (`useful`, which may exceed 1).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import LayerPart
from perfmodel.count.operators import Matmul, MemoryBound, Operator
from perfmodel.count.parts.mixer_linears import SCAN_FLOP, STATE_PRODUCTS, delta_of, state_space_groups, state_space_of
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import GatedDelta, StateSpace
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, RECOMPUTE
from perfmodel.spec.precision import FP32_BYTES

TRITON_NORM: Final = "compiled"  # the class of norms (coefficients.py) whose kernels are Triton's
GATE_KERNELS: Final = 8  # softplus, exponential, negation, products and casts of the decay, sigmoid of beta, sums over chunks


ChunkProduct = tuple[str, Numeric, Numeric, Numeric, Numeric]  # name, rows, columns, inner size, heads or groups


@dataclass(frozen=True, slots=True, kw_only=True)
class MixerSizes:
    """One mixer on one rank: numbers of the state of a sequence, channels that a convolution of some tokens meets, its width.

    `products` are those of a chunk of `chunk` tokens.
    """

    state: Numeric
    channels: Numeric
    convolution: Numeric
    width: Numeric
    chunk: Numeric
    products: tuple[ChunkProduct, ...]


def mixer_sizes(model: TransformerModel, attention: str, tensor_parallel: Numeric, tokens: Numeric) -> MixerSizes:
    """The sizes of a mixer for sequences of so many tokens, in chunks that are no longer.

    >>> from perfmodel.exchange.presets import model_preset
    >>> sizes = mixer_sizes(model_preset("nemotron-3-nano"), "mamba2", 1, 4096)
    >>> int(sizes.state), int(sizes.channels)  # 64 heads * 64 * 128; 64*64 + 2 * 8 groups * 128
    (524288, 6144)
    """
    return SIZES[attention](model, tensor_parallel, tokens)


def _mamba2_sizes(model: TransformerModel, tensor_parallel: Numeric, tokens: Numeric) -> MixerSizes:
    """Heads keep P x N numbers each; the convolution meets their inputs and what groups read and write states by."""
    space = state_space_of(model)
    heads, groups = space.heads / tensor_parallel, state_space_groups(model, tensor_parallel)
    width, chunk = heads * space.head_size, np.minimum(space.chunk_size, tokens)
    return MixerSizes(
        state=width * space.state_size,
        channels=width + 2 * groups * space.state_size,
        convolution=space.convolution,
        width=width,
        chunk=chunk,
        products=_mamba2_products(space, heads, groups, chunk),
    )


def _delta_sizes(model: TransformerModel, tensor_parallel: Numeric, tokens: Numeric) -> MixerSizes:
    """Value heads keep p x v numbers each; the convolution meets queries, keys and values."""
    delta = delta_of(model)
    heads, chunk = delta.value_heads / tensor_parallel, np.minimum(delta.chunk_size, tokens)
    keys, values = delta.key_heads * delta.key_head_size / tensor_parallel, heads * delta.value_head_size
    return MixerSizes(
        state=values * delta.key_head_size,
        channels=2 * keys + values,
        convolution=delta.convolution,
        width=values,
        chunk=chunk,
        products=_delta_products(delta, heads, chunk),
    )


SIZES: Final = {"mamba2": _mamba2_sizes, "gated_delta": _delta_sizes}  # of STATE_MIXERS


def _mamba2_products(space: StateSpace, heads: Numeric, groups: Numeric, chunk: Numeric) -> tuple[ChunkProduct, ...]:
    """P x Q x N of states, Q x N x Q of scores a group, Q x Q x P and Q x N x P of outputs."""
    state, head = space.state_size, space.head_size
    return (
        ("states", head, state, chunk, heads),
        ("scores", chunk, chunk, state, groups),
        ("chunk_output", chunk, head, chunk, heads),
        ("state_output", chunk, head, state, heads),
    )


def _delta_products(delta: GatedDelta, heads: Numeric, chunk: Numeric) -> tuple[ChunkProduct, ...]:
    """Inside chunks Q x p x Q, Q x Q x Q, Q x Q x p, Q x Q x v; Q x p x v, p x Q x v of states; of outputs three more."""
    key, value = delta.key_head_size, delta.value_head_size
    return (
        ("key_scores", chunk, chunk, key, heads),
        ("inverse", chunk, chunk, chunk, heads),
        ("key_correction", chunk, key, chunk, heads),
        ("value_correction", chunk, value, chunk, heads),
        ("predicted_values", chunk, value, key, heads),
        ("states", key, value, chunk, heads),
        ("scores", chunk, chunk, key, heads),
        ("chunk_output", chunk, value, chunk, heads),
        ("state_output", chunk, value, key, heads),
    )


def mamba2_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """Projection, convolution, scan, gated norm, projection back into the stream."""
    del kind
    return _between_projections(write, declared, _StateSpaceScan(write, name).block())


def gated_delta_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """Projections, convolution, delta rule, gated norm, projection back into the stream."""
    del kind
    return _between_projections(write, declared, _DeltaRule(write, name).block())


def gated_delta_rule(write: StreamOperators, name: str) -> Block:
    """What chunk_gated_delta_rule of flash-linear-attention runs, forward and backward."""
    return _DeltaRule(write, name).rule()


def _between_projections(write: StreamOperators, declared: LayerPart, mixer: Block) -> Block:
    if declared.into is None or declared.out is None:
        raise TypeError("a mixer has projections out of the stream, and one back into it")
    return write.projections(declared.into) + _gates(write, declared) + mixer + write.row_linear(declared.out)


def _gates(write: StreamOperators, declared: LayerPart) -> Block:
    """Products of low rank: out of the tokens of each rank into narrow vectors, which all ranks gather, and out of these."""
    own, block, width = write.tokens / write.token_shards, Block(), 0.0 * write.tokens
    for linear in (each for each in declared.others.values() if each.is_replicated):
        block, width = block + write.own_linear(linear, own, kept_rows=0), width + linear.columns
    if not declared.others:
        return block
    block = block + write.gathered_tokens(f"{declared.projections.joined.name}.narrow", width)
    for linear in (each for each in declared.others.values() if not each.is_replicated):
        block = block + write.own_linear(linear, write.tokens, kept_rows=own)
    return block


class _ChunkedScan:
    """Writes down what lies between the projections of one mixer; `role` says whose kernels its scan runs."""

    role = Role.SCAN

    def __init__(self, write: StreamOperators, name: str, chunk_size: Numeric) -> None:
        self.write, self.name, self.tokens, self.size = write, name, write.tokens, write.activation_bytes
        self.chunk = np.minimum(chunk_size, write.layout.sequence_length)
        self.chunks = self.tokens / self.chunk

    def product(self, what: str, rows: Numeric, columns: Numeric, inner: Numeric, heads: Numeric) -> Matmul:
        """One product of every chunk and head."""
        return Matmul(
            name=f"{self.name}.{what}",
            role=self.role,
            rows=rows,
            columns=columns,
            inner=inner,
            batch=self.chunks * heads,
            has_weight=False,
            precision=self.write.recipe.linear_formats[-1],
        )

    def moved(
        self, what: str, forward: Numeric, backward: Numeric, *, saved: Numeric = 0.0, kernels: int = 1, again: int = 1
    ) -> MemoryBound:
        """An operator that moves so many bytes of a token in so many kernels, backwards in as many and `again` - 1 more."""
        return MemoryBound(
            name=f"{self.name}.{what}",
            role=self.role,
            moved_bytes=self.tokens * forward,
            backward_bytes=self.tokens * backward,
            saved_bytes=self.tokens * saved,
            kernels=kernels,
            backward_kernels=kernels + again - 1,
        )

    def convolved(self, forward: Numeric, backward: Numeric, *, saved: Numeric, again: int = 1) -> Block:
        """The causal convolution, which moves so many bytes of a token in one kernel (causal_conv1d)."""
        moved = self.moved("convolution", forward, backward, saved=saved, again=again)
        return local(replace(moved, role=Role.ELEMENTWISE, kernel="convolution"))

    def gated_norm(self, width: Numeric, saved: Numeric) -> Block:
        """Output and gate are read, their norm is written; backwards three are read, two written. Triton's in all libraries."""
        norm = self.moved("gated_norm", 3 * self.size * width, 5 * self.size * width, saved=saved, again=2)
        return local(replace(norm, role=Role.ELEMENTWISE, family=TRITON_NORM))

    def counted(self, products: tuple[Matmul, ...], flop: Numeric) -> tuple[Matmul, ...]:
        """The products, of whose FLOPs the convention counts so many forwards."""
        useful = flop / sum(product.flop for product in products)
        return tuple(replace(product, useful=useful) for product in products)


def _again(*operators: Operator) -> Block:
    """Operators that the backward function of a fused kernel runs once more, instead of keeping what they give."""
    return Block(backward=tuple(replace(operator, phase=RECOMPUTE) for operator in operators))


def _joined(products: tuple[Matmul, ...]) -> Block:
    block = Block()
    for product in products:
        block = block + local(product)
    return block


class _StateSpaceScan(_ChunkedScan):
    """Mamba-2 as mamba_ssm trains it (mamba_split_conv1d_scan_combined).

    It keeps what the projection gave and what the scan gave; all else is formed again before the gradients.
    """

    def __init__(self, write: StreamOperators, name: str) -> None:
        self.space = state_space_of(write.model)
        super().__init__(write, name, self.space.chunk_size)
        self.heads, self.groups = self.space.heads / write.tensor, state_space_groups(write.model, write.tensor)
        self.width = self.heads * self.space.head_size
        self.channels = self.width + 2 * self.groups * self.space.state_size

    def products(self) -> tuple[Matmul, ...]:
        """Those of every chunk, with the convention's FLOPs."""
        products = _mamba2_products(self.space, self.heads, self.groups, self.chunk)
        flop = SCAN_FLOP * self.tokens * self.width * self.space.state_size
        return self.counted(tuple(self.product(*each) for each in products), flop)

    def block(self) -> Block:
        """Convolution, steps, states of chunks and their passing on, outputs, gated norm."""
        size, states = self.size, self.width * self.space.state_size / self.chunk  # numbers of states, for each token
        convolution = self.convolved(
            2 * size * self.channels, 5 * size * self.channels,
            saved=size * (self.width + self.channels + self.heads), again=2,
        )  # fmt: skip
        steps = self.moved("steps", (size + 2 * FP32_BYTES) * self.heads, (3 * size + 4 * FP32_BYTES) * self.heads, again=2)
        passing = self.moved("state_passing", (FP32_BYTES + size) * states, (3 * FP32_BYTES + 4 * size) * states, again=2)
        of_states, scores, *outputs = self.products()
        scan = local(of_states) + local(passing) + local(scores) + _joined(tuple(outputs)) + _again(of_states, scores)
        kept = size * self.width + FP32_BYTES * self.groups
        return convolution + local(steps) + scan + self.gated_norm(self.width, kept)


class _DeltaRule(_ChunkedScan):
    """The gated delta rule as flash-linear-attention trains it (chunk_gated_delta_rule).

    Queries and keys are copied to value heads where those are more. Within a chunk, keys meet keys, and the triangle of what
    each corrects is inverted; w and u are keys and values by it. Kept are queries, keys, values, decays and that inverse; w, u
    and the states are formed again before the gradients.
    """

    role = Role.DELTA_RULE

    def __init__(self, write: StreamOperators, name: str) -> None:
        self.delta = delta_of(write.model)
        super().__init__(write, name, self.delta.chunk_size)
        self.heads = self.delta.value_heads / write.tensor
        self.keys = self.delta.key_heads * self.delta.key_head_size / write.tensor
        self.values = self.heads * self.delta.value_head_size
        self.channels = 2 * self.keys + self.values
        self.rates = self.keys if self.delta.has_rates_by_channel else self.heads
        self.copied = 2 * self.heads * self.delta.key_head_size  # queries and keys, as many as value heads

    def products(self) -> tuple[Matmul, ...]:
        """Those of every chunk, with the convention's FLOPs."""
        products = tuple(self.product(*each) for each in _delta_products(self.delta, self.heads, self.chunk))
        rule = STATE_PRODUCTS * self.values * self.delta.value_head_size
        return self.counted(products, 2 * self.tokens * (self.delta.convolution * self.channels + rule))

    def chain(self) -> Block:
        """The chunks of a sequence, each of which begins with the state of the one before; backwards two such ways."""
        steps = self.write.layout.sequence_length / self.chunk
        one = MemoryBound(name=f"{self.name}.chain", role=self.role, moved_bytes=0.0, kernels=0, calls=0, chained=steps)
        return Block(forward=(one,), backward=(replace(one, phase=DATA_GRADIENT, chained=2 * steps),))

    def rule(self) -> Block:
        """All that chunk_gated_delta_rule runs."""
        size, inverses = self.size, self.chunk * self.heads
        inverse = self.moved("inverse_copy", (FP32_BYTES + size) * inverses, 0.0, saved=size * inverses)
        products = self.products()
        again = products[2:7]  # all between the inverse, which is kept, and the outputs
        return (
            _joined(products[:2])
            + local(inverse)
            + self.chain()
            + _joined(products[2:])
            + _again(*again, *self.chain().forward)
        )

    def block(self) -> Block:
        """Convolution, copies for value heads, gates, norms of queries and keys, the rule, gated norm."""
        size, channels, copies = self.size, self.channels, self.copied + self.values
        convolution = self.convolved(2 * size * channels, 3 * size * channels, saved=size * channels)
        copied = self.moved(
            "copies", size * (channels + copies), size * (channels + copies), saved=size * self.values, kernels=3
        )
        gates = 2 * size * self.heads + (size + 3 * FP32_BYTES) * self.rates
        kept = size * self.heads + (size + 3 * FP32_BYTES) * self.rates
        gate = self.moved("gates", gates, gates, saved=kept, kernels=GATE_KERNELS)
        unit = self.moved(
            "unit_keys", 2 * size * self.copied, 3 * size * self.copied,
            saved=size * self.copied + 2 * FP32_BYTES * self.heads, kernels=2,
        )  # fmt: skip
        return (
            convolution
            + local(copied)
            + local(gate)
            + local(unit)
            + self.rule()
            + self.gated_norm(self.values, 2 * size * self.values)
        )
