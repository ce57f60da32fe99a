"""Which layers each piece of a pipeline holds: dealt out evenly, or written down layer by layer.

Symbols: L layers, p pipeline_parallel, v virtual_pipeline. The model is cut into p*v pieces, which are dealt to the stages in
turn: piece g is on stage g % p.

Layers that do not divide over the stages leave the ends one layer fewer than those between where that is enough: what
Megatron-Core does where the head, or the embedding and the head, count as layers (account_for_embedding_in_pipeline_split and
account_for_loss_in_pipeline_split). Where more are missing, they are missing in the last piece, and in the first what is more
than it has: the layouts that NVIDIA writes down for the 61 layers of DeepSeek-V3, whose last piece has the loss and the layer
that predicts a further token (Megatron-Bridge, recipes/deepseek: Et*4|(tttt|)*14tmL of 16 pieces, Et|(tt|)*30mL of 32).

Pieces are written as Megatron-Core takes them: `Et*4|(tttt|)*14tmL`. E is the embedding, t a layer, m a layer that predicts
further tokens, L the loss; a bar ends a piece, `x*n` and `(..)*n` repeat. Source: Megatron-Core,
pipeline_model_parallel_layout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np

from perfmodel.errors import InputError, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, chosen, whole
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
        text = GROUP.sub(lambda found: found[1] * _times(found[2]) if found[2] else found[3], text)
        text = REPEATED.sub(lambda found: found[1] * _times(found[2]), text)
        if len(text) > MOST:
            raise InputError(f"has more than {MOST} letters", key="pipeline_layout")
    return text


def _times(digits: str) -> int:
    """How often something is repeated, as far as a layout may be long."""
    return min(int(digits[: len(str(MOST)) + 1]), MOST)


def layers_of_ends(layers: Numeric, stages: Numeric, virtual: Numeric) -> tuple[Numeric, Numeric, Numeric]:
    """Layers of the first stage, of the fullest between the ends, and of the last.

    Longer stages lie in the middle if they can. Where all would be as full as the fullest but for three layers or more, the
    last piece lacks them, and the first what the last has not got.

    >>> [[int(layers) for layers in layers_of_ends(*numbers)] for numbers in ((62, 8, 1), (61, 16, 1), (61, 8, 4))]
    [[7, 8, 7], [4, 4, 1], [7, 8, 6]]
    """
    pipeline, every = np.asarray(stages), np.asarray(layers)
    least = np.floor(every / pipeline)
    longer = every - least * pipeline
    between = np.maximum(pipeline - 2, 0)
    fullest = least + (longer > 0)
    first = least + (longer > between)
    last = every - first - between * least - np.minimum(longer, between)
    missing, piece = fullest * pipeline - every, fullest / virtual
    spared = np.minimum(missing, piece)
    is_filled = (missing > 2) & (piece == np.floor(piece)) & (missing - spared < piece) & (pipeline > 1)
    return chosen(is_filled, fullest - missing + spared, first), fullest, chosen(is_filled, fullest - spared, last)


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
    """Layers of each piece in the order of the model; what does not divide leaves the ends of the model fewer.

    >>> piece_layers([3, 4], 2), piece_layers([3, 4, 2], 2)
    ([1, 2, 2, 2], [1, 2, 2, 2, 2, 0])
    """
    full, uneven = divmod(max(layers), virtual)
    of_stages = [_cut_even(each, virtual) if uneven else _cut_full(each, virtual, full) for each in layers]
    of_stages[0].reverse()
    return [of_stage[chunk] for chunk in range(virtual) for of_stage in of_stages]


def _cut_even(layers: int, pieces: int) -> list[int]:
    least, more = divmod(layers, pieces)
    return [least + (piece < more) for piece in range(pieces)]


def _cut_full(layers: int, pieces: int, full: int) -> list[int]:
    return [min(max(layers - full * piece, 0), full) for piece in range(pieces)]


def dealt_out(layers: int, stages: int, virtual: int) -> list[int]:
    """Layers of each piece in the order of the model where none are written down.

    >>> dealt_out(61, 4, 2), dealt_out(30, 4, 2)
    ([8, 8, 8, 8, 8, 8, 8, 5], [3, 4, 4, 4, 4, 4, 4, 3])
    """
    first, _, last = (whole(each) for each in layers_of_ends(layers, stages, virtual))
    between = layers - first - last if stages > 1 else 0
    return piece_layers(stage_layers(first, between, last, stages), virtual)


def layers_of_pieces(layers: int, layout: Layout) -> tuple[int, ...]:
    """Layers of each piece of a single layout in the order of the model, with `layers` dealt out where none are written down.

    Errors: InputError for a written layout that cannot be read.
    """
    if layout.pipeline_layout != EVEN:
        return pipeline_pieces(layout.pipeline_layout).layers
    return tuple(dealt_out(layers, whole(layout.pipeline_parallel), whole(layout.virtual_pipeline)))
