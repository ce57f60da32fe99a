"""Do tensor-parallel ranks answer as one does, with the messages, weights and caches of the forecast?"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from perfmodel.count.operators import Collective
from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.count.serving.memory import sequence_bytes, weight_bytes
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.model.groups import one_rank
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.setup import ServingSetup
from tests.model.conftest import Outcomes
from tests.model.generated import GENERATED, NEW, PROMPT, SEQUENCES, answer

RANKS = 2
WIDER = 2  # the tests run in fp32, which takes twice the bytes of what is forecast


def found_by(outcomes: Outcomes, model: TransformerModel) -> list[dict[str, Any]]:
    """What both ranks answered."""
    outcomes.of(RANKS)
    files = [outcomes.folder / str(RANKS) / f"answers-{rank}.json" for rank in range(RANKS)]
    return [json.loads(file.read_text())[model.name] for file in files]


def setup_of(model: TransformerModel) -> ServingSetup:
    """The forecast of both ranks; the vocabulary is padded as the small models have it."""
    setup = serving_setup(model, gpu="h100-sxm-80gb", engine="reference", tensor_parallel=RANKS)
    return replace(setup, model=model)


@pytest.mark.ranks
@pytest.mark.parametrize("model", GENERATED, ids=lambda model: model.name)
def test_ranks_answer_as_one_does(outcomes: Outcomes, model: TransformerModel) -> None:
    """The same tokens everywhere."""
    alone = answer(model, one_rank())
    assert [each["tokens"] for each in found_by(outcomes, model)] == [alone["tokens"]] * RANKS


@pytest.mark.ranks
@pytest.mark.parametrize("model", GENERATED, ids=lambda model: model.name)
def test_messages_weights_and_caches_are_those_of_the_forecast(outcomes: Outcomes, model: TransformerModel) -> None:
    """Calls and bytes of both passes, and what a rank holds."""
    setup = setup_of(model)
    passes = {
        "prefill": ForwardPass(prompts=SEQUENCES, prompt_tokens=PROMPT),
        "decode": ForwardPass(sequences=SEQUENCES, context=PROMPT + 1),
    }
    for seen in found_by(outcomes, model):
        assert seen["cache_bytes"] == WIDER * SEQUENCES * float(sequence_bytes(setup, PROMPT + NEW))
        assert seen["weight_bytes"] == WIDER * float(weight_bytes(setup))
        for name, tokens in passes.items():
            calls: dict[str, list[float]] = {}
            for operator in forward_operators(setup, tokens):
                if isinstance(operator, Collective):
                    total = calls.setdefault(operator.kind, [0.0, 0.0])
                    total[0] += float(operator.repeats)
                    total[1] += WIDER * float(operator.repeats * operator.payload_bytes)
            assert {kind: figures for kind, _, *figures in seen[name]} == calls, name
