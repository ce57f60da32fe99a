"""Mixers that keep a state, on one GPU: Mamba-2 and the gated delta rule, both as linears around a scan over chunks of tokens.

Symbols: T tokens of a micro-batch, h hidden_size, t tensor_parallel, e bytes of an activation, Q chunk_size, K convolution;
Mamba-2: H heads of P numbers, d = H*P, G groups, N state_size; gated delta: K_h key heads and V_h value heads of d_k and d_v
numbers, k = K_h*d_k, v = V_h*d_v.

A scan is written as the products of its chunks, each a batch over chunks and heads; what software fuses of them is not told
apart. Kept are what the first linear gave and what the scan gave: the rest is formed again inside the backward kernels (mamba_ssm,
mamba_split_conv1d_scan_combined; flash-linear-attention, chunk_gated_delta_rule). The published conventions count a scan by
its recurrence, token by token, whatever the size of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component, LayerPart, Linear, Projections
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.storage import FP32_BYTES
from perfmodel.count.stream import StreamOperators
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layer_kinds import LayerKind
from perfmodel.spec.layer_parts import GatedDelta, StateSpace
from perfmodel.spec.model import TransformerModel


class ChunkProduct(NamedTuple):
    """One product of a scan, for each chunk and each of `heads`."""

    heads: Numeric
    rows: Numeric
    inner: Numeric
    columns: Numeric

    @property
    def flop(self) -> Numeric:
        """2 * heads * rows * inner * columns, of one chunk."""
        return 2.0 * self.heads * self.rows * self.inner * self.columns


def _state_space(model: TransformerModel) -> StateSpace:
    assert model.state_space is not None  # spec/model.py
    return model.state_space


def _delta(model: TransformerModel) -> GatedDelta:
    assert model.delta is not None  # spec/model.py
    return model.delta


def mamba2_mixer(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h*(2*d + 2*G*N + H) into the mixer, d*h out of it; a convolution of K + 1 for each of d + 2*G*N, 3 numbers a head, a norm.

    Groups are copied where there are fewer of them than ranks; the published convention counts no copies.
    """
    mixer = _state_space(model)
    width, heads = mixer.heads * mixer.head_size / tensor_parallel, mixer.heads / tensor_parallel
    shared = np.maximum(mixer.groups / tensor_parallel, 1) * mixer.state_size
    without_copies = 2 * width + 2 * mixer.groups * mixer.state_size / tensor_parallel + heads
    columns = 2 * width + 2 * shared + heads
    return _around_scan(
        model,
        name,
        columns=columns,
        useful=without_copies / columns,
        width=width,
        vectors=(width + 2 * shared) * (mixer.convolution + 1) + 3 * heads,
        norm=width,
    )


def gated_delta_mixer(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h*(2*k + 2*v + 2*V_h) into the mixer, v*h out of it; a convolution of K for each of 2*k + v, 2 numbers a head, a norm of d_v."""
    mixer = _delta(model)
    keys, values = _delta_widths(model, tensor_parallel)
    heads = mixer.value_heads / tensor_parallel
    vectors = (2 * keys + values) * mixer.convolution + 2 * heads
    columns = 2 * keys + 2 * values + 2 * heads
    return _around_scan(
        model, name, columns=columns, useful=1.0, width=values, vectors=vectors, norm=mixer.value_head_size
    )


def _delta_widths(model: TransformerModel, tensor_parallel: Numeric) -> tuple[Numeric, Numeric]:
    """k/t and v/t."""
    mixer = _delta(model)
    keys, values = mixer.key_heads * mixer.key_head_size, mixer.value_heads * mixer.value_head_size
    return keys / tensor_parallel, values / tensor_parallel


def _around_scan(
    model: TransformerModel, name: str, *, columns: Numeric, useful: Numeric, width: Numeric, vectors: Numeric, norm: Numeric
) -> LayerPart:
    """The linear into a mixer and the one out of it, of `width` columns."""
    component, hidden = Component.ATTENTION, model.hidden_size
    into = Linear(
        name=f"{name}.into", component=component, role=Role.PRODUCT, inner=hidden, columns=columns, useful=useful
    )
    out = Linear(name=f"{name}.projection", component=component, role=Role.OUTPUT_PRODUCT, inner=width, columns=hidden)
    return LayerPart(
        into=Projections(joined=into),
        out=out,
        norm_before=model.pre_norms,
        norm_behind=model.post_norms,
        inner_norms=norm,
        inner_vectors=vectors,
    )


def mamba2_scan_flop_per_token(model: TransformerModel) -> Numeric:
    """3 * 7 * d * N, forward and backward: as Megatron-LM counts a Mamba layer's scan, whose convolution it leaves out."""
    mixer = _state_space(model)
    return 21.0 * mixer.heads * mixer.head_size * mixer.state_size


def gated_delta_scan_flop_per_token(model: TransformerModel) -> Numeric:
    """6 * (4 * V_h*d_k*d_v + K * (2*k + v)), forward and backward, as Megatron-LM counts the gated delta rule and its convolution."""
    mixer = _delta(model)
    keys, values = _delta_widths(model, 1)
    rule = 4.0 * mixer.value_heads * mixer.key_head_size * mixer.value_head_size
    return 6.0 * (rule + mixer.convolution * (2 * keys + values))


def mamba2_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """The linear into the mixer, convolution, scan, gated norm, the linear out of it."""
    del kind
    mixer = _state_space(write.model)
    heads, groups = mixer.heads / write.tensor, np.maximum(mixer.groups / write.tensor, 1)
    length, state, size = mixer.chunk_size, mixer.state_size, mixer.head_size
    products = (
        ChunkProduct(groups, length, state, length),  # what each token reads of what others wrote
        ChunkProduct(heads, length, length, size),  # of the same chunk
        ChunkProduct(heads, state, length, size),  # the state that a chunk adds
        ChunkProduct(heads, length, state, size),  # what it reads of the state before it
    )
    convolved = heads * size + 2 * groups * state
    counted = mamba2_scan_flop_per_token(write.model)
    return _inside(write, declared, name, products, chunk=length, convolved=convolved, states=heads * size * state, counted=counted)


def gated_delta_inside(write: StreamOperators, declared: LayerPart, kind: LayerKind, name: str) -> Block:
    """The linear into the mixer, convolution, scan, gated norm, the linear out of it."""
    del kind
    mixer = _delta(write.model)
    heads, length = mixer.value_heads / write.tensor, mixer.chunk_size
    key, value = mixer.key_head_size, mixer.value_head_size
    products = (
        ChunkProduct(2 * heads, length, key, length),  # of keys, and of queries, with keys
        ChunkProduct(heads, length, length, key),  # keys, and
        ChunkProduct(2 * heads, length, length, value),  # values, corrected within a chunk; what queries weigh of them
        ChunkProduct(2 * heads, length, key, value),  # what keys predict of values from the state, and what queries read of it
        ChunkProduct(heads, key, length, value),  # what a chunk adds to the state
    )
    keys, values = _delta_widths(write.model, write.tensor)
    counted = gated_delta_scan_flop_per_token(write.model)
    return _inside(
        write, declared, name, products, chunk=length, convolved=2 * keys + values, states=heads * key * value, counted=counted
    )


def _inside(
    write: StreamOperators,
    declared: LayerPart,
    name: str,
    products: Sequence[ChunkProduct],
    *,
    chunk: Numeric,
    convolved: Numeric,
    states: Numeric,
    counted: Numeric,
) -> Block:
    """A mixer whose scan has these products, and states of so many numbers on a rank; `counted` FLOPs a token of all ranks."""
    assert declared.into is not None and declared.out is not None
    width, chunks = declared.out.inner, write.tokens / chunk
    scan = _products(write, name, products, chunks, counted) + _states(name, states * chunks)
    norm = write.norm_of(f"{name}.gated_norm", write.tokens * width, write.activation_bytes * write.tokens * width)
    return (
        write.projections(declared.into)
        + _convolution(write, name, convolved, kept=declared.into.joined.columns)
        + scan
        + _gate(write, name, width)
        + norm
        + write.row_linear(declared.out)
    )


def _convolution(write: StreamOperators, name: str, columns: Numeric, *, kept: Numeric) -> Block:
    """A convolution over time with its activation: reads and writes each number; backwards reads two and writes one.

    Keeps what the linear gave, its own input among it.
    """
    size = write.activation_bytes * write.tokens
    return local(
        MemoryBound(
            name=f"{name}.convolution",
            precision=write.recipe.rest,
            moved_bytes=2 * size * columns,
            backward_bytes=3 * size * columns,
            backward_kernels=2,
            saved_bytes=size * kept,
        )
    )


def _products(
    write: StreamOperators, name: str, products: Sequence[ChunkProduct], chunks: Numeric, counted: Numeric
) -> Block:
    """The products of a scan; of their FLOPs as many are useful as the convention counts, of all ranks forward and backward."""
    every: Numeric = sum((product.flop for product in products), start=0.0)
    useful = counted * write.tokens / write.tensor / (3.0 * every * chunks)
    block = Block()
    for place, product in enumerate(products, start=1):
        block = block + local(
            Matmul(
                name=f"{name}.scan{place}",
                role=Role.ELEMENTWISE,
                rows=product.rows,
                inner=product.inner,
                columns=product.columns,
                batch=product.heads * chunks,
                useful=useful,
                precision=write.recipe.attention,
                has_weight=False,
            )
        )
    return block


def _states(name: str, numbers: Numeric) -> Block:
    """The states of all chunks, one after the other, in fp32: written, read, multiplied, added to the next; backwards the same."""
    moved = 3.0 * FP32_BYTES * numbers
    return local(MemoryBound(name=f"{name}.states", moved_bytes=moved, backward_bytes=moved))


def _gate(write: StreamOperators, name: str, width: Numeric) -> Block:
    """What the scan gave times the activated gate: reads both and writes one; backwards reads three and writes two. Keeps the first."""
    size = write.activation_bytes * write.tokens * width
    return local(
        MemoryBound(
            name=f"{name}.gate",
            precision=write.recipe.rest,
            moved_bytes=3 * size,
            backward_bytes=5 * size,
            saved_bytes=size,
        )
    )
