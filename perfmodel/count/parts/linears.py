"""The linears of a decoder on one GPU of a tensor-parallel group, with their collectives and their casts to a narrower format.

Symbols: T tokens of a micro-batch, h hidden_size, t tensor_parallel, e bytes of an activation (2, in fp32 4), q bytes of an
operand of a low-precision product. `S` below is the number of GPUs that share the tokens between linears (t with sequence
parallelism, else 1).

A column-parallel linear splits its output columns and wants the whole input; a row-parallel one splits its inner size
and leaves partial sums. With sequence parallelism the first gathers its input and the second scatters its output; without,
the second all-reduces (Megatron-LM, arXiv:1909.08053; sequence parallelism, arXiv:2205.05198, section 4.2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Adapter, Component, Linear, Projections, adapter_of, takes_low_precision
from perfmodel.count.operators import Collective, Matmul, MemoryBound, Operator, gradients
from perfmodel.count.parts.adapters import adapter_blocks, is_frozen, keeps_input, widened
from perfmodel.count.parts.tensor_parallel_calls import TensorParallelCalls
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere, chosen, everywhere
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, WEIGHT_GRADIENT
from perfmodel.spec.precision import PrecisionRecipe


class CastBytes(NamedTuple):
    """What casting moves: of the operand of the forward product, and of the gradient with the transposes backwards."""

    forward: Numeric
    backward: Numeric


class LinearOperators(TensorParallelCalls):
    """Writes down the linears of one setup."""

    def projections(self, into: Projections, *, shares_input: bool = False) -> Block:
        """Column-parallel linears of one input: one product, or where the stack has them apart one each.

        Each keeps no copy of the input of its own, and each reduces its own input gradient; a gathered input serves all, those
        before them too where these share their input.
        """
        linears = into.separate if self._has_apart(into) else (into.joined,)
        first, *others = [self.column_linear(linear) for linear in linears]
        if shares_input:
            first = self._sharing_input(first)
        for other in others:
            first = first + self._sharing_input(other)
        return first if self.tuning is None else self._tuned(linears, first, into.adapters(self.tuning))

    def _has_apart(self, into: Projections) -> bool:
        """Whether each linear is a product of its own; some software joins queries, keys and values of as many heads each."""
        fusion, model = self.stack.fusion, self.model
        is_even = into.joined.component is Component.ATTENTION and everywhere(model.kv_heads == model.attention_heads)
        return fusion.separate_projections and not (fusion.joined_heads and is_even)

    def _sharing_input(self, linear: Block) -> Block:
        """A further linear of the same input: neither kept nor gathered again; reduced apart, unless it is scattered."""
        forward = tuple(
            replace(op, saved_bytes=0.0) if isinstance(op, Matmul) else op
            for op in linear.forward
            if not isinstance(op, Collective) and op.role not in (Role.CAST, Role.REORDER)
        )
        joint = self.layout.sequence_parallel
        backward = (op for op in linear.backward if not (joint and (isinstance(op, Collective) or op.role is Role.REORDER)))
        return Block(forward=forward, backward=tuple(self._without_transpose(op) for op in backward))

    def _without_transpose(self, operator: Operator) -> Operator:
        """A cast of gradients less the transpose of the input, which one linear makes for all that share it."""
        if not isinstance(operator, MemoryBound) or operator.role is not Role.CAST:
            return operator
        return replace(operator, moved_bytes=operator.moved_bytes - self._transpose_bytes())

    def column_linear(self, linear: Linear, *, is_kept: bool = True) -> Block:
        """A column-parallel linear, in low precision or not, or in some layers one and in the others the other.

        Its input is kept, unless another operator keeps the same.
        """
        return self._in_its_layers(linear, partial(self._column_linear, is_kept=is_kept))

    def row_linear(self, linear: Linear) -> Block:
        """A row-parallel linear, in low precision or not, or in some layers one and in the others the other."""
        block = self._in_its_layers(linear, self._row_linear)
        if self.tuning is None:
            return block
        adapter = adapter_of(linear, self.tuning)
        return self._tuned((linear,), block, (adapter,) if adapter else ())

    def _tuned(self, linears: Sequence[Linear], block: Block, adapters: Sequence[Adapter]) -> Block:
        """Linears of one input of a fine-tuning: what widens their operands before them, and their adapters behind them."""
        return widened(linears, self.setup) + block + adapter_blocks(adapters, self.setup, self.state.gradient)

    def _in_its_layers(self, linear: Linear, operators: Callable[[Linear, bool], Block]) -> Block:
        """The operators of a linear of the mean layer: where a recipe spares layers, `.wide` ones stand for those.

        Ignored: that spared layers lie at the end of a network, so that the last stages of a pipeline take longer.
        """
        narrow = self._is_narrow(linear)
        if not narrow or not anywhere(self.narrow_layers < 1.0):
            return operators(linear, narrow)
        spared = operators(replace(linear, name=f"{linear.name}.wide"), False)
        return operators(linear, True).times(self.narrow_layers) + spared.times(1.0 - self.narrow_layers)

    def _column_linear(self, linear: Linear, narrow: bool, *, is_kept: bool) -> Block:
        """Gathers the input under sequence parallelism; backwards gathers it again for dW and reduces dX.

        Both backward collectives can run beside the other product of the pair: the gather beside dX, the reduction beside
        dW (Megatron-LM, LinearWithGradAccumulationAndAsyncCommunication). Only linears of layers, which are Transformer
        Engine's, can be cut into chunks beside their gathers; the logits are not one of them.
        """
        name, hidden = linear.name, self.model.hidden_size
        size = self.operand_bytes if narrow else self.activation_bytes
        kept = self._kept_input_bytes(linear, size) if is_kept else 0.0
        product = self._product(linear, narrow, saved_bytes=kept)
        gradient = self.collective(
            f"{name}.reduce_input_gradient",
            "reduce_scatter" if self.layout.sequence_parallel else "all_reduce",
            payload=self.hidden_bytes,
            phase=DATA_GRADIENT,
            partner=(name, WEIGHT_GRADIENT),
        )
        data, weight = gradients(product)
        if not self.layout.sequence_parallel:
            block = Block(forward=(product,), backward=(data, gradient, *self._weight_gradient(linear, weight)))
        else:
            gather = self.collective(f"{name}.gather", "all_gather", payload=size * self.tokens * hidden)
            again = replace(gather, phase=WEIGHT_GRADIENT, partner=(name, DATA_GRADIENT))
            if linear.role is not Role.LOGITS:
                gather = replace(gather, partner=(name, FORWARD), pipelined=True, stepwise=self.engines_copy)
                product = replace(product, pieces=self.pieces())
            gathers = () if self.stack.fusion.gathered_inputs else self.moved(again)
            backward = (*gathers, data, *self.moved(gradient), *self._weight_gradient(linear, weight))
            block = Block(forward=(*self.moved(gather), product), backward=backward)
        return self._cast(name, self._column_cast_bytes(linear)) + block if narrow else block

    def _row_linear(self, linear: Linear, narrow: bool) -> Block:
        """Scatters (or all-reduces) the partial sums; backwards gathers the gradient that was scattered."""
        name = linear.name
        size = self.operand_bytes if narrow else self.activation_bytes
        is_formed_again = self.stack.fusion.recomputed_inputs and linear.component is Component.FEED_FORWARD
        product = self._product(linear, narrow, saved_bytes=0.0 if is_formed_again else size * self.tokens * linear.inner)
        data, weight = gradients(product)
        if self.layout.sequence_parallel:
            scatter = self.collective(
                f"{name}.scatter", "reduce_scatter", payload=self.hidden_bytes, partner=(name, FORWARD), pipelined=True
            )
            gather = self.collective(
                f"{name}.gather_gradient",
                "all_gather",
                payload=size * self.tokens * self.model.hidden_size * (2 if narrow and self.recipe.has_blocks else 1),
                phase=DATA_GRADIENT,
                partner=(name, DATA_GRADIENT),
                pipelined=True,
                stepwise=self.engines_copy,
            )
            data, _ = gradients(replace(product, pieces=self.pieces()))
            product = replace(product, pieces=self.pieces(self.stack.overlap.scattered_pieces))
            backward = (*self.moved(gather), data, *self._weight_gradient(linear, weight))
            block = Block(forward=(product, *self.moved(scatter)), backward=backward)
        else:
            reduce = self.collective(f"{name}.all_reduce", "all_reduce", payload=self.hidden_bytes)
            block = Block(forward=(product, reduce), backward=(data, *self._weight_gradient(linear, weight)))
        return self._cast(name, self._row_cast_bytes(linear)) + block if narrow else block

    def own_linear(
        self,
        linear: Linear,
        rows: Numeric,
        *,
        kept_rows: Numeric | None = None,
        useful: Numeric = 1.0,
        calls: Numeric = 1,
    ) -> Block:
        """Linears of rows that a rank has for itself: `rows` for each matrix; the input of `kept_rows` of all is kept.

        Casts read and write every row; none is gathered, so that transposes come out of the same pass. Where each matrix has
        `calls` of its own, products are launched and operands are cast one by one.
        """
        write = partial(self._own_linear, rows=rows, kept_rows=kept_rows, useful=useful, calls=calls)
        block = self._in_its_layers(linear, write)
        return block if self.tuning is None else self._tuned((linear,), block, ())

    def _own_linear(
        self, linear: Linear, narrow: bool, *, rows: Numeric, kept_rows: Numeric | None, useful: Numeric, calls: Numeric
    ) -> Block:
        every = rows * linear.number
        size = self.operand_bytes if narrow else self.activation_bytes
        kept = every if kept_rows is None else kept_rows
        product = replace(
            self._product(linear, narrow, saved_bytes=size * kept * linear.inner),
            rows=rows,
            batch=linear.number,
            useful=linear.useful * useful,
            kernels=calls,
        )
        data, weight = gradients(product)
        block = Block(forward=(product,), backward=(data, *self._weight_gradient(linear, weight)))
        if not narrow:
            return block
        _, both = self.pass_bytes(self.recipe)
        moved = CastBytes(forward=both * every * linear.inner, backward=both * every * linear.columns)
        return self._cast(linear.name, moved, matrices=calls) + block

    def _kept_input_bytes(self, linear: Linear, size: float) -> Numeric:
        """What a column-parallel linear keeps of its input: its share, all that was gathered, or nothing.

        A compiler keeps nothing of what a norm handed over: it keeps what the norm read.
        """
        if self.stack.fusion.recomputed_inputs and self.model.pre_norms and linear.role is not Role.LOGITS:
            return 0.0 * self.tokens
        shards = 1 if self.stack.fusion.gathered_inputs else self.token_shards
        return size * self.tokens * self.model.hidden_size / shards

    def _is_narrow(self, linear: Linear) -> bool:
        """Whether the products of a linear take low-precision operands."""
        return self.recipe.casts and takes_low_precision(linear.component, self.stack.low_precision.products)

    def _product(self, linear: Linear, narrow: bool, *, saved_bytes: Numeric) -> Matmul:
        return Matmul(
            name=linear.name,
            role=linear.role,
            rows=self.tokens,
            columns=linear.columns,
            inner=linear.inner,
            useful=linear.useful,
            precision=self.recipe.linear_formats[0 if narrow else -1],
            weight_gradient_bytes=self.state.gradient,
            accumulates=self.stack.fusion.gradient_accumulation,
            saved_bytes=saved_bytes if keeps_input(linear.component, self.setup) else 0.0 * saved_bytes,
        )

    def _weight_gradient(self, linear: Linear, weight: Operator) -> tuple[Operator, ...]:
        """The product, and where it does not accumulate the kernel that does: reads what it wrote, adds it to the gradient.

        Where the first micro-batch overwrites, it only writes; in one precision the product itself writes into the gradient.
        A frozen linear has none.
        """
        if is_frozen(linear.component, self.tuning):
            return ()
        if not isinstance(weight, Matmul) or weight.accumulates:
            return (weight,)
        numbers = weight.batch * weight.rows * weight.columns
        add = MemoryBound(
            name=f"{weight.name}.accumulate",
            phase=WEIGHT_GRADIENT,
            role=Role.GRADIENT_SUM,
            moved_bytes=numbers * (self.activation_bytes + 2 * self.state.gradient),
            kernel="accumulate",
            precision=self.recipe.rest,
        )
        if not self.stack.states.overwrites_gradients:
            return weight, add
        first = 1.0 / self.layout.micro_batches
        later = replace(add, repeats=1.0 - first)
        if not self.recipe.has_master:
            return weight, later
        written = numbers * (self.activation_bytes + self.state.gradient)
        write = replace(add, name=f"{weight.name}.overwrite", kernel="overwrite", moved_bytes=written, repeats=first)
        return weight, write, later

    def _column_cast_bytes(self, linear: Linear) -> CastBytes:
        """Forwards the rank's share of the input, e + q; backwards its gradient, e + 2*q, and the transposed input, 2*q.

        With Transformer Engine's delayed scaling a cast is one pass: it reads e bytes, writes q, and where the tensor is
        whole on the rank q more for the transpose that dW needs; a gathered tensor is transposed apart (q read, q written).
        A GPU whose products take either order wants no transposes. With scales of blocks a cast writes two copies, each time
        along one side of the tensor, and reads e as often as the recipe says.
        """
        once, both = self.pass_bytes(self.recipe)
        return CastBytes(
            forward=once * self.tokens * self.model.hidden_size / self.token_shards,
            backward=both * self.tokens * linear.columns + self._transpose_bytes(),
        )

    def _row_cast_bytes(self, linear: Linear) -> CastBytes:
        """Forwards the input with its transpose, e + 2*q; backwards the rank's share of the gradient, and a transpose, 2*q."""
        once, both = self.pass_bytes(self.recipe)
        return CastBytes(
            forward=both * self.tokens * linear.inner,
            backward=once * self.tokens * self.model.hidden_size / self.token_shards + self._transpose_bytes(),
        )

    def _transpose_bytes(self) -> Numeric:
        """What transposing a gathered tensor of the stream moves: q read and q written of each number, or nothing."""
        return self.has_transposes * 2 * self.operand_bytes * self.tokens * self.model.hidden_size

    def pass_bytes(self, recipe: PrecisionRecipe) -> tuple[float, float]:
        """Bytes that a cast as in `recipe` moves of one number, without its transpose and with it.

        Scales of the moment read it once more.
        """
        if recipe.has_blocks:
            both = self.stack.low_precision.reads_of_blocks(recipe) * self.activation_bytes + 2 * recipe.operand_bytes
            return both, both
        once = self.stack.low_precision.reads_of_a_cast * self.activation_bytes + recipe.operand_bytes
        return once, once + self.has_transposes * recipe.operand_bytes

    def _kernels_of_a_cast(self) -> int:
        """Kernels of the cast of one operand, where several matrices are cast one by one.

        With blocks: the cast, whose passes before it are made for all matrices at once, and one that rearranges scales.
        Without: the largest number and the scale, where that is of the moment; the cast; a transpose, where products want it.
        """
        if self.recipe.has_blocks:
            return 2
        return (3 if self.stack.low_precision.scaling == "current" else 1) + self.has_transposes

    def _cast(self, name: str, moved: CastBytes, *, matrices: Numeric = 1) -> Block:
        """The cast of a linear's operands: the input forwards, the gradient and the transposes backwards.

        Operands of several `matrices` are cast one by one, each in all kernels that a cast takes.
        """
        kernels: Numeric = self.stack.low_precision.reads_of_blocks(self.recipe)
        backward: Numeric = kernels if self.recipe.has_blocks else 2
        calls: Numeric = 1
        one_by_one = np.asarray(matrices) > 1
        if anywhere(one_by_one):
            each = matrices * self._kernels_of_a_cast()
            kernels, backward, calls = (chosen(one_by_one, each, alone) for alone in (kernels, backward, calls))
        return local(
            MemoryBound(
                name=f"{name}.quantise",
                role=Role.CAST,
                moved_bytes=moved.forward,
                backward_bytes=moved.backward,
                kernels=kernels,
                backward_kernels=backward,
                calls=calls,
                family="cast",
                precision=self.recipe.products,
            )
        )
