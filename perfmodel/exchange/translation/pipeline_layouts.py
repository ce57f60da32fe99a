"""How many pieces of a pipeline each GPU holds, from the ways in which training software says where layers go.

Megatron-LM counts layers a piece, or pieces a rank, or writes all pieces down: `Et*3|(tt|)*29,m|L` (E the embedding, t a layer,
m a head of multi-token prediction, L the loss; `|` ends a piece). NeMo counts pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import ceil
from typing import Any, Final

from perfmodel.errors import NotSupportedError, shown

REPEATED: Final = re.compile(r"\(([^()]*)\)(?:\*(\d+))?|([EtmL])\*(\d+)")
LONGEST: Final = 10_000


def pieces_of(layout: str) -> list[str]:
    """The pieces of a written layout, a letter for each module.

    >>> pieces_of("Et|(tt|)*2,L")
    ['Et', 'tt', 'tt', 'L']
    """
    text = re.sub(r"[\s,'\"\[\]]", "", layout)
    while found := REPEATED.search(text):
        times = int(found[2] or found[4] or 1)
        if len(text) + times * len(found[0]) > LONGEST:
            raise NotSupportedError(f"{shown(layout)} has more pieces than any pipeline")
        text = text[: found.start()] + (found[1] if found[3] is None else found[3]) * times + text[found.end() :]
    if not text or re.search(r"[^EtmL|]", text):
        raise NotSupportedError(f"{shown(layout)} is not a layout of E, t, m, L and |")
    return text.split("|")


def written_chunks(layout: str, *, layers: int, pipeline: int) -> int:
    """Pieces a GPU of a written layout. Errors: NotSupportedError for one that no other rule would make."""
    pieces = pieces_of(layout)
    if len(pieces) % pipeline:
        raise NotSupportedError(
            f"{shown(layout)} has {len(pieces)} pieces, which {pipeline} pipeline stages do not share evenly"
        )
    chunks = len(pieces) // pipeline
    if any("m" in each for each in pieces):
        raise NotSupportedError(f"{shown(layout)}: multi-token prediction is known but not supported yet")
    dealt = [each.count("t") for each in pieces]
    if sum(dealt) != layers or dealt != dealt_out(layers, len(pieces)):
        raise NotSupportedError(f"{shown(layout)}: layers dealt out like this cannot be expressed yet")
    return chunks


def dealt_out(layers: int, pieces: int) -> list[int]:
    """The layers of each piece as they are predicted: even, or with one fewer at the ends (count/pipeline.py)."""
    if pieces > LONGEST or pieces > layers + 2:
        return []
    over = layers % pieces
    most = ceil(layers / pieces)
    if pieces > 1 and over == pieces - 1:
        return [*[most] * (pieces - 1), most - 1]
    if pieces > 2 and over == pieces - 2:
        return [most - 1, *[most] * (pieces - 2), most - 1]
    return [most] * pieces if not over else []


def chunks_of(facts: Mapping[str, Any], *, layers: int, pipeline: int) -> int:
    """Pieces a GPU (virtual_pipeline), whichever way it is given. Errors: NotSupportedError for uneven stages."""
    if layout := facts.get("pipeline_layout"):
        return written_chunks(str(layout), layers=layers, pipeline=pipeline)
    _check_ends(facts, layers=layers, pipeline=pipeline)
    if facts.get("chunks"):
        return int(facts["chunks"])
    counted = layers + bool(facts.get("counts_embedding")) + bool(facts.get("counts_loss"))
    each = int(facts.get("layers_per_chunk") or 0)
    return max(counted // pipeline // each, 1) if each else 1


def _check_ends(facts: Mapping[str, Any], *, layers: int, pipeline: int) -> None:
    """Refuse first and last stages with other numbers of layers than are predicted."""
    given = {name: int(facts[name]) for name in ("first_layers", "last_layers") if facts.get(name) is not None}
    chunks = int(facts.get("chunks") or 1)
    dealt = dealt_out(layers, pipeline * chunks)
    place = {"first_layers": 0, "last_layers": -1}
    flags = {"first_layers": "--decoder-first-pipeline-num-layers", "last_layers": "--decoder-last-pipeline-num-layers"}
    for name, number in given.items():
        if not dealt or chunks > 1 or dealt[place[name]] != number:
            raise NotSupportedError(f"{flags[name]} {number}: uneven pipeline stages cannot be expressed yet")
    counted = bool(facts.get("counts_embedding")) + bool(facts.get("counts_loss"))
    if counted and pipeline > 1 and (layers + counted) % pipeline:
        raise NotSupportedError(
            f"--account-for-embedding-in-pipeline-split, --account-for-loss-in-pipeline-split: {layers} layers and "
            f"{counted} more do not divide over {pipeline} stages"
        )
