"""Rules about layouts of models with other parts than attention and an MLP: mixers that keep a state, mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perfmodel.errors import NotSupportedError
from perfmodel.spec.axes import EXPERT, EXPERT_TENSOR, OF_EXPERTS, Axis
from perfmodel.spec.fields import plain
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_kinds import BORROWED, STATE_MIXERS
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.rules import Rule, divides, would
from perfmodel.spec.stack import SoftwareStack


def state_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    """Mixers that keep a state: ranks share their heads, but no sequence."""
    tensor, space, delta = layout.tensor_parallel, model.state_space, model.delta
    heads = [] if space is None else [(space.heads, "heads of Mamba-2 (state_space.heads)")]
    if delta is not None:
        heads += [(delta.key_heads, "key heads (delta.key_heads)"), (delta.value_heads, "value heads (delta.value_heads)")]
    for size, what in heads:
        yield divides(tensor, size, what, key="tensor_parallel")
    if space is not None:
        yield Rule(
            key="tensor_parallel",
            allows=(np.remainder(space.groups, tensor) == 0) | (np.remainder(tensor, space.groups) == 0),
            sentence=lambda: f"{plain(tensor)} neither divides {plain(space.groups)} groups nor is a multiple of them",
        )
    names = _state_mixers(model)
    yield Rule(
        key="context_parallel",
        allows=not names or np.asarray(layout.context_parallel) == 1,
        sentence=lambda: f"{names} over {plain(layout.context_parallel)} ranks of a sequence is not covered; 1 would do",
        error=NotSupportedError,
    )


def one_stage_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    """What layers take from others, or from the embedding, would have to travel from one pipeline stage to the next."""
    stages = layout.pipeline_parallel
    borrows = any(kind.kv == BORROWED for kind in model.kinds.values())
    for what, has in (("that borrow keys and values", borrows), ("with embeddings of their own", model.layer_embedding_size)):
        yield Rule(
            key="pipeline_parallel",
            allows=(np.asarray(has) == 0) | (np.asarray(stages) == 1),
            sentence=lambda what=what: f"layers {what} over {plain(stages)} stages are not covered; 1 would do",  # type: ignore[misc]
            error=NotSupportedError,
        )


def _state_mixers(model: TransformerModel) -> str:
    """The mixers of a model that keep a state, or ""."""
    found = {kind.attention for kind in model.kinds.values()}
    return " and ".join(name for name in STATE_MIXERS if name in found)


def selection_rules(model: TransformerModel, stack: SoftwareStack, layout: Layout) -> Iterator[Rule]:
    """What runs again product by product is known of attention and an MLP alone."""
    by_product = stack.fusion.selective_recompute == "every_second_product" and layout.recompute == "selective"
    names = _state_mixers(model)
    yield Rule(
        key="recompute",
        allows=not (names and by_product) or bool(layout.recompute_modules),
        sentence=lambda: f"selective, as {stack.name} runs it, is not covered for {names}; none or full would do",
        error=NotSupportedError,
    )


def expert_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    """The expert mesh shares the GPUs of a pipeline stage with the other one: its degrees may exceed data_parallel."""
    expert, tensor, mixture = layout.expert_parallel, layout.expert_tensor_parallel, model.mixture
    if mixture is None:
        for axis in OF_EXPERTS:
            yield _no_experts(model, layout, axis)
        return
    yield divides(expert, mixture.experts, "experts", key=EXPERT.name)
    yield divides(tensor, mixture.ffn_hidden_size, "columns of an expert (mixture.ffn_hidden_size)", key=EXPERT_TENSOR.name)
    stage = layout.tensor_parallel * layout.context_parallel * layout.data_parallel
    yield Rule(
        key=EXPERT.name,
        allows=np.remainder(stage, expert * tensor) == 0,
        sentence=lambda: (
            f"{plain(expert * tensor)} ranks that share experts (expert_parallel * expert_tensor_parallel) do not divide the "
            f"{plain(stage)} GPUs of a pipeline stage{would(stage, expert * tensor)}"
        ),
    )
    yield Rule(
        key="sequence_parallel",
        allows=layout.sequence_parallel | (np.asarray(layout.tensor_parallel) == 1),
        sentence=lambda: "tensor-parallel ranks share the tokens that they send to experts: true is needed",
    )


def _no_experts(model: TransformerModel, layout: Layout, axis: Axis) -> Rule:
    degree = layout.degree(axis)
    return Rule(
        key=axis.name,
        allows=np.asarray(degree) == 1,
        sentence=lambda: f"{plain(degree)} ranks would share experts, and {model.name} has none; 1 would do",
    )
