"""The forward operators of attention between its two linears: fused or not, on one rank or over a context-parallel group.

Symbols: s sequence_length, c context_parallel, T = b*s/c tokens on a rank, e bytes of an activation (2, in fp32 4).

Under context parallelism a rank holds the queries of s/c tokens: one piece from either end of the sequence, so that causal
masks leave all ranks the same work (Llama 3, arXiv:2407.21783, section 3.3.2). Its queries meet their own keys under a mask,
then those of every other rank, of which the mask leaves half. Where the pieces are not balanced, the last rank meets all keys
of all others, and everybody waits for it. Keys and values travel from rank to rank beside the kernels (a ring of c kernels), or
are gathered before them (two kernels).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, context_parallel_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.stack import SoftwareStack

STATISTICS_BYTES = 4  # one fp32 log-sum a query and head


def attention(model: TransformerModel, layout: Layout, stack: SoftwareStack, *, query: Numeric, kv: Numeric) -> Block:
    """Scores, softmax and weighted sum of the heads of one rank, `query` and `kv` columns of them."""
    kept = layout.activation_bytes * layout.tokens_per_micro_batch * (query + 2 * kv)
    if not stack.fused_attention:
        return _unfused(model, layout, stack, heads=query / model.head_size, kept=kept)
    core = _fused(model, layout, stack, query=query, kv=kv, kept=kept)
    return core if _is_one(layout.context_parallel) else _exchange(layout, stack, kv) + core


def _is_one(degree: Numeric) -> bool:
    return bool(np.all(np.asarray(degree) == 1))


def _fused(
    model: TransformerModel, layout: Layout, stack: SoftwareStack, *, query: Numeric, kv: Numeric, kept: Numeric
) -> Block:
    tokens, heads = layout.tokens_per_micro_batch, query / model.head_size
    output = layout.activation_bytes * tokens * query if layout.precision == "fp8" else 0  # else it is the projection's input
    piece = layout.sequence_length / layout.context_parallel
    own = FusedAttention(
        name="layer.attention.core",
        sequences=layout.micro_batch_size,
        heads=heads,
        kv_heads=kv / model.head_size,
        head_size=model.head_size,
        query_length=piece,
        key_length=piece,
        precision=layout.wide_precision,
        saved_bytes=kept + STATISTICS_BYTES * tokens * heads + output,
    )
    if _is_one(layout.context_parallel):
        return local(own)
    ranks = layout.context_parallel
    met = piece / 2 if stack.balanced_context_parallel else piece
    ring = stack.context_parallel_exchange == "ring"
    others = replace(
        own,
        name="layer.attention.core_ring",
        repeats=ranks - 1 if ring else np.minimum(ranks - 1, 1),
        key_length=met if ring else met * np.maximum(ranks - 1, 1),
        causal=False,
        counted=2.0 if stack.balanced_context_parallel else 1.0,
        saved_bytes=0.0,
    )
    both = local(own) + local(others)
    return both + local(_join(layout, own)) if ring else both


def _join(layout: Layout, own: FusedAttention) -> MemoryBound:
    """Adding up what the kernels found: every kernel's output is rescaled, into fp32, and added to the sum of all.

    Counted for Transformer Engine's ring: of the c kernels one gives all queries, the others half or all of them, three
    quarters on average. Forwards an output is read, written in fp32, read and added to the sum (e + 4 + 4 + e + e bytes);
    backwards the gradient of the queries is added up (3*e bytes), and outputs and their gradients are cut out and copied (4*e).
    """
    ranks = np.asarray(layout.context_parallel)
    kernels = np.where(ranks > 1, 1.0 + 0.75 * (ranks - 1), 0.0)
    numbers = own.sequences * own.query_length * own.heads * own.head_size * kernels
    size = layout.activation_bytes
    return MemoryBound(
        name="layer.attention.join",
        moved_bytes=(8.0 + 3.0 * size) * numbers,
        backward_bytes=7.0 * size * numbers,
        kernels=np.where(ranks > 1, 3 * ranks, 0),
        backward_kernels=np.where(ranks > 1, 3 * ranks, 0),
    )


def _exchange(layout: Layout, stack: SoftwareStack, kv: Numeric) -> Block:
    """Keys and values forwards; backwards both again, and their gradients the other way."""
    both = 2 * layout.activation_bytes * layout.tokens_per_micro_batch * kv
    ring = stack.context_parallel_exchange == "ring"
    group = context_parallel_group(layout)
    forward = Collective(
        name="layer.attention.exchange",
        kind="point_to_point" if ring else "all_gather",
        repeats=layout.context_parallel - 1 if ring else 1,
        payload_bytes=both if ring else both * layout.context_parallel,
        group=group,
        partner=("layer.attention.core_ring", FORWARD) if ring else ("", ""),
    )
    if ring:
        partner = ("layer.attention.core_ring", DATA_GRADIENT)
        return Block(
            forward=(forward,), backward=(replace(forward, phase=DATA_GRADIENT, payload_bytes=2 * both, partner=partner),)
        )
    again = replace(forward, phase=DATA_GRADIENT)
    scatter = replace(again, name="layer.attention.exchange_gradient", kind="reduce_scatter")
    return Block(forward=(forward,), backward=(again, scatter))


def _unfused(model: TransformerModel, layout: Layout, stack: SoftwareStack, *, heads: Numeric, kept: Numeric) -> Block:
    """arXiv:2205.05198, section 4.1: e bytes of softmax, and with dropout 1 of mask and e of output, a score.

    Eager, scale 4 bytes, mask 4, softmax into fp32 6, cast back 6; backwards cast 6, softmax 10, mask 4, scale 4. Both the
    fp32 probabilities and their 16-bit copy are kept. In fp32 there is nothing to cast: scale 8, mask 8, softmax 8; backwards
    softmax 12, mask 8, scale 8.
    """
    size = layout.activation_bytes
    sequence = layout.sequence_length
    batch = layout.micro_batch_size * heads
    scores = batch * sequence * sequence
    product = Matmul(
        name="layer.attention.scores",
        rows=sequence,
        columns=sequence,
        inner=model.head_size,
        batch=batch,
        has_weight=False,
        precision=layout.wide_precision,
        saved_bytes=kept,
    )
    if stack.fused_softmax:
        moved, back, kernels, saved = 2 * size, 3 * size, 1, size
    else:
        moved, back, kernels, saved = (24, 28, 3, 4) if layout.precision == "fp32" else (20, 24, 4, 6)
    softmax = MemoryBound(
        name="layer.attention.softmax",
        moved_bytes=moved * scores,
        backward_bytes=back * scores,
        kernels=kernels,
        backward_kernels=kernels,
        saved_bytes=saved * scores,
    )
    drops = (2 * size + 1) * scores
    dropout = MemoryBound(
        name="layer.attention.dropout", moved_bytes=drops, backward_bytes=drops, saved_bytes=(1 + size) * scores
    )
    context = replace(product, name="layer.attention.context", columns=model.head_size, inner=sequence, saved_bytes=0.0)
    block = local(product) + local(softmax)
    return (block + local(dropout) if model.dropout else block) + local(context)
