"""The forward operators of a decoder on one GPU of a tensor-parallel group, each with what its backward pass adds.

Symbols: T tokens of a micro-batch, h hidden_size, t tensor_parallel, e bytes of an activation (2). `S` below is the number
of GPUs that share the tokens between linears (t with sequence parallelism, else 1).

A column-parallel linear splits its output columns and wants the whole input; a row-parallel one splits its inner size
and leaves partial sums. With sequence parallelism the first gathers its input and the second scatters its output; without,
the second all-reduces (Megatron-LM, arXiv:1909.08053; sequence parallelism, arXiv:2205.05198, section 4.2.2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from perfmodel.count.operators import (
    DATA_GRADIENT,
    FORWARD,
    RECOMPUTE,
    WEIGHT_GRADIENT,
    Collective,
    FusedAttention,
    Matmul,
    MemoryBound,
    Operator,
    gradients,
)
from perfmodel.count.parameters import into_mlp_size, kv_size_per_shard
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, tensor_parallel_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.stack import SoftwareStack

ACTIVATION_BYTES = 2  # bf16 and fp16


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Forward operators and the backward operators that answer them, both in the order in which they run."""

    forward: tuple[Operator, ...]
    backward: tuple[Operator, ...]

    def __add__(self, later: Block) -> Block:
        return Block(forward=self.forward + later.forward, backward=later.backward + self.backward)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Forward, then backward."""
        return self.forward + self.backward


def _local(operator: Matmul | FusedAttention | MemoryBound) -> Block:
    """A block of one operator that needs no communication."""
    return Block(forward=(operator,), backward=gradients(operator))


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
            + self.column_linear("layer.attention.qkv", columns=query + 2 * kv, useful=without_copies / (query + 2 * kv))
            + self.rotary(query + kv)
            + self.attention(query, kv)
            + self.row_linear("layer.attention.projection", inner=query)
            + self.residual("layer.attention.residual")
            + self.norm("layer.mlp.norm")
            + self.column_linear("layer.mlp.fc1", columns=into_mlp_size(model) / self.tensor)
            + self.activation(ffn)
            + self.row_linear("layer.mlp.fc2", inner=ffn)
            + self.residual("layer.mlp.residual")
        )

    def norm(self, name: str) -> Block:
        """Reads and writes the stream; backwards reads it and its gradient and writes one. Keeps its input."""
        stream = self.hidden_bytes / self.token_shards
        return _local(
            MemoryBound(name=name, family="norm", moved_bytes=2 * stream, backward_bytes=3 * stream, saved_bytes=stream)
        )

    def residual(self, name: str) -> Block:
        """Adds the branch to the stream (with dropout: writes and keeps a one-byte mask); backwards adds two gradients."""
        stream = self.hidden_bytes / self.token_shards
        mask = stream / ACTIVATION_BYTES if self.model.dropout else 0.0 * stream
        return _local(MemoryBound(name=name, moved_bytes=3 * stream + mask, backward_bytes=3 * stream + mask, saved_bytes=mask))

    def rotary(self, width: Numeric) -> Block:
        """Rotates queries and keys: one pass fused; eager, 11 passes of slice, negate, join, two products and a sum."""
        if self.model.position != "rotary":
            return Block(forward=(), backward=())
        passes, kernels = (2, 2) if self.stack.fused_rotary else (11, 12)
        moved = passes * ACTIVATION_BYTES * self.tokens * width
        return _local(
            MemoryBound(
                name="layer.attention.rotary",
                moved_bytes=moved,
                backward_bytes=moved,
                kernels=kernels,
                backward_kernels=kernels,
            )
        )

    def attention(self, query: Numeric, kv: Numeric) -> Block:
        """Scores, softmax and weighted sum: one fused kernel, or the score matrices in memory between five."""
        kept = ACTIVATION_BYTES * self.tokens * (query + 2 * kv)
        heads = query / self.model.head_size
        if self.stack.fused_attention:
            statistics = 4 * self.tokens * heads  # one fp32 log-sum a query
            output = ACTIVATION_BYTES * self.tokens * query if self.eight_bit else 0  # else it is the projection's input
            return _local(
                FusedAttention(
                    name="layer.attention.core",
                    sequences=self.layout.micro_batch_size,
                    heads=heads,
                    kv_heads=kv / self.model.head_size,
                    head_size=self.model.head_size,
                    sequence_length=self.layout.sequence_length,
                    precision=self.sixteen_bit,
                    saved_bytes=kept + statistics + output,
                )
            )
        return self._unfused_attention(heads, kept)

    def _unfused_attention(self, heads: Numeric, kept: Numeric) -> Block:
        """arXiv:2205.05198, section 4.1: 2 bytes of softmax, and with dropout 1 of mask and 2 of output, a score.

        Eager, scale 4 bytes, mask 4, softmax into fp32 6, cast back 6; backwards cast 6, softmax 10, mask 4, scale 4. Both the
        fp32 probabilities and their 16-bit copy are kept.
        """
        sequence = self.layout.sequence_length
        batch = self.layout.micro_batch_size * heads
        scores = batch * sequence * sequence
        product = Matmul(
            name="layer.attention.scores",
            rows=sequence,
            columns=sequence,
            inner=self.model.head_size,
            batch=batch,
            has_weight=False,
            precision=self.sixteen_bit,
            saved_bytes=kept,
        )
        fused = self.stack.fused_softmax
        softmax = MemoryBound(
            name="layer.attention.softmax",
            moved_bytes=(4 if fused else 20) * scores,
            backward_bytes=(6 if fused else 24) * scores,
            kernels=1 if fused else 4,
            backward_kernels=1 if fused else 4,
            saved_bytes=(2 if fused else 6) * scores,
        )
        dropout = MemoryBound(
            name="layer.attention.dropout", moved_bytes=5 * scores, backward_bytes=5 * scores, saved_bytes=3 * scores
        )
        context = replace(
            product, name="layer.attention.context", columns=self.model.head_size, inner=sequence, saved_bytes=0.0
        )
        block = _local(product) + _local(softmax)
        return (block + _local(dropout) if self.model.dropout else block) + _local(context)

    def activation(self, ffn: Numeric) -> Block:
        """One kernel where the stack fuses it, else PyTorch's chain.

        Keeps its input (both halves when gated); a gated chain keeps its gate too.
        """
        kind = self.model.activation
        fused = self.stack.fused_squared_relu if kind == "squared_relu" else self.stack.fused_activation
        traffic = (FUSED_ACTIVATION if fused else EAGER_ACTIVATION)[kind]
        one = ACTIVATION_BYTES * self.tokens * ffn
        return _local(
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
        eight_bit = transformer_engine and self.eight_bit
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
        cast_in = 3 * self.tokens * hidden / self.token_shards
        cast_back = 4 * self.tokens * columns + 2 * self.tokens * hidden
        return self._quantise(name, forward=cast_in, backward=cast_back) + linear

    def row_linear(self, name: str, *, inner: Numeric) -> Block:
        """Scatters (or all-reduces) the partial sums; backwards gathers the gradient that was scattered."""
        size = 1 if self.eight_bit else ACTIVATION_BYTES
        hidden = self.model.hidden_size
        product = self._product(name, columns=hidden, inner=inner, useful=1.0, eight_bit=self.eight_bit)
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
        if not self.eight_bit:
            return linear
        cast_in = 4 * self.tokens * inner
        cast_back = 3 * self.tokens * hidden / self.token_shards + 2 * self.tokens * hidden
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

        The loss exchanges three fp32 numbers a token: the largest logit, the logit of the target, the sum of exponentials.
        """
        padded = self.model.padded_vocab_size(self.tensor)
        columns = padded / self.tensor
        logits = self.tokens * columns
        loss = MemoryBound(
            name="head.loss",
            moved_bytes=self.stack.loss_forward_bytes * logits,
            backward_bytes=self.stack.loss_backward_bytes * logits,
            kernels=8,
            backward_kernels=4,
        )
        exchange = self._collective("head.loss.all_reduce", "all_reduce", payload=4 * self.tokens)
        return (
            self.norm("head.norm")
            + self.column_linear(
                "head.logits", columns=columns, useful=self.model.vocab_size / padded, transformer_engine=False
            )
            + Block(forward=(replace(exchange, repeats=3), loss), backward=gradients(loss))
        )

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
        return _local(
            MemoryBound(
                name=f"{name}.quantise", moved_bytes=forward, backward_bytes=backward, backward_kernels=2, family="cast"
            )
        )


def with_recompute(layer: Block, mode: str) -> Block:
    """The layer when `mode` of it is run again before its backward pass: none, selective (the attention core), full."""
    if mode == "none":
        return layer
    again = [op for op in layer.forward if mode == "full" or is_attention_core(op)]
    repeated = tuple(_again(op) for op in again)
    if mode == "full":
        return Block(forward=layer.forward, backward=repeated + layer.backward)
    first = next(index for index, op in enumerate(layer.backward) if is_attention_core(op))
    return Block(forward=layer.forward, backward=layer.backward[:first] + repeated + layer.backward[first:])


def _again(operator: Operator) -> Operator:
    if isinstance(operator, Collective):
        partner = (operator.partner[0], RECOMPUTE) if operator.partner[0] else operator.partner
        return replace(operator, phase=RECOMPUTE, partner=partner)
    return replace(operator, phase=RECOMPUTE, saved_bytes=0.0)


ATTENTION_CORE = ("core", "scores", "softmax", "dropout", "context")


def is_attention_core(operator: Operator) -> bool:
    """Whether `operator` works on queries, keys, values and scores alone: what selective recompute repeats."""
    name = operator.name.removeprefix("layer.attention.")
    return name in ATTENTION_CORE
