"""What an operator of a training step is for: a role, beside its name, which is for people alone.

What is run again, what runs in low precision, which part of the iteration an operator counts to: all ask for the role (or for
the kind of operator), never for a piece of the name.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """What an operator is for; each kind of operator has a role that it takes unless it is given another."""

    PRODUCT = "product"  # a linear of a layer: the first of its part
    UP_PROJECTION = "up_projection"  # queries, keys and values out of the narrow vectors of latent attention
    INDEX_QUERY = "index_query"  # queries of an indexer, which chooses the tokens that attention reads
    INDEX_KEY = "index_key"  # its keys, and how its heads are weighed: out of the stream, beside the queries
    ROUTER = "router"  # scores of experts, the choice among them, and the bookkeeping of it
    EXPERT = "expert"  # the first product of routed experts
    EXPERT_ACTIVATION = "expert_activation"
    EXPERT_OUTPUT = "expert_output"  # their last product
    PERMUTE = "permute"  # tokens in the order of their experts, and back
    DISPATCH = "dispatch"  # tokens to the ranks of their experts
    COMBINE = "combine"  # and back
    SHARED_EXPERT = "shared_expert"  # all of the MLP that every token passes beside its experts
    OUTPUT_PRODUCT = "output_product"  # the linear that ends a part of a layer
    LOGITS = "logits"  # the linear of the vocabulary
    CORE = "core"  # attention between queries, keys and values
    SCORES = "scores"  # what unfused attention does to its scores
    CORE_EXCHANGE = "core_exchange"  # what ranks that share a sequence exchange and join for the core
    SCAN = "scan"  # what heads of Mamba-2, which keep a state, do with a sequence, chunk by chunk
    DELTA_RULE = "delta_rule"  # the same of the gated delta rule
    NORM = "norm"
    ELEMENTWISE = "elementwise"  # activation, rotary, residual
    CAST = "cast"  # operands to a narrower format
    GRADIENT_SUM = "gradient_sum"  # adding a weight gradient to those before
    ADAPTER = "adapter"  # what is trained beside a frozen linear
    DEQUANTISE = "dequantise"  # weights in few bits, to 16 for a product
    LOOKUP = "lookup"
    LOSS = "loss"
    COLLECTIVE = "collective"  # of tensor-parallel ranks, beside their products
    REORDER = "reorder"  # copying what such a call gathered, or is to scatter, into the order of tokens or ranks
    MESSAGE = "message"  # between pieces of the pipeline
    GRADIENT_REDUCTION = "gradient_reduction"
    REPLICA_REDUCTION = "replica_reduction"  # of shards of gradients, over the copies of hsdp
    PARAMETER_GATHER = "parameter_gather"
    BACKWARD_GATHER = "backward_gather"  # of parameters, once more for the backward pass
    STEP = "step"  # of the optimizer


EXPERT_PRODUCTS: Final = frozenset({Role.EXPERT, Role.EXPERT_OUTPUT})
TOKEN_EXCHANGE: Final = frozenset({Role.DISPATCH, Role.COMBINE})
TOKEN_MOVEMENT: Final = frozenset({Role.PERMUTE, Role.EXPERT_ACTIVATION, Role.EXPERT_OUTPUT})  # of memory-bound operators
INDEX_PRODUCTS: Final = frozenset({Role.INDEX_QUERY, Role.INDEX_KEY})
SCANS: Final = frozenset({Role.SCAN, Role.DELTA_RULE})
ATTENTION_CORE: Final = frozenset({Role.CORE, Role.SCORES})
DATA_PARALLEL: Final = frozenset(
    {Role.GRADIENT_REDUCTION, Role.REPLICA_REDUCTION, Role.PARAMETER_GATHER, Role.BACKWARD_GATHER}
)  # what data parallelism moves
