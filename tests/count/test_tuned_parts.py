"""What becomes of each part of a fine-tuned model, and what travels to its host, in sums by hand."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import pytest

from perfmodel.count.iteration import iteration
from perfmodel.count.parameters import ParameterCount, parameter_count
from perfmodel.count.tuning.offload import host_traffic
from perfmodel.count.tuning.trained import optimizer_state_bytes, tuned_numbers
from perfmodel.exchange.presets import model_preset
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.tuning.fine_tuning import FineTuning
from perfmodel.timing.offload import offload_breakdown
from tests.tunings import tuned_setup

LLAMA = model_preset("llama-3.1-8b")
P = 8_030_261_248
HELD = ParameterCount(embedding=1, positions=2, attention=4, mlp=8, experts=16, norms=32, head=64, replicated=0)


@pytest.mark.parametrize(
    ("trained", "own"), [("embedding", 1 + 2), ("head", 64), ("attention", 4), ("mlp", 8 + 16), ("norms", 32), ("mlp head", 88)]
)
def test_parts_are_trained_with_all_that_belongs_to_them(trained: str, own: int) -> None:
    """Positions with the embedding, experts with MLPs; the rest is frozen, what is quantised in few bits."""
    tuning = FineTuning(training="qlora", weights="nf4", adapter_targets=("query",), trained_parts=tuple(trained.split()))
    found = tuned_numbers(LLAMA, HELD, {"": 0}, tuning)
    narrow = sum(size for part, size in (("attention", 4), ("mlp", 24)) if part not in trained.split())
    assert (found.own, found.narrow, found.wide) == (own, narrow, 127 - own - narrow)
    assert found.trained == own


def test_adapters_lie_beside_the_linears_of_every_kind_of_layer() -> None:
    """Three layers of one kind and five of another, 8 * (h + h) each."""
    kinds = MappingProxyType({"local": LayerKind(attention="sliding", window=4096), "global": LayerKind()})
    model = replace(LLAMA, layer_kinds=kinds, layer_pattern=("local", "global"))
    tuning = FineTuning(training="lora", weights="bf16", adapter_rank=8, adapter_targets=("query",))
    found = tuned_numbers(model, HELD, {"local": 3, "global": 5}, tuning)
    assert found.adapters == (3 + 5) * 8 * (4096 + 4096)
    assert found.trained == found.adapters


@pytest.mark.parametrize(("hidden", "small"), [(4096, 0), (4095, 65 * 4095)])
def test_norms_of_narrow_models_keep_their_states_in_fp32(hidden: int, small: int) -> None:
    """Tensors below 4096 numbers, of 8-bit optimizers with blocks: two moments of 4 bytes, all others of a byte and a scale."""
    setup = tuned_setup(training="full", weights="bf16", optimizer="adamw_8bit")
    assert setup.tuning is not None
    narrow = replace(setup, model=replace(setup.model, hidden_size=hidden))
    held = parameter_count(narrow.model)
    numbers = tuned_numbers(narrow.model, held, {"": 32}, setup.tuning)
    assert numbers.small == small
    expected = (held.total - small) * 2 * (1 + 4 / 256) + small * 2 * 4
    assert optimizer_state_bytes(narrow, numbers, setup.tuning) == pytest.approx(expected, rel=1e-12)
    wide = replace(setup.tuning, optimizer="adamw")
    assert optimizer_state_bytes(narrow, numbers, wide) == held.total * 2 * 2
    frozen = replace(setup.tuning, frozen_parts=("norms",))
    assert tuned_numbers(narrow.model, held, {"": 32}, frozen).small == 0


def test_all_that_the_host_holds_travels_side_by_side() -> None:
    """A rank's half of 16-bit parameters and inputs of 32 layers each way; gradients there and parameters back for a step."""
    setup = tuned_setup(training="full", weights="bf16", gpus=2, sharding="zero3", offload="parameters activations optimizer")
    assert setup.tuning is not None
    traffic = host_traffic(iteration(setup), setup.tuning)
    kept = 32 * 2 * 2048 * 4096
    assert (traffic.forward, traffic.backward) == (P + kept, P + kept)
    assert (traffic.step, traffic.host) == (P / 2 * (2 + 2), P / 2 * 28)


def test_transfers_are_exposed_with_every_micro_batch_and_the_step_once() -> None:
    """Three times what is left of both passes."""
    setup = tuned_setup(training="lora", offload="activations", micro_batches=3)
    link = setup.cluster.gpu.host_bytes_per_s
    assert link is not None
    once_s = 32 * 2 * 2048 * 4096 / float(link)
    work = iteration(setup)
    found = offload_breakdown(work, setup.cluster, forward_s=once_s / 4, backward_s=once_s / 2)
    assert float(found.offload_s) == pytest.approx(3 * (0.75 + 0.5) * once_s, rel=1e-12)
