"""Seeded batches that a model can learn: every token but one in eight follows from the one before it.

Batch number i is the same whatever the layout, and needs nothing of the batches before it: a run that is resumed goes on
with it.
"""

from __future__ import annotations

from typing import Final

import torch

SURPRISE: Final = 8  # one token in so many is drawn anew
STATES: Final = 257  # tokens that occur, at most


def batch(*, seed: int, iteration: int, sequences: int, length: int, vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and the token after each, (sequences, length) each: next = (5 * token + 7) mod the tokens that occur."""
    chance = torch.Generator().manual_seed(seed * 1_000_003 + iteration)
    states = min(STATES, vocabulary)
    drawn = torch.randint(states, (sequences, length + 1), generator=chance)
    anew = torch.randint(SURPRISE, (sequences, length + 1), generator=chance) == 0
    tokens = drawn.clone()
    for place in range(1, length + 1):
        follows = (5 * tokens[:, place - 1] + 7) % states
        tokens[:, place] = torch.where(anew[:, place], drawn[:, place], follows)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
