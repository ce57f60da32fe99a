"""How many bytes one GPU needs at the peak of an iteration, part by part.

Parameters, gradients and optimizer states are exact; activations are what the operators keep (the fold of count/operators
over the list); the rest (framework, buffers, fragmentation) comes from the software stack's data. Ignored: the mask of
the embedding's dropout, one byte a number of the stream (a thirty-fourth of one layer).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from perfmodel.count.decoder import ACTIVATION_BYTES
from perfmodel.count.iteration import Iteration
from perfmodel.count.operators import Matmul, saved_bytes
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.synchronisation import optimizer_shards
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

SCORE_OPERATORS = ("layer.attention.softmax", "layer.attention.dropout")  # what selective recompute does not keep


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """Bytes by part; they sum to the total."""

    parameters_bytes: Numeric
    gradients_bytes: Numeric
    optimizer_bytes: Numeric
    activations_bytes: Numeric
    loss_bytes: Numeric
    communication_bytes: Numeric
    framework_bytes: Numeric
    fragmentation_bytes: Numeric

    @property
    def total_bytes(self) -> Numeric:
        """The sum of the parts."""
        total: Numeric = 0.0
        for part in fields(self):
            total = total + getattr(self, part.name)
        return total


def memory_bytes(model: TransformerModel, layout: Layout, stack: SoftwareStack, work: Iteration) -> MemoryBytes:
    """The peak, reached when the backward pass begins: every layer's activations are held, and the logits with them."""
    held = shard_parameter_count(model, tensor_parallel=layout.tensor_parallel)
    shard = held.total
    cast = 2 * (held.attention + held.mlp) if layout.precision == "fp8" else 0.0 * shard  # 8-bit weights and their transposes
    logits = next(op for op in work.head.forward if isinstance(op, Matmul))
    loss = stack.loss_peak_bytes * logits.rows * logits.columns
    head = saved_bytes(work.head.forward)
    # the loss is over when the first layer runs again: only what that needs beyond it adds to the peak
    rerun = np.maximum(rerun_layer_bytes(model, layout, work) - loss - head, 0)
    activations = activation_bytes(model, layout, work) + head + rerun
    groups = (layout.tensor_parallel > 1) * 1.0 + (layout.data_parallel > 1) * 1.0
    return MemoryBytes(
        parameters_bytes=shard * stack.parameter_bytes + cast,
        gradients_bytes=shard * stack.gradient_bytes,
        optimizer_bytes=shard / optimizer_shards(layout) * stack.optimizer_bytes,
        activations_bytes=activations,
        loss_bytes=loss,
        communication_bytes=groups * stack.communication_buffer_bytes,
        framework_bytes=stack.framework_bytes + 0.0 * shard,
        fragmentation_bytes=stack.fragmentation * (activations + loss),
    )


def activation_bytes(model: TransformerModel, layout: Layout, work: Iteration) -> Numeric:
    """What all layers keep of one micro-batch, by recompute mode; s*b*h*(34 + 5*a*s/h)/t a layer without recompute or fusion.

    Selective recompute keeps all but the scores, full recompute the input of each layer.
    Source: arXiv:2205.05198, section 4.
    """
    return model.layers * (saved_bytes(work.layer.forward) - rerun_layer_bytes(model, layout, work))


def rerun_layer_bytes(model: TransformerModel, layout: Layout, work: Iteration) -> Numeric:
    """What one layer forms again before its backward pass, and holds while that runs."""
    layer = saved_bytes(work.layer.forward)
    if layout.recompute == "none":
        return 0.0 * layer
    if layout.recompute == "selective":
        return saved_bytes(op for op in work.layer.forward if op.name in SCORE_OPERATORS) + 0.0 * layer
    layer_input = ACTIVATION_BYTES * layout.tokens_per_micro_batch * model.hidden_size / layout.sequence_shards
    return np.maximum(layer - layer_input, 0)
