"""Pipelines whose pieces are written down layer by layer, as Megatron-Core takes them: `Et*4|(tttt|)*14tmL`.

E is the embedding, t a layer, m a layer that predicts further tokens, L the loss; a bar ends a piece, `x*n` and `(..)*n`
repeat. Pieces are dealt to the stages in turn. Source: Megatron-Core, pipeline_model_parallel_layout.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from perfmodel.errors import InputError, shown

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
