"""What runs beside the frozen linears of a fine-tuning: the products of their adapters, and the widening of quantised weights.

Symbols: T tokens, k inner and n columns of a linear, r rank of its adapter, e bytes of an activation.

An adapter of y = x W adds s * (x A) B: two narrow products forwards, two weight gradients and two data gradients backwards, and
chains of elementwise kernels around them (dropout, casts, scale and sum), which software fuses or not (TuningWork).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Adapter, Component, Linear
from perfmodel.count.memory.storage import has_fp32_stream
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.spec.fields import Numeric, chosen
from perfmodel.spec.fine_tuning import FineTuning, TuningWork
from perfmodel.spec.setup import Setup

OF_PARTS: Final = {  # what a fine-tuning calls the component of a linear
    Component.ATTENTION: "attention",
    Component.FEED_FORWARD: "mlp",
    Component.EXPERTS: "mlp",
    Component.HEAD: "head",
}
FP32_BYTES: Final = 4.0
WIDE_BYTES: Final = 2.0  # of a weight that was widened
NORM_PASSES: Final = 5.0  # of DoRA: W + s*A*B is formed (two read, one written), then read twice for the norm of its columns


def is_frozen(component: Component, tuning: FineTuning | None) -> bool:
    """Whether the linears of a component get no gradient."""
    return tuning is not None and not tuning.trains(OF_PARTS[component])


def is_quantised(component: Component, tuning: FineTuning | None) -> bool:
    """Whether the weights of a component are held in few bits: frozen matrices of layers are, the vocabulary's are not."""
    quantised = tuning is not None and tuning.is_quantised and component is not Component.HEAD
    return quantised and is_frozen(component, tuning)


def keeps_input(component: Component, setup: Setup) -> bool:
    """Whether a product keeps its input: for a gradient of its weight, or because its software keeps it anyway."""
    if is_quantised(component, setup.tuning):
        return tuning_work(setup).keeps_inputs
    return not is_frozen(component, setup.tuning)


def tuning_work(setup: Setup) -> TuningWork:
    """What the software of a setup has for fine-tuning. Errors: NotSupportedError where that is nothing."""
    if setup.stack.tuning is None:
        raise NotSupportedError(f"{setup.stack.name} has no fine-tuning", key="training")
    return setup.stack.tuning


def dequantised(linear: Linear, setup: Setup) -> Block:
    """Reads the weight in few bits and writes it in 16, before the product and before that of its data gradient."""
    held = WIDE_BYTES if setup.tuning is None else setup.tuning.weight_format.bytes
    moved = linear.number * linear.inner * linear.columns * (held + WIDE_BYTES + tuning_work(setup).dequantised_bytes)
    return local(
        MemoryBound(
            name=f"{linear.name}.dequantise", role=Role.DEQUANTISE, moved_bytes=moved, backward_bytes=moved, calls=linear.number
        )
    )


def autocast(linear: Linear, setup: Setup) -> Block:
    """Reads an input in fp32 and writes it in 16 bits for each product, and widens its gradient; of a stream in fp32 alone."""
    if setup.tuning is None or not has_fp32_stream(setup):
        return Block()
    moved = (FP32_BYTES + setup.layout.recipe.activation_bytes) * setup.layout.tokens_per_micro_batch * linear.inner
    return local(MemoryBound(name=f"{linear.name}.autocast", moved_bytes=moved, backward_bytes=moved))


def adapter_blocks(adapters: Iterable[Adapter], setup: Setup, gradient_bytes: Numeric) -> Block:
    """Adapters of one input, which the first of them keeps where the linears beside them do not."""
    block = Block()
    for place, adapter in enumerate(adapters):
        is_kept = place == 0 and not keeps_input(adapter.linear.component, setup)
        block = block + adapter_block(adapter, setup, is_kept=is_kept, gradient_bytes=gradient_bytes)
    return block


def adapter_block(adapter: Adapter, setup: Setup, *, is_kept: bool, gradient_bytes: Numeric) -> Block:
    """Both products of an adapter, and what lies around them.

    It keeps its input, e*T*k, unless another operator keeps the same (`is_kept`), what software copies of that, and e*T*r.
    """
    linear, work, layout = adapter.linear, tuning_work(setup), setup.layout
    tokens, each = layout.tokens_per_micro_batch, layout.recipe.activation_bytes
    inputs, results = tokens * linear.inner, tokens * linear.columns
    is_wide = setup.tuning is not None and not setup.tuning.is_quantised  # without autocast, adapters of fp32 work in fp32
    width = np.maximum(work.adapter_bytes, each) if is_wide else each
    casts = chosen(np.asarray(width) > each, (each + width) * inputs, 0.0)
    down = Matmul(
        name=f"{linear.name}.adapter_in",
        role=Role.ADAPTER,
        rows=tokens,
        columns=adapter.rank,
        inner=linear.inner,
        precision=layout.recipe.linear_formats[-1],
        weight_gradient_bytes=gradient_bytes,
        accumulates=False,
        saved_bytes=inputs * ((each if is_kept else 0.0) + work.adapter_input_bytes),
    )
    up = replace(
        down,
        name=f"{linear.name}.adapter_out",
        columns=linear.columns,
        inner=adapter.rank,
        saved_bytes=each * tokens * adapter.rank,
    )
    around = MemoryBound(
        name=f"{linear.name}.adapter_sum",
        role=Role.ADAPTER,
        moved_bytes=work.adapter_passes * width * results + casts,
        backward_bytes=(work.adapter_passes - 1.0) * width * results + 3.0 * each * inputs + casts,  # both gradients of x added
        kernels=work.adapter_kernels,
        backward_kernels=work.adapter_kernels,
    )
    block = local(down) + local(up) + local(around)
    return block + _magnitudes(adapter, setup) if adapter.has_magnitudes else block


def _magnitudes(adapter: Adapter, setup: Setup) -> Block:
    """The norm of each column of W + s*A*B, formed anew in each pass, and the product with magnitude over norm (DoRA).

    The norm gets no gradient (arXiv:2402.09353, section 4.3).
    """
    linear, recipe = adapter.linear, setup.layout.recipe
    results = recipe.activation_bytes * setup.layout.tokens_per_micro_batch * linear.columns
    formed = Matmul(
        name=f"{linear.name}.adapter_weight",
        role=Role.ADAPTER,
        rows=linear.inner,
        columns=linear.columns,
        inner=adapter.rank,
        precision=recipe.linear_formats[-1],
    )
    norms = MemoryBound(
        name=f"{linear.name}.adapter_norm",
        role=Role.ADAPTER,
        moved_bytes=NORM_PASSES * recipe.activation_bytes * linear.inner * linear.columns,
    )
    scaled = MemoryBound(
        name=f"{linear.name}.adapter_magnitude",
        role=Role.ADAPTER,
        moved_bytes=2.0 * results,
        backward_bytes=4.0 * results,
        saved_bytes=results,
    )
    return Block(forward=(formed, norms)) + local(scaled)
