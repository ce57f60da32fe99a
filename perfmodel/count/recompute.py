"""What one layer forms again before its backward pass, and what it keeps instead.

Symbols: T tokens of a micro-batch, h hidden_size, q query_size, v kv_size, f ffn_hidden_size, t tensor_parallel, e bytes of an
activation, S GPUs that share the tokens between linears.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.attention import STATISTICS_BYTES, rank_heads
from perfmodel.count.blocks import runs_again
from perfmodel.count.iteration import Iteration, LayerBlocks
from perfmodel.count.operators import saved_bytes
from perfmodel.count.roles import Role
from perfmodel.count.storage import stream_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.setup import Setup


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
    if layout.recompute == "selective" and selection == "attention":
        return saved_bytes(op for op in layer.forward if op.role is Role.SCORES) + 0.0 * saved
    if layout.recompute == "selective" and selection == "every_second_product":
        return np.maximum(saved - _every_second_product_bytes(work.setup, kind), 0)
    chosen = runs_again(layout.recompute, selection)
    return saved_bytes(op for op in layer.forward if chosen(op)) + 0.0 * saved


def _every_second_product_bytes(setup: Setup, kind: str) -> Numeric:
    """e*T*(h/S + (2*q + v + f)/t), and h/S more where eager: a layer's input, and what every second product gave.

    Kept are queries, values, the output of attention with its statistics, and the first product of the MLP; keys, the
    projection and the MLP's other input are formed again. The seventh product, the MLP's output, is kept too, though no
    gradient needs it: a compiler sees that. Source: pytorch/torchtitan, _get_custom_policy of its per-operator checkpointing.
    """
    model, layout = setup.model, setup.layout
    heads = rank_heads(model, model.kinds[kind], layout.tensor_parallel, kind)
    numbers = 2 * heads.query + heads.kv + model.ffn_hidden_size / layout.tensor_parallel
    statistics = STATISTICS_BYTES * heads.query / model.head_size
    stream = stream_bytes(setup)
    wasted = stream if model.gated and not setup.stack.fusion.recomputed_inputs else 0.0
    each = layout.recipe.activation_bytes * numbers + statistics
    return stream + wasted + layout.tokens_per_micro_batch * each
