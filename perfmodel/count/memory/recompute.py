"""What one layer forms again before its backward pass, and what it keeps instead.

Symbols: T tokens of a micro-batch, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, t tensor_parallel, e bytes of an
activation, S GPUs that share the tokens between linears.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from perfmodel.count.blocks import Block
from perfmodel.count.declarations import Linear
from perfmodel.count.iteration import Iteration, LayerBlocks
from perfmodel.count.layer import layer_parts
from perfmodel.count.memory.storage import stream_bytes
from perfmodel.count.operators import FusedAttention, saved_bytes
from perfmodel.count.parts.attention import STATISTICS_BYTES
from perfmodel.count.roles import EXPERT_PRODUCTS, Role
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.setup import Setup

UNCOUNTED: Final = EXPERT_PRODUCTS | {
    Role.ROUTER
}  # grouped products are another call, and the router's are always formed again


def rerun_layer_bytes(work: Iteration, blocks: LayerBlocks, kind: str) -> Numeric:
    """What one layer of a kind forms again before its backward pass, and holds while that runs."""
    layout, selection, layer = work.layout, work.setup.stack.fusion.selective_recompute, blocks.again
    saved = saved_bytes(layer.forward)
    if layout.recompute == "selective" and layout.recompute_modules:
        return blocks.freed_bytes + 0.0 * saved
    if layout.recompute == "none":
        return 0.0 * saved
    if layout.recompute == "full":
        return np.maximum(saved - stream_bytes(work.setup), 0)
    selected: dict[str, Callable[[], Numeric]] = {
        "attention": lambda: saved_bytes(op for op in layer.forward if op.role is Role.SCORES) + 0.0 * saved,
        "every_second_product": lambda: np.maximum(saved - _every_second_product_bytes(work.setup, kind, layer), 0),
    }
    return selected[selection]()


def _every_second_product_bytes(setup: Setup, kind: str, layer: Block) -> Numeric:
    """A layer's input, the output of its attention, and what every second linear gave, from the first on.

    Of a plain layer these are e*T*(h/S + (2*q + v + f)/t): queries, values, the output of attention with its statistics, and
    the first product of the MLP; keys, the projection and the MLP's other input are formed again. The last linear of a layer
    that has an odd number of them is kept too, though no gradient needs it, e*T*h/S more: a compiler sees that. Linears of a
    router and of routed experts are no calls that are counted. Source: pytorch/torchtitan, _get_custom_policy of its
    per-operator checkpointing.
    """
    layout, stream = setup.layout, stream_bytes(setup)
    size = layout.recipe.activation_bytes * layout.tokens_per_micro_batch
    kept: Numeric = stream
    linears = _counted_linears(setup, kind)
    for linear in linears[:-1:2]:
        kept = kept + size * linear.columns / (layout.sequence_shards if linear.is_replicated else 1)
    if len(linears) % 2 and not setup.stack.fusion.recomputed_inputs:
        kept = kept + stream
    for core in (op for op in layer.forward if isinstance(op, FusedAttention) and anywhere(op.saved_bytes)):
        width = core.head_size if core.value_size is None else core.value_size
        numbers = layout.recipe.activation_bytes * width + STATISTICS_BYTES
        kept = kept + core.repeats * core.sequences * core.heads * core.query_length * numbers
    return kept


def _counted_linears(setup: Setup, kind: str) -> list[Linear]:
    """Those of one layer that software calls one by one, in their order."""
    linears: list[Linear] = []
    for part in layer_parts(setup.model, setup.model.kinds[kind], setup.layout.tensor_parallel):
        into = part.into.separate if part.into else ()
        linears += [*into, *part.others.values(), *([part.out] if part.out else [])]
    return [linear for linear in linears if linear.role not in UNCOUNTED]
