"""The operators of one training iteration, in the order of one micro-batch: the list that everything else folds over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import numpy as np

from perfmodel.count.blocks import MODULES, Block, Rerun, rerun_of_modules, with_operators_again, with_recompute
from perfmodel.count.data_parallel import Buckets, buckets
from perfmodel.count.operators import Collective, Operator
from perfmodel.count.parts.vocabulary import DecoderOperators
from perfmodel.count.pipeline import PipelineSplit, PipelineStage, PipelineStages, every_stage, pipeline_split
from perfmodel.count.synchronisation import synchronisation_of_stage, synchronisation_operators
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.layout import Layout
from perfmodel.spec.setup import Setup


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerBlocks:
    """One execution of a layer of one kind: with what the layout runs again, and without.

    `freed_bytes` is what modules that run again for themselves form then, instead of keeping it.
    """

    again: Block
    plain: Block
    freed_bytes: Numeric = 0.0


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """The work of one GPU of every pipeline stage, with all that follows from its setup.

    `embedding`, `head` and the blocks of each kind of layer are one execution each, `boundary` what passes from one piece of
    the pipeline to the next.
    """

    setup: Setup
    embedding: Block
    layers: Mapping[str, LayerBlocks]  # by kind
    head: Block
    boundary: Block
    split: PipelineSplit

    @property
    def layout(self) -> Layout:
        """The layout of its setup."""
        return self.setup.layout

    @property
    def stages(self) -> PipelineStages:
        """The distinct pipeline stages."""
        return self.split.stages

    @cached_property
    def buckets(self) -> Buckets:
        """How the parameters of the first pipeline stage are grouped for data-parallel collectives."""
        return buckets(self.setup, self.stages.first.parameters)

    @cached_property
    def synchronisation(self) -> tuple[Operator, ...]:
        """What an iteration does once, after its micro-batches: most of a million layouts are never asked for it."""
        return synchronisation_operators(self.setup, self.split, self.buckets)

    @property
    def boundaries(self) -> Numeric:
        """Messages that a micro-batch makes on its way through all pieces of the pipeline."""
        return self.layout.pipeline_parallel * self.layout.virtual_pipeline - 1

    @property
    def several(self) -> Numeric:
        """1 with several pipeline stages, 0 where the last is the first."""
        return np.minimum(self.stages.last.position, 1)

    @cached_property
    def whole(self) -> Mapping[str, tuple[Numeric, Numeric]]:
        """Layers of each kind on all pipeline stages together, and how many of them are not run again."""
        first, _, last = (stage.held for stage in self.stages)
        between, ends, model = self.split.between, self.several, self.setup.model
        plain = {kind: first.plain[kind] + last.plain[kind] * ends + between.plain[kind] for kind in self.layers}
        return {kind: (model.layers_of(kind, 0, model.layers), number) for kind, number in plain.items()}

    @cached_property
    def plain_kinds(self) -> tuple[str, ...]:
        """The kinds of which some layers are not run again."""
        return tuple(kind for kind, (_, plain) in self.whole.items() if anywhere(plain))

    def block_passes(self) -> Iterator[tuple[tuple[Operator, ...], Numeric]]:
        """Every pass of a block with how often it runs on all pipeline stages together, in the order of one micro-batch.

        Last what an iteration does once. The optimizer step is that of one stage: all take theirs at the same time.
        """
        counts: list[tuple[Block, Numeric]] = [(self.embedding, 1)]
        for kind, of_kind in self.layers.items():
            every, plain = self.whole[kind]
            counts += [(of_kind.again, every - plain), (of_kind.plain, plain)]
        counts += [(self.boundary, self.boundaries), (self.head, 1)]
        yield from self._passes([(block, times, times) for block, times in counts])
        yield self.synchronisation, 1

    def _passes(self, counts: list[tuple[Block, Numeric, Numeric]]) -> Iterator[tuple[tuple[Operator, ...], Numeric]]:
        """Both passes of blocks that a micro-batch runs so often forward and backward."""
        batches = self.layout.micro_batches
        yield from ((block.forward, times * batches) for block, times, _ in counts if anywhere(times))
        yield from ((block.backward, times * batches) for block, _, times in reversed(counts) if anywhere(times))

    @cached_property
    def meetings(self) -> Mapping[str, tuple[Numeric, Numeric]]:
        """By axis along which ranks meet: how many they are, and in how many collectives of an iteration they do.

        Experts are exchanged, and shared, between ranks of other axes, with which they count. Collectives of the optimizer step
        follow one another at once, and are one meeting; messages between pipeline stages are none.
        """
        *passes, _ = self.block_passes()
        found: dict[str, tuple[Numeric, Numeric]] = {}
        for operators, times in passes:
            for name, ranks, repeats in _meetings(operators):
                most, often = found.get(name, (1, 0.0))
                here = repeats * times * (np.asarray(ranks) > 1) / self.layout.pipeline_parallel
                found[name] = np.maximum(most, ranks), often + here
        in_step: dict[str, Numeric] = {}
        for name, ranks, _ in _meetings(self.synchronisation):
            in_step[name] = np.maximum(in_step.get(name, 1), ranks)
        for name, ranks in in_step.items():
            most, often = found.get(name, (1, 0.0))
            found[name] = np.maximum(most, ranks), often + 1.0 * (np.asarray(ranks) > 1)
        return {name: known for name, known in found.items() if anywhere(np.asarray(known[0]) > 1)}

    @cached_property
    def every_stage(self) -> tuple[PipelineStage, ...]:
        """All pipeline stages of a single layout, in their order."""
        return every_stage(self.setup)

    def stage_executions(self, stage: PipelineStage) -> Iterator[tuple[Operator, Numeric]]:
        """Every operator with how often one GPU of a pipeline stage runs it, in the order of `block_passes`.

        A message between stages counts where it is sent. The optimizer step is that of this very stage.
        """
        counts: list[tuple[Block, Numeric, Numeric]] = [(self.embedding, stage.embedding, stage.embedding)]
        for kind, of_kind in self.layers.items():
            every, plain = stage.held.every[kind], stage.held.plain[kind]
            counts += [(of_kind.again, every - plain, every - plain), (of_kind.plain, plain, plain)]
        pieces = self.layout.virtual_pipeline
        counts += [(self.boundary, pieces - stage.head, pieces - stage.embedding), (self.head, stage.head, stage.head)]
        for operators, times in self._passes(counts):
            yield from ((operator, operator.repeats * times) for operator in operators)
        yield from ((each, each.repeats) for each in synchronisation_of_stage(self.setup, stage))

    def executions(self) -> Iterator[tuple[Operator, Numeric]]:
        """Every operator with how often it runs on all pipeline stages together, in the order of `block_passes`."""
        for operators, times in self.block_passes():
            yield from ((operator, operator.repeats * times) for operator in operators)

    @property
    def operators(self) -> tuple[Operator, ...]:
        """Every operator of an iteration; its `repeats` count the whole iteration."""
        return tuple(replace(operator, repeats=repeats) for operator, repeats in self.executions())

    def fold(self, count: Callable[[tuple[Operator, ...]], Numeric]) -> Numeric:
        """`count` of what a GPU does in its iteration, on average over the pipeline stages."""
        micro_batch = count(self.embedding.operators)
        for kind, of_kind in self.layers.items():
            every, plain = self.whole[kind]
            layers = count(of_kind.again.operators) * (every - plain) + count(of_kind.plain.operators) * plain
            micro_batch = micro_batch + layers
        micro_batch = micro_batch + count(self.head.operators)
        return (micro_batch * self.layout.micro_batches + count(self.synchronisation)) / self.layout.pipeline_parallel


def iteration(setup: Setup) -> Iteration:
    """The operators of one iteration of a model in a layout."""
    write, layout, stack = DecoderOperators(setup), setup.layout, setup.stack
    layers = {}
    for kind in setup.model.kinds:
        halves = write.halves(kind)
        plain = halves.attention + halves.feed_forward
        if layout.recompute == "selective" and layout.recompute_modules:
            rerun = rerun_of_modules(*halves, setup.model.kinds[kind].feed_forward, layout.recompute_modules)
            again = with_operators_again(plain, rerun.operators)
            layers[kind] = LayerBlocks(again=again, plain=plain, freed_bytes=rerun.freed_bytes)
            continue
        fusion = stack.fusion
        selection, stops_early = fusion.selective_recompute, fusion.recompute_stops_early
        again = with_recompute(plain, layout.recompute, selection, stops_early=stops_early)
        layers[kind] = LayerBlocks(again=again, plain=plain)
    return Iteration(
        setup=setup,
        embedding=write.embedding(),
        layers=layers,
        head=write.head(),
        boundary=write.boundary(),
        split=pipeline_split(setup),
    )


def modules_that_run(setup: Setup) -> tuple[str, ...]:
    """The modules that a selective recompute may run again, of which the layers of the model have something."""
    return tuple(name for name in MODULES if any(rerun.operators for rerun in _reruns(setup, name)))


def _reruns(setup: Setup, module: str) -> Iterator[Rerun]:
    """What a module alone runs again of a layer of each kind."""
    layout = replace(setup.layout, recompute="selective", recompute_layers=None, recompute_modules=(module,))
    write = DecoderOperators(replace(setup, layout=layout))
    for name, kind in setup.model.kinds.items():
        yield rerun_of_modules(*write.halves(name), kind.feed_forward, (module,))


def sharded_otherwise(work: Iteration, layout: Layout) -> Iteration:
    """The iteration of a layout that differs from that of `work` in its sharding alone: only what it does once does."""
    return replace(work, setup=replace(work.setup, layout=layout))


def _meetings(operators: tuple[Operator, ...]) -> Iterator[tuple[str, Numeric, Numeric]]:
    """The axis along which ranks meet in each collective among some operators, how many they are, and how often."""
    for each in operators:
        if isinstance(each, Collective) and each.group.axis is not None and each.group.axis.meets:
            yield each.group.axis.meets, each.group.ranks, each.repeats
