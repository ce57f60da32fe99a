"""The memory-bound operators of the reference model, one by one, on random tensors: what `model/` runs, and nothing around it.

Lookups mask the tokens of other ranks, as the forecast counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import torch

from perfmodel.benchmarks.measure.kernels.tensors import random
from perfmodel.benchmarks.measure.kernels.timing import Prepared
from perfmodel.benchmarks.measure.kernels.traffic import HEAD_SIZE
from perfmodel.model.groups import Group
from perfmodel.model.parts.layers import Norm, activated, rotation, taken_apart
from perfmodel.model.parts.linears import accumulate, add_to_main, lay_gradient
from perfmodel.model.parts.vocabulary import cross_entropy, looked_up, table_gradient
from perfmodel.model.supported import DTYPES
from perfmodel.spec.phases import FORWARD

OUTSIDE: Final = 2  # every second token belongs to another rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """What an operator works on: sizes and labels of its point."""

    rows: int
    columns: int
    precision: str
    device: str
    table_rows: int = 1
    rotary_fraction: float = 1.0

    def random(self, columns: int | None = None, *, rows: int | None = None, precision: str = "") -> torch.Tensor:
        """A tensor of this size, or of another."""
        shape = (rows or self.rows, columns or self.columns)
        return random(*shape, precision=precision or self.precision, device=self.device)

    @property
    def flat(self) -> torch.Tensor:
        """Gradients, parameters or moments of all weights in one row, in fp32."""
        return random(self.rows * self.columns, precision="fp32", device=self.device)


Make: TypeAlias = Callable[[Tensor, str], Prepared]  # tensor, phase


def both_ways(
    phase: str,
    function: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
    *inputs: torch.Tensor,
    weights: Sequence[torch.Tensor] = (),
) -> Prepared:
    """function(*inputs) as autograd runs it forwards; or the gradients of inputs and weights, as it runs them backwards."""
    for each in inputs:
        each.requires_grad_()
    if phase == FORWARD:
        return Prepared(lambda: function(*inputs), inputs)
    found = function(*inputs)
    outputs = found if isinstance(found, tuple) else (found,)
    gradients = [each.detach().clone(memory_format=torch.contiguous_format) for each in outputs]
    wanted = (*inputs, *weights)  # what weights get is added to their main gradients, and is not returned
    return Prepared(lambda: torch.autograd.grad(outputs, wanted, gradients, retain_graph=True, allow_unused=True), gradients)


def _norm(kind: str) -> Make:
    def make(tensor: Tensor, phase: str) -> Prepared:
        norm = Norm("norm", kind, tensor.columns).to(device=tensor.device, dtype=DTYPES[tensor.precision])
        weights = tuple(norm.parameters())
        for weight in weights:
            weight.data.copy_(tensor.random(rows=1)[0])
            lay_gradient(weight, torch.zeros_like(weight, dtype=torch.float32))
        return both_ways(phase, norm, tensor.random(), weights=weights)

    return make


def _activation(kind: str) -> Make:
    def make(tensor: Tensor, phase: str) -> Prepared:
        x = tensor.random(tensor.columns * (2 if kind in ("swiglu", "geglu") else 1))
        return both_ways(phase, lambda x: activated(kind, x), x)

    return make


def _rotary(tensor: Tensor, phase: str) -> Prepared:
    heads = tensor.columns // (2 * HEAD_SIZE)
    size = int(HEAD_SIZE * tensor.rotary_fraction) // 2 * 2
    rotate = rotation(tensor.rows, size, DTYPES[tensor.precision], torch.device(tensor.device))

    def apart(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return taken_apart(qkv, sequences=1, heads=heads, kv_heads=heads, rotate=rotate)

    return both_ways(phase, apart, tensor.random(3 * heads * HEAD_SIZE))


def _residual(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - both ways it adds two tensors
    one, other = tensor.random(), tensor.random()
    return Prepared(lambda: one + other, (one,))  # the other is as old as the layer


def _loss(tensor: Tensor, phase: str) -> Prepared:
    logits = tensor.random().requires_grad_()
    targets = torch.arange(tensor.rows, device=tensor.device) % tensor.columns
    alone = Group(1, 0)
    if phase == FORWARD:
        return Prepared(lambda: cross_entropy(logits, targets, alone, tensor.columns), (logits,))
    loss = cross_entropy(logits, targets, alone, tensor.columns)
    return Prepared(lambda: torch.autograd.grad(loss, logits))


def _lookup(tensor: Tensor, phase: str) -> Prepared:
    number = tensor.table_rows
    tokens = (torch.arange(tensor.rows, device=tensor.device) * 7919) % number
    outside = torch.arange(tensor.rows, device=tensor.device) % OUTSIDE == 1
    table = torch.nn.Parameter(tensor.random(rows=number), requires_grad=False)
    if phase == FORWARD:
        return Prepared(lambda: looked_up(table, tokens, outside))
    place, gradient = tensor.random(rows=number, precision="fp32"), tensor.random()

    def backward() -> None:
        lay_gradient(table, place)  # as in the first micro-batch, which overwrites
        add_to_main(table, table_gradient(gradient, tokens, outside, number))

    return Prepared(backward, (gradient,))


def _accumulate(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - it has one
    total, gradient = tensor.random(precision="fp32"), tensor.random()
    return Prepared(lambda: accumulate(total, gradient), (gradient,))


def _overwrite(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - it has one
    total, gradient = tensor.random(precision="fp32"), tensor.random()
    return Prepared(lambda: total.copy_(gradient), (gradient,))


def _adam(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - it has one
    """As model/training/optimizer.py steps the share of a rank: clipped gradients, 16-bit parameters written at the end."""
    master = tensor.flat.requires_grad_()
    adam = torch.optim.AdamW([master], lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    step = torch.zeros((), dtype=torch.float32, device=tensor.device)
    adam.state[master] = {"step": step, "exp_avg": tensor.flat, "exp_avg_sq": tensor.flat.abs_()}
    adam.grad_scale, adam.found_inf = torch.ones_like(step), torch.zeros_like(step)
    master.grad = tensor.flat
    parameters = None if tensor.precision == "fp32" else torch.empty_like(master, dtype=DTYPES[tensor.precision])

    def work() -> None:
        adam.step()
        if parameters is not None:
            parameters.detach().copy_(master.detach())

    return Prepared(work)


def _flat(run: Callable[[torch.Tensor], object]) -> Make:
    def make(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - it has one
        values = tensor.flat
        return Prepared(lambda: run(values))

    return make


def _copy(tensor: Tensor, phase: str) -> Prepared:  # noqa: ARG001 - it has one
    source, target = tensor.random(), tensor.random()
    return Prepared(lambda: target.copy_(source), (source,))


OPERATORS: Final[Mapping[str, Make]] = {
    "layernorm": _norm("layernorm"),
    "rmsnorm": _norm("rmsnorm"),
    "gelu": _activation("gelu"),
    "squared_relu": _activation("squared_relu"),
    "swiglu": _activation("swiglu"),
    "geglu": _activation("geglu"),
    "rotary": _rotary,
    "residual": _residual,
    "loss": _loss,
    "lookup": _lookup,
    "accumulate": _accumulate,
    "overwrite": _overwrite,
    "adam": _adam,
    "scale": _flat(lambda values: values.mul_(1.0)),  # by 1: what is scaled again and again would end in denormals
    "square_sum": _flat(lambda values: torch.linalg.vector_norm(values).square()),
    "zero": _flat(lambda values: values.zero_()),
    "copy": _copy,
}
