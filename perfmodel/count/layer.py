"""One layer of a decoder on one GPU: attention and feed-forward part, with norms around them, inside residual connections.

The parts and their linears are declared in count/attention.py and count/feed_forward.py; here is the layer that they make, with
all that lies around them. Parts that are parallel read the same stream, which is kept once; each still adds its result to the
stream on its own, and each communicates on its own (software that adds both up first, as GPT-NeoX does, has one message fewer).
"""

from __future__ import annotations

from perfmodel.count.attention import Heads, attention_kind, rank_heads
from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import LayerPart
from perfmodel.count.feed_forward import feed_forward_kind
from perfmodel.count.linears import LinearOperators
from perfmodel.count.operators import MemoryBound
from perfmodel.count.roles import Role
from perfmodel.count.storage import FP32_BYTES
from perfmodel.spec.fields import Numeric
from perfmodel.spec.layer_kinds import LayerKind
from perfmodel.spec.model import TransformerModel


def layer_parts(
    model: TransformerModel, kind: LayerKind, tensor_parallel: Numeric, name: str = "layer"
) -> tuple[LayerPart, LayerPart]:
    """The declarations of a kind of layer, in the order in which its parts run."""
    return (
        attention_kind(kind).declaration(model, tensor_parallel, f"{name}.attention"),
        feed_forward_kind(kind).declaration(model, tensor_parallel, f"{name}.mlp"),
    )


def layer_name(model: TransformerModel, kind: str) -> str:
    """What the names of the operators of a layer begin with: `layer`, or `layer.local` of a model with several kinds."""
    return "layer" if len(model.kinds) == 1 else f"layer.{kind}"


class LayerOperators(LinearOperators):
    """Writes down the layers of one setup; each method answers for one part of a layer."""

    def layer(self, kind: str) -> Block:
        """One layer of the kind called so."""
        name, chosen = layer_name(self.model, kind), self.model.kinds[kind]
        attention, feed_forward = layer_parts(self.model, chosen, self.tensor, name)
        heads = rank_heads(self.model, chosen, self.tensor, f"{name}.attention")
        core = self.around_heads(heads, chosen) + attention_kind(chosen).core(self.setup, heads)
        between = feed_forward_kind(chosen).between(self.setup, f"{name}.mlp")
        is_parallel = self.model.parallel_residual != "none"
        return self.part(heads.name, attention, core) + self.part(
            f"{name}.mlp", feed_forward, between, shares_stream=is_parallel
        )

    def part(self, name: str, declared: LayerPart, between: Block, *, shares_stream: bool = False) -> Block:
        """Norm, projections, what works on their result, the linear back into the stream, and the residual connection.

        A part that shares its stream with the part before it keeps no second copy: of what its norm reads, or without a norm of
        its own, of what its projections read.
        """
        before = self.norm(f"{name}.norm", is_kept=not shares_stream) if declared.norm_before else Block()
        into = self.projections(declared.into, shares_input=shares_stream and not declared.norm_before)
        inside = before + into + between + self.row_linear(declared.out)
        if declared.norm_behind:
            inside = inside + self.norm(f"{name}.post_norm")
        if "branches" in self.model.scales:
            inside = inside + self.scale(f"{name}.scale", self.stream_bytes)
        return inside + self.residual(f"{name}.residual")

    def around_heads(self, heads: Heads, kind: LayerKind) -> Block:
        """What queries and keys go through before they meet: norms, rotation."""
        width = heads.query + heads.kv
        rotary = self.rotary(heads.name, width) if kind.rotary else Block()
        if self.model.qk_norm == "none":
            return rotary
        numbers = self.tokens * width
        return self.norm_of(f"{heads.name}.qk_norm", numbers, self.activation_bytes * numbers, kernels=2) + rotary

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
