"""Which parts of a layer the CUDA graphs of Megatron-Core hold, by the words of their scope, and the words that hold them.

Source: NVIDIA/Megatron-LM pull request 1920. `moe_router` captures a layer's MLP up to its router: the norm before it, and the
shared experts unless they run beside the dispatch. `moe_preprocess` is `MoELayer.preprocess`: the projection to latent numbers,
and what dispatchers do before tokens travel. `moe` captures all of the MLP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

ROUTER: Final = "moe_router"
SHARED: Final = "shared_experts"
SCOPES: Final[dict[str, tuple[str, ...]]] = {  # word -> parts of a layer, beside shared experts
    "attn": ("attention",),
    "mlp": ("dense",),
    "moe": ("router", "preprocess", "experts"),
    ROUTER: ("router",),
    "moe_preprocess": ("preprocess",),
    "mamba": ("mixer",),
}


def graphed_parts(scope: Iterable[str], *, shared_experts: bool) -> set[str]:
    """The parts of a layer that graphs of a scope hold; `shared_experts` where a model has some that graphs of routers hold."""
    parts = {part for word in scope for part in SCOPES.get(word, ())}
    return parts | ({SHARED} if shared_experts and "router" in parts else set())


def graph_scope(parts: Collection[str]) -> list[str]:
    """The words of a scope whose graphs hold these parts: the widest ones, each part by one word."""
    words, left = [], set(parts)
    for word, held in SCOPES.items():
        if left.issuperset(held):
            words.append(word)
            left -= set(held)
    return words
