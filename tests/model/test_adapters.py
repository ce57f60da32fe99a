"""Are adapters trained beside frozen linears as LoRA has it, with the parameters, states and activations of the forecast?"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from perfmodel.benchmarks.measure.steps.dry_run import dry_run
from perfmodel.count.iteration import iteration
from perfmodel.count.memory.needed import memory_bytes
from perfmodel.count.operators import saved_bytes
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import stack_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.model.groups import one_rank
from perfmodel.model.operators import BETWEEN, Recorder, recording
from perfmodel.model.parts.adapters import ALPHA, adapters_of, merge
from perfmodel.model.training.trainer import Trainer
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import FineTuning
from tests.model.small_mixtures import MIXTRAL
from tests.model.small_models import GPT, LLAMA, NEMOTRON, ONE_RANK, QWEN3
from tests.model.test_names import forecast_labels
from tests.model.test_saved_bytes import MODELS, WITHIN
from tests.setups import layer_of, setup_of

RANK = 4
BF16 = replace(ONE_RANK, precision="bf16")
STACK = stack_preset("reference")


def lora(*targets: str) -> FineTuning:
    """Adapters beside some linears, or beside all."""
    return FineTuning(training="lora", weights="bf16", adapter_rank=RANK, adapter_targets=targets, optimizer="adamw_fused")


def trainer_of(model: TransformerModel, tuning: FineTuning, layout: Layout = ONE_RANK) -> Trainer:
    """A rank that trains adapters."""
    return Trainer(model, layout, one_rank(), tuning=tuning)


@pytest.mark.parametrize("targets", [(), ("query", "value"), ("qkv",), ("gate", "fc2")])
def test_adapters_have_rank_times_both_sides(targets: tuple[str, ...]) -> None:
    """Of each linear that is named, r * (in + out); everything else is frozen."""
    trainer = trainer_of(LLAMA, lora(*targets))
    hidden, query, kv, ffn = (int(each) for each in (LLAMA.hidden_size, LLAMA.query_size, LLAMA.kv_size, LLAMA.ffn_hidden_size))
    sides = {
        "query": hidden + query,
        "key": hidden + kv,
        "value": hidden + kv,
        "qkv": hidden + query + 2 * kv,
        "projection": query + hidden,
        "gate": hidden + ffn,
        "fc1": hidden + ffn,
        "fc2": ffn + hidden,
    }
    chosen = targets or tuple(name for name in sides if name != "qkv")
    expected = int(LLAMA.layers) * RANK * sum(sides[name] for name in chosen)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert sum(each.into.numel() + each.out.numel() for each in adapters_of(trainer.model)) == expected
    assert all(".adapters." in name for name in trained)
    assert len(trained) == 2 * len(adapters_of(trainer.model)) == 2 * int(LLAMA.layers) * len(chosen)


@pytest.mark.parametrize("model", [NEMOTRON, LLAMA, GPT, QWEN3], ids=lambda model: model.name)
def test_a_step_changes_adapters_alone_and_merged_weights_compute_the_same(model: TransformerModel) -> None:
    """Before the first step the model is the one without adapters; after some, losses have fallen and the base is as it was."""
    trainer = trainer_of(model, lora())
    tokens, _ = trainer.micro_batches()[0]
    plain = Trainer(model, ONE_RANK, one_rank())
    with torch.no_grad():
        assert torch.equal(trainer.model.logits(tokens), plain.model.logits(tokens))
    before = {name: each.clone() for name, each in trainer.model.named_parameters()}
    batch = trainer.micro_batches()
    losses = [float(trainer.step(batch)) for _ in range(5)]
    assert losses[-1] < losses[0]
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(parameter, before[name]) != (".adapters." in name), name
    with torch.no_grad():
        adapted = trainer.model.logits(tokens)
        merge(trainer.model)
        assert not adapters_of(trainer.model)
        assert torch.allclose(trainer.model.logits(tokens), adapted, atol=1e-5)


def test_gradients_are_those_of_the_formula() -> None:
    """x W^T + s * (x A^T) B^T written out, by autograd; at a B that is not 0."""
    trainer = trainer_of(LLAMA, lora("projection"))
    linear = trainer.model.layers["0"].attention.projection
    (adapter,) = linear.adapters
    torch.manual_seed(1)
    adapter.out.data.normal_()
    x = torch.randn(6, linear.weight.shape[1], requires_grad=True)
    weigh = torch.randn(6, len(linear.weight))
    (linear(x) * weigh).sum().backward()
    found = (x.grad, adapter.into.main_grad, adapter.out.main_grad)
    inputs = [each.detach().clone().requires_grad_() for each in (x, adapter.into, adapter.out)]
    y = inputs[0] @ linear.weight.T + ALPHA * (inputs[0] @ inputs[1].T) @ inputs[2].T
    wanted = torch.autograd.grad((y * weigh).sum(), inputs)
    assert all(torch.allclose(ours, theirs, atol=1e-4) for ours, theirs in zip(found, wanted, strict=True))


@pytest.mark.parametrize("targets", [(), ("query", "value")])
@pytest.mark.parametrize("model", [NEMOTRON, LLAMA, GPT], ids=lambda model: model.name)
def test_parameters_gradients_and_states_take_the_bytes_of_the_forecast(
    model: TransformerModel, targets: tuple[str, ...]
) -> None:
    """Frozen in 16 bits; adapters, their gradients and both moments in fp32."""
    optimizer = trainer_of(model, lora(*targets), BF16).optimizer
    work = iteration(replace(setup_of(model, BF16, STACK), tuning=lora(*targets)))
    forecast = memory_bytes(work)
    assert optimizer.parameter_bytes == float(forecast.parameters_bytes)
    assert optimizer.state_bytes == float(forecast.optimizer_bytes)
    assert optimizer.gradient_bytes == float(forecast.gradients_bytes)
    adapters = sum(each.into.numel() + each.out.numel() for each in adapters_of(trainer_of(model, lora(*targets)).model))
    assert optimizer.gradient_bytes == 4 * adapters


def test_every_count_of_a_dry_run_is_that_of_the_forecast() -> None:
    """Parameters with adapters, bytes, FLOPs without gradients of frozen weights, on two replicas also what they send."""
    settings = {"training": "lora", "optimizer": "adamw_fused", "adapter_targets": "query value fc2", "sharding": "none"}
    for replicas in (1, 2):
        batch = f"stages=[{{data_parallel: {replicas}, global_batch_size: {replicas}}}]"
        run = read_candidates("laptop", (*(f"{key}={value}" for key, value in settings.items()), batch))[0].run
        counts = dry_run(run, run.stages[0])
        assert [each for each in counts if not each.equal] == []
        assert any("ranks" in each.what for each in counts) == (replicas > 1)


@pytest.mark.parametrize("targets", [(), ("query", "value"), ("projection", "fc2")])
@pytest.mark.parametrize("model", MODELS[:4], ids=lambda model: model.name)
def test_activations_take_what_the_forecast_says(model: TransformerModel, targets: tuple[str, ...]) -> None:
    """To within 2 %, as of training: inputs of linears with adapters, and what these make of them; of others nothing."""
    layout = replace(BF16, sequence_length=128, micro_batch_size=1, global_batch_size=1)
    trainer = trainer_of(model, lora(*targets), layout)
    tokens, _ = trainer.micro_batches()[0]
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        trainer.model.logits(tokens)
    held = {each.untyped_storage().data_ptr() for each in trainer.model.parameters()}
    found = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in held)
    work = iteration(replace(setup_of(model, layout, STACK), tuning=lora(*targets)))
    expected = saved_bytes(layer_of(work).again.forward) * model.layers + saved_bytes(work.head.forward)
    assert found == pytest.approx(float(expected), rel=WITHIN)


def test_operators_of_a_real_step_are_those_of_the_forecast() -> None:
    """All of them, and no others."""
    trainer = trainer_of(LLAMA, lora(), BF16)
    with recording(Recorder(torch.device("cpu"))) as recorder:
        trainer.step(trainer.micro_batches())
    assert set(recorder.labels) - {BETWEEN} == forecast_labels(LLAMA, BF16, tuning=lora())


@pytest.mark.parametrize(
    ("model", "tuning", "layout", "key"),
    [
        (LLAMA, replace(lora(), training="dora"), BF16, "training"),
        (LLAMA, lora(), replace(BF16, tensor_parallel=2), "tensor_parallel"),
        (LLAMA, replace(lora(), trained_parts=("norms",)), BF16, "trained_parts"),
        (MIXTRAL, lora("query"), BF16, "training"),
    ],
    ids=["dora", "tensor parallel", "norms", "experts"],
)
def test_other_fine_tunings_are_refused(model: TransformerModel, tuning: FineTuning, layout: Layout, key: str) -> None:
    """By the key that asks for them."""
    with pytest.raises(NotSupportedError) as error:
        trainer_of(model, tuning, layout)
    assert error.value.key == key
