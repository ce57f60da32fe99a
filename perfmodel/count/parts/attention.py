"""The core of attention, where heads meet: scores, softmax and weighted sum, on one rank or over a context-parallel group.

Full and sliding attention differ in it alone: under a window of w a query meets w keys at most.

Symbols: s sequence_length, c context_parallel, T = b*s/c tokens on a rank, e bytes of an activation (2, in fp32 4).

Under context parallelism a rank holds the queries of s/c tokens: one piece from either end of the sequence, so that causal
masks leave all ranks the same work (Llama 3, arXiv:2407.21783, section 3.3.2). Its queries meet their own keys under a mask,
then those of every other rank, of which the mask leaves half. Where the pieces are not balanced, the last rank meets all keys
of all others, and everybody waits for it. Keys and values travel from rank to rank beside the kernels (a ring of c kernels), or
are gathered before them (two kernels).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component
from perfmodel.count.operators import Collective, FusedAttention, Matmul, MemoryBound
from perfmodel.count.parts.adapters import keeps_input
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere, chosen, everywhere
from perfmodel.spec.layout import Layout, context_parallel_group
from perfmodel.spec.machines.coefficients import FASTEST
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.precision import FP32_BYTES, RECIPES, PrecisionRecipe
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

STATISTICS_BYTES: Final = 4  # one fp32 log-sum a query and head


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What one rank has of a layer's heads: columns of queries, and of keys (and as many of values)."""

    name: str  # of the attention part: layer.attention
    query: Numeric
    kv: Numeric
    window: Numeric | None
    value_size: Numeric | None = None  # of one head, where values are not as wide as keys
    borrows: bool = False  # keys and values of another layer, which keeps them
    latent: bool = False  # keys and values out of one narrow vector a token

    def values(self, head_size: Numeric, width: Numeric) -> Numeric:
        """What heads whose queries or keys are of `width` have of values, or give."""
        return as_values(width, head_size, self.value_size)


def as_values(width: Numeric, head_size: Numeric, value_size: Numeric | None) -> Numeric:
    """What heads whose queries or keys are of `width` have of values, or give: w/d*v, or w where values have no own size."""
    return width if value_size is None else width / head_size * value_size


def attention_core(write: StreamOperators, heads: Heads) -> Block:
    """Scores, softmax and weighted sum of the heads of one rank.

    In low precision where the software casts queries, keys and values, but for the layers that a recipe spares: `.wide` ones.
    """
    setup, recipe = write.setup, write.recipe
    kept = write.activation_bytes * write.tokens * _width(setup.model, heads)
    if not setup.stack.fusion.fuses_attention(recipe):
        return _unfused(setup, heads, kept=kept)
    low = low_attention_format(setup, heads)
    apart = write.narrow_layers if recipe.casts else float(_is_kept_apart(setup))
    if not low:
        return _with_exchange(setup, heads, _fused(setup, heads, recipe.attention, kept=kept, apart=apart))
    core = _cast(write, heads, low) + _with_exchange(setup, heads, _fused(setup, heads, low, kept=0.0 * kept, apart=1))
    if not anywhere(apart < 1.0):
        return core
    spared = replace(heads, name=f"{heads.name}.wide")
    wide = _with_exchange(setup, spared, _fused(setup, spared, recipe.attention, kept=kept, apart=0))
    return core.times(apart) + wide.times(1.0 - apart)


def low_attention_format(setup: Setup, heads: Heads) -> str:
    """The format of fewer than 16 bits that queries, keys and values are cast to, "" where they are not.

    Kernels of such formats have neither windows nor sinks, capped scores or dropout, belong to one library, and are left off
    where the GPU gains nothing from them.
    """
    model, stack = setup.model, setup.stack
    low = stack.low_precision.attention_format(setup.layout.recipe)
    is_plain = heads.window is None and not (model.sinks or model.dropout or "attention" in model.softcaps)
    if not (low and is_plain and stack.fusion.attention_on(setup.cluster.gpu.generation) == FASTEST):
        return ""
    mean_size = (model.head_size + heads.values(model.head_size, model.head_size)) / 2.0
    return low if setup.cluster.gpu.takes_low_attention(low, mean_size) else ""


def _width(model: TransformerModel, heads: Heads) -> Numeric:
    """Columns of queries, keys and values, as far as the layer itself keeps them."""
    if heads.borrows:
        return heads.query
    return heads.query + heads.kv + heads.values(model.head_size, heads.kv)


def _cast(write: StreamOperators, heads: Heads, low: str) -> Block:
    """Queries, keys and values to a narrower format, and the gradient of the output; as a recipe of that format casts a tensor.

    What it writes of the former is kept for the backward kernel, in place of what it reads: that a core is run again, or what
    forms its input, changes nothing of it. With scales of blocks, copies along the other side are written but counted once.
    """
    recipe, size = RECIPES[low], write.model.head_size
    width, (once, _) = _width(write.model, heads), write.pass_bytes(RECIPES[low])
    return local(
        MemoryBound(
            name=f"{heads.name}.core.quantise",
            role=Role.CAST,
            moved_bytes=once * write.tokens * width,
            backward_bytes=once * write.tokens * heads.values(size, heads.query),
            family="cast",
            precision=recipe.products,
            saved_bytes=recipe.operand_bytes * write.tokens * width,
        )
    )


def _with_exchange(setup: Setup, heads: Heads, core: Block) -> Block:
    """The core behind what ranks that share a sequence exchange for it, in 16 bits."""
    layout = setup.layout
    if _is_one(layout.context_parallel):
        return core
    return _exchange(layout, setup.stack, heads, setup.model.head_size) + core


def _softcap(name: str, size: float, scores: Numeric) -> MemoryBound:
    """Divided, tanh, multiplied: 2 passes each; backwards 2, 3 and 2. Keeps what the tanh gave. Fused kernels do so inside."""
    return MemoryBound(
        name=name,
        role=Role.SCORES,
        moved_bytes=6 * size * scores,
        backward_bytes=7 * size * scores,
        kernels=3,
        backward_kernels=3,
        saved_bytes=size * scores,
    )


def _is_one(degree: Numeric) -> bool:
    return everywhere(degree == 1)


def _is_kept_apart(setup: Setup) -> bool:
    """Whether nothing but the core keeps its output: its projection is frozen, and no adapter beside that keeps it either."""
    tuning = setup.tuning
    return tuning is not None and not keeps_input(Component.ATTENTION, setup) and not tuning.has_adapter("projection")


def _fused(setup: Setup, heads: Heads, precision: str, *, kept: Numeric, apart: Numeric) -> Block:
    """Kernels that keep `kept` bytes, and the output in the share `apart` of the layers, else it is the projection's input."""
    model, layout, stack = setup.model, setup.layout, setup.stack
    recipe, tokens = layout.recipe, layout.tokens_per_micro_batch
    number = heads.query / model.head_size
    output = apart * recipe.activation_bytes * tokens * heads.values(model.head_size, heads.query)
    piece = layout.sequence_length / layout.context_parallel
    own = FusedAttention(
        name=f"{heads.name}.core",
        sequences=layout.micro_batch_size,
        heads=number,
        kv_heads=heads.kv / model.head_size,
        head_size=model.head_size,
        value_size=heads.value_size,
        query_length=piece,
        key_length=piece,
        window=heads.window,
        latent=heads.latent,
        precision=precision,
        saved_bytes=kept + STATISTICS_BYTES * tokens * number + output,
    )
    if _is_one(layout.context_parallel):
        return local(own)
    ranks = layout.context_parallel
    met = piece / 2 if stack.overlap.balanced_context_parallel else piece
    ring = stack.overlap.context_parallel_exchange == "ring"
    others = replace(
        own,
        name=f"{heads.name}.core_ring",
        repeats=ranks - 1 if ring else np.minimum(ranks - 1, 1),
        key_length=met if ring else met * np.maximum(ranks - 1, 1),
        causal=False,
        counted=2.0 if stack.overlap.balanced_context_parallel else 1.0,
        saved_bytes=0.0,
    )
    both = local(own) + local(others)
    return both + local(_join(layout, own, heads)) if ring else both


def _join(layout: Layout, own: FusedAttention, heads: Heads) -> MemoryBound:
    """Adding up what the kernels found: every kernel's output is rescaled, into fp32, and added to the sum of all.

    Counted for Transformer Engine's ring: of the c kernels one gives all queries, the others half or all of them, three
    quarters on average. Forwards an output is read, written in fp32, read and added to the sum (e + 4 + 4 + e + e bytes);
    backwards the gradient of the queries is added up (3*e bytes), and outputs and their gradients are cut out and copied (4*e).
    """
    ranks = np.asarray(layout.context_parallel)
    kernels = chosen(ranks > 1, 1.0 + 0.75 * (ranks - 1), 0.0)
    width = own.head_size if own.value_size is None else own.value_size
    numbers = own.sequences * own.query_length * own.heads * width * kernels
    size = layout.recipe.activation_bytes
    return MemoryBound(
        name=f"{heads.name}.join",
        role=Role.CORE_EXCHANGE,
        moved_bytes=(8.0 + 3.0 * size) * numbers,
        backward_bytes=7.0 * size * numbers,
        kernels=chosen(ranks > 1, 3 * ranks, 0),
        backward_kernels=chosen(ranks > 1, 3 * ranks, 0),
    )


def _exchange(layout: Layout, stack: SoftwareStack, heads: Heads, head_size: Numeric) -> Block:
    """Keys and values forwards; backwards both again, and their gradients the other way."""
    both = layout.recipe.activation_bytes * layout.tokens_per_micro_batch * (heads.kv + heads.values(head_size, heads.kv))
    ring = stack.overlap.context_parallel_exchange == "ring"
    group = context_parallel_group(layout)
    forward = Collective(
        name=f"{heads.name}.exchange",
        role=Role.CORE_EXCHANGE,
        kind="point_to_point" if ring else "all_gather",
        repeats=layout.context_parallel - 1 if ring else 1,
        payload_bytes=both if ring else both * layout.context_parallel,
        group=group,
        partner=(f"{heads.name}.core_ring", FORWARD) if ring else ("", ""),
    )
    if ring:
        partner = (f"{heads.name}.core_ring", DATA_GRADIENT)
        return Block(
            forward=(forward,), backward=(replace(forward, phase=DATA_GRADIENT, payload_bytes=2 * both, partner=partner),)
        )
    again = replace(forward, phase=DATA_GRADIENT)
    scatter = replace(again, name=f"{heads.name}.exchange_gradient", kind="reduce_scatter")
    return Block(forward=(forward,), backward=(again, scatter))


def _softmax_bytes(stack: SoftwareStack, recipe: PrecisionRecipe) -> tuple[float, float, int, float]:
    """Of each score: what scale, mask and softmax move forwards and backwards, in how many kernels, and what they keep."""
    size = recipe.activation_bytes
    if stack.fusion.fuses_softmax(recipe):
        return 2 * size, 3 * size, 1, size
    if size == FP32_BYTES:
        return 24, 28, 3, 4
    return (28, 40, 4, 6) if stack.fusion.fp32_scores else (20, 24, 4, 6)


def _unfused(setup: Setup, heads: Heads, *, kept: Numeric) -> Block:
    """arXiv:2205.05198, section 4.1: e bytes of softmax, and with dropout 1 of mask and e of output, a score.

    Eager, scale 4 bytes, mask 4, softmax into fp32 6, cast back 6; backwards cast 6, softmax 10, mask 4, scale 4. Both the
    fp32 probabilities and their 16-bit copy are kept. Where scores are cast first, and scaled by the product: cast 6, mask in
    place 8, softmax 8, cast back 6; backwards cast 6, softmax 12, mask on a copy 16, cast back 6. In fp32 there is nothing to
    cast: scale 8, mask 8, softmax 8; backwards softmax 12, mask 8, scale 8. A window is a mask like any other: all scores are
    formed, those inside it are counted.
    """
    model, layout = setup.model, setup.layout
    size = layout.recipe.activation_bytes
    sequence = layout.sequence_length
    batch = layout.micro_batch_size * (heads.query / model.head_size)
    scores = batch * sequence * sequence
    product = Matmul(
        name=f"{heads.name}.scores",
        role=Role.CORE,
        rows=sequence,
        columns=sequence,
        inner=model.head_size,
        batch=batch,
        useful=1.0 if heads.window is None else np.minimum(heads.window, sequence) / sequence,
        has_weight=False,
        precision=layout.recipe.attention,
        saved_bytes=kept,
    )
    moved, back, kernels, saved = _softmax_bytes(setup.stack, layout.recipe)
    softmax = MemoryBound(
        name=f"{heads.name}.softmax",
        role=Role.SCORES,
        moved_bytes=moved * scores,
        backward_bytes=back * scores,
        kernels=kernels,
        backward_kernels=kernels,
        saved_bytes=saved * scores,
    )
    drops = (2 * size + 1) * scores
    dropout = MemoryBound(
        name=f"{heads.name}.dropout",
        role=Role.SCORES,
        moved_bytes=drops,
        backward_bytes=drops,
        saved_bytes=(1 + size) * scores,
    )
    columns = heads.values(model.head_size, model.head_size)
    context = replace(product, name=f"{heads.name}.context", columns=columns, inner=sequence, saved_bytes=0.0)
    capped = local(_softcap(f"{heads.name}.softcap", size, scores)) if "attention" in model.softcaps else Block()
    block = local(product) + capped + local(softmax)
    return (block + local(dropout) if model.dropout else block) + local(context)
