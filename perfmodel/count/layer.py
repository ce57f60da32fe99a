"""One layer of a decoder on one GPU: attention and feed-forward part, with norms around them, inside residual connections.

The parts and their linears are declared in grouped_query.py, latent_attention.py, feed_forward.py, experts.py and
mixer_linears.py; here is the layer that they make, with all that lies around them. Parts that are parallel read the same
stream, which is kept once; each still adds its result to the stream on its own, and each communicates on its own (software that
adds both up first, as GPT-NeoX does, has one message fewer).
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.count.blocks import Block
from perfmodel.count.declarations import UNSHARDED, ExpertShards, LayerPart, expert_shards
from perfmodel.count.parts.layer_embeddings import has_layer_embeddings, layer_input, layer_input_inside
from perfmodel.count.parts.part_kinds import attention_kind, feed_forward_kind
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel


class Halves(NamedTuple):
    """Both parts of a layer, the second with embeddings of its own; a part that a kind has not is a block of nothing."""

    attention: Block
    feed_forward: Block


def layer_parts(
    model: TransformerModel,
    kind: LayerKind,
    tensor_parallel: Numeric,
    name: str = "layer",
    experts: ExpertShards = UNSHARDED,
) -> tuple[LayerPart, ...]:
    """The declarations of the parts that a kind of layer has, in the order in which they run."""
    parts, model = [], model.seen_in(kind)
    if kind.attention != "none":
        parts.append(attention_kind(kind).declaration(model, tensor_parallel, f"{name}.attention"))
    if kind.feed_forward != "none":
        parts.append(feed_forward_kind(kind).declaration(model, tensor_parallel, f"{name}.mlp", experts))
    if has_layer_embeddings(model):
        parts.append(layer_input(model, tensor_parallel, f"{name}.input"))
    return tuple(parts)


def layer_name(model: TransformerModel, kind: str) -> str:
    """What the names of the operators of a layer begin with: `layer`, or `layer.local` of a model with several kinds."""
    return "layer" if len(model.kinds) == 1 else f"layer.{kind}"


class LayerOperators(StreamOperators):
    """Writes down the layers of one setup."""

    def halves(self, kind: str, name: str = "") -> Halves:
        """Both parts of a layer of the kind called so, whose operators' names begin with `name`."""
        name, chosen = name or layer_name(self.model, kind), self.model.kinds[kind]
        if chosen.own:  # as a layer of a model that has these sizes
            return LayerOperators(replace(self.setup, model=self.model.seen_in(chosen))).halves(kind, name)
        parts = iter(layer_parts(self.model, chosen, self.tensor, name, expert_shards(self.layout)))
        attention = feed_forward = Block()
        if chosen.attention != "none":
            declared, of_attention = next(parts), attention_kind(chosen)
            inside = of_attention.inside(self, declared, chosen, f"{name}.attention")
            attention = self.part(f"{name}.attention", declared, inside, graphed=(of_attention.graphed, ""))
        if chosen.feed_forward != "none":
            declared, of_mlp = next(parts), feed_forward_kind(chosen)
            is_parallel = self.model.parallel_residual != "none"
            shares_input = is_parallel and not declared.norm_before
            inside = of_mlp.inside(self, declared, f"{name}.mlp", shares_input)
            graphed = (of_mlp.graphed, of_mlp.graphed_norm)
            feed_forward = self.part(f"{name}.mlp", declared, inside, shares_stream=is_parallel, graphed=graphed)
        if has_layer_embeddings(self.model):
            declared = next(parts)
            inside = layer_input_inside(self, declared, f"{name}.input")
            feed_forward = feed_forward + self.part(f"{name}.input", declared, inside)
        return Halves(attention, feed_forward)

    def part(
        self,
        name: str,
        declared: LayerPart,
        inside: Block,
        *,
        shares_stream: bool = False,
        graphed: tuple[str, str] = ("", ""),
    ) -> Block:
        """Norm, what is inside (projections, what works on their result, the linear back into the stream), residual connection.

        A part that shares its stream with the part before it keeps no second copy: of what its norm reads, or without a norm of
        its own, of what its projections read. Software may replay all of it, or its norm, as such `graphed` parts of a layer.
        """
        graphed_whole, graphed_norm = graphed
        before = self.norm(f"{name}.norm", is_kept=not shares_stream) if declared.norm_before else Block()
        whole = self.replayed(before, graphed_norm) + inside
        if declared.norm_behind:
            whole = whole + self.norm(f"{name}.post_norm")
        if "branches" in self.model.scales:
            whole = whole + self.scale(f"{name}.scale", self.stream_bytes)
        return self.replayed(whole + self.residual(f"{name}.residual"), graphed_whole)
