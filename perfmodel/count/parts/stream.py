"""What lies around the linears of a layer on one GPU: norms, residual connections, rotation, constant factors."""

from __future__ import annotations

from perfmodel.count.blocks import Block, local
from perfmodel.count.operators import MemoryBound
from perfmodel.count.parts.linears import LinearOperators
from perfmodel.count.roles import Role
from perfmodel.spec.fields import Numeric
from perfmodel.spec.precision import FP32_BYTES


class StreamOperators(LinearOperators):
    """Writes down the linears of one setup, and what works on the stream between them."""

    def replayed(self, block: Block, graphed: str) -> Block:
        """The block, whose operators a CUDA graph launches where the software replays such parts of a layer."""
        return block.replayed() if graphed in self.stack.host.graphed else block

    def scale(self, name: str, moved_bytes: Numeric) -> Block:
        """A product with a constant, which reads and writes `moved_bytes` each; a compiler makes it part of its neighbours."""
        if self.stack.fusion.recomputed_inputs:
            return Block()
        return local(MemoryBound(name=name, moved_bytes=2 * moved_bytes, backward_bytes=2 * moved_bytes))

    def norm(self, name: str, *, is_kept: bool = True) -> Block:
        """A norm of the stream; what it reads is not kept where another norm keeps the same."""
        numbers = self.hidden_bytes / self.activation_bytes / self.token_shards
        return self.norm_of(name, numbers, self.stream_bytes, is_kept=is_kept)

    def norm_of(self, name: str, numbers: Numeric, size: Numeric, *, kernels: int = 1, is_kept: bool = True) -> Block:
        """Reads and writes numbers of so many bytes; backwards reads them and their gradient and writes one. Keeps its input.

        PyTorch has one kernel for layer norm. Its RMS norm of eager operators also keeps what its weight scales.
        """
        is_eager = self.model.norm_kind.kernel == "rmsnorm" and self.stack.fusion.norms in ("eager", "eager_fp32")
        if is_eager and self.stack.fusion.norms == "eager_fp32":
            return self._norm_in_fp32(name, numbers, kernels)
        return local(
            MemoryBound(
                name=name,
                role=Role.NORM,
                family="norm",
                kernel=self.model.norm_kind.kernel,
                precision=self.recipe.rest,
                moved_bytes=2 * size,
                backward_bytes=3 * size,
                kernels=kernels,
                backward_kernels=kernels,
                saved_bytes=((2 if is_eager else 0) + is_kept) * size,
            )
        )

    def _norm_in_fp32(self, name: str, numbers: Numeric, times: int) -> Block:
        """A chain of elementwise kernels on a copy in fp32: 36 bytes a number forwards, 84 backwards, 10 kept.

        To fp32 6, square 8, mean 4, scale 8, cast 6, weight 4; backwards the weight's gradient 8, weight 4, to fp32 6, scale 8,
        the gradient of the scale 16, of the square 24, their sum 12, cast 6. Kept are the copy, what is scaled, and that in 16
        bits. In fp32 there is nothing to cast and no copy: 28, 84 (the weight's gradient 16, weight 8) and 8.
        """
        casts = self.recipe.activation_bytes < FP32_BYTES
        return local(
            MemoryBound(
                name=name,
                role=Role.NORM,
                moved_bytes=(36 if casts else 28) * numbers,
                backward_bytes=84 * numbers,
                kernels=times * (6 if casts else 4),
                backward_kernels=times * (12 if casts else 10),
                saved_bytes=(10 if casts else 8) * numbers,
            )
        )

    def residual(self, name: str) -> Block:
        """Adds the branch to the stream (with dropout: writes and keeps a one-byte mask); backwards adds two gradients."""
        stream = self.stream_bytes
        numbers = self.tokens * self.model.hidden_size / self.token_shards
        mask = numbers if self.model.dropout else 0.0 * numbers
        moved = 3 * stream + mask
        return local(
            MemoryBound(
                name=name,
                kernel="residual",
                precision=self.recipe.rest,
                moved_bytes=moved,
                backward_bytes=moved,
                saved_bytes=mask,
            )
        )

    def rotary(self, name: str, width: Numeric) -> Block:
        """Rotates queries and keys: one pass fused; eager, 11 passes of slice, negate, join, two products and a sum."""
        if self.model.position != "rotary":
            return Block(forward=(), backward=())
        fused = self.stack.fusion.rotary
        passes, kernels = (2, 2) if fused else (11, 12)
        moved = passes * self.activation_bytes * self.tokens * width
        return local(
            MemoryBound(
                name=f"{name}.rotary",
                kernel="fused_rotary" if fused else "rotary",
                precision=self.recipe.rest,
                moved_bytes=moved,
                backward_bytes=moved,
                kernels=kernels,
                backward_kernels=kernels,
            )
        )
