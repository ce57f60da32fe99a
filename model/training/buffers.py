"""The parameters that the same ranks share: one buffer of them, one of their gradients, and the share that each rank steps.

Gradients are fp32. Where parameters are bf16 the rank that owns a share also holds it in fp32 (the master weights); AdamW's two
moments are fp32. With sharding `none` every rank owns everything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perfmodel.model.cuts import Cut
from perfmodel.model.groups import Group
from perfmodel.model.parts.linears import lay_gradient
from perfmodel.spec.phases import OPTIMIZER

Entry = tuple[str, torch.nn.Parameter, Cut]


class SharedBuffer:
    """Parameters and gradients of some of a model's parameters, which `replicas` hold alike and `owners` share the states of.

    Those that are cut lie first, then learned positions, then what sequence parallelism leaves to be added up. Before all of
    them lies the one, if any, that is a `copy` of another pipeline stage's: it counts there to the norm of the gradients.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        *,
        replicas: Group,
        owners: Group,
        dtype: torch.dtype,
        device: torch.device,
        copy: torch.nn.Parameter | None = None,
    ) -> None:
        self.replicas, self.owners = replicas, owners
        ordered = sorted(entries, key=lambda entry: -1 if entry[1] is copy else _place(entry))
        self.copied = 0 if copy is None else copy.numel()
        self.numbers = numbers = sum(parameter.numel() for _, parameter, _ in ordered)
        padded = -(-numbers // owners.ranks) * owners.ranks
        self.parameters = torch.empty(padded, dtype=dtype, device=device)
        self.gradients = torch.zeros(padded, dtype=torch.float32, device=device)
        self.parameters[numbers:].zero_()
        self.laid = self._laid(ordered)
        before = [sum(each.numel() for name, each, cut in ordered if _place((name, each, cut)) < place) for place in (1, 2, 3)]
        self.whole_from, self.norms_from, self.norms_to = before
        share = owners.share(self.parameters)
        self.master = share if dtype == torch.float32 else torch.empty_like(share, dtype=torch.float32)
        self.master.requires_grad_()
        self.first, self.second = (torch.zeros_like(self.master, requires_grad=False) for _ in range(2))

    def _laid(self, ordered: Sequence[Entry]) -> dict[int, torch.nn.Parameter]:
        """A view of the buffer in place of every parameter, by the identity of the old one."""
        laid, start = {}, 0
        for _, old, _ in ordered:
            end = start + old.numel()
            new = torch.nn.Parameter(self.parameters[start:end].view(old.shape))
            lay_gradient(new, self.gradients[start:end].view(old.shape))
            laid[id(old)] = new
            start = end
        return laid

    @property
    def state_bytes(self) -> int:
        """Bytes of what the optimizer holds beside parameters and gradients: moments, and master weights if there are any."""
        moments: int = self.first.nbytes + self.second.nbytes
        return moments + (self.master.nbytes if self.has_master else 0)

    @property
    def has_master(self) -> bool:
        """Whether the owner of a share holds it in fp32 too."""
        return bool(self.master.dtype != self.parameters.dtype)

    def take_over(self) -> None:
        """The parameters as they stand become the master weights."""
        if self.has_master:
            self.master.copy_(self.owners.share(self.parameters))

    def copy_out(self) -> None:
        """The master weights become the parameters of this rank's own share."""
        if self.has_master:
            self.owners.share(self.parameters).copy_(self.master)

    def gather(self, name: str) -> None:
        """Every owner's share of the parameters, from the rank that has it."""
        self.owners.all_gather_in_place(self.parameters, name, OPTIMIZER)

    def reduce(self, name: str) -> None:
        """The sum of the gradients over the replicas: of this rank's share where it owns no more."""
        if self.owners.ranks > 1:
            self.owners.reduce_scatter_in_place(self.gradients, name, OPTIMIZER)
        else:
            self.replicas.all_reduce(self.gradients, name, OPTIMIZER)

    def square(self, tensor_parallel: int) -> torch.Tensor:
        """The square of its gradients' norm, this rank's part of the sum over all; what several ranks hold is counted once.

        `tensor_parallel` is how many ranks hold what is not cut.
        """
        owned = self.owners.share(self.gradients)
        start = self.owners.rank * len(owned)
        ends = [min(max(end - start, 0), len(owned)) for end in (self.copied, self.whole_from)]
        _, cut, whole = owned.tensor_split(ends)
        squares = _square(cut) + _square(whole) / tensor_parallel
        return squares / (self.replicas.ranks / self.owners.ranks)


def _square(values: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(values).square() if len(values) else values.new_zeros(())


def _place(entry: Entry) -> int:
    name, _, cut = entry
    if cut.axis is not None:
        return 0
    return 1 if name == "embedding.positions" else 2
