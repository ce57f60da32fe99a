"""The forward operators of a decoder on one GPU of a tensor-parallel group, each with what its backward pass adds.

The linears are in count/linears.py, what lies between queries, keys and values in count/attention.py; here is the layer they
make, all that is bound by memory, and what stands before, after and between the layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from perfmodel.count.attention import attention
from perfmodel.count.blocks import Block, local
from perfmodel.count.linears import LinearOperators
from perfmodel.count.operators import Collective, MemoryBound, gradients
from perfmodel.count.parameters import into_mlp_size, kv_size_per_shard
from perfmodel.count.storage import logit_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import pipeline_parallel_group
from perfmodel.spec.phases import DATA_GRADIENT


class Traffic(NamedTuple):
    """How often an activation function reads or writes as many numbers as the MLP is wide, and in how many kernels."""

    forward_passes: int
    backward_passes: int
    forward_kernels: int = 1
    backward_kernels: int = 1


FUSED_ACTIVATION: Final = {
    "gelu": Traffic(2, 3),
    "squared_relu": Traffic(2, 3),
    "swiglu": Traffic(3, 5),
    "geglu": Traffic(3, 5),
}
# PyTorch's own kernels. GELU is one. relu(x) ** 2: relu 2, pow 2; backwards x ** 1, * 2, * gradient 7, relu 3. A gated one:
# its function 2, product 3; backwards two products 6, the function 3, joining both halves 4.
EAGER_ACTIVATION: Final = {
    "gelu": Traffic(2, 3),
    "squared_relu": Traffic(4, 10, 2, 4),
    "swiglu": Traffic(5, 13, 2, 4),
    "geglu": Traffic(5, 13, 2, 4),
}


class DecoderOperators(LinearOperators):
    """Writes down the blocks of one model under one layout and stack; each method answers for one part of the layer."""

    def layer(self) -> Block:
        """One decoder layer: attention and MLP, each after a norm and inside a residual connection."""
        model = self.model
        kv = kv_size_per_shard(model, self.tensor)
        query = model.query_size / self.tensor
        ffn = model.ffn_hidden_size / self.tensor
        without_copies = (model.query_size + 2 * model.kv_size) / self.tensor
        return (
            self.norm("layer.attention.norm")
            + self.projections(
                {"layer.attention.qkv": query + 2 * kv},
                {"layer.attention.query": query, "layer.attention.key": kv, "layer.attention.value": kv},
                useful=without_copies / (query + 2 * kv),
            )
            + self.rotary(query + kv)
            + attention(model, self.layout, self.stack, query=query, kv=kv)
            + self.row_linear("layer.attention.projection", inner=query)
            + self.residual("layer.attention.residual")
            + self.norm("layer.mlp.norm")
            + self.projections(
                {"layer.mlp.fc1": into_mlp_size(model) / self.tensor},
                {"layer.mlp.gate": ffn, "layer.mlp.fc1": ffn} if model.gated else {},
            )
            + self.activation(ffn)
            + self.row_linear("layer.mlp.fc2", inner=ffn)
            + self.residual("layer.mlp.residual")
        )

    def norm(self, name: str) -> Block:
        """Reads and writes the stream; backwards reads it and its gradient and writes one. Keeps its input.

        PyTorch has one kernel for layer norm. Its RMS norm of eager operators also keeps what its weight scales.
        """
        stream = self.hidden_bytes / self.token_shards
        if self.stack.norm_kernels == "eager_fp32" and self.model.norm == "rmsnorm":
            return self._norm_in_fp32(name, stream / self.activation_bytes)
        kept = 3 * stream if self.stack.norm_kernels == "eager" and self.model.norm == "rmsnorm" else stream
        return local(
            MemoryBound(
                name=name,
                family="norm",
                kernel=self.model.norm,
                precision=self.precision,
                moved_bytes=2 * stream,
                backward_bytes=3 * stream,
                saved_bytes=kept,
            )
        )

    def _norm_in_fp32(self, name: str, numbers: Numeric) -> Block:
        """A chain of elementwise kernels on a copy in fp32: 36 bytes a number forwards, 84 backwards, 10 kept.

        To fp32 6, square 8, mean 4, scale 8, cast 6, weight 4; backwards the weight's gradient 8, weight 4, to fp32 6, scale 8,
        the gradient of the scale 16, of the square 24, their sum 12, cast 6. Kept are the copy, what is scaled, and that in 16
        bits. In fp32 there is nothing to cast and no copy: 28, 84 (the weight's gradient 16, weight 8) and 8.
        """
        casts = self.precision != "fp32"
        return local(
            MemoryBound(
                name=name,
                moved_bytes=(36 if casts else 28) * numbers,
                backward_bytes=84 * numbers,
                kernels=6 if casts else 4,
                backward_kernels=12 if casts else 10,
                saved_bytes=(10 if casts else 8) * numbers,
            )
        )

    def residual(self, name: str) -> Block:
        """Adds the branch to the stream (with dropout: writes and keeps a one-byte mask); backwards adds two gradients."""
        stream = self.hidden_bytes / self.token_shards
        mask = stream / self.activation_bytes if self.model.dropout else 0.0 * stream
        moved = 3 * stream + mask
        return local(
            MemoryBound(
                name=name,
                kernel="residual",
                precision=self.precision,
                moved_bytes=moved,
                backward_bytes=moved,
                saved_bytes=mask,
            )
        )

    def rotary(self, width: Numeric) -> Block:
        """Rotates queries and keys: one pass fused; eager, 11 passes of slice, negate, join, two products and a sum."""
        if self.model.position != "rotary":
            return Block(forward=(), backward=())
        passes, kernels = (2, 2) if self.stack.fused_rotary else (11, 12)
        moved = passes * self.activation_bytes * self.tokens * width
        return local(
            MemoryBound(
                name="layer.attention.rotary",
                kernel="rotary",
                precision=self.precision,
                moved_bytes=moved,
                backward_bytes=moved,
                kernels=kernels,
                backward_kernels=kernels,
            )
        )

    def activation(self, ffn: Numeric) -> Block:
        """One kernel where the stack fuses it, else PyTorch's chain.

        Keeps its input (both halves when gated); a gated chain keeps its gate too.
        """
        kind = self.model.activation
        fused = self.stack.fused_squared_relu if kind == "squared_relu" else self.stack.fused_activation
        traffic = (FUSED_ACTIVATION if fused else EAGER_ACTIVATION)[kind]
        one = self.activation_bytes * self.tokens * ffn
        return local(
            MemoryBound(
                name="layer.mlp.activation",
                kernel=kind,
                precision=self.precision,
                moved_bytes=traffic.forward_passes * one,
                backward_bytes=traffic.backward_passes * one,
                kernels=traffic.forward_kernels,
                backward_kernels=traffic.backward_kernels,
                saved_bytes=((2 if fused else 3) if self.model.gated else 1) * one,
            )
        )

    def embedding(self) -> Block:
        """Looks up every token on every rank, zero where another rank has the row; then sums over the ranks.

        Backwards writes a dense gradient of the table and adds it to the accumulated one.
        """
        table = self.model.padded_vocab_size(self.tensor) * self.model.hidden_size / self.tensor
        read = 1.0 - 1.0 / self.layout.micro_batches if self.stack.overwrites_gradients else 1.0
        dense = table * (2 * self.activation_bytes + (1.0 + read) * self.state.gradient)
        learned = 1 if self.model.position == "learned" else 0
        lookup = MemoryBound(
            name="embedding.lookup",
            kernel="lookup",
            precision=self.precision,
            moved_bytes=(4 + 2 * learned) * self.hidden_bytes,
            backward_bytes=3 * self.hidden_bytes + dense,
            kernels=3 + learned,
            backward_kernels=4,
        )
        if not self.layout.sequence_parallel:
            reduce = self.collective("embedding.all_reduce", "all_reduce", payload=self.hidden_bytes)
            return Block(forward=(lookup, reduce), backward=gradients(lookup))
        scatter = self.collective("embedding.scatter", "reduce_scatter", payload=self.hidden_bytes)
        gather = self.collective("embedding.gather_gradient", "all_gather", payload=self.hidden_bytes, phase=DATA_GRADIENT)
        return Block(forward=(lookup, scatter), backward=(gather, *gradients(lookup)))

    def head(self) -> Block:
        """Final norm, logits over the padded vocabulary, and vocabulary-parallel cross-entropy.

        The loss exchanges three fp32 numbers a token: the largest logit, the logit of the target, the sum of exponentials; or
        every rank gathers all logits.
        """
        padded = self.model.padded_vocab_size(self.tensor)
        columns = padded / self.tensor
        logits = self.tokens * (padded if self.stack.gathered_logits else columns)
        loss = MemoryBound(
            name="head.loss",
            kernel="loss",
            precision=self.precision,
            moved_bytes=logit_bytes(self.stack.loss_forward_bytes, self.layout) * logits,
            backward_bytes=logit_bytes(self.stack.loss_backward_bytes, self.layout) * logits,
            kernels=8,
            backward_kernels=4,
        )
        exchange = replace(self.collective("head.loss.all_reduce", "all_reduce", payload=4 * self.tokens), repeats=3)
        if self.stack.gathered_logits:
            exchange = self.collective("head.loss.gather", "all_gather", payload=self.activation_bytes * logits)
        return (
            self.norm("head.norm")
            + self.column_linear(
                "head.logits", columns=columns, useful=self.model.vocab_size / padded, transformer_engine=False
            )
            + Block(forward=(exchange, loss), backward=gradients(loss))
        )

    def boundary(self) -> Block:
        """What one piece of the pipeline hands to the next: activations forwards, their gradients backwards.

        Where all ranks of a tensor-parallel group hold the same, a stack may send a slice from each and join them in the next
        node (arXiv:2104.04473, section 4.1).
        """
        sliced = self.stack.scatter_gather_pipeline and not self.layout.sequence_parallel
        shards = self.tensor if sliced else self.token_shards
        send = Collective(
            name="pipeline.send_activations",
            kind="point_to_point",
            payload_bytes=self.hidden_bytes / shards,
            group=pipeline_parallel_group(self.layout),
        )
        back = replace(send, name="pipeline.send_gradients", phase=DATA_GRADIENT)
        if not sliced:
            return Block(forward=(send,), backward=(back,))
        join = self.collective("pipeline.join_activations", "all_gather", payload=self.hidden_bytes)
        joined = replace(join, name="pipeline.join_gradients", phase=DATA_GRADIENT)
        return Block(forward=(send, join), backward=(back, joined))
