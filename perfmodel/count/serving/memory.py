"""What of a GPU's memory a served model takes, and how many tokens fit into the KV cache that is left.

Symbols: M memory that the driver shows, f fraction of the engine, W weights, F what libraries and the engine hold, A the
activations of the largest pass, G CUDA graphs.
"""

from __future__ import annotations

from functools import lru_cache, reduce

import numpy as np

from perfmodel.count.declarations import Component, ExpertShards
from perfmodel.count.parameters import shard_parameter_count
from perfmodel.count.serving.cache import cache_bytes_per_token
from perfmodel.count.serving.forward_pass import is_narrow
from perfmodel.count.serving.mixers import state_bytes_per_sequence
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric
from perfmodel.spec.serving.engine import OF_TOTAL
from perfmodel.spec.serving.formats import WIDE_BYTES
from perfmodel.spec.serving.setup import Request, ServingSetup

LONGEST, SECTIONS = 1 << 32, 257
ANY_LENGTH = LONGEST >> 1  # tokens that fit no memory but beside layers which keep a window of them, or a state
MLP_COPIES = 2.0  # of both halves of an MLP's width: what the product gives, and what the activation function does


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """Bytes of one GPU; what is left for the cache may be negative where a model does not fit."""

    total_bytes: Numeric
    weights_bytes: Numeric
    fixed_bytes: Numeric
    activation_bytes: Numeric
    graph_bytes: Numeric
    cache_bytes: Numeric

    @property
    def unused_bytes(self) -> Numeric:
        """What the engine leaves free."""
        used = self.weights_bytes + self.fixed_bytes + self.activation_bytes + self.graph_bytes
        return self.total_bytes - used - np.maximum(self.cache_bytes, 0.0)


@lru_cache(maxsize=64)
def weight_bytes(setup: ServingSetup) -> Numeric:
    """W: parameters of one GPU, matrices of layers in the format of the weights, everything else in 16 bits."""
    model, weights = setup.model, setup.weights
    shards = ExpertShards(ranks=setup.expert_parallel, tensor=setup.expert_tensor)
    held = shard_parameter_count(model, tensor_parallel=setup.tensor_parallel, experts=shards)
    attention = held.attention
    if setup.attention_replicas > 1:
        attention = shard_parameter_count(model, tensor_parallel=setup.attention_tensor, experts=shards).attention
    parts = {
        Component.ATTENTION: attention,
        Component.FEED_FORWARD: held.mlp,
        Component.EXPERTS: held.experts,
        Component.HEAD: held.embedding + held.positions + held.head + held.norms,
    }
    sizes = (number * (weights.bytes if is_narrow(setup, component) else WIDE_BYTES) for component, number in parts.items())
    first, *others = sizes
    return sum(others, first)


def activation_bytes(setup: ServingSetup) -> Numeric:
    """A = max(T * (4*f/t + 4*h) * 2 B, B*v*b): T tokens of the pass that the engine profiles, then v logits of B sequences.

    f is that of the widest layers.

    Sampling begins when the tensors of layers are gone; every rank has all logits, each of which takes b bytes at most.
    """
    model, memory = setup.model, setup.engine.memory
    widths = [model.ffn_hidden_size, *(kind.ffn_hidden_size or 0 for kind in model.kinds.values())]
    ffn = reduce(np.maximum, widths) / setup.tensor_parallel
    if model.mixture is not None:
        routed = model.mixture.experts_per_token * model.mixture.ffn_hidden_size + model.mixture.shared_ffn_hidden_size
        ffn = np.maximum(ffn, routed / setup.tensor_parallel)
    width = 2.0 * MLP_COPIES * ffn + 4.0 * model.hidden_size
    logits = setup.engine.schedule.max_sequences * model.vocab_size * memory.logit_bytes
    return np.maximum(memory.profiled_tokens * width * WIDE_BYTES, logits)


@lru_cache(maxsize=64)
def serving_memory(setup: ServingSetup) -> ServingMemory:
    """Cache = f*M - W - F - A (- G), or f*(M - W - F - A - G) where the fraction is of what is free."""
    engine, memory, gpu = setup.engine, setup.engine.memory, setup.cluster.gpu
    weights, activations = weight_bytes(setup), activation_bytes(setup)
    fixed = memory.fixed_bytes + (memory.group_bytes if setup.tensor_parallel > 1 else 0.0)
    graphs = memory.graph_bytes if engine.host.graphs else 0.0
    taken = weights + fixed + activations
    if memory.fraction_of == OF_TOTAL:
        cache = memory.fraction * gpu.memory_bytes - taken - (graphs if memory.graphs_inside else 0.0)
        cache = np.minimum(cache, gpu.memory_bytes - taken - graphs)
    else:
        cache = memory.fraction * (gpu.memory_bytes - taken - graphs)
    return ServingMemory(
        total_bytes=gpu.memory_bytes,
        weights_bytes=weights,
        fixed_bytes=fixed,
        activation_bytes=activations,
        graph_bytes=graphs,
        cache_bytes=cache,
    )


def sequence_bytes(setup: ServingSetup, tokens: Numeric) -> Numeric:
    """Bytes of the cache of one sequence on one GPU: whole blocks; sliding layers hold those that their window touches.

    A window of w tokens begins anywhere in a block of b: it touches ceil((w - 1)/b) + 1 of them at most. Mixers have a state.
    """
    model, block = setup.model, setup.engine.memory.block_tokens
    held = np.ceil(np.asarray(tokens) / block) * block
    total: Numeric = 0.0
    for name, kind in model.kinds.items():
        layers = setup.layers[name]
        kept = held if kind.window is None else np.minimum(held, (np.ceil((kind.window - 1.0) / block) + 1.0) * block)
        total = total + layers * (kept * cache_bytes_per_token(setup, kind) + state_bytes_per_sequence(setup, kind))
    return total


def cache_tokens(setup: ServingSetup) -> Numeric:
    """Tokens that the cache of one replica holds, where every attention layer keeps all; 0 where the model does not fit.

    States of mixers, which every sequence has, are not taken from it; a model of mixers alone keeps no tokens.
    """
    model = setup.model
    each: Numeric = 0.0
    for name, kind in model.kinds.items():
        each = each + setup.layers[name] * cache_bytes_per_token(setup, kind)
    block = setup.engine.memory.block_tokens
    free = np.maximum(serving_memory(setup).cache_bytes, 0.0)
    if not np.all(np.asarray(each) > 0):
        return 0.0
    return np.floor(free / each / block) * block * setup.attention_replicas


def concurrency_that_fits(setup: ServingSetup, request: Request) -> Numeric:
    """Sequences whose cache fits at once: each has the prompt and half of what comes back, on average over its life.

    Where the engine reserves what may come back, each takes all of it from the start.
    """
    free = np.maximum(serving_memory(setup).cache_bytes, 0.0)
    each = request.total_tokens if setup.engine.schedule.reserves_output else request.mean_context
    return np.floor(free / sequence_bytes(setup, each)) * setup.attention_replicas


def longest_context(setup: ServingSetup) -> int:
    """Tokens of the longest single sequence that fits; 0 where the model does not fit. Sliding layers take no part of it."""
    free = float(np.maximum(serving_memory(setup).cache_bytes, 0.0))
    block = int(setup.engine.memory.block_tokens)
    fits, over = 0, LONGEST // block  # numbers of blocks that fit, and that do not or are more than anybody asks for
    while over - fits > 1:
        between = np.unique(np.linspace(fits, over, SECTIONS).astype(np.int64))[1:-1]
        held = np.broadcast_to(np.asarray(sequence_bytes(setup, between * block)) <= free, between.shape)
        number = int(np.sum(held))  # more tokens never take less
        fits, over = (int(between[number - 1]) if number else fits), (int(between[number]) if number < len(between) else over)
    return fits * block
