"""Which pieces of the model a pipeline stage holds: layers, and the embedding or the head at the ends of the model."""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.pipeline_layout import layers_of_pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One piece of the model: its `place` among all of them, and the numbers of its layers; both count from 0."""

    place: int
    layers: range
    embedding: bool
    head: bool


def pieces_of_stage(model: TransformerModel, layout: Layout, stage: int) -> tuple[Piece, ...]:
    """The pieces of a stage in the order of the model: every p-th of them, for p stages; all of the model for one."""
    numbers = layers_of_pieces(int(model.layers), layout)
    every = [
        Piece(
            place=place,
            layers=range(sum(numbers[:place]), sum(numbers[: place + 1])),
            embedding=place == 0,
            head=place == len(numbers) - 1,
        )
        for place in range(len(numbers))
    ]
    return tuple(every[stage :: int(layout.pipeline_parallel)])
