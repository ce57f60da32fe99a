"""Is every operator of a pass listed with the time that it has in the pass, and is said how sure that is?"""

from __future__ import annotations

import pytest

from perfmodel.count.serving.forward_pass import ForwardPass, ServedProduct
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import PARTS, pass_time
from perfmodel.timing.serving.served_operators import served_ledger

PASSES = {
    "decode": ForwardPass(sequences=16.0, context=2000.0),
    "prefill": ForwardPass(prompts=2.0, prompt_tokens=1500.0),
    "both": ForwardPass(sequences=8.0, context=900.0, prompts=1.0, prompt_tokens=700.0),
}


def setup(model: str = "llama-3.1-8b", gpu: str = "h100-sxm-80gb", **settings: object) -> ServingSetup:
    """One server."""
    return serving_setup(model, gpu=gpu, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PASSES)
@pytest.mark.parametrize(
    "server", [setup(tensor_parallel=2), setup("qwen3-235b-a22b", tensor_parallel=8, precision="fp8", expert_parallel=8)]
)
def test_operators_add_up_to_the_device_time_of_the_pass(name: str, server: ServingSetup) -> None:
    """All but the host."""
    entries = served_ledger(server, PASSES[name])
    whole = pass_time(server, PASSES[name])
    device_s = sum(float(getattr(whole, part)) for part in PARTS if part != "host_s")
    assert sum(float(each.repeats * each.seconds) for each in entries) == pytest.approx(device_s)


def words(server: ServingSetup, tokens: ForwardPass) -> dict[str, str]:
    """How sure each operator is, by its name."""
    return {each.operator.name: each.confidence for each in served_ledger(server, tokens)}


def test_products_with_few_rows_are_as_sure_as_the_tables_of_the_gpu() -> None:
    """Interpolated up to the rows of the table, extrapolated beyond it and from another chip; experts, by engine."""
    few, more = PASSES["decode"], ForwardPass(sequences=96.0, context=100.0)
    assert words(setup(), few)["layer.mlp.fc1"] == "interpolated"
    assert words(setup(), more)["layer.mlp.fc1"] == "extrapolated"
    assert words(setup(gpu="h100-pcie-80gb"), few)["layer.mlp.fc1"] == "extrapolated"
    for engine, word in (("vllm", "interpolated"), ("transformers", "datasheet")):
        experts = words(setup("qwen3-235b-a22b", tensor_parallel=8, engine=engine), few)
        assert experts["layer.mlp.fc1"] == word


def test_products_with_many_rows_are_as_sure_as_the_kernels_of_training() -> None:
    """The law that takes the time is that of large products, also on a chip whose small ones are carried over."""
    entries = served_ledger(setup(gpu="h100-pcie-80gb"), PASSES["prefill"])
    found = {each.operator.name: each for each in entries if isinstance(each.operator, ServedProduct)}
    own = setup(gpu="h100-pcie-80gb").cluster.gpu.matmul("bf16").evidence.basis
    assert found["layer.mlp.fc1"].confidence == ("interpolated" if own == "measured" else "extrapolated")
