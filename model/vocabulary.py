"""Both ends of a model on a tensor-parallel group that shares the vocabulary: the embedding, and the loss over the logits.

Each rank holds a slice of the padded vocabulary. Padding takes no part in the loss.
"""

from __future__ import annotations

from typing import Any

import torch

from model.groups import Group
from model.linears import Split, add_to_main
from model.operators import operator
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD


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
    """The rows of this rank of the padded vocabulary; `positions` are learned, and whole on every rank."""

    def __init__(self, rows: int, width: int, split: Split, *, positions: int) -> None:
        super().__init__()
        self.split = split
        self.weight = torch.nn.Parameter(torch.empty(rows, width))
        self.positions = torch.nn.Parameter(torch.empty(positions, width)) if positions else None

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


class _CrossEntropy(torch.autograd.Function):
    """Mean over the tokens of log(sum exp(z)) - z[target], in fp32, over logits that the ranks share."""

    @staticmethod
    def forward(context: Any, logits: torch.Tensor, targets: torch.Tensor, group: Group, vocabulary: int) -> torch.Tensor:
        columns = logits.shape[1]
        first = group.rank * columns
        with operator("head.loss"):
            values = logits.to(torch.float32, copy=True)
            if first + columns > vocabulary:
                values[:, max(vocabulary - first, 0) :] = float("-inf")
            largest = values.amax(dim=-1)
        group.all_reduce(largest, "head.loss.all_reduce", FORWARD, largest=True)
        with operator("head.loss"):
            values.sub_(largest[:, None])
            place = targets - first
            inside = ((place >= 0) & (place < columns)).to(torch.float32)
            place = place.clamp(0, columns - 1)[:, None]
            target = values.gather(1, place).squeeze(1)
            target = torch.where(inside > 0, target, 0.0)
            total = values.exp_().sum(dim=-1)
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
            values.mul_((share / total)[:, None])
            values.scatter_add_(1, place, -(share * inside)[:, None])
            return values.to(context.dtype), None, None, None


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor, group: Group, vocabulary: int) -> torch.Tensor:
    """The loss of (tokens, columns of this rank); its backward pass spends what the forward pass kept."""
    result: torch.Tensor = _CrossEntropy.apply(logits, targets, group, vocabulary)
    return result
