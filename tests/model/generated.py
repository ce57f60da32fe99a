"""What several ranks answer together: tokens, logits, and what torch saw of the messages of both passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from perfmodel.model.counting import CollectiveCounter
from perfmodel.model.generation.generator import Generator
from perfmodel.model.groups import Groups
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.model import TransformerModel
from tests.model.small_mixtures import DEEPSEEK
from tests.model.small_models import GPT, NEMOTRON, ONE_RANK, WINDOWS

LATENT = replace(
    DEEPSEEK,
    name="latent attention",
    mixture=None,
    layer_kinds={"": LayerKind(attention="latent")},
    first_layers=(),
    layer_pattern=(),
)
GENERATED = (NEMOTRON, GPT, WINDOWS, LATENT)
SEQUENCES, PROMPT, NEW = 2, 9, 4


def layout_of(ranks: int) -> Layout:
    """One tensor-parallel group."""
    return replace(ONE_RANK, tensor_parallel=ranks)


def answer(model: TransformerModel, groups: Groups) -> dict[str, Any]:
    """Tokens that follow some prompts, the sum of the logits after them, the calls of each pass, and the cache of this rank."""
    generator = Generator(model, layout_of(groups.tensor_parallel.ranks), groups)
    prompts = torch.arange(SEQUENCES * PROMPT).view(SEQUENCES, PROMPT) * 7 % int(model.vocab_size)
    tokens = generator.generate(prompts, NEW)
    with CollectiveCounter() as decode:
        generator.likeliest(generator.decode(tokens[:, -1]))
    cache_bytes = generator.cache_bytes
    generator.make_room(SEQUENCES, PROMPT)
    with CollectiveCounter() as prefill:
        generator.likeliest(generator.prefill(prompts))
    return {
        "tokens": tokens.tolist(),
        "cache_bytes": cache_bytes,
        "weight_bytes": generator.weight_bytes,
        "prefill": _seen(prefill),
        "decode": _seen(decode),
    }


def _seen(counter: CollectiveCounter) -> list[list[Any]]:
    """Kind and ranks of every collective, its calls and its bytes."""
    return [[*key, calls, counter.payload_bytes[key]] for key, calls in sorted(counter.calls.items())]
