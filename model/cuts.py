"""How ranks share a parameter: which axis of it is cut, into which pieces, and over which of their groups."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from perfmodel.model.groups import Group, Groups


@dataclass(frozen=True, slots=True)
class Cut:
    """How the ranks share a tensor: each takes its part of every piece along `axis`; None: all hold it whole.

    The ranks are those of a tensor-parallel group, of experts those of an expert-parallel group.
    """

    axis: int | None
    pieces: tuple[int, ...] = ()
    of_experts: bool = False

    def full_shape(self, shape: torch.Size) -> tuple[int, ...]:
        """The shape over all ranks of a tensor that has `shape` on one."""
        return tuple(sum(self.pieces) if axis == self.axis else size for axis, size in enumerate(shape))

    def part(self, full: torch.Tensor, groups: Groups) -> torch.Tensor:
        """This rank's part of a whole tensor."""
        group = self.group(groups)
        if self.axis is None or group.ranks == 1:
            return full
        pieces = full.split(list(self.pieces), dim=self.axis)
        shares = [piece.tensor_split(group.ranks, dim=self.axis)[group.rank] for piece in pieces]
        return torch.cat(shares, dim=self.axis)

    def group(self, groups: Groups) -> Group:
        """The ranks that share it."""
        return groups.expert_parallel if self.of_experts else groups.tensor_parallel


WHOLE = Cut(None)
