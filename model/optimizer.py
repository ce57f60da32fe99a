"""The distributed optimizer: one buffer of parameters, one of gradients, and each data-parallel rank steps its share of them.

Gradients are fp32. Where parameters are bf16 the rank that owns a share also holds it in fp32 (the master weights); AdamW's two
moments are fp32. With sharding `none` every rank owns everything. (ZeRO stage 1, arXiv:1910.02054; as Megatron-Core does it.)

FSDP2 is not used here: it gathers fp32 shards layer by layer, which is another layout (zero3) with other counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch

from perfmodel.model.groups import Group
from perfmodel.model.linears import lay_gradient
from perfmodel.model.operators import operator
from perfmodel.model.transformer import DTYPES, Cut, Transformer
from perfmodel.spec.phases import OPTIMIZER

LARGEST_NORM: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """AdamW's settings."""

    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1


class DistributedAdamW:
    """Steps the parameters of a model; lays its buffers under them first."""

    def __init__(self, model: Transformer, recipe: Recipe) -> None:
        layout, self.groups = model.layout, model.groups
        self.owners = self.groups.data_parallel if layout.sharding == "zero1" else Group(1, 0)
        self.sharded = layout.sharding == "zero1"
        self.sums_norms = layout.sequence_parallel and self.groups.tensor_parallel.ranks > 1
        self.averaged_over = float(layout.micro_batches * self.groups.data_parallel.ranks)
        ordered = sorted(model.cuts(), key=lambda entry: _place(entry[0], entry[2]))
        numbers = sum(parameter.numel() for _, parameter, _ in ordered)
        padded = -(-numbers // self.owners.ranks) * self.owners.ranks
        self.parameters = torch.empty(padded, dtype=DTYPES[layout.precision], device=self.groups.device)
        self.gradients = torch.zeros(padded, dtype=torch.float32, device=self.groups.device)
        self.parameters[numbers:].zero_()
        self.whole_from, self.norms_from, self.norms_to = _lay_under(model, ordered, self.parameters, self.gradients)
        self.of_model = list(model.parameters())
        share = self.owners.share(self.parameters)
        self.master = share if layout.precision == "fp32" else torch.empty_like(share, dtype=torch.float32)
        self.master.requires_grad_()
        self.adam = torch.optim.AdamW(
            [self.master],
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
            fused=self.groups.device.type != "meta",
        )
        self.first, self.second = (torch.zeros_like(self.master, requires_grad=False) for _ in range(2))
        self.adam.state[self.master] = {"step": self._new_step(), "exp_avg": self.first, "exp_avg_sq": self.second}

    def _new_step(self) -> torch.Tensor:
        device = "cpu" if self.groups.device.type == "meta" else self.groups.device  # AdamW reads how many steps there were
        return torch.zeros((), dtype=torch.float32, device=device)

    @property
    def steps(self) -> torch.Tensor:
        """How many steps were taken, as AdamW counts them."""
        steps: torch.Tensor = self.adam.state[self.master]["step"]
        return steps

    @property
    def state_bytes(self) -> int:
        """Of what the optimizer holds beside parameters and gradients: moments, and master weights where there are some."""
        moments: int = self.first.nbytes + self.second.nbytes
        return moments + (0 if self.master.dtype == self.parameters.dtype else self.master.nbytes)

    @torch.no_grad()
    def take_over(self) -> None:
        """The parameters as they stand become the master weights."""
        if self.master.dtype != self.parameters.dtype:
            self.master.copy_(self.owners.share(self.parameters))

    @torch.no_grad()
    def hand_out(self) -> None:
        """The master weights become the parameters, on every rank."""
        self._copy_out()
        self.owners.all_gather_in_place(self.parameters, "optimizer.gather_parameters", OPTIMIZER)

    def _copy_out(self) -> None:
        if self.master.dtype != self.parameters.dtype:
            self.owners.share(self.parameters).copy_(self.master)

    @torch.no_grad()
    def step(self) -> torch.Tensor:
        """One AdamW step on the sum of the gradients; the norm of the gradients, which is clipped at 1."""
        if self.sums_norms:
            norms = self.gradients[self.norms_from : self.norms_to]
            self.groups.tensor_parallel.all_reduce(norms, "optimizer.norm_gradients.all_reduce", OPTIMIZER)
        with operator("optimizer.scale_gradients", OPTIMIZER):
            self.gradients.mul_(1.0 / self.averaged_over)
        if self.sharded:
            self.owners.reduce_scatter_in_place(self.gradients, "optimizer.reduce_gradients", OPTIMIZER)
        else:
            self.groups.data_parallel.all_reduce(self.gradients, "optimizer.reduce_gradients", OPTIMIZER)
        norm = self._norm()
        with operator("optimizer.adam", OPTIMIZER):
            self.master.grad = self.owners.share(self.gradients)
            if self.groups.device.type != "meta":  # fused kernels divide the gradients; without numbers nothing is clipped
                self.adam.grad_scale = (norm / LARGEST_NORM).clamp(min=1.0)
                self.adam.found_inf = self._new_step()
            self.adam.step()
            self.master.grad = None
            self._copy_out()
        for parameter in self.of_model:
            parameter.main_grad_is_old = True  # the next iteration writes over it: nothing is set to zero
        self.owners.all_gather_in_place(self.parameters, "optimizer.gather_parameters", OPTIMIZER)
        return norm

    def _norm(self) -> torch.Tensor:
        """The norm over all ranks; what every tensor-parallel rank holds whole is counted once."""
        with operator("optimizer.gradient_norm", OPTIMIZER):
            owned = self.owners.share(self.gradients)
            start = self.owners.rank * len(owned)
            shared, whole = owned.tensor_split([min(max(self.whole_from - start, 0), len(owned))])
            squares = _square(shared) + _square(whole) / self.groups.tensor_parallel.ranks
            if not self.sharded:
                squares = squares / self.groups.data_parallel.ranks
        squares = squares.reshape(1)
        self.groups.world.all_reduce(squares, "optimizer.gradient_norm.all_reduce", OPTIMIZER)
        return squares.sqrt().squeeze()

    def state(self) -> dict[str, torch.Tensor]:
        """What a checkpoint holds of this rank."""
        return {"master": self.master.detach(), "first": self.first, "second": self.second, "steps": self.steps}


def _square(values: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(values).square() if len(values) else values.new_zeros(())


def _place(name: str, cut: Cut) -> int:
    """Parameters that are split lie first, then learned positions, then what sequence parallelism leaves to be added up."""
    if cut.axis is not None:
        return 0
    return 1 if name == "embedding.positions" else 2


def _lay_under(
    model: Transformer, ordered: list[Any], parameters: torch.Tensor, gradients: torch.Tensor
) -> tuple[int, int, int]:
    """Make every parameter a view of the buffers; where the whole ones begin, where the norms, and where they end."""
    laid: dict[int, torch.nn.Parameter] = {}
    begins, start = {0: 0}, 0
    for name, old, cut in ordered:
        begins.setdefault(_place(name, cut), start)
        end = start + old.numel()
        new = torch.nn.Parameter(parameters[start:end].view(old.shape))
        lay_gradient(new, gradients[start:end].view(old.shape))
        laid[id(old)] = new
        start = end
    for module in model.modules():
        for name, old_parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, laid[id(old_parameter)])
    norms = begins.get(2, start)
    return begins.get(1, norms), norms, start
