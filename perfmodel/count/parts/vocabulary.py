"""Both ends of a decoder on one GPU, which share the vocabulary, and what one piece of the pipeline hands to the next.

Symbols: V vocab_size, h hidden_size, t tensor_parallel.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.blocks import Block, local, with_operators_again
from perfmodel.count.declarations import Component, Linear
from perfmodel.count.layer import LayerOperators
from perfmodel.count.memory.storage import logit_bytes
from perfmodel.count.operators import Collective, MemoryBound, gradients
from perfmodel.count.parts.layer_embeddings import has_layer_embeddings, looked_up
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.layout import pipeline_parallel_group
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import DATA_GRADIENT


def head_linear(model: TransformerModel, tensor_parallel: Numeric) -> Linear:
    """h x V/t, over the padded vocabulary; the published convention counts no padding."""
    padded = model.padded_vocab_size(tensor_parallel)
    return Linear(
        name="head.logits",
        component=Component.HEAD,
        role=Role.LOGITS,
        inner=model.hidden_size,
        columns=padded / tensor_parallel,
        useful=model.vocab_size / padded,
        has_bias=model.has_bias("head"),
    )


def embedding_matrix(model: TransformerModel, tensor_parallel: Numeric) -> Numeric:
    """Numbers of the embedding on one rank: V/t x h, over the padded vocabulary."""
    return model.padded_vocab_size(tensor_parallel) * model.hidden_size / tensor_parallel


def multi_token_linear(model: TransformerModel) -> Linear:
    """2h x h: the stream and the next token's embedding, side by side, into the stream of a layer that predicts one farther."""
    return Linear(
        name="multi_token.projection",
        component=Component.ATTENTION,
        role=Role.PRODUCT,
        inner=2 * model.hidden_size,
        columns=model.hidden_size,
    )


class DecoderOperators(LayerOperators):
    """Writes down every block of one setup: embedding, layers, head, and the messages between pieces of the pipeline."""

    def embedding(self) -> Block:
        """What tokens go through before the first layer."""
        return self._end(self._lookup())

    def _end(self, block: Block) -> Block:
        """An end of the model, which some software runs again where its layers run again.

        Ignored: copies of gathered logits, which are counted with the loss (8 bytes a logit more).
        """
        is_again = self.layout.recompute == "full" and self.stack.fusion.recomputes_ends
        return with_operators_again(block, block.forward, is_all=True) if is_again else block

    def _lookup(self) -> Block:
        """Looks up every token on every rank, zero where another rank has the row; then sums over the ranks.

        Backwards writes a dense gradient of the table and adds it to the accumulated one.
        """
        table = embedding_matrix(self.model, self.tensor)
        read = 1.0 - 1.0 / self.layout.micro_batches if self.stack.states.overwrites_gradients else 1.0
        dense = table * (2 * self.activation_bytes + (1.0 + read) * self.state.gradient)
        is_trained = self.tuning is None or self.tuning.trains("embedding")
        each = dense / table if is_trained else 0.0
        learned = 1 if self.model.position == "learned" else 0
        after = self._after_lookup()
        if has_layer_embeddings(self.model):
            after = after + looked_up(self, each)
        lookup = MemoryBound(
            name="embedding.lookup",
            role=Role.LOOKUP,
            kernel="lookup",
            precision=self.recipe.rest,
            moved_bytes=(4 + 2 * learned) * self.hidden_bytes,
            backward_bytes=3 * self.hidden_bytes + dense,
            kernels=3 + learned,
            backward_kernels=4,
        )
        if not is_trained:
            return Block(forward=(lookup,)) + after
        if not self.layout.sequence_parallel:
            reduce = self.collective("embedding.all_reduce", "all_reduce", payload=self.hidden_bytes)
            return Block(forward=(lookup, reduce), backward=gradients(lookup)) + after
        scatter = self.collective("embedding.scatter", "reduce_scatter", payload=self.hidden_bytes)
        gather = self.collective("embedding.gather_gradient", "all_gather", payload=self.hidden_bytes, phase=DATA_GRADIENT)
        return Block(forward=(lookup, scatter), backward=(gather, *gradients(lookup))) + after

    def _after_lookup(self) -> Block:
        """What embeddings go through before the first layer: a constant factor, a norm."""
        scale = self.scale("embedding.scale", self.stream_bytes) if "embedding" in self.model.scales else Block()
        return scale + self.norm("embedding.norm") if self.model.embedding_norm else scale

    def head(self) -> Block:
        """Final norm, logits over the padded vocabulary, cross-entropy; and layers that predict further."""
        to_logits = self.norm("head.norm") + self.column_linear(head_linear(self.model, self.tensor)) + self._after_logits()
        if self.stack.fusion.gathered_logits:
            payload = self.activation_bytes * self._logits_of_loss
            to_logits = to_logits + Block(forward=(self.collective("head.loss.gather", "all_gather", payload=payload),))
        predicted = self._end(to_logits) + self._loss()
        if not anywhere(np.asarray(self.model.multi_token_layers) > 0):
            return predicted
        return predicted + self._further(predicted).times(self.model.multi_token_layers)

    @property
    def _logits_of_loss(self) -> Numeric:
        """Logits that one rank takes the loss over: its columns, or all of them where they are gathered."""
        if self.stack.fusion.gathered_logits:
            return self.tokens * self.model.padded_vocab_size(self.tensor)
        return self.tokens * head_linear(self.model, self.tensor).columns

    def _loss(self) -> Block:
        """Cross-entropy. Ranks that share the vocabulary exchange three fp32 numbers a token.

        They are the largest logit, the logit of the target and the sum of exponentials.
        """
        logits = self._logits_of_loss
        loss = MemoryBound(
            name="head.loss",
            role=Role.LOSS,
            kernel="loss",
            precision=self.recipe.rest,
            moved_bytes=logit_bytes(self.stack.fusion.loss_forward_bytes, self.layout) * logits,
            backward_bytes=logit_bytes(self.stack.fusion.loss_backward_bytes, self.layout) * logits,
            kernels=8,
            backward_kernels=4,
        )
        if self.stack.fusion.gathered_logits:
            return local(loss)
        exchange = replace(self.collective("head.loss.all_reduce", "all_reduce", payload=4 * self.tokens), repeats=3)
        return Block(forward=(exchange,)) + local(loss)

    def _further(self, predicted: Block) -> Block:
        """One layer that predicts a token farther: embeddings looked up, both inputs normed and joined, a layer, the head.

        Every rank projects its own tokens (Megatron-Core, MultiTokenPredictionLayer: eh_proj).
        """
        parts, layer = self.model.multi_token_parts, Block()
        for kind in parts:
            halves = self.halves(kind, "multi_token" if len(parts) == 1 else f"multi_token.{kind}")
            layer = layer + halves.attention + halves.feed_forward
        inputs = self.norm("multi_token.norm") + self.norm("multi_token.embedding_norm")
        joined = self.own_linear(multi_token_linear(self.model), self.tokens / self.token_shards)
        return self.embedding() + inputs + joined + layer + predicted

    def _after_logits(self) -> Block:
        """What logits go through before the loss: a constant factor, a tanh between two of them (attention.py, _softcap).

        A compiler makes both part of the loss, and keeps nothing for them.
        """
        size = self.activation_bytes * self.tokens * head_linear(self.model, self.tensor).columns
        block = self.scale("head.scale", size) if "logits" in self.model.scales else Block()
        if "logits" not in self.model.softcaps or self.stack.fusion.recomputed_inputs:
            return block
        return block + local(
            MemoryBound(
                name="head.softcap",
                moved_bytes=6 * size,
                backward_bytes=7 * size,
                kernels=3,
                backward_kernels=3,
                saved_bytes=size / self.stack.fusion.loss_chunks,
            )
        )

    def boundary(self) -> Block:
        """What one piece of the pipeline hands to the next: activations forwards, their gradients backwards.

        Where all ranks of a tensor-parallel group hold the same, a stack may send a slice from each and join them in the next
        node (arXiv:2104.04473, section 4.1).
        """
        sliced = self.stack.overlap.scatter_gather_pipeline and not self.layout.sequence_parallel
        shards = self.tensor if sliced else self.token_shards
        send = Collective(
            name="pipeline.send_activations",
            role=Role.MESSAGE,
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
