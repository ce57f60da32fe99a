"""Modules of a mixture that run again backwards: what they repeat, and what is not kept for them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.operators import Collective, Matmul, MemoryBound
from perfmodel.count.roles import Role
from tests.count.mixtures import DEEPSEEK, PUBLISHED, SMALL, STACK, layout_of, mixture_setup, of_role
from tests.stacks import stack_with


@pytest.mark.parametrize(
    ("module", "role"), [("moe_act", Role.EXPERT_OUTPUT), ("mla_up_proj", Role.CORE), ("shared_experts", Role.SHARED_EXPERT)]
)
def test_a_module_that_runs_again_keeps_not_what_it_gives(module: str, role: Role) -> None:
    """Its results are formed again: activations shrink by what the operators behind it kept."""
    plain = iteration(mixture_setup(DEEPSEEK, PUBLISHED))
    again = iteration(mixture_setup(DEEPSEEK, replace(PUBLISHED, recompute="selective", recompute_modules=(module,))))
    freed = again.layers["experts"].freed_bytes
    kept = [
        op.saved_bytes for op in plain.layers["experts"].plain.forward if op.role is role and not isinstance(op, Collective)
    ]
    assert float(freed) == sum(float(each) for each in kept) > 0


def test_running_a_whole_mixture_again_sends_its_tokens_again() -> None:
    """`moe` repeats dispatch and combine, and keeps the router's input."""
    layout = layout_of(expert_parallel=8, recompute="selective", recompute_modules=("moe",))
    (blocks,) = iteration(mixture_setup(SMALL, layout)).layers.values()
    assert len(of_role(blocks.again.operators, Role.DISPATCH, Role.COMBINE)) == 6
    (router,) = [op for op in of_role(blocks.plain.forward, Role.ROUTER) if isinstance(op, Matmul)]
    kept = sum(
        float(op.saved_bytes)
        for op in blocks.plain.forward[blocks.plain.forward.index(router) :]
        if not isinstance(op, Collective)
    )
    assert float(blocks.freed_bytes) == kept - float(router.saved_bytes)


def test_a_function_that_runs_again_is_a_kernel_of_its_own() -> None:
    """Where fused products would take it in, running it again costs its traffic."""
    fused = stack_with(STACK, {"experts.products": "fused"})
    layout = layout_of(expert_parallel=2, recompute="selective", recompute_modules=("moe_act",))
    (blocks,) = iteration(mixture_setup(SMALL, layout, fused)).layers.values()
    functions = [op for op in of_role(blocks.again.operators, Role.EXPERT_ACTIVATION) if isinstance(op, MemoryBound)]
    assert all(float(op.moved_bytes) > 0 for op in functions)


@pytest.mark.parametrize("attention", [True, False])
def test_the_attention_core_as_a_module_is_what_selective_recompute_runs_again(attention: bool) -> None:
    """Scores, softmax and what context-parallel ranks exchange for them, fused or not (Korthikanti et al., section 5)."""
    stack = stack_with(STACK, {"fusion.attention": attention})
    layout = layout_of(context_parallel=2, recompute="selective")
    whole, module = (
        iteration(replace(mixture_setup(SMALL, replace(layout, recompute_modules=modules)), stack=stack)).layers
        for modules in ((), ("core_attn",))
    )
    for kind, blocks in whole.items():
        assert module[kind].again.backward == blocks.again.backward != blocks.plain.backward


@pytest.mark.parametrize("module", ["mla_up_proj", "mlp"])
def test_a_module_that_no_layer_has_frees_nothing(module: str) -> None:
    """Up-projections of latent attention, dense MLPs: a mixture without them keeps what it keeps."""
    layout = layout_of(recompute="selective", recompute_modules=(module,))
    (blocks,) = iteration(mixture_setup(SMALL, layout)).layers.values()
    assert float(blocks.freed_bytes) == 0.0
    assert blocks.again.operators == blocks.plain.operators
