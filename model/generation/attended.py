"""Attention over a cache, and of whole prompts in layers with a window: the functions that microbenchmarks time one by one."""

from __future__ import annotations

from typing import Final

import torch
from torch.nn import functional

from perfmodel.model.parts.layers import attended

PIECE: Final = 128  # queries that share their keys where a window hides most of them


def attended_over(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, *, scale: float) -> torch.Tensor:
    """One query of each sequence and head over what is kept: (sequences, heads, size) to (sequences, heads, size of values).

    Heads that share keys are the columns of one product: the cache is read once for all of them. Keys stand on the left:
    transposed, PyTorch would first copy those of a cache that is not full.
    """
    sequences, heads = q.shape[:2]
    keys, values = keys.flatten(0, 1), values.flatten(0, 1)
    scores = torch.bmm(keys, q.reshape(len(keys), -1, q.shape[-1]).transpose(1, 2)).mul_(scale)
    shares = scores.softmax(dim=1).transpose(1, 2).contiguous()
    return torch.bmm(shares, values).view(sequences, heads, -1)


def attended_prompt(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, window: int | None) -> torch.Tensor:
    """Causal attention of (tokens, sequences, heads, size) to (rows, width), as in training.

    With a window, piece by piece of the queries: each meets the keys alone that some query of it may see.
    """
    length = len(q)
    if window is None or window >= length:
        return attended(q, k, v)
    found = []
    for first in range(0, length, PIECE):
        last, begin = min(first + PIECE, length), max(first - window + 1, 0)
        distance = torch.arange(first, last)[:, None] - torch.arange(begin, last)[None, :]
        mask = ((distance >= 0) & (distance < window)).to(q.device)
        queries, keys, values = (each.permute(1, 2, 0, 3) for each in (q[first:last], k[begin:last], v[begin:last]))
        grouped = q.shape[2] != k.shape[2]
        found.append(functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=grouped))
    return torch.cat(found, dim=2).permute(2, 0, 1, 3).reshape(length * q.shape[1], -1)
