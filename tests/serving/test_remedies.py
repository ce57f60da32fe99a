"""What makes a server fit that does not, held against the forecasts that follow from it."""

from __future__ import annotations

import pytest

from perfmodel.exchange.questions.serving.asked_servers import asked_servers
from perfmodel.serving.remedies import serving_remedies


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
    narrow = [each for each in ("fp8", "int4") if asked_servers(model, gpu=gpu, precision=each)[0].may_run]
    assert found.get("precision") == next(iter(narrow), None)
