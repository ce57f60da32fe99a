"""Which layers each piece of a pipeline holds: dealt out evenly, or written down layer by layer.

Symbols: L layers, p pipeline_parallel, v virtual_pipeline. The model is cut into p*v pieces, which are dealt to the stages in
turn: piece g is on stage g % p.

Layers that do not divide over the stages leave the ends one layer fewer than those between, as long as there is room there:
what Megatron-Core does where the head, or the embedding and the head, count as layers (account_for_embedding_in_pipeline_split
and account_for_loss_in_pipeline_split).

Pieces are written as Megatron-Core takes them: `Et*4|(tttt|)*14tmL`. E is the embedding, t a layer, m a layer that predicts
further tokens, L the loss; a bar ends a piece, `x*n` and `(..)*n` repeat. Source: Megatron-Core,
pipeline_model_parallel_layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from perfmodel.errors import InputError, shown
from perfmodel.spec.fields import Numeric, whole
from perfmodel.spec.layout import EVEN, Layout

GROUP: Final = re.compile(r"\(([^()]*)\)\*(\d+)|\(([^()]*)\)")
REPEATED: Final = re.compile(r"([EtmL])\*(\d+)")
MOST: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePieces:
    """Layers of each piece in the order of the model, and how many layers of the last predict further tokens."""

    layers: tuple[int, ...]
    multi_token: int

    @property
    def total(self) -> int:
        """All layers that the pieces hold, but for those that predict further tokens."""
        return sum(self.layers)

    def of_stage(self, stage: int, stages: int) -> tuple[int, ...]:
        """Layers of the pieces of one stage."""
        return self.layers[stage::stages]


@lru_cache(maxsize=256)
def pipeline_pieces(text: str) -> PipelinePieces:
    """The pieces that a layout describes. Errors: InputError.

    >>> pipeline_pieces("Et*2|(tt|)*2tmL").layers
    (2, 2, 2, 1)
    """
    spelled = _repeated(text.replace(" ", "").replace(",", ""))
    if set(spelled) - set("EtmL|"):
        wrong = min(set(spelled) - set("EtmL|"))
        raise InputError(f"{shown(text)} has {shown(wrong)}; E, t, m, L and | make a layout", key="pipeline_layout")
    pieces = spelled.split("|")
    if spelled.count("E") != 1 or spelled.count("L") != 1 or not spelled.startswith("E") or "L" not in pieces[-1]:
        raise InputError(
            f"{shown(text)} does not begin with the embedding E and end with the loss L, once each", key="pipeline_layout"
        )
    return PipelinePieces(layers=tuple(piece.count("t") for piece in pieces), multi_token=spelled.count("m"))


def _repeated(text: str) -> str:
    """The text with all that is repeated written out."""
    before = ""
    while text != before:
        before = text
        text = GROUP.sub(lambda found: found[1] * min(int(found[2]), MOST) if found[2] else found[3], text)
        text = REPEATED.sub(lambda found: found[1] * min(int(found[2]), MOST), text)
        if len(text) > MOST:
            raise InputError(f"has more than {MOST} letters", key="pipeline_layout")
    return text


def layers_of_ends(layers: Numeric, stages: Numeric) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first stage, of the fullest middle one and of the last; longer stages lie in the middle if they can.

    >>> [float(each) for each in layers_of_ends(30, 8)]
    [3.0, 4.0, 3.0]
    """
    pipeline, every = np.asarray(stages), np.asarray(layers)
    least = np.floor(every / pipeline)
    longer = every - least * pipeline
    between = np.maximum(pipeline - 2, 0)
    first = least + (longer > between)
    return first, least + (longer > 0), every - first - between * least - np.minimum(longer, between)


def stage_layers(first: int, between: int, last: int, stages: int) -> list[int]:
    """Layers of each stage; between the ends the first ones are the fullest.

    >>> stage_layers(3, 7, 2, 4)
    [3, 4, 3, 2]
    """
    if stages == 1:
        return [first]
    inner = stages - 2
    return [first, *(between // inner + (place < between % inner) for place in range(inner)), last]


def piece_layers(layers: Sequence[int], virtual: int) -> list[int]:
    """Layers of each piece in the order of the model; what does not divide leaves the ends of the model a layer fewer.

    >>> piece_layers([3, 4], 2)
    [1, 2, 2, 2]
    """
    stages = len(layers)
    pieces = []
    for place in range(stages * virtual):
        stage, chunk = place % stages, place // stages
        least, more = divmod(layers[stage], virtual)
        pieces.append(least + (chunk >= virtual - more if stage == 0 else chunk < more))
    return pieces


def layers_of_pieces(layers: int, layout: Layout) -> tuple[int, ...]:
    """Layers of each piece of a single layout in the order of the model, with `layers` dealt out where none are written down.

    Errors: InputError for a written layout that cannot be read.
    """
    if layout.pipeline_layout != EVEN:
        return pipeline_pieces(layout.pipeline_layout).layers
    stages = whole(layout.pipeline_parallel)
    first, _, last = (whole(each) for each in layers_of_ends(layers, stages))
    between = layers - first - last if stages > 1 else 0
    return tuple(piece_layers(stage_layers(first, between, last, stages), whole(layout.virtual_pipeline)))
