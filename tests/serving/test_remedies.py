"""What makes a server fit that does not, held against the forecasts that follow from it."""

from __future__ import annotations

import pytest

from perfmodel.exchange.presets import preset_names
from perfmodel.exchange.questions.serving.asked_servers import asked_servers
from perfmodel.serving.remedies import serving_remedies
from perfmodel.spec.serving.formats import WEIGHT_FORMATS

EVERYWHERE = [each.name for each in WEIGHT_FORMATS.values() if each.everywhere]


@pytest.mark.parametrize("model", ["llama-3.1-70b", "llama-3.1-405b", "mixtral-8x22b", "deepseek-v3"])
@pytest.mark.parametrize("gpu", ["h100-sxm-80gb", "rtx-4090", "a100-sxm-40gb"])
def test_each_remedy_fits_and_the_one_before_it_does_not(model: str, gpu: str) -> None:
    """The fewest GPUs, the widest weights; and nothing is said where nothing helps."""
    (alone,) = asked_servers(model, gpu=gpu)
    assert not alone.may_run
    found = {each.setting: each.value for each in serving_remedies(alone.setup, alone.request)}
    most = int(alone.setup.cluster.gpus_per_node)
    divide = [each for each in range(2, most + 1) if alone.setup.model.attention_heads % each == 0]
    fit = [each for each in divide if asked_servers(model, gpu=gpu, tensor_parallel=each)[0].may_run]
    assert found.get("tensor_parallel") == min(fit, default=None)
    narrow = [each for each in EVERYWHERE[1:] if asked_servers(model, gpu=gpu, precision=each)[0].may_run]
    assert found.get("precision") == next(iter(narrow), None)


@pytest.mark.parametrize("precision", EVERYWHERE)
def test_what_is_offered_everywhere_is_refused_nowhere(precision: str) -> None:
    """By no engine, and on no GPU that serves."""
    asked = [("h100-sxm-80gb", engine) for engine in preset_names("engines") if engine != "reference"]
    asked += [(gpu, "vllm") for gpu in preset_names("serving") if gpu in preset_names("gpus")]
    assert len(asked) > 20
    for gpu, engine in asked:
        (forecast,) = asked_servers("llama-3.1-8b", gpu=gpu, engine=engine, precision=precision)
        assert forecast.setup.weights.name == precision
