"""Does the model answer over a cache as it would without one, and as transformers does, with the operators of the forecast?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.count.serving.memory import sequence_bytes, weight_bytes
from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.model.generation.generator import Generator
from perfmodel.model.groups import one_rank
from perfmodel.model.operators import BETWEEN, Recorder, recording
from perfmodel.model.parts.router import Routing
from perfmodel.spec.models.layer_parts import Mixture
from perfmodel.spec.models.model import TransformerModel
from tests.model.networks import network_of
from tests.model.small_mixtures import DEEPSEEK, MIXTRAL, QWEN3_MOE, SLIDING_MIXTRAL, routing_of
from tests.model.small_models import GPT, LLAMA, NEMOTRON, ONE_RANK, QWEN, QWEN3, TIED_LLAMA, WINDOWS
from tests.model.weights import load, weights_of

MODELS = (NEMOTRON, LLAMA, TIED_LLAMA, GPT, QWEN, QWEN3, WINDOWS, MIXTRAL, QWEN3_MOE, SLIDING_MIXTRAL, DEEPSEEK)
RELATIVE = 1e-5  # of the largest logit
SEQUENCES, PROMPT, NEW = 3, 10, 9  # both longer than the windows of the small models


def tokens_of(model: TransformerModel, number: int) -> torch.Tensor:
    """Some tokens of some sequences."""
    chance = torch.Generator().manual_seed(5)
    return torch.randint(int(model.vocab_size), (SEQUENCES, number), generator=chance)


@pytest.fixture(params=MODELS, ids=lambda model: model.name)
def generator(request: pytest.FixtureRequest) -> Generator:
    """One of each family, with numbers that tell all of its parts apart."""
    model = request.param
    made = Generator(model, ONE_RANK, one_rank(), routing=routing_of(model))
    load(made.model, weights_of(network_of(model), model))
    return made


def test_logits_at_every_position_are_those_of_one_pass_without_a_cache(generator: Generator) -> None:
    """A prompt, and one token after the other behind it; in fp32 to within 1e-5 of the largest."""
    tokens = tokens_of(generator.spec, PROMPT + NEW)
    with torch.inference_mode():
        whole = generator.model.logits(tokens).view(PROMPT + NEW, SEQUENCES, -1)
    generator.make_room(SEQUENCES, PROMPT + NEW)
    found = [generator.prefill(tokens[:, :PROMPT])]
    found += [generator.decode(tokens[:, place]) for place in range(PROMPT, PROMPT + NEW)]
    difference = (torch.stack(found) - whole[PROMPT - 1 :]).abs().max()
    assert float(difference) <= RELATIVE * float(whole.abs().max())


def test_answers_are_those_of_transformers(generator: Generator) -> None:
    """Greedy, with their own cache, from the same weights."""
    model = generator.spec
    prompts = tokens_of(model, PROMPT)
    network = network_of(model).eval()
    with torch.inference_mode():
        theirs = network.generate(prompts, max_new_tokens=NEW, do_sample=False, use_cache=True, eos_token_id=None)
    assert torch.equal(generator.generate(prompts, NEW), theirs[:, PROMPT:])


def test_the_cache_and_the_weights_take_the_bytes_of_the_forecast() -> None:
    """In bf16, of every family; layers with a window hold no more than it."""
    for model in (replace(each, vocab_padding_multiple=64) for each in MODELS):
        generator = Generator(model, replace(ONE_RANK, precision="bf16"), one_rank())
        generator.make_room(SEQUENCES, PROMPT + NEW)
        setup = serving_setup(model, gpu="h100-sxm-80gb", engine="reference")
        assert generator.cache_bytes == SEQUENCES * float(sequence_bytes(setup, PROMPT + NEW)), model.name
        assert generator.weight_bytes == pytest.approx(float(weight_bytes(setup))), model.name


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_operators_of_both_passes_are_those_of_the_forecast(model: TransformerModel) -> None:
    """All of them, and no others."""
    generator = Generator(model, replace(ONE_RANK, precision="bf16"), one_rank(), routing=Routing(drawn=True))
    setup = serving_setup(model, gpu="h100-sxm-80gb", engine="reference")
    generator.make_room(SEQUENCES, PROMPT + NEW)
    prompts = tokens_of(model, PROMPT)
    with recording(Recorder(torch.device("cpu"))) as prefill:
        first = generator.likeliest(generator.prefill(prompts))
    with recording(Recorder(torch.device("cpu"))) as decode:
        generator.likeliest(generator.decode(first))
    passes = {
        "prefill": (prefill, ForwardPass(prompts=SEQUENCES, prompt_tokens=PROMPT)),
        "decode": (decode, ForwardPass(sequences=SEQUENCES, context=PROMPT + 1)),
    }
    for name, (recorder, tokens) in passes.items():
        forecast = {operator.name for operator in forward_operators(setup, tokens)}
        assert {label[0] for label in recorder.labels if label != BETWEEN} == forecast, name


def test_drawn_experts_are_met_as_often_as_the_forecast_has_it() -> None:
    """E*(1 - (1 - k/E)^R) of E experts by R tokens with k each, on average; all alike often."""
    model = replace(MIXTRAL, mixture=Mixture(experts=8, experts_per_token=2, ffn_hidden_size=48))
    generator = Generator(model, ONE_RANK, one_rank(), routing=Routing(drawn=True))
    router = generator.layers[0].mlp.router
    torch.manual_seed(1)
    chosen = [router.chosen_of(torch.zeros(3, 8))[1] for _ in range(2000)]
    met = sum(len(each.unique()) for each in chosen) / len(chosen)
    assert met == pytest.approx(8 * (1 - (1 - 2 / 8) ** 3), rel=0.02)
    often = torch.stack(chosen).flatten().bincount(minlength=8)
    assert int(often.max()) < 1.1 * int(often.min())


@pytest.mark.parametrize(
    ("model", "setting", "key"),
    [
        (LLAMA, {"pipeline_parallel": 2}, "pipeline_parallel"),
        (LLAMA, {"data_parallel": 2}, "data_parallel"),
        (LLAMA, {"precision": "fp8"}, "precision"),
        (MIXTRAL, {"tensor_parallel": 2}, "tensor_parallel"),
        (QWEN3, {"tensor_parallel": 4}, "tensor_parallel"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_generated_with_is_refused(model: TransformerModel, setting: dict[str, Any], key: str) -> None:
    """By the key that asks for it."""
    with pytest.raises(NotSupportedError) as error:
        Generator(model, replace(ONE_RANK, **setting), one_rank())
    assert error.value.key == key


def test_what_does_not_fit_into_the_cache_is_refused() -> None:
    """More tokens than it was made for, prompts after tokens, tokens before a prompt, and more than there are positions."""
    generator = Generator(GPT, ONE_RANK, one_rank())
    generator.make_room(SEQUENCES, PROMPT)
    with pytest.raises(InputError, match="empty cache"):
        generator.decode(tokens_of(GPT, 1)[:, 0])
    generator.prefill(tokens_of(GPT, PROMPT - 1))
    with pytest.raises(InputError, match="empty cache"):
        generator.prefill(tokens_of(GPT, 1))
    generator.decode(tokens_of(GPT, 1)[:, 0])
    with pytest.raises(InputError, match="0 more tokens"):
        generator.decode(tokens_of(GPT, 1)[:, 0])
    with pytest.raises(InputError, match="40 positions"):
        generator.make_room(1, 41)
