"""A pipeline whose pieces are written down is read as Megatron-Core reads it."""

from __future__ import annotations

import pytest

from perfmodel.errors import InputError
from perfmodel.spec.pipeline_layout import pipeline_pieces


@pytest.mark.parametrize(
    ("text", "layers", "multi_token"),
    [
        ("Et|(tt|)*30mL", (1, *[2] * 30, 0), 1),  # DeepSeek-V3 on H100: MTP and the loss lie alone
        ("Et*4|(tttt|)*14tmL", (4, *[4] * 14, 1), 1),  # on GB300
        ("Et*4|(t*4|)*14tmL", (4, *[4] * 14, 1), 1),  # the same, spelled otherwise
        ("Et*3|(tt|)*29,t|L", (3, *[2] * 29, 1, 0), 0),
        ("EttL", (2,), 0),
    ],
)
def test_pieces_are_counted_as_they_are_written(text: str, layers: tuple[int, ...], multi_token: int) -> None:
    """Groups repeat, commas mean nothing, a bar ends a piece."""
    pieces = pipeline_pieces(text)
    assert (pieces.layers, pieces.multi_token, pieces.total) == (layers, multi_token, sum(layers))


def test_pieces_go_to_the_stages_in_turn() -> None:
    """Every p-th piece is of one stage."""
    assert pipeline_pieces("Et|tt|ttt|ttttL").of_stage(1, 2) == (2, 4)


@pytest.mark.parametrize("text", ["t|tL", "Et|t", "EtLt|t", "Ex|tL", "E(t|)*99999L", "EEt|L"])
def test_what_is_no_layout_is_refused(text: str) -> None:
    """It begins with the embedding, ends with the loss, and has no other letters."""
    with pytest.raises(InputError, match=r"pipeline_layout|letters"):
        pipeline_pieces(text)
