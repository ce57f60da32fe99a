"""How many parameters of a fine-tuned model are trained and how many are frozen, and in what they are held, unsharded.

Everything folds over the declarations of layer parts; the matrices of the vocabulary are counted beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np

from perfmodel.count.layer import layer_parts
from perfmodel.count.memory.storage import state_bytes
from perfmodel.count.parameters import ParameterCount, parameter_count
from perfmodel.count.parts.adapters import is_frozen, tuning_work
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.fields import Numeric, chosen
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.precision import FP32_BYTES
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import AS_THE_STACK, PARTS, FineTuning
from perfmodel.spec.tuning.optimizers import SMALL_TENSOR, optimizer

MODELS: Final = 64  # whose adapters are remembered: a forecast asks for them four times
OF_LAYERS: Final = ("attention", "mlp")  # parts whose matrices are quantised


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedNumbers:
    """Parameters by what becomes of them.

    narrow     frozen, in few bits
    wide       frozen, in 16 bits or 32
    own        of the model itself, and trained
    adapters   trained beside it
    small      of its own, those of tensors that are too small for states of 8 bits: norms of narrow models
    """

    narrow: Numeric
    wide: Numeric
    own: Numeric
    adapters: Numeric
    small: Numeric

    @property
    def trained(self) -> Numeric:
        """Everything that gets a gradient."""
        return self.own + self.adapters


def tuned_numbers(
    model: TransformerModel, held: ParameterCount, layers: Mapping[str, Numeric], tuning: FineTuning
) -> TunedNumbers:
    """The parameters that a GPU holds, `held`, as a fine-tuning trains them; `layers` are those of each kind.

    >>> from perfmodel.count.parameters import parameter_count
    >>> from perfmodel.exchange.presets import model_preset
    >>> model = model_preset("llama-3.1-8b")
    >>> tuning = FineTuning(training="lora", weights="bf16", adapter_rank=8, adapter_targets=("query", "value"))
    >>> numbers = tuned_numbers(model, parameter_count(model), {"": 32}, tuning)
    >>> int(numbers.adapters), int(numbers.wide)  # 32 * 8 * (4096 + 4096 + 4096 + 1024)
    (3407872, 8030261248)
    """
    sizes = part_sizes(held)
    own: Numeric = 0
    narrow: Numeric = 0
    for part, size in sizes.items():
        if tuning.trains(part):
            own = own + size
        elif tuning.is_quantised and part in OF_LAYERS:
            narrow = narrow + size
    is_small = tuning.trains("norms") & (np.asarray(model.hidden_size) < SMALL_TENSOR)
    return TunedNumbers(
        narrow=narrow,
        wide=held.total - own - narrow,
        own=own,
        adapters=adapter_parameters(model, layers, tuning),
        small=chosen(is_small, held.norms, 0),
    )


def part_sizes(held: ParameterCount) -> dict[str, Numeric]:
    """Parameters of each part that a fine-tuning trains or freezes."""
    sizes = {
        "embedding": held.embedding + held.positions,
        "head": held.head,
        "attention": held.attention,
        "mlp": held.mlp + held.experts,
        "norms": held.norms,
    }
    return {part: sizes[part] for part in PARTS}


def adapter_parameters(model: TransformerModel, layers: Mapping[str, Numeric], tuning: FineTuning) -> Numeric:
    """The sum of r * (k + n) over the linears that have an adapter."""
    total: Numeric = 0
    for kind, number in layers.items():
        total = total + number * _of_a_layer(model, kind, tuning)
    return total


@lru_cache(maxsize=MODELS)
def _of_a_layer(model: TransformerModel, kind: str, tuning: FineTuning) -> Numeric:
    """Parameters of the adapters of one layer of a kind."""
    total: Numeric = 0
    for part in layer_parts(model, model.kinds[kind], 1):
        for adapter in part.adapters(tuning):
            total = total + adapter.parameters
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedBytes:
    """Bytes of one parameter: frozen in few bits, frozen in 16 or 32, trained of the model itself, and of an adapter."""

    narrow: float
    wide: Numeric
    own: Numeric
    adapter: Numeric


def tuned_bytes(setup: Setup, tuning: FineTuning) -> TunedBytes:
    """What each kind of parameter is held in."""
    work, held = tuning_work(setup), tuning.held_bytes
    narrow = tuning.weight_format.bytes if tuning.is_quantised else 0.0
    wide = work.wide_bytes if held is None else held
    own = FP32_BYTES if tuning.weights == AS_THE_STACK else wide  # of master copies
    return TunedBytes(narrow=narrow, wide=wide, own=own, adapter=work.adapter_bytes)


def optimizer_state_bytes(setup: Setup, numbers: TunedNumbers, tuning: FineTuning) -> Numeric:
    """States of trained parameters: moments * (width + scales), of small tensors in fp32; rows and columns if factored.

    Ignored: magnitudes of DoRA, which are small tensors too.
    """
    row, widths = optimizer(tuning.optimizer), tuned_bytes(setup, tuning)
    if row.factored:
        return FP32_BYTES * factored_numbers(setup.model, tuning)
    small = numbers.small if row.blocks else 0.0
    large = (numbers.own - small) * row.bytes_of_state(widths.own)
    return large + small * row.moments * FP32_BYTES + numbers.adapters * row.bytes_of_state(widths.adapter)


def factored_numbers(model: TransformerModel, tuning: FineTuning) -> Numeric:
    """A row and a column of each trained matrix, and all of what is none: norms (arXiv:1804.04235, section 3).

    Ignored: biases, and vectors inside parts of layers.
    """
    total: Numeric = 0.0
    for kind in model.kinds:
        layers = model.layers_of(kind, 0, model.layers)
        for part in layer_parts(model, model.kinds[kind], 1):
            for adapter in part.adapters(tuning):
                sides = adapter.linear.inner + adapter.linear.columns + 2 * adapter.rank
                total = total + layers * adapter.linear.number * sides
            for linear in part.separate:
                if not is_frozen(linear.component, tuning):
                    total = total + layers * linear.number * (linear.inner + linear.columns)
    of_vocabulary = ("embedding",) if model.tied_embeddings else ("embedding", "head")
    vocabulary = sum(tuning.trains(part) for part in of_vocabulary) * (model.vocab_size + model.hidden_size)
    return total + vocabulary + (parameter_count(model).norms if tuning.trains("norms") else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireBytes:
    """What data parallelism moves of all parameters: gathered where they are sharded, and reduced of their gradients."""

    gathered: Numeric
    reduced: Numeric


def tuned_wire_bytes(setup: Setup, held: ParameterCount, tuning: FineTuning) -> WireBytes:
    """Frozen parameters travel as they are held; gradients are those of what is trained, as wide as it is."""
    layers = {kind: setup.model.layers_of(kind, 0, setup.model.layers) for kind in setup.model.kinds}
    numbers = tuned_numbers(setup.model, held, layers, tuning)
    if tuning.weights == AS_THE_STACK:
        each = state_bytes(setup.layout, setup.stack)
        return WireBytes(gathered=held.total * each.parameter, reduced=numbers.own * each.reduced_gradient)
    widths = tuned_bytes(setup, tuning)
    trained = numbers.own * widths.own + numbers.adapters * widths.adapter
    return WireBytes(gathered=numbers.narrow * widths.narrow + numbers.wide * widths.wide + trained, reduced=trained)
