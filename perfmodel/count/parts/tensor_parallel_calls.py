"""What the ranks of a tensor-parallel group send each other between linears, and what that moves in the memory of each.

Symbols: t tensor_parallel.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.blocks import Block
from perfmodel.count.memory.storage import state_bytes, stream_bytes
from perfmodel.count.operators import Collective, MemoryBound, Operator
from perfmodel.count.roles import Role
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layout import tensor_parallel_group
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD
from perfmodel.spec.setup import Setup


class TensorParallelCalls:
    """Writes down the calls of one setup."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.model, self.layout, self.stack = setup, setup.model, setup.layout, setup.stack
        self.tuning, self.recipe = setup.tuning, self.layout.recipe
        self.tokens = self.layout.tokens_per_micro_batch
        self.tensor = self.layout.tensor_parallel
        self.token_shards = self.layout.sequence_shards
        self.group = tensor_parallel_group(self.layout)
        self.state = state_bytes(self.layout, self.stack, self.tuning)
        self.activation_bytes = self.recipe.activation_bytes
        self.operand_bytes = self.recipe.operand_bytes
        self.has_transposes = self.setup.cluster.gpu.transposed_weights and not self.recipe.has_blocks
        self.narrow_layers = self.stack.low_precision.narrow_layers(self.recipe)
        self.hidden_bytes = self.activation_bytes * self.tokens * self.model.hidden_size
        self.stream_bytes = stream_bytes(setup)

    def collective(
        self,
        name: str,
        kind: str,
        *,
        payload: Numeric,
        phase: str = FORWARD,
        partner: tuple[str, str] = ("", ""),
        pipelined: bool = False,
        stepwise: bool = False,
    ) -> Collective:
        """One call over the tensor-parallel group."""
        return Collective(
            name=name,
            kind=kind,
            payload_bytes=payload,
            group=self.group,
            phase=phase,
            partner=partner,
            pipelined=pipelined,
            stepwise=stepwise,
        )

    def moved(self, call: Collective) -> tuple[Operator, ...]:
        """A gather or scatter of the stream, and the kernels around it that move the whole tensor in memory.

        Where sequences lie before their tokens, a gather finds the ranks' tokens one rank after the other and a scatter wants
        them so: a copy reads and writes all. Pieces of a product that is cut go where they belong; those that it scatters are
        added by a kernel that reads the tensor and writes the rank's share. Source: PyTorch, all_gather_tensor and
        reduce_scatter_tensor of _functional_collectives.py, and _symmetric_memory.
        """
        is_gather, is_cut = call.kind == "all_gather", call.pipelined and self.cuts_products
        moves = not is_gather and self.stack.overlap.sums_pieces if is_cut else self.stack.fusion.batch_first
        if not moves:
            return (call,)
        several = 1.0 * (np.asarray(self.tensor) > 1)
        whole = MemoryBound(
            name=f"{call.name}.{'sum' if is_cut else 'copy'}",
            phase=call.phase,
            role=Role.ELEMENTWISE if is_cut else Role.REORDER,
            precision=self.recipe.rest,
            moved_bytes=several * call.payload_bytes * ((1.0 + 1.0 / self.tensor) if is_cut else 2.0),
            kernels=several,
        )
        return (call, whole) if is_gather or is_cut else (whole, call)

    def gathered_tokens(self, name: str, columns: Numeric) -> Block:
        """Narrow vectors of the tokens of a tensor-parallel group, which sequence parallelism shares, brought to every rank."""
        if not self.layout.sequence_parallel:
            return Block()
        payload = self.activation_bytes * self.tokens * columns
        gather = self.collective(f"{name}.gather", "all_gather", payload=payload)
        back = self.collective(f"{name}.scatter_gradient", "reduce_scatter", payload=payload, phase=DATA_GRADIENT)
        return Block(forward=(gather,), backward=(back,))

    def pieces(self, most: int = 0) -> Numeric:
        """Into how many pieces a product is cut whose collective runs beside it: one a rank, or `most` of them where given.

        What is gathered arrives rank by rank (ring exchange of userbuffers); what is scattered is cut by a number of its own.
        """
        if not self.cuts_products:
            return 1
        return np.minimum(self.tensor, most) if most else self.tensor

    @property
    def cuts_products(self) -> bool:
        """Whether products run piece by piece beside the call that feeds or takes them."""
        overlap = self.stack.overlap
        return overlap.tensor_parallel == "pipelined" and not overlap.hide_all

    @property
    def engines_copy(self) -> bool:
        """Whether copy engines make the gathers beside the pieces of a product."""
        return self.cuts_products and self.stack.overlap.engines_copy
