"""Do chains of PyTorch's own kernels read and write what PyTorch reads and writes? Each operation of autograd is watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest
import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import MemoryBound
from perfmodel.exchange.presets import model_preset, stack_preset
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of
from tests.stacks import stack_with

WIDTH: Final = 64  # of one half
VIEWS: Final = ("aten.split.Tensor", "aten.detach.default")
Function = Callable[[torch.Tensor], torch.Tensor]


def gated(function: Callable[[torch.Tensor], torch.Tensor]) -> Function:
    """One half of the input through a function, times the other."""

    def apply(joined: torch.Tensor) -> torch.Tensor:
        gate, up = joined.chunk(2)
        return function(gate) * up

    return apply


EAGER: Final[dict[str, Function]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "squared_relu": lambda x: functional.relu(x) ** 2,
    "swiglu": gated(functional.silu),
    "geglu": gated(functional.gelu),
}


class Watched(TorchDispatchMode):  # type: ignore[misc]  # torch leaves it without a type
    """What each kernel reads and writes, in numbers; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation and note its tensors."""
        found = func(*args, **(kwargs or {}))
        if str(func) not in VIEWS:
            self.moved.append(sum(each.numel() for each in tree_leaves((args, found)) if isinstance(each, torch.Tensor)))
        return found


def watched(function: Function, halves: int) -> tuple[list[int], list[int]]:
    """Numbers moved by each kernel of a function, forwards and backwards."""
    given = torch.randn(halves * WIDTH, requires_grad=True)
    with Watched() as forward:
        result = function(given)
    gradient = torch.ones_like(result)
    with Watched() as backward:
        torch.autograd.grad(result, given, gradient)
    return forward.moved, backward.moved


def counted(activation: str, *, fused: bool) -> MemoryBound:
    """The activation function of one layer, as it is counted."""
    stack = stack_with(stack_preset("reference"), {"fusion.activation": fused, "fusion.squared_relu": fused})
    work = iteration(setup_of(replace(model_preset("llama-3.1-8b"), activation=activation), RAMP_STAGE, stack))
    found = next(op for op in work.operators if op.name == "layer.mlp.activation")
    assert isinstance(found, MemoryBound)
    return found


def numbers_of_one_half() -> float:
    """Numbers of one half of the MLP on one GPU, of a micro-batch."""
    model = model_preset("llama-3.1-8b")
    return float(RAMP_STAGE.tokens_per_micro_batch * model.ffn_hidden_size / RAMP_STAGE.tensor_parallel)


@pytest.mark.parametrize("activation", EAGER)
def test_an_eager_activation_is_the_kernels_that_pytorch_runs(activation: str) -> None:
    """As many, which read and write as much; forwards and backwards."""
    halves = 2 if activation in ("swiglu", "geglu") else 1
    forward, backward = watched(EAGER[activation], halves)
    found, each = counted(activation, fused=False), 2 * numbers_of_one_half() / WIDTH
    assert (found.kernels, found.backward_kernels) == (len(forward), len(backward))
    assert (float(found.moved_bytes), float(found.backward_bytes)) == (each * sum(forward), each * sum(backward))


@pytest.mark.parametrize("activation", EAGER)
def test_a_fused_activation_reads_and_writes_each_number_once(activation: str) -> None:
    """Forwards its halves and the result; backwards its halves, the gradient, and a gradient of each half."""
    halves = 2 if activation in ("swiglu", "geglu") else 1
    found, one = counted(activation, fused=True), 2 * numbers_of_one_half()
    assert (found.kernels, found.backward_kernels) == (1, 1)
    assert (found.moved_bytes, found.backward_bytes) == ((halves + 1) * one, (2 * halves + 1) * one)
