"""How many bytes does the forecast count for one memory-bound operator of the reference model?

No second formula: the operators are those of perfmodel/count under the stack `reference`, of a model that is made around one
tensor of `rows` x `columns`.

kernel                                         rows, columns
layernorm, rmsnorm, residual                   tokens, width of the stream
gelu, squared_relu, swiglu, geglu              tokens, width of the MLP (a gated one reads twice as much)
rotary                                         tokens, width of queries and keys together
lookup                                         tokens, width of a table of `table_rows`
loss                                           tokens, vocabulary
accumulate, overwrite                          those of the weight
adam, scale, square_sum, zero, copy            those of one flat tensor of gradients
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Final

from perfmodel.count.declarations import Component, Linear
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import MemoryBound, Operator
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.parts.vocabulary import DecoderOperators
from perfmodel.count.roles import Role
from perfmodel.exchange.presets import cluster_preset, stack_preset
from perfmodel.spec.layout import Layout
from perfmodel.spec.machines.coefficients import MEMORY_BOUND_KERNELS, STATE_KERNELS
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack

KERNELS: Final = (*(kernel for kernel in MEMORY_BOUND_KERNELS if kernel not in STATE_KERNELS), "copy")
FLAT: Final = ("adam", "scale", "square_sum", "zero")  # over all parameters, whatever their shapes
OF_WEIGHTS: Final = ("accumulate", "overwrite")  # of one weight, once a micro-batch
ACTIVATIONS: Final = ("gelu", "squared_relu", "swiglu", "geglu")
HEAD_SIZE: Final = 64
CLUSTER: Final = "dgx-h100"  # any: counts do not depend on it


def moved_bytes(
    kernel: str,
    phase: str,
    *,
    precision: str,
    rows: int,
    columns: int,
    table_rows: int = 1,
    rotary_fraction: float = 1.0,
) -> float:
    """What `kernel` of one tensor moves in one execution of `phase`.

    >>> moved_bytes("residual", "forward", precision="bf16", rows=2, columns=8)  # reads two, writes one
    96.0
    """
    return float(
        operator_of(
            kernel,
            phase,
            precision=precision,
            rows=rows,
            columns=columns,
            table_rows=table_rows,
            rotary_fraction=rotary_fraction,
        ).moved_bytes
    )


def operator_of(
    kernel: str,
    phase: str,
    *,
    precision: str,
    rows: int,
    columns: int,
    table_rows: int = 1,
    rotary_fraction: float = 1.0,
) -> MemoryBound:
    """The forecast's operator of the same tensor, with the number of its kernels."""
    if kernel == "copy":
        return MemoryBound(name="copy", moved_bytes=2.0 * rows * columns * (4 if precision == "fp32" else 2))
    model = _model(kernel, columns=columns, table_rows=table_rows, rotary_fraction=rotary_fraction)
    layout = _layout(precision, tokens=1 if kernel in (*FLAT, *OF_WEIGHTS) else rows)
    found = next(op for op in _operators(kernel, model, layout, rows) if op.kernel == kernel and op.phase == phase)
    if kernel not in FLAT:
        return found
    of_model = float(shard_parameter_count(model, tensor_parallel=1).total)
    return replace(found, moved_bytes=found.moved_bytes * rows * columns / of_model)


def _operators(kernel: str, model: TransformerModel, layout: Layout, rows: int) -> Iterator[MemoryBound]:
    setup = Setup(model=model, cluster=_cluster(), stack=_stack(), layout=layout)
    operators: tuple[Operator, ...]
    if kernel in FLAT:
        stack = _stack()
        with_zero = replace(stack, states=replace(stack.states, overwrites_gradients=False))
        operators = iteration(replace(setup, stack=with_zero)).synchronisation
    elif kernel in OF_WEIGHTS:
        linear = Linear(
            name="linear", component=Component.FEED_FORWARD, role=Role.PRODUCT, inner=model.hidden_size, columns=rows
        )
        operators = DecoderOperators(setup).column_linear(linear).operators
    else:
        work = iteration(setup)
        blocks = (work.embedding, *(each.plain for each in work.layers.values()), work.head)
        operators = sum((block.operators for block in blocks), ())
    return (op for op in operators if isinstance(op, MemoryBound))


@cache
def _cluster() -> Cluster:
    return cluster_preset(CLUSTER)


@cache
def _stack() -> SoftwareStack:
    return stack_preset("reference")


def _model(kernel: str, *, columns: int, table_rows: int, rotary_fraction: float) -> TransformerModel:
    """One layer whose tensor that `kernel` works on has `columns`."""
    heads = columns // (2 * HEAD_SIZE) if kernel == "rotary" else 1
    return TransformerModel(
        name=f"one layer around {kernel}",
        layers=1,
        hidden_size=columns,
        attention_heads=max(heads, 1),
        kv_heads=max(heads, 1),
        head_size=HEAD_SIZE,
        ffn_hidden_size=columns,
        activation=kernel if kernel in ACTIVATIONS else "gelu",
        norm="layernorm" if kernel == "layernorm" else "rmsnorm",
        rotary_fraction=rotary_fraction,
        vocab_size=columns if kernel == "loss" else table_rows,
        vocab_padding_multiple=1,
    )


def _layout(precision: str, *, tokens: int) -> Layout:
    return Layout(
        precision=precision,
        tensor_parallel=1,
        data_parallel=1,
        sequence_parallel=False,
        sharding="zero1",
        recompute="none",
        micro_batch_size=1,
        global_batch_size=1,
        sequence_length=tokens,
    )
