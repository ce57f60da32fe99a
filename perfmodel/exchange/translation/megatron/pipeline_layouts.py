"""How many pieces of a pipeline each GPU holds, from the ways in which training software says where layers go.

Megatron-LM counts layers a piece, or pieces a rank, or writes all pieces down (spec/pipeline_layout.py), or gives the first and
the last stage other numbers of layers. NeMo counts pieces.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError, shown
from perfmodel.spec.pipeline_layout import dealt_out, pipeline_pieces

LONGEST: Final = 10_000
PER_CHUNK: Final = "--num-layers-per-virtual-pipeline-stage"
CHUNKS: Final = "--num-virtual-stages-per-pipeline-rank"
ENDS: Final = {"first_layers": "--decoder-first-pipeline-num-layers", "last_layers": "--decoder-last-pipeline-num-layers"}


def pieces_given(facts: Mapping[str, Any], *, layers: int, pipeline: int, further: int = 0) -> dict[str, Any]:
    """virtual_pipeline, and pipeline_layout where the pieces are not those that would be dealt out.

    `further` is how many layers predict further tokens. Errors: NotSupportedError for pieces that no run can have.

    >>> pieces_given({"pipeline_layout": "Et*2|(tt|)*2tmL"}, layers=7, pipeline=2)
    {'virtual_pipeline': 2, 'pipeline_layout': 'Et*2|(tt|)*2tmL'}
    """
    if layout := facts.get("pipeline_layout"):
        return _as_written(str(layout), layers=layers, pipeline=pipeline)
    chunks = _chunks(facts, layers=layers, pipeline=pipeline)
    if any(facts.get(name) is not None for name in ENDS):
        stages = _uneven_stages(facts, layers=layers, pipeline=pipeline, chunks=chunks)
        return _written(stages * chunks, chunks=chunks, further=further)
    return {"virtual_pipeline": chunks}


def _as_written(text: str, *, layers: int, pipeline: int) -> dict[str, Any]:
    """The pieces of a written layout."""
    layout = re.sub(r"[\s,'\"\[\]]", "", text)
    try:
        pieces = pipeline_pieces(layout)
    except InputError as error:
        raise NotSupportedError(error.problem) from None
    number = len(pieces.layers)
    if number % pipeline:
        raise NotSupportedError(f"{shown(text)} has {number} pieces, which {pipeline} pipeline stages do not share evenly")
    if pieces.total != layers:
        raise NotSupportedError(f"{shown(text)} places {pieces.total} layers, and there are {layers}")
    is_usual = not pieces.multi_token and list(pieces.layers) == usual_pieces(layers, pipeline, number // pipeline)
    return {"virtual_pipeline": number // pipeline} | ({} if is_usual else {"pipeline_layout": layout})


def _written(pieces: Sequence[int], *, chunks: int, further: int) -> dict[str, Any]:
    """The settings of pieces with so many layers each."""
    if list(pieces) == usual_pieces(sum(pieces), len(pieces) // chunks, chunks):
        return {"virtual_pipeline": chunks}
    return {"virtual_pipeline": chunks, "pipeline_layout": layout_text(pieces, further=further)}


def layout_text(pieces: Sequence[int], *, further: int = 0) -> str:
    """Pieces with so many layers each, as Megatron-LM writes them down; `further` layers before the loss predict more tokens.

    >>> layout_text([3, 4, 4, 4, 1], further=1), layout_text([2, 2])
    ('Ettt|(tttt|)*3tmL', 'Ett|ttL')
    """
    if len(pieces) == 1:
        return f"E{'t' * pieces[0]}{'m' * further}L"
    middle = [(each, len(list(group))) for each, group in groupby(pieces[1:-1])]
    between = "".join(f"({'t' * each}|)*{number}" if number > 1 else f"{'t' * each}|" for each, number in middle)
    return f"E{'t' * pieces[0]}|{between}{'t' * pieces[-1]}{'m' * further}L"


def usual_pieces(layers: int, stages: int, chunks: int) -> list[int]:
    """The layers of each of so many pieces of each stage where nothing is written down; none where layers do not suffice."""
    return dealt_out(layers, stages, chunks) if 0 < stages * chunks <= min(LONGEST, layers + 2) else []


def _chunks(facts: Mapping[str, Any], *, layers: int, pipeline: int) -> int:
    """Pieces a GPU, given as their number or as layers of each.

    Errors: InputError for layers that do not make whole pieces; NotSupportedError for stages that differ.
    """
    counted = bool(facts.get("counts_embedding")) + bool(facts.get("counts_loss"))
    if counted and pipeline > 1 and (layers + counted) % pipeline:
        raise NotSupportedError(
            f"--account-for-embedding-in-pipeline-split, --account-for-loss-in-pipeline-split: {layers} layers and "
            f"{counted} more do not divide over {pipeline} stages"
        )
    chunks, each = int(facts.get("chunks") or 0), int(facts.get("layers_per_chunk") or 0)
    if not each:
        return chunks or 1
    held = (layers + counted) // pipeline
    if held % each:
        raise InputError(f"{each} does not divide the {held} layers of a pipeline stage", key=PER_CHUNK)
    if chunks not in (0, held // each):
        raise InputError(f"{each} makes {held // each} pieces of a stage, and {CHUNKS} says {chunks}; keep one", key=PER_CHUNK)
    return held // each


def _uneven_stages(facts: Mapping[str, Any], *, layers: int, pipeline: int, chunks: int) -> list[int]:
    """Layers of each piece of the stages whose ends hold other numbers. Errors: NotSupportedError for what does not divide."""
    given = {name: int(facts[name]) for name in ENDS if facts.get(name) is not None}
    said = ", ".join(f"{ENDS[name]} {number}" for name, number in given.items())
    between, left = pipeline - len(given), layers - sum(given.values())
    if pipeline < 2 or pipeline > LONGEST or left < 0 or (left % between if between else left):
        raise NotSupportedError(f"{said}: the other {left} layers do not divide over {between} pipeline stages")
    stages = [left // between if between else 0] * pipeline
    stages[0] = given.get("first_layers", stages[0])
    stages[-1] = given.get("last_layers", stages[-1])
    if any(each % chunks for each in stages):
        raise NotSupportedError(f"{said}: {', '.join(map(str, sorted(set(stages))))} layers do not divide into {chunks} pieces")
    return [each // chunks for each in stages]
