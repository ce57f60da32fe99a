"""What one micro-batch runs on each piece of the pipeline: every operator of its passes, and when after the start of the pass.

Piece g is on stage g % p; it holds layers, and the embedding or the head where it is the first or the last. The waits for the
CPU and the work that no operator stands for, which a stage has in each direction, end its passes, shared by their lengths.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final, NamedTuple

from perfmodel.count.blocks import Block
from perfmodel.count.iteration import Iteration
from perfmodel.count.layer_numbers import LayerNumbers
from perfmodel.count.operators import Collective
from perfmodel.events.pass_spans import LaidOutPass, laid, weight_gradients
from perfmodel.events.pipeline_order import BACKWARD, FORWARD, WEIGHTS
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import whole
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.pipeline_layout import piece_layers, stage_layers
from perfmodel.spec.stack import SoftwareStack
from perfmodel.timing.breakdown import Breakdown
from perfmodel.timing.passes import both_directions, running_share
from perfmodel.timing.timed_operators import added_up, timed_operators


class PipelinePiece(NamedTuple):
    """What one piece of the model holds; layers are counted from 0, those run again come first."""

    first_layer: int
    layers: int
    run_again: int
    embedding: bool
    head: bool


class BlockOfPass(NamedTuple):
    """One block of a piece: the embedding, the head, or a layer of a kind, with what is run again or without."""

    name: str
    kind: str = ""
    runs_again: bool = True


EMBEDDING: Final = BlockOfPass("embedding")
HEAD: Final = BlockOfPass("head")


class PlacedBlock(NamedTuple):
    """A layer (by its number), the embedding or the head (None), and when it begins after the start of its pass."""

    name: str
    layer: int | None
    start_s: float
    laid: LaidOutPass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassPlan:
    """One pass over one piece: its blocks, then the wait for the CPU, then the work that no operator stands for."""

    blocks: tuple[PlacedBlock, ...]
    blocks_s: float  # until the last operator is over
    launch_s: float
    unlisted_s: float
    parts: Breakdown

    @property
    def duration_s(self) -> float:
        """Seconds of the pass: its blocks, the wait for the CPU, and work that no operator stands for."""
        return self.blocks_s + self.launch_s + self.unlisted_s

    @property
    def kernel_s(self) -> float:
        """How long kernels run, each alone."""
        return sum(block.laid.kernel_s for block in self.blocks)


class StagePasses:
    """The passes of one layout over each of its pieces."""

    def __init__(self, work: Iteration, *, cluster: Cluster, stack: SoftwareStack) -> None:
        self.work, self.cluster, self.stack = work, cluster, stack
        layout = work.layout
        self.stages, self.virtual = whole(layout.pipeline_parallel), whole(layout.virtual_pipeline)
        self.weights_apart = layout.weights_apart
        self.forward, self.backward = both_directions(work, cluster, stack)
        self.running_share = running_share(work, cluster, stack)
        self._known: dict[tuple[BlockOfPass, str, float], tuple[LaidOutPass, Breakdown]] = {}

    @property
    def message_s(self) -> float:
        """One message to a neighbour, either way, on average."""
        return 0.0 if self.stack.overlap.hide_all else float(self.forward.message_s + self.backward.message_s) / 2.0

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Layers of each stage; among the middle stages the first ones are the fullest."""
        first, _, last = self.work.stages
        between = sum(whole(number) for number in self.work.split.between.every.values())
        return tuple(stage_layers(whole(first.layers), between, whole(last.layers), self.stages))

    @cached_property
    def pieces(self) -> tuple[PipelinePiece, ...]:
        """All of them in the order of the model; what does not divide leaves its ends a layer less."""
        most = self.work.layout.recompute_layers
        again = [layers if most is None else min(whole(most), layers) for layers in self.layers]
        found: list[PipelinePiece] = []
        begin, number = 0, self.stages * self.virtual
        for place, count in enumerate(piece_layers(self.layers, self.virtual)):
            stage = place % self.stages
            run_again = min(again[stage], count)
            again[stage] -= run_again
            found.append(PipelinePiece(begin, count, run_again, embedding=place == 0, head=place == number - 1))
            begin += count
        return tuple(found)

    def plan(self, piece: int, kind: str, stretch: float = 1.0) -> PassPlan:
        """One pass, F, B or W, whose kernels last `stretch` times as long."""
        clock_s, placed, parts = 0.0, list[PlacedBlock](), Breakdown()
        for which, layer in self._blocks(self.pieces[piece], kind):
            block, of_block = self._laid(which, kind, stretch)
            if block.operators:
                placed.append(PlacedBlock(which.name, layer, clock_s, block))
                clock_s += block.duration_s
                parts = parts + of_block
        launch_s, unlisted_s = (0.0, 0.0) if kind == WEIGHTS else self._not_listed(piece, kind)
        parts = parts + Breakdown(launch_s=launch_s, unlisted_s=unlisted_s)
        return PassPlan(blocks=tuple(placed), blocks_s=clock_s, launch_s=launch_s, unlisted_s=unlisted_s, parts=parts)

    def _blocks(self, piece: PipelinePiece, kind: str) -> list[tuple[BlockOfPass, int | None]]:
        """The blocks of a piece in the order of the pass, each with the number of its layer."""
        model = self.work.setup.model
        layers: list[tuple[BlockOfPass, int | None]] = [
            (BlockOfPass("layer", model.kind_at(layer), layer < piece.first_layer + piece.run_again), layer)
            for layer in range(piece.first_layer, piece.first_layer + piece.layers)
        ]
        blocks = [(EMBEDDING, None)] * piece.embedding + layers + [(HEAD, None)] * piece.head
        return blocks if kind == FORWARD else blocks[::-1]

    def _block(self, which: BlockOfPass) -> Block:
        if which.name != "layer":
            return self.work.embedding if which is EMBEDDING else self.work.head
        of_kind = self.work.layers[which.kind]
        return of_kind.again if which.runs_again else of_kind.plain

    def _laid(self, block: BlockOfPass, kind: str, stretch: float) -> tuple[LaidOutPass, Breakdown]:
        """One block in a pass, and its parts; the same for every layer of a kind."""
        key = (block, kind, stretch)
        if key not in self._known:
            operators = self._block(block)
            in_order = operators.forward if kind == FORWARD else operators.backward
            timed = timed_operators(in_order, self.running_share, self.cluster, self.stack)
            if kind != FORWARD and self.weights_apart:
                timed = weight_gradients(timed, wanted=kind == WEIGHTS)
            found = laid(timed, stretch)
            longer_s = (stretch - 1.0) * sum(float(each.alone_s) for each in timed if not isinstance(each.operator, Collective))
            parts = added_up(timed, weights_apart=False).parts + Breakdown(communication_slowdown_s=longer_s)
            self._known[key] = found, Breakdown(**{part: float(value) for part, value in parts.items()})
        return self._known[key]

    def _not_listed(self, piece: int, kind: str) -> tuple[float, float]:
        """The piece's share of what its stage waits for the CPU, and of its work that no operator stands for."""
        stage = piece % self.stages
        of_stage = range(stage, len(self.pieces), self.stages)
        direction = self.forward if kind == FORWARD else self.backward
        held = self._held(stage)
        whole_stage = direction.through(held, int(stage == 0), int(stage == self.stages - 1)).parts
        alone_s = {each: self._alone_s(each, kind) for each in of_stage}
        share = alone_s[piece] / (sum(alone_s.values()) or 1.0)
        return float(whole_stage.launch_s) * share, float(whole_stage.unlisted_s) * share

    def _held(self, stage: int) -> LayerNumbers:
        """The layers of one stage by kind."""
        every, plain = (dict.fromkeys(self.work.layers, 0) for _ in range(2))
        for piece in self.pieces[stage :: self.stages]:
            for block, layer in self._blocks(piece, FORWARD):
                if layer is not None:
                    every[block.kind] += 1
                    plain[block.kind] += not block.runs_again
        return LayerNumbers(every=every, plain=plain)

    def _alone_s(self, piece: int, kind: str) -> float:
        """All operators of one piece in one direction."""
        kinds = (kind, WEIGHTS) if kind == BACKWARD and self.weights_apart else (kind,)
        blocks = self._blocks(self.pieces[piece], kind)
        return sum(float(self._laid(name, each, 1.0)[1].total_s) for name, _ in blocks for each in kinds)
