"""Questions of a plan that several files of tests ask: a small model on one node, where nothing else is said."""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.errors import PerfmodelError
from perfmodel.exchange.questions.plan_arguments import PlanRequest, read_plan_request

MODEL = "llama-3.1-8b"


def ask(model: Any = MODEL, **wanted: Any) -> PlanRequest:
    """A question of a small model on one node, where nothing else is said."""
    defaults: dict[str, Any] = {"cluster": "dgx-h100", "gpus": 8}
    return read_plan_request(model, **(defaults | wanted))


def refusal(model: Any = MODEL, **wanted: Any) -> str:
    """The sentence that a question is refused with."""
    with pytest.raises(PerfmodelError) as caught:
        ask(model, **wanted)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence
