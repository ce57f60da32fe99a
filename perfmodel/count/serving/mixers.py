"""What a mixer that keeps a state runs in a served model, and the bytes that a sequence keeps of it in the place of a KV cache.

Symbols: B sequences that decode, S tokens of prompts, d channels of the convolution of k tokens, N numbers of the state, w the
width of what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.count.parts.mixers import MixerSizes, mixer_sizes
from perfmodel.count.roles import Role
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, anywhere
from perfmodel.spec.models.layer_kinds import STATE_MIXERS, LayerKind
from perfmodel.spec.serving.formats import WIDE_BYTES
from perfmodel.spec.serving.setup import ServingSetup


def state_bytes_per_sequence(setup: ServingSetup, kind: LayerKind) -> Numeric:
    """N * bytes of a number of the state + (k - 1)*d*2: what one layer keeps of a sequence on one GPU, however long it is.

    >>> from perfmodel.exchange.questions.serving.served_models import serving_setup
    >>> setup = serving_setup("nemotron-3-nano", gpu="h100-sxm-80gb")
    >>> float(state_bytes_per_sequence(setup, setup.model.kinds["mamba2"]))  # 64*64*128 numbers of 4 bytes, 3*6144 of 2
    2134016.0
    """
    if kind.attention not in STATE_MIXERS:
        return 0.0
    sizes = _sizes(setup, kind.attention, 1.0)
    return setup.engine.memory.state_number_bytes * sizes.state + (sizes.convolution - 1) * sizes.channels * WIDE_BYTES


def mixer_operators(
    setup: ServingSetup, kind: LayerKind, name: str, *, sequences: Numeric, prompts: Numeric, prompt_tokens: Numeric
) -> Iterator[Matmul | MemoryBound]:
    """Between the projections: a step of the convolution and of the state for each sequence, scans of whole prompts, the norm.

    The scan is that of training's forward pass (count/parts/mixers.py), without what it keeps. Of a delta rule queries, keys
    and values are parted from gates before, as SGLang (qwen3_5.py) and vLLM (qwen3_next.py) do it.
    """
    rows = sequences + prompts * prompt_tokens
    if kind.attention == "gated_delta":
        yield _moved(f"{name}.split", 2 * WIDE_BYTES * rows * _sizes(setup, kind.attention, 1.0).channels)
    if anywhere(np.asarray(sequences) > 0):
        sizes, number = _sizes(setup, kind.attention, 1.0), setup.engine.memory.state_number_bytes
        before = 2 * (sizes.convolution - 1) * sizes.channels + 2 * sizes.channels  # read and moved on; the new one in and out
        yield _moved(f"{name}.convolution", sequences * before * WIDE_BYTES, kernel="convolution_step")
        passed = (sizes.channels + sizes.width) * WIDE_BYTES
        step = "delta_step" if kind.attention == "gated_delta" else ""
        yield _moved(f"{name}.state", sequences * (2 * number * sizes.state + passed), kernel=step)
    if anywhere(np.asarray(prompts) > 0):
        yield from _scan(setup, kind, name, prompts, prompt_tokens)
    width = _sizes(setup, kind.attention, 1.0).width
    yield _moved(f"{name}.gated_norm", 3 * WIDE_BYTES * rows * width)


def _scan(
    setup: ServingSetup, kind: LayerKind, name: str, prompts: Numeric, prompt_tokens: Numeric
) -> Iterator[Matmul | MemoryBound]:
    """The convolution of all tokens, the products of every chunk, and states that go from chunk to chunk.

    Of a delta rule every chunk of a prompt waits for the state of the one before, as in training.
    """
    sizes, rows = _sizes(setup, kind.attention, prompt_tokens), prompts * prompt_tokens
    chunks = rows / sizes.chunk
    yield _moved(f"{name}.convolution", 2 * WIDE_BYTES * rows * sizes.channels)
    for what, high, wide, inner, heads in sizes.products:
        yield Matmul(
            name=f"{name}.{what}",
            role=Role.SCAN,
            rows=high,
            columns=wide,
            inner=inner,
            batch=chunks * heads,
            has_weight=False,
            precision=setup.wide,
        )
    passed = _moved(f"{name}.state_passing", (setup.engine.memory.state_number_bytes + WIDE_BYTES) * chunks * sizes.state)
    waits = kind.attention == "gated_delta"
    yield replace(passed, chained=np.where(prompts > 0, prompt_tokens / sizes.chunk, 0.0)) if waits else passed


def _sizes(setup: ServingSetup, attention: str, tokens: Numeric) -> MixerSizes:
    return mixer_sizes(setup.model, attention, setup.attention_tensor, tokens)


def _moved(name: str, moved_bytes: Numeric, *, kernel: str = "") -> MemoryBound:
    return MemoryBound(name=name, role=Role.SCAN, moved_bytes=moved_bytes, kernel=kernel)
