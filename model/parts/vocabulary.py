"""Both ends of a model on a tensor-parallel group that shares the vocabulary: the embedding, and the loss over the logits.

Each rank holds a slice of the padded vocabulary. Padding takes no part in the loss.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch

from perfmodel.model.cuts import WHOLE, Cut
from perfmodel.model.groups import Group
from perfmodel.model.operators import operator
from perfmodel.model.parts.linears import Split, add_to_main
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD

PIECE: Final = 2**17  # logits whose fp32 copies stay in the cache


def looked_up(table: torch.Tensor, rows: torch.Tensor, outside: torch.Tensor | None) -> torch.Tensor:
    """The rows of `table`, zero where another rank has them."""
    found = torch.nn.functional.embedding(rows, table)
    return found if outside is None else found.masked_fill_(outside[:, None], 0.0)


def table_gradient(gradient: torch.Tensor, rows: torch.Tensor, outside: torch.Tensor | None, number: int) -> torch.Tensor:
    """The dense gradient of a table of `number` rows, as autograd forms it."""
    inside = gradient if outside is None else gradient.masked_fill(outside[:, None], 0.0)
    return torch.ops.aten.embedding_dense_backward(inside, rows, number, -1, False)


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, table: torch.Tensor, tokens: torch.Tensor, first: int | None) -> torch.Tensor:
        with operator("embedding.lookup"):
            outside, rows = None, tokens
            if first is not None:
                rows = tokens - first
                outside = (rows < 0) | (rows >= table.shape[0])
                rows = rows.masked_fill(outside, 0)
            context.table, context.rows, context.outside = table, rows, outside
            return looked_up(table, rows, outside)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        with operator("embedding.lookup", DATA_GRADIENT):
            table = context.table
            add_to_main(table, table_gradient(gradients[0], context.rows, context.outside, table.shape[0]))
        return None, None, None


class _AddPositions(torch.autograd.Function):
    """x + the rows of learned positions on the one rank that adds them: the sum over the ranks then holds them once.

    Every rank has the whole gradient of that sum, and so the same gradient of its own copy of the table.
    """

    @staticmethod
    def forward(context: Any, x: torch.Tensor, table: torch.Tensor, rows: torch.Tensor, adds: bool) -> torch.Tensor:
        context.table, context.rows = table, rows
        with operator("embedding.lookup"):
            return x + looked_up(table, rows, None) if adds else x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        with operator("embedding.lookup", DATA_GRADIENT):
            add_to_main(context.table, table_gradient(gradients[0], context.rows, None, context.table.shape[0]))
        return gradients[0], None, None, None


class _SumOverRanks(torch.autograd.Function):
    """Each token's row from the rank that has it: scattered with sequence parallelism, else everywhere."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, split: Split) -> torch.Tensor:
        context.split = split
        if split.shares_tokens:
            return split.group.reduce_scatter(x, "embedding.scatter", FORWARD)
        split.group.all_reduce(x, "embedding.all_reduce", FORWARD)
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        split = context.split
        if not split.shares_tokens:
            return gradients[0], None
        return split.group.all_gather(gradients[0], "embedding.gather_gradient", DATA_GRADIENT), None


class VocabularyParallelEmbedding(torch.nn.Module):
    """The rows of this rank of all `rows` of the padded vocabulary; `positions` are learned, and whole on every rank."""

    def __init__(self, rows: int, width: int, split: Split, *, positions: int) -> None:
        super().__init__()
        self.split, self.cut = split, Cut(0, (rows,))
        self.weight = torch.nn.Parameter(torch.empty(rows // split.group.ranks, width))
        self.positions = torch.nn.Parameter(torch.empty(positions, width)) if positions else None

    def cut_of(self, parameter: str) -> Cut:
        """How the ranks share its rows; learned positions are whole."""
        return self.cut if parameter == "weight" else WHOLE

    def forward(self, tokens: torch.Tensor, sequences: int) -> torch.Tensor:
        """Token numbers, (all tokens), to (tokens of this rank, width)."""
        group = self.split.group
        first = group.rank * self.weight.shape[0] if group.ranks > 1 else None
        x = _Lookup.apply(self.weight, tokens, first)
        if self.positions is not None:
            places = torch.arange(len(tokens), device=tokens.device) // sequences
            x = _AddPositions.apply(x, self.positions, places, group.rank == 0)
        result: torch.Tensor = _SumOverRanks.apply(x, self.split)
        return result


def _pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Rows of all tensors, the first the widest: all of them on a GPU, on a CPU as many as stay in its cache."""
    widest = tensors[0]
    rows = max(PIECE // widest.shape[1], 1) if widest.device.type == "cpu" else max(len(widest), 1)
    return zip(*(tensor.split(rows) for tensor in tensors), strict=True)


def _largest(logits: torch.Tensor) -> torch.Tensor:
    """Of each token, in fp32; no logit at all is less than any."""
    if logits.shape[1]:
        return logits.amax(dim=-1).to(torch.float32)
    return torch.full((len(logits),), float("-inf"), device=logits.device)


def _exponentials(logits: torch.Tensor, largest: torch.Tensor, own: int) -> tuple[torch.Tensor, torch.Tensor]:
    """exp(z - largest), 0 from column `own` on, and their sums over the columns of this rank."""
    values, total = torch.empty_like(logits, dtype=torch.float32), torch.empty_like(largest)
    for piece, z, most, into in _pieces(values, logits, largest, total):
        torch.sub(z, most[:, None], out=piece).exp_()
        piece[:, own:] = 0.0
        torch.sum(piece, dim=-1, out=into)
    return values, total


class _CrossEntropy(torch.autograd.Function):
    """Mean over the tokens of log(sum exp(z)) - z[target], in fp32, over logits that the ranks share."""

    @staticmethod
    def forward(context: Any, logits: torch.Tensor, targets: torch.Tensor, group: Group, vocabulary: int) -> torch.Tensor:
        columns = logits.shape[1]
        first = group.rank * columns
        own = min(max(vocabulary - first, 0), columns)  # the others are padding
        with operator("head.loss"):
            largest = _largest(logits[:, :own])
        group.all_reduce(largest, "head.loss.all_reduce", FORWARD, largest=True)
        with operator("head.loss"):
            place = targets - first
            inside = ((place >= 0) & (place < columns)).to(torch.float32)
            place = place.clamp(0, columns - 1)[:, None]
            target = logits.gather(1, place).squeeze(1) - largest
            target = torch.where(inside > 0, target, 0.0)
            values, total = _exponentials(logits, largest, own)
        group.all_reduce(target, "head.loss.all_reduce", FORWARD)
        group.all_reduce(total, "head.loss.all_reduce", FORWARD)
        context.save_for_backward(values, total, place, inside)
        context.dtype = logits.dtype
        with operator("head.loss"):
            return (total.log() - target).mean()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> Any:
        values, total, place, inside = context.saved_tensors
        with operator("head.loss", DATA_GRADIENT):
            share = gradients[0] / len(total)
            result = values if context.dtype == torch.float32 else torch.empty_like(values, dtype=context.dtype)
            scale, hit = (share / total)[:, None], -(share * inside)[:, None]
            for piece, into, *rest in _pieces(values, result, scale, place, hit):
                piece.mul_(rest[0]).scatter_add_(1, rest[1], rest[2])
                if result is not values:
                    into.copy_(piece)
            return result, None, None, None


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, group: Group, vocabulary: int) -> torch.Tensor:
    """The loss of (tokens, columns of this rank); its backward pass spends what the forward pass kept."""
    result: torch.Tensor = _CrossEntropy.apply(logits, targets, group, vocabulary)
    return result
