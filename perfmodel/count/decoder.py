"""The forward operators of a decoder on one GPU of a tensor-parallel group, each with what its backward pass adds.

Symbols: T tokens of a micro-batch, h hidden_size, t tensor_parallel, e bytes of an activation (2). `S` below is the number
of GPUs that share the tokens between linears (t with sequence parallelism, else 1).

A column-parallel linear splits its output columns and wants the whole input; a row-parallel one splits its inner size
and leaves partial sums. With sequence parallelism the first gathers its input and the second scatters its output; without,
the second all-reduces (Megatron-LM, arXiv:1909.08053; sequence parallelism, arXiv:2205.05198, section 4.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from perfmodel.count.attention import attention
from perfmodel.count.blocks import Block, local
from perfmodel.count.operators import (
    ACTIVATION_BYTES,
    DATA_GRADIENT,
    FORWARD,
    WEIGHT_GRADIENT,
    Collective,
    Matmul,
    MemoryBound,
    Operator,
    gradients,
)
from perfmodel.count.parameters import into_mlp_size, kv_size_per_shard
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, pipeline_parallel_group, tensor_parallel_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack


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


class DecoderOperators:
    """Writes down the blocks of one model under one layout and stack; each method answers for one part of the layer."""

    def __init__(self, model: TransformerModel, layout: Layout, stack: SoftwareStack) -> None:
        self.model, self.layout, self.stack = model, layout, stack
        self.tokens = layout.tokens_per_micro_batch
        self.tensor = layout.tensor_parallel
        self.token_shards = layout.sequence_shards
        self.group = tensor_parallel_group(layout)
        self.eight_bit = layout.precision == "fp8"
        self.sixteen_bit = "bf16" if self.eight_bit else layout.precision
        self.search_bytes = 2 if stack.fp8_scaling == "current" else 0  # a pass to find the largest number before each cast
        self.hidden_bytes = ACTIVATION_BYTES * self.tokens * model.hidden_size

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

    def projections(self, joined: Mapping[str, Numeric], apart: Mapping[str, Numeric], *, useful: Numeric = 1.0) -> Block:
        """Column-parallel linears of one input: one product, or where the stack has them apart one each.

        Each keeps no copy of the input of its own, and each reduces its own input gradient; a gathered input serves all.
        """
        columns = apart if self.stack.separate_projections and apart else joined
        blocks = [self.column_linear(name, columns=width, useful=useful) for name, width in columns.items()]
        first, *others = blocks
        for other in others:
            first = first + self._sharing_input(other)
        return first

    def _sharing_input(self, linear: Block) -> Block:
        """A further linear of the same input: neither kept nor gathered again, nor scattered apart under sequence parallelism."""
        forward = tuple(
            replace(op, saved_bytes=0.0) if isinstance(op, Matmul) else op
            for op in linear.forward
            if not isinstance(op, Collective) and not op.name.endswith(".quantise")
        )
        kept = Collective if not self.layout.sequence_parallel else ()
        backward = tuple(op for op in linear.backward if not isinstance(op, Collective) or isinstance(op, kept))
        return Block(forward=forward, backward=backward)

    def norm(self, name: str) -> Block:
        """Reads and writes the stream; backwards reads it and its gradient and writes one. Keeps its input.

        PyTorch has one kernel for layer norm. Its RMS norm of eager operators also keeps what its weight scales.
        """
        stream = self.hidden_bytes / self.token_shards
        if self.stack.norm_kernels == "eager_fp32" and self.model.norm == "rmsnorm":
            return self._norm_in_fp32(name, stream / ACTIVATION_BYTES)
        kept = 3 * stream if self.stack.norm_kernels == "eager" and self.model.norm == "rmsnorm" else stream
        return local(MemoryBound(name=name, family="norm", moved_bytes=2 * stream, backward_bytes=3 * stream, saved_bytes=kept))

    def _norm_in_fp32(self, name: str, numbers: Numeric) -> Block:
        """A chain of elementwise kernels on a copy in fp32: 36 bytes a number forwards, 80 backwards, 10 kept.

        To fp32 6, square 8, mean 4, scale 8, cast 6, weight 4; kept are the copy, what is scaled, and that in 16 bits.
        """
        return local(
            MemoryBound(
                name=name,
                moved_bytes=36 * numbers,
                backward_bytes=80 * numbers,
                kernels=6,
                backward_kernels=12,
                saved_bytes=10 * numbers,
            )
        )

    def residual(self, name: str) -> Block:
        """Adds the branch to the stream (with dropout: writes and keeps a one-byte mask); backwards adds two gradients."""
        stream = self.hidden_bytes / self.token_shards
        mask = stream / ACTIVATION_BYTES if self.model.dropout else 0.0 * stream
        return local(MemoryBound(name=name, moved_bytes=3 * stream + mask, backward_bytes=3 * stream + mask, saved_bytes=mask))

    def rotary(self, width: Numeric) -> Block:
        """Rotates queries and keys: one pass fused; eager, 11 passes of slice, negate, join, two products and a sum."""
        if self.model.position != "rotary":
            return Block(forward=(), backward=())
        passes, kernels = (2, 2) if self.stack.fused_rotary else (11, 12)
        moved = passes * ACTIVATION_BYTES * self.tokens * width
        return local(
            MemoryBound(
                name="layer.attention.rotary",
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
        one = ACTIVATION_BYTES * self.tokens * ffn
        return local(
            MemoryBound(
                name="layer.mlp.activation",
                moved_bytes=traffic.forward_passes * one,
                backward_bytes=traffic.backward_passes * one,
                kernels=traffic.forward_kernels,
                backward_kernels=traffic.backward_kernels,
                saved_bytes=((2 if fused else 3) if self.model.gated else 1) * one,
            )
        )

    def column_linear(self, name: str, *, columns: Numeric, useful: Numeric = 1.0, transformer_engine: bool = True) -> Block:
        """Gathers the input under sequence parallelism; backwards gathers it again for dW and reduces dX.

        Both backward collectives can run beside the other product of the pair: the gather beside dX, the reduction beside
        dW (Megatron-LM, LinearWithGradAccumulationAndAsyncCommunication). Only Transformer Engine's linears are cast to 8 bits,
        and only theirs can be cut into chunks beside their gathers; the logits are not one of them.
        """
        eight_bit = self._in_eight_bits(name)
        size = 1 if eight_bit else ACTIVATION_BYTES
        hidden = self.model.hidden_size
        product = self._product(name, columns=columns, inner=hidden, useful=useful, eight_bit=eight_bit)
        product = replace(product, saved_bytes=size * self.tokens * hidden / self.token_shards)
        gradient = self._collective(
            f"{name}.reduce_input_gradient",
            "reduce_scatter" if self.layout.sequence_parallel else "all_reduce",
            payload=self.hidden_bytes,
            phase=DATA_GRADIENT,
            partner=(name, WEIGHT_GRADIENT),
        )
        data, weight = gradients(product)
        if not self.layout.sequence_parallel:
            linear = Block(forward=(product,), backward=(data, gradient, *self._weight_gradient(weight)))
        else:
            gather = self._collective(f"{name}.gather", "all_gather", payload=size * self.tokens * hidden)
            again = replace(gather, phase=WEIGHT_GRADIENT, partner=(name, DATA_GRADIENT))
            if transformer_engine:
                gather = replace(gather, partner=(name, FORWARD), pipelined=True)
            linear = Block(forward=(gather, product), backward=(again, data, gradient, *self._weight_gradient(weight)))
        if not eight_bit:
            return linear
        cast_in = (3 + self.search_bytes) * self.tokens * hidden / self.token_shards
        cast_back = (4 + self.search_bytes) * self.tokens * columns + 2 * self.tokens * hidden
        return self._quantise(name, forward=cast_in, backward=cast_back) + linear

    def row_linear(self, name: str, *, inner: Numeric) -> Block:
        """Scatters (or all-reduces) the partial sums; backwards gathers the gradient that was scattered."""
        eight_bit = self._in_eight_bits(name)
        size = 1 if eight_bit else ACTIVATION_BYTES
        hidden = self.model.hidden_size
        product = self._product(name, columns=hidden, inner=inner, useful=1.0, eight_bit=eight_bit)
        product = replace(product, saved_bytes=size * self.tokens * inner)
        data, weight = gradients(product)
        if self.layout.sequence_parallel:
            scatter = self._collective(
                f"{name}.scatter", "reduce_scatter", payload=self.hidden_bytes, partner=(name, FORWARD), pipelined=True
            )
            gather = self._collective(
                f"{name}.gather_gradient",
                "all_gather",
                payload=size * self.tokens * hidden,
                phase=DATA_GRADIENT,
                partner=(name, DATA_GRADIENT),
                pipelined=True,
            )
            linear = Block(forward=(product, scatter), backward=(gather, data, *self._weight_gradient(weight)))
        else:
            reduce = self._collective(f"{name}.all_reduce", "all_reduce", payload=self.hidden_bytes)
            linear = Block(forward=(product, reduce), backward=(data, *self._weight_gradient(weight)))
        if not eight_bit:
            return linear
        cast_in = (4 + self.search_bytes) * self.tokens * inner
        cast_back = (3 + self.search_bytes) * self.tokens * hidden / self.token_shards + 2 * self.tokens * hidden
        return self._quantise(name, forward=cast_in, backward=cast_back) + linear

    def embedding(self) -> Block:
        """Looks up every token on every rank, zero where another rank has the row; then sums over the ranks.

        Backwards writes a dense gradient of the table and adds it to the accumulated one.
        """
        table = self.model.padded_vocab_size(self.tensor) * self.model.hidden_size / self.tensor
        dense = table * (2 * ACTIVATION_BYTES + 2 * self.stack.gradient_bytes)
        learned = 1 if self.model.position == "learned" else 0
        lookup = MemoryBound(
            name="embedding.lookup",
            moved_bytes=(4 + 2 * learned) * self.hidden_bytes,
            backward_bytes=3 * self.hidden_bytes + dense,
            kernels=3 + learned,
            backward_kernels=4,
        )
        if not self.layout.sequence_parallel:
            reduce = self._collective("embedding.all_reduce", "all_reduce", payload=self.hidden_bytes)
            return Block(forward=(lookup, reduce), backward=gradients(lookup))
        scatter = self._collective("embedding.scatter", "reduce_scatter", payload=self.hidden_bytes)
        gather = self._collective("embedding.gather_gradient", "all_gather", payload=self.hidden_bytes, phase=DATA_GRADIENT)
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
            moved_bytes=self.stack.loss_forward_bytes * logits,
            backward_bytes=self.stack.loss_backward_bytes * logits,
            kernels=8,
            backward_kernels=4,
        )
        exchange = replace(self._collective("head.loss.all_reduce", "all_reduce", payload=4 * self.tokens), repeats=3)
        if self.stack.gathered_logits:
            exchange = self._collective("head.loss.gather", "all_gather", payload=ACTIVATION_BYTES * logits)
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
        join = self._collective("pipeline.join_activations", "all_gather", payload=self.hidden_bytes)
        joined = replace(join, name="pipeline.join_gradients", phase=DATA_GRADIENT)
        return Block(forward=(send, join), backward=(back, joined))

    def _in_eight_bits(self, name: str) -> bool:
        """Whether the products of a linear take 8-bit operands: those of the layer, of the MLP alone, or of the head too."""
        if not self.eight_bit:
            return False
        chosen = {"mlp": "layer.mlp", "layer": "layer.", "all": ""}[self.stack.fp8_products]
        return name.startswith(chosen)

    def _product(self, name: str, *, columns: Numeric, inner: Numeric, useful: Numeric, eight_bit: bool) -> Matmul:
        precision = "fp8" if eight_bit else self.sixteen_bit
        return Matmul(
            name=name,
            rows=self.tokens,
            columns=columns,
            inner=inner,
            useful=useful,
            precision=precision,
            weight_gradient_bytes=self.stack.gradient_bytes,
            accumulates=self.stack.fused_gradient_accumulation,
        )

    def _weight_gradient(self, weight: Operator) -> tuple[Operator, ...]:
        """The product, and where it does not accumulate the kernel that does: reads what it wrote, adds it to the gradient."""
        if not isinstance(weight, Matmul) or weight.accumulates:
            return (weight,)
        numbers = weight.rows * weight.columns
        moved = numbers * (ACTIVATION_BYTES + 2 * self.stack.gradient_bytes)
        add = MemoryBound(name=f"{weight.name}.accumulate", phase=WEIGHT_GRADIENT, moved_bytes=moved)
        return weight, add

    def _collective(
        self,
        name: str,
        kind: str,
        *,
        payload: Numeric,
        phase: str = FORWARD,
        partner: tuple[str, str] = ("", ""),
        pipelined: bool = False,
    ) -> Collective:
        return Collective(
            name=name, kind=kind, payload_bytes=payload, group=self.group, phase=phase, partner=partner, pipelined=pipelined
        )

    def _quantise(self, name: str, *, forward: Numeric, backward: Numeric) -> Block:
        """Casts to 8 bits: the input forwards, the gradient and the gathered input's transpose backwards.

        With Transformer Engine's delayed scaling a cast is one pass: it reads 2 bytes, writes 1, and where the tensor is
        whole on the rank 1 more for the transpose that dW needs; a gathered tensor is transposed apart (1 read, 1 written).
        """
        return local(
            MemoryBound(
                name=f"{name}.quantise", moved_bytes=forward, backward_bytes=backward, backward_kernels=2, family="cast"
            )
        )
