"""Which operators of a mixture the CUDA graphs of each of its parts replay, and which none of them does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import pytest

from perfmodel.count.blocks import Block
from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, Operator
from perfmodel.count.roles import Role
from perfmodel.spec.models.layer_parts import described
from tests.count.mixtures import SMALL, STACK, layout_of, mixture_setup
from tests.stacks import stack_with

LATENT: Final = replace(SMALL, mixture=replace(described(SMALL.mixture, "mixture"), latent_size=32, shared_gate=True))
SHARED: Final = {"shared.fc1", "shared.activation", "shared.fc2", "shared.gate"}
EXPERTS: Final = {"fc1", "activation", "fc2"}
AFTER: Final = {"latent_up", "shared.add", "residual"}  # what follows when tokens are back


def layer(*parts: str, dispatcher: str = "alltoall") -> Block:
    """A layer of the small mixture under graphs of these parts."""
    stack = stack_with(STACK, {"host.graphed": parts, "experts.dispatcher": dispatcher})
    (blocks,) = iteration(mixture_setup(LATENT, layout_of(expert_parallel=4), stack)).layers.values()
    plain: Block = blocks.plain
    return plain


def kernels(operators: Iterable[Operator]) -> set[str]:
    """Names of the operators of the feed-forward part that are no messages."""
    start = "layer.mlp."
    found = (op.name for op in operators if not isinstance(op, Collective))
    return {name.removeprefix(start) for name in found if name.startswith(start)}


def replayed(*parts: str, dispatcher: str = "alltoall") -> set[str]:
    """Names of those that graphs of these parts replay, forwards and backwards alike."""
    block = layer(*parts, dispatcher=dispatcher)
    forward, backward = (kernels(op for op in way if op.replayed) for way in (block.forward, block.backward))
    assert forward == backward
    return forward


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("router", {"norm", "router", "route"}),
        ("preprocess", {"latent_down", "permute"}),
        ("shared_experts", SHARED),
        ("experts", EXPERTS),
        ("dense", set()),
        ("attention", set()),
    ],
)
def test_graphs_of_a_part_replay_its_operators_alone(part: str, names: set[str]) -> None:
    """The norm with the router; projection to latent numbers and order of copies before tokens travel."""
    assert replayed(part) == names


@pytest.mark.parametrize("dispatcher", ["deepep", "hybridep", "allgather"])
def test_only_an_all_to_all_orders_copies_before_they_travel(dispatcher: str) -> None:
    """Where others permute, tokens have arrived, and their number is not known before."""
    assert replayed("preprocess", dispatcher=dispatcher) == {"latent_down"}


def test_no_part_holds_what_follows_when_tokens_are_back() -> None:
    """Messages, rows by expert of what arrived, the way back to the stream."""
    block = layer("router", "preprocess", "shared_experts", "experts", "dense")
    assert kernels(op for op in block.forward if not op.replayed) == {"sort", "unsort", "unpermute"} | AFTER
    messages = [op for op in block.operators if op.role in (Role.DISPATCH, Role.COMBINE)]
    assert messages
    assert not any(op.replayed for op in messages)
