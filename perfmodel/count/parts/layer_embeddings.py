"""Embeddings that every layer has of its own: looked up beside those of the stream, and added to it behind each layer's MLP.

Symbols: V_l layer_vocab_size, L layers, p layer_embedding_size, h hidden_size, t tensor_parallel, T tokens of a micro-batch.

One lookup gives a token the numbers of all layers, to which a projection of its embedding is added; in a layer they are
multiplied with a gate out of the stream, and come back into it through a matrix and a norm. Source: transformers 5.24,
modeling_gemma4.py (get_per_layer_inputs, project_per_layer_inputs). Tensor-parallel ranks have p/t numbers of each layer.
"""

from __future__ import annotations

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Component, LayerPart, Linear, Projections
from perfmodel.count.operators import MemoryBound
from perfmodel.count.parts.feed_forward import activation
from perfmodel.count.parts.stream import StreamOperators
from perfmodel.count.roles import Role
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.models.model import TransformerModel


def has_layer_embeddings(model: TransformerModel) -> bool:
    """Whether layers have embeddings of their own."""
    return anywhere(np.asarray(model.layer_embedding_size) > 0)


def layer_numbers(model: TransformerModel, tensor_parallel: Numeric = 1) -> Numeric:
    """L*p/t: what one token has for all layers together, on one rank."""
    return model.layers * model.layer_embedding_size / tensor_parallel


def layer_table(model: TransformerModel, tensor_parallel: Numeric) -> Numeric:
    """V_l * L*p/t numbers of the table on one rank."""
    return model.layer_vocab_size * layer_numbers(model, tensor_parallel)


def layer_projection(model: TransformerModel, tensor_parallel: Numeric) -> Linear:
    """h x L*p/t, once in a model: the embedding of a token, as each layer adds it to its own."""
    return Linear(
        name="embedding.layer_projection",
        component=Component.FEED_FORWARD,
        role=Role.PRODUCT,
        inner=model.hidden_size,
        columns=layer_numbers(model, tensor_parallel),
    )


def layer_input(model: TransformerModel, tensor_parallel: Numeric, name: str) -> LayerPart:
    """h x p/t of the gate and p/t x h back into the stream, with a norm behind."""
    width = model.layer_embedding_size / tensor_parallel

    def linear(what: str, role: Role, inner: Numeric, columns: Numeric) -> Linear:
        return Linear(name=f"{name}.{what}", component=Component.FEED_FORWARD, role=role, inner=inner, columns=columns)

    return LayerPart(
        into=Projections(joined=linear("gate", Role.PRODUCT, model.hidden_size, width)),
        out=linear("projection", Role.OUTPUT_PRODUCT, width, model.hidden_size),
        norm_before=False,
        norm_behind=True,
    )


def layer_input_inside(write: StreamOperators, declared: LayerPart, name: str) -> Block:
    """The gate, its product with what the layer was given, and the linear back into the stream."""
    between = activation(write.setup, name, write.tokens * declared.output.inner)
    return write.projections(declared.projections) + between + write.row_linear(declared.output)


def looked_up(write: StreamOperators, table_bytes: Numeric) -> Block:
    """What all layers are given: a lookup, whose gradient moves so many bytes of each number of the table, and a projection.

    Both are added up behind a norm of the second; ranks add up what they have of the table.
    """
    model, linear = write.model, layer_projection(write.model, write.tensor)
    size = write.activation_bytes * write.tokens * layer_numbers(model)
    dense = table_bytes * layer_table(model, write.tensor)
    lookup = MemoryBound(
        name="embedding.layer_lookup",
        role=Role.LOOKUP,
        kernel="lookup",
        precision=write.recipe.rest,
        moved_bytes=4 * size,
        backward_bytes=3 * size + dense,
        kernels=3,
        backward_kernels=4,
    )
    reduce = write.collective("embedding.layer_all_reduce", "all_reduce", payload=size)
    numbers = write.tokens * linear.columns
    added = MemoryBound(
        name="embedding.layer_sum",
        moved_bytes=3 * write.activation_bytes * numbers,
        backward_bytes=2 * write.activation_bytes * numbers,
    )
    norm = write.norm_of("embedding.layer_norm", numbers, write.activation_bytes * numbers)
    return local(lookup) + Block(forward=(reduce,)) + write.column_linear(linear) + norm + local(added)
