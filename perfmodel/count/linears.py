"""The linears of a decoder on one GPU of a tensor-parallel group, with their collectives and their casts to 8 bits.

Symbols: T tokens of a micro-batch, h hidden_size, t tensor_parallel, e bytes of an activation (2, in fp32 4). `S`
below is the number of GPUs that share the tokens between linears (t with sequence parallelism, else 1).

A column-parallel linear splits its output columns and wants the whole input; a row-parallel one splits its inner size
and leaves partial sums. With sequence parallelism the first gathers its input and the second scatters its output; without,
the second all-reduces (Megatron-LM, arXiv:1909.08053; sequence parallelism, arXiv:2205.05198, section 4.2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from perfmodel.count.blocks import Block, local
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator, gradients
from perfmodel.count.storage import state_bytes
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import Layout, tensor_parallel_group
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT
from perfmodel.spec.stack import SoftwareStack


class LinearOperators:
    """Writes down the linears of one model under one layout and stack."""

    def __init__(self, model: TransformerModel, layout: Layout, stack: SoftwareStack) -> None:
        self.model, self.layout, self.stack = model, layout, stack
        self.tokens = layout.tokens_per_micro_batch
        self.tensor = layout.tensor_parallel
        self.token_shards = layout.sequence_shards
        self.group = tensor_parallel_group(layout)
        self.eight_bit = layout.precision == "fp8"
        self.precision = layout.wide_precision
        self.state = state_bytes(layout, stack)
        self.activation_bytes = layout.activation_bytes
        self.search_bytes = 2 if stack.fp8_scaling == "current" else 0  # a pass to find the largest number before each cast
        self.hidden_bytes = self.activation_bytes * self.tokens * model.hidden_size

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
        """A further linear of the same input: neither kept nor gathered again; reduced apart, unless it is scattered."""
        forward = tuple(
            replace(op, saved_bytes=0.0) if isinstance(op, Matmul) else op
            for op in linear.forward
            if not isinstance(op, Collective) and not op.name.endswith(".quantise")
        )
        joint = self.layout.sequence_parallel
        backward = (op for op in linear.backward if not (joint and isinstance(op, Collective)))
        return Block(forward=forward, backward=tuple(self._without_transpose(op) for op in backward))

    def _without_transpose(self, operator: Operator) -> Operator:
        """A cast of gradients less the transpose of the input, which one linear makes for all that share it."""
        if not isinstance(operator, MemoryBound) or not operator.name.endswith(".quantise"):
            return operator
        return replace(operator, moved_bytes=operator.moved_bytes - 2 * self.tokens * self.model.hidden_size)

    def column_linear(self, name: str, *, columns: Numeric, useful: Numeric = 1.0, transformer_engine: bool = True) -> Block:
        """Gathers the input under sequence parallelism; backwards gathers it again for dW and reduces dX.

        Both backward collectives can run beside the other product of the pair: the gather beside dX, the reduction beside
        dW (Megatron-LM, LinearWithGradAccumulationAndAsyncCommunication). Only Transformer Engine's linears are cast to 8 bits,
        and only theirs can be cut into chunks beside their gathers; the logits are not one of them.
        """
        eight_bit = self._in_eight_bits(name)
        size = 1 if eight_bit else self.activation_bytes
        hidden = self.model.hidden_size
        product = self._product(name, columns=columns, inner=hidden, useful=useful, eight_bit=eight_bit)
        product = replace(product, saved_bytes=size * self.tokens * hidden / self.token_shards)
        gradient = self.collective(
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
            gather = self.collective(f"{name}.gather", "all_gather", payload=size * self.tokens * hidden)
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
        size = 1 if eight_bit else self.activation_bytes
        hidden = self.model.hidden_size
        product = self._product(name, columns=hidden, inner=inner, useful=1.0, eight_bit=eight_bit)
        product = replace(product, saved_bytes=size * self.tokens * inner)
        data, weight = gradients(product)
        if self.layout.sequence_parallel:
            scatter = self.collective(
                f"{name}.scatter", "reduce_scatter", payload=self.hidden_bytes, partner=(name, FORWARD), pipelined=True
            )
            gather = self.collective(
                f"{name}.gather_gradient",
                "all_gather",
                payload=size * self.tokens * hidden,
                phase=DATA_GRADIENT,
                partner=(name, DATA_GRADIENT),
                pipelined=True,
            )
            linear = Block(forward=(product, scatter), backward=(gather, data, *self._weight_gradient(weight)))
        else:
            reduce = self.collective(f"{name}.all_reduce", "all_reduce", payload=self.hidden_bytes)
            linear = Block(forward=(product, reduce), backward=(data, *self._weight_gradient(weight)))
        if not eight_bit:
            return linear
        cast_in = (4 + self.search_bytes) * self.tokens * inner
        cast_back = (3 + self.search_bytes) * self.tokens * hidden / self.token_shards + 2 * self.tokens * hidden
        return self._quantise(name, forward=cast_in, backward=cast_back) + linear

    def _in_eight_bits(self, name: str) -> bool:
        """Whether the products of a linear take 8-bit operands: those of the layer, of the MLP alone, or of the head too."""
        if not self.eight_bit:
            return False
        chosen = {"mlp": "layer.mlp", "layer": "layer.", "all": ""}[self.stack.fp8_products]
        return name.startswith(chosen)

    def _product(self, name: str, *, columns: Numeric, inner: Numeric, useful: Numeric, eight_bit: bool) -> Matmul:
        precision = "fp8" if eight_bit else self.precision
        return Matmul(
            name=name,
            rows=self.tokens,
            columns=columns,
            inner=inner,
            useful=useful,
            precision=precision,
            weight_gradient_bytes=self.state.gradient,
            accumulates=self.stack.fused_gradient_accumulation,
        )

    def _weight_gradient(self, weight: Operator) -> tuple[Operator, ...]:
        """The product, and where it does not accumulate the kernel that does: reads what it wrote, adds it to the gradient.

        Where the first micro-batch overwrites, it only writes; in one precision the product itself writes into the gradient.
        """
        if not isinstance(weight, Matmul) or weight.accumulates:
            return (weight,)
        numbers = weight.rows * weight.columns
        moved = numbers * (self.activation_bytes + 2 * self.state.gradient)
        add = MemoryBound(
            name=f"{weight.name}.accumulate",
            phase=WEIGHT_GRADIENT,
            moved_bytes=moved,
            kernel="accumulate",
            precision=self.precision,
        )
        if not self.stack.overwrites_gradients:
            return weight, add
        first = 1.0 / self.layout.micro_batches
        later = replace(add, repeats=1.0 - first)
        if self.precision == "fp32":
            return weight, later
        written = numbers * (self.activation_bytes + self.state.gradient)
        write = replace(add, name=f"{weight.name}.overwrite", kernel="overwrite", moved_bytes=written, repeats=first)
        return weight, write, later

    def collective(
        self,
        name: str,
        kind: str,
        *,
        payload: Numeric,
        phase: str = FORWARD,
        partner: tuple[str, str] = ("", ""),
        pipelined: bool = False,
    ) -> Collective:
        """One call over the tensor-parallel group."""
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
