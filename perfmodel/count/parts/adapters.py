"""What runs beside the frozen linears of a fine-tuning: the products of their adapters, and the widening of quantised weights.

Symbols: T tokens, k inner and n columns of a linear, r rank of its adapter, e bytes of an activation.

An adapter of y = x W adds s * (x A) B: two narrow products forwards, two weight gradients and two data gradients backwards, and
chains of elementwise kernels around them (dropout, casts, scale and sum), which software fuses or not (TuningWork).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from perfmodel.count.blocks import Block, local
from perfmodel.count.declarations import Adapter, Component, Linear
from perfmodel.count.memory.storage import has_fp32_stream
from perfmodel.count.operators import Matmul, MemoryBound
from perfmodel.count.roles import Role
from perfmodel.errors import NotSupportedError
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Numeric, chosen
from perfmodel.spec.layout import GATHERED
from perfmodel.spec.precision import FP32_BYTES
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import FineTuning, TuningWork

OF_PARTS: Final = {  # what a fine-tuning calls the component of a linear
    Component.ATTENTION: "attention",
    Component.FEED_FORWARD: "mlp",
    Component.EXPERTS: "mlp",
    Component.HEAD: "head",
}
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


def widened(linears: Sequence[Linear], setup: Setup) -> Block:
    """What runs before linears of one input: their weights in few bits become 16 bits wide, and so does an input in fp32."""
    return _dequantised(linears, setup) + _autocast(linears, setup)


def _dequantised(linears: Sequence[Linear], setup: Setup) -> Block:
    """Reads weights in few bits and writes them in 16, before the products and before those of their data gradients."""
    first, tuning = linears[0], setup.tuning
    if tuning is None or not is_quantised(first.component, tuning):
        return Block()
    each = tuning.weight_format.bytes + WIDE_BYTES + tuning_work(setup).dequantised_bytes
    numbers = [linear.number * linear.inner * linear.columns for linear in linears]
    kernels = sum(linear.number for linear in linears)
    moved = each * sum(numbers[1:], numbers[0])
    return local(
        MemoryBound(
            name=f"{first.name}.dequantise",
            role=Role.DEQUANTISE,
            moved_bytes=moved,
            backward_bytes=moved,
            kernels=kernels,
            backward_kernels=kernels,
            calls=kernels,
        )
    )


def _autocast(linears: Sequence[Linear], setup: Setup) -> Block:
    """Reads an input in fp32 and writes it in 16 bits for each product, and widens its gradient; of a stream in fp32 alone."""
    if linears[0].role is Role.OUTPUT_PRODUCT or not has_fp32_stream(setup):
        return Block()
    each, times = FP32_BYTES + setup.layout.recipe.activation_bytes, len(linears)
    moved = times * each * setup.layout.tokens_per_micro_batch * linears[0].inner
    cast = MemoryBound(name=f"{linears[0].name}.autocast", moved_bytes=moved, backward_bytes=moved)
    return local(replace(cast, kernels=times, backward_kernels=times, calls=times))


def adapter_blocks(adapters: Sequence[Adapter], setup: Setup, gradient_bytes: Numeric) -> Block:
    """Adapters of one input, which is kept for all of them where the linears beside them do not keep it."""
    if not adapters:
        return Block()
    block = _first_products(adapters, setup, gradient_bytes)
    alike: list[list[Adapter]] = []  # those whose linears have as many columns are one operator, run as often
    for adapter in adapters:
        group = next((each for each in alike if each[0].linear.columns is adapter.linear.columns), None)
        group.append(adapter) if group else alike.append([adapter])
    for group in alike:
        block = block + _second_products(group, setup, gradient_bytes)
    for adapter in adapters:
        block = block + (_magnitudes(adapter, setup) if adapter.has_magnitudes else Block())
    return block + _sums(adapters, setup)


def _first_products(adapters: Sequence[Adapter], setup: Setup, gradient_bytes: Numeric) -> Block:
    """x A of adapters of one input. They keep e*T*k once, where no other operator does, and what software copies each time."""
    linear, layout, times = adapters[0].linear, setup.layout, len(adapters)
    once = 0.0 if keeps_input(linear.component, setup) else layout.recipe.activation_bytes
    inputs = layout.tokens_per_micro_batch * linear.inner
    product = _product(adapters[0], setup, gradient_bytes, name=f"{linear.name}.adapter_in", times=times)
    return local(replace(product, saved_bytes=inputs * (once + times * tuning_work(setup).adapter_input_bytes)))


def _second_products(adapters: Sequence[Adapter], setup: Setup, gradient_bytes: Numeric) -> Block:
    """(x A) B of adapters whose linears have as many columns; each keeps its input, e*T*r."""
    first, layout, times = adapters[0], setup.layout, len(adapters)
    kept = times * layout.recipe.activation_bytes * layout.tokens_per_micro_batch * first.rank
    product = _product(first, setup, gradient_bytes, name=f"{first.linear.name}.adapter_out", times=times)
    return local(replace(product, columns=first.linear.columns, inner=first.rank, saved_bytes=kept))


def _product(adapter: Adapter, setup: Setup, gradient_bytes: Numeric, *, name: str, times: int) -> Matmul:
    return Matmul(
        name=name,
        role=Role.ADAPTER,
        repeats=times,
        rows=setup.layout.tokens_per_micro_batch,
        columns=adapter.rank,
        inner=adapter.linear.inner,
        precision=setup.layout.recipe.linear_formats[-1],
        weight_gradient_bytes=gradient_bytes,
        accumulates=False,
        apart=_are_units(adapter, setup),
    )


def _are_units(adapter: Adapter, setup: Setup) -> bool:
    """Whether each matrix of an adapter is sharded, and so gathered for each pass, by itself."""
    beside = tuning_work(setup).adapter_units
    is_beside = beside == "all" or (beside == "unquantised" and not is_quantised(adapter.linear.component, setup.tuning))
    return is_beside and setup.layout.sharding in GATHERED


def _sums(adapters: Sequence[Adapter], setup: Setup) -> Block:
    """Adds what adapters of one input give to what their linears give, and the gradients of that input.

    Without autocast adapters of fp32 work in fp32, on copies of their input.
    """
    work, layout = tuning_work(setup), setup.layout
    tokens, each = layout.tokens_per_micro_batch, layout.recipe.activation_bytes
    is_wide = setup.tuning is not None and not setup.tuning.is_quantised
    width = np.maximum(work.adapter_bytes, each) if is_wide else each
    results, inputs = (tokens * _sum(getattr(adapter.linear, side) for adapter in adapters) for side in ("columns", "inner"))
    casts = chosen(np.asarray(width) > each, (each + width) * inputs, 0.0)
    kernels = work.adapter_kernels * len(adapters)
    return local(
        MemoryBound(
            name=f"{adapters[0].linear.name}.adapter_sum",
            role=Role.ADAPTER,
            moved_bytes=work.adapter_passes * width * results + casts,
            backward_bytes=(work.adapter_passes - 1.0) * width * results + 3.0 * each * inputs + casts,
            kernels=kernels,
            backward_kernels=kernels,
            calls=len(adapters),
        )
    )


def _sum(terms: Iterable[Numeric]) -> Numeric:
    total: Numeric = 0.0
    for term in terms:
        total = total + term
    return total


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
