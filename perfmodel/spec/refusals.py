"""Which layouts can exist: every rule, with the reason and what would work instead; for one layout or for arrays of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import NotSupportedError
from perfmodel.spec.axes import AXES, Axis
from perfmodel.spec.fields import Numeric, Truth, everywhere, plain
from perfmodel.spec.layout import EVEN, Layout
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.models.part_rules import expert_rules, one_stage_rules, selection_rules, state_rules
from perfmodel.spec.pipeline_layout import pipeline_pieces
from perfmodel.spec.precision import PrecisionRecipe
from perfmodel.spec.rules import Rule, divides, is_multiple, would
from perfmodel.spec.setup import Setup
from perfmodel.spec.stack import SoftwareStack
from perfmodel.spec.tuning.rules import tuning_rules


def check_setup(setup: Setup) -> None:
    """Raise InputError for a layout that cannot exist or run under the stack, NotSupportedError for one that is not covered."""
    check_precision(setup.layout.recipe, setup.cluster.gpu, setup.stack)
    for rule in every_rule(setup):
        if not everywhere(rule.allows):
            raise rule.error(rule.sentence(), key=rule.key)


def check_precision(recipe: PrecisionRecipe, gpu: Gpu, stack: SoftwareStack) -> None:
    """Raise NotSupportedError for a recipe that the GPU has no kernels for, or the software no attention."""
    gpu.check_recipe(recipe)
    if not stack.fusion.has_attention(recipe):
        sentence = f"{stack.name} has no attention in {recipe.name}: its kernels take numbers of 2 bytes"
        raise NotSupportedError(sentence, key="precision")


def may_exist(setup: Setup) -> Truth:
    """Which of many layouts break no rule: an array of their broadcast shape."""
    allowed: Truth = True
    for rule in every_rule(setup):
        allowed = allowed & np.asarray(rule.allows)
    return allowed


def every_rule(setup: Setup) -> Iterator[Rule]:
    """The rules of layouts, of the software, and of fine-tuning."""
    yield from layout_rules(setup.model, setup.cluster, setup.layout)
    yield from selection_rules(setup.model, setup.stack, setup.layout)
    yield from stack_rules(setup.stack, setup.layout)
    yield from tuning_rules(setup)


def layout_rules(model: TransformerModel, cluster: Cluster, layout: Layout) -> Iterator[Rule]:
    """Every rule about degrees and sizes, in the order in which a person wants to hear of them."""
    yield from _width_rules(model, layout)
    for kind in model.kinds.values():
        if kind.own:
            yield from _width_rules(model.seen_in(kind), layout)
    yield from _sequence_rules(layout)
    yield Rule(
        key="sequence_length",
        allows=model.position != "learned" or layout.sequence_length <= np.asarray(model.max_positions or 0),
        sentence=lambda: f"{layout.sequence_length} exceeds the {model.max_positions} learned positions of {model.name}",
    )
    nearest = _shortest_window(model)
    yield Rule(
        key="context_parallel",
        allows=(nearest >= layout.sequence_length) | (np.asarray(layout.context_parallel) == 1),
        sentence=lambda: (
            f"sliding attention over {plain(layout.context_parallel)} ranks is not covered; 1 would do, or sequences of at "
            f"most {plain(nearest)} tokens"
        ),
        error=NotSupportedError,
    )
    yield from one_stage_rules(model, layout)
    yield from state_rules(model, layout)
    yield from _batch_rules(layout)
    yield from _pipeline_rules(model, layout)
    yield from _sharding_rules(layout)
    yield from expert_rules(model, layout)
    yield from _recompute_rules(model, layout)
    yield _node_rule(cluster, layout)


def _width_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    """Tensor-parallel ranks share heads and columns."""
    tensor, kv_heads = layout.tensor_parallel, model.kv_heads
    for size, what in (
        (model.attention_heads, "attention heads"),
        (model.ffn_hidden_size, "columns of the MLP (ffn_hidden_size)"),
        (model.hidden_size, "columns (hidden_size)"),
        (model.layer_embedding_size, "numbers of each layer's embeddings (layer_embedding_size)"),
    ):
        yield divides(tensor, size, what, key="tensor_parallel")
    yield Rule(
        key="tensor_parallel",
        allows=is_multiple(kv_heads, tensor) | is_multiple(tensor, kv_heads),
        sentence=lambda: f"{plain(tensor)} neither divides {plain(kv_heads)} KV heads nor is a multiple of them",
    )


def _shortest_window(model: TransformerModel) -> NDArray[Any]:
    """Tokens that a query sees in the layers that see fewest; infinity where all see all."""
    shortest = np.asarray(np.inf)
    for kind in model.kinds.values():
        shortest = np.asarray(np.minimum(shortest, np.inf if kind.window is None else kind.window))
    return shortest


def stack_rules(stack: SoftwareStack, layout: Layout) -> Iterator[Rule]:
    """What the software itself cannot do."""
    fusion, recipe = stack.fusion, layout.recipe
    on_wide = f" in {recipe.name}" if fusion.attention and recipe.has_wide_attention else ""
    yield Rule(
        key="context_parallel",
        allows=fusion.fuses_attention(recipe) or np.asarray(layout.context_parallel) == 1,
        sentence=lambda: (
            f"attention over several ranks needs fused kernels, which {stack.name} does not run{on_wide}; 1 would do"
        ),
    )


def unoffered_axes(stack: SoftwareStack, layout: Layout) -> tuple[Axis, ...]:
    """The axes along which a layout spreads although its software has no such parallelism.

    No rule: a person may ask what such software would do.
    """
    return tuple(axis for axis in AXES if _spreads(layout, axis) and axis.name not in stack.offers.degrees)


def _spreads(layout: Layout, axis: Axis) -> bool:
    return bool(np.any(np.asarray(layout.degree(axis)) > 1))


def _context_degrees(layout: Layout) -> Numeric:
    """What context_parallel may divide: half of an even sequence, and what sequence parallelism leaves of it."""
    length = np.asarray(layout.sequence_length, dtype=np.int64)
    share = length // np.asarray(layout.tensor_parallel if layout.sequence_parallel else 1, dtype=np.int64)
    return np.where(length % 2 == 0, np.gcd(length // 2, share), 1)


def _batch_rules(layout: Layout) -> Iterator[Rule]:
    batch, data = layout.global_batch_size, layout.data_parallel
    per_replica = batch / data

    def near() -> str:
        return f"; {_nearest_multiples(batch, data)} would" if np.ndim(batch + data) == 0 else ""

    yield Rule(
        key="global_batch_size",
        allows=is_multiple(batch, data),
        sentence=lambda: f"{plain(batch)} sequences do not divide over {plain(data)} data-parallel replicas{near()}",
    )
    yield Rule(
        key="micro_batch_size",
        allows=is_multiple(per_replica, layout.micro_batch_size),
        sentence=lambda: (
            f"{plain(layout.micro_batch_size)} does not divide the {plain(per_replica)} sequences of a replica"
            f"{would(per_replica, layout.micro_batch_size)}"
        ),
    )


def _sequence_rules(layout: Layout) -> Iterator[Rule]:
    """Causal masks give the first tokens less work: each context-parallel rank takes one piece from either end."""
    context, tensor = layout.context_parallel, layout.tensor_parallel
    pieces = np.where(np.asarray(context) > 1, 2 * context, 1)
    yield Rule(
        key="context_parallel",
        allows=is_multiple(layout.sequence_length, pieces),
        sentence=lambda: (
            f"{plain(layout.sequence_length)} tokens of a sequence do not divide into two pieces for each of "
            f"{plain(context)} ranks{would(_context_degrees(layout), context)}"
        ),
    )
    if layout.sequence_parallel:
        yield divides(tensor, layout.sequence_length / context, "tokens of a sequence on one rank", key="tensor_parallel")


def _pipeline_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    pipeline, virtual = np.asarray(layout.pipeline_parallel), np.asarray(layout.virtual_pipeline)
    chunks, whole = pipeline * virtual, virtual == 1
    yield Rule(
        key="pipeline_parallel",
        allows=chunks <= model.layers + np.where(chunks > 2, 2, 0),
        sentence=lambda: (
            f"{plain(chunks)} pieces of the pipeline are more than {plain(model.layers)} layers, an embedding and a head"
        ),
    )
    over = np.remainder(model.layers, chunks)
    even = (over == 0) | (over == chunks - 1) | (over == chunks - 2)  # or with head, or embedding and head, as a layer each
    if model.mixture is not None:  # whose layouts are often written down piece by piece: both ends hold up to three layers less
        even = even | (over >= chunks - 3)
    is_written = layout.pipeline_layout != EVEN
    if is_written:
        yield from _written_rules(model, layout, chunks)
    yield Rule(
        key="virtual_pipeline",
        allows=whole | even | is_written,
        sentence=lambda: (
            f"{plain(model.layers)} layers do not divide into {plain(chunks)} pieces, nor with the head, or the embedding and "
            "the head, counted as layers"
        ),
    )
    yield Rule(
        key="virtual_pipeline",
        allows=whole | (pipeline > 1),
        sentence=lambda: f"{plain(virtual)} pieces a stage need more than one pipeline stage",
    )
    yield from _schedule_rules(layout, pipeline, virtual)


def _written_rules(model: TransformerModel, layout: Layout, chunks: NDArray[Any]) -> Iterator[Rule]:
    """What pieces that are written down must agree with."""
    pieces = pipeline_pieces(layout.pipeline_layout)
    yield Rule(
        key="pipeline_layout",
        allows=np.asarray(chunks) == len(pieces.layers),
        sentence=lambda: (
            f"it has {len(pieces.layers)} pieces, and {plain(layout.pipeline_parallel)} stages of "
            f"{plain(layout.virtual_pipeline)} have {plain(chunks)}"
        ),
    )
    yield Rule(
        key="pipeline_layout",
        allows=np.asarray(model.layers) == pieces.total,
        sentence=lambda: f"it places {pieces.total} layers, and {model.name} has {plain(model.layers)}",
    )
    yield Rule(
        key="pipeline_layout",
        allows=np.asarray(model.multi_token_layers) == pieces.multi_token,
        sentence=lambda: (
            f"it places {pieces.multi_token} layers that predict further tokens (m), and {model.name} has "
            f"{plain(model.multi_token_layers)} (model.multi_token_layers)"
        ),
    )


def _schedule_rules(layout: Layout, pipeline: NDArray[Any], virtual: NDArray[Any]) -> Iterator[Rule]:
    if layout.pipeline_schedule == "1f1b":
        yield Rule(
            key="virtual_pipeline",
            allows=(virtual == 1) | is_multiple(layout.micro_batches, pipeline),
            sentence=lambda: (
                f"{plain(layout.micro_batches)} micro-batches do not divide into groups of {plain(pipeline)}, one for each "
                "stage, as an interleaved schedule runs them; virtual_pipeline 1 would do, or another global_batch_size"
            ),
        )
        return
    yield Rule(
        key="pipeline_schedule",
        allows=pipeline > 1,
        sentence=lambda: f"{layout.pipeline_schedule} needs more than one pipeline stage",
    )
    yield Rule(
        key="virtual_pipeline",
        allows=virtual == 1,
        sentence=lambda: f"{layout.pipeline_schedule} is not interleaved; it needs virtual_pipeline 1",
    )


def _sharding_rules(layout: Layout) -> Iterator[Rule]:
    replicas = np.asarray(layout.data_parallel_replicas)
    key, is_hsdp = "data_parallel_replicas", layout.sharding == "hsdp"
    yield Rule(
        key=key,
        allows=is_hsdp | (replicas == 1),
        sentence=lambda: f"only hsdp keeps several copies of its shards, not {layout.sharding}",
    )
    yield Rule(
        key=key,
        allows=(not is_hsdp) | (replicas > 1),
        sentence=lambda: "hsdp with one copy of the shards is zero3; give the number of copies, often one a node",
    )
    yield Rule(
        key=key,
        allows=(not is_hsdp) | (replicas != np.asarray(layout.data_parallel * layout.context_parallel)),
        sentence=lambda: "hsdp with a copy for every rank shards nothing; that is none, or zero1",
    )
    yield divides(replicas, layout.data_parallel, "data-parallel replicas", key=key)


def _recompute_rules(model: TransformerModel, layout: Layout) -> Iterator[Rule]:
    yield Rule(
        key="recompute_modules",
        allows=not layout.recompute_modules or layout.recompute == "selective",
        sentence=lambda: f"it is for recompute selective; this run has {layout.recompute}",
    )
    again = layout.recompute_layers
    if again is None:
        return
    most = np.ceil(model.layers / layout.pipeline_parallel)
    yield Rule(
        key="recompute_layers",
        allows=layout.recompute == "full",
        sentence=lambda: f"it is for recompute full; this run has {layout.recompute}",
    )
    yield Rule(
        key="recompute_layers",
        allows=again <= most,
        sentence=lambda: f"{plain(again)} is more than the {plain(most)} layers of a pipeline stage",
    )


def _nearest_multiples(size: Numeric, divisor: Numeric) -> str:
    low = int(size // divisor) * int(divisor)
    return " or ".join(str(multiple) for multiple in (low, low + int(divisor)) if multiple > 0)


def _node_rule(cluster: Cluster, layout: Layout) -> Rule:
    tensor, node = layout.tensor_parallel, cluster.gpus_per_node
    fits = is_multiple(node, tensor) | is_multiple(tensor, node)
    return Rule(
        key="tensor_parallel",
        allows=fits | (layout.gpus < node),
        sentence=lambda: f"{plain(tensor)} neither divides a node of {node} GPUs nor fills whole nodes",
    )
