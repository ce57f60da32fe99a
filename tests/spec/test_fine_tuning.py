"""What a fine-tuning may be, and what software has of it."""

from __future__ import annotations

from typing import Any

import pytest

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.spec.tuning.optimizers import OPTIMIZERS, optimizer
from tests.tunings import tuned_run


def test_a_run_that_says_nothing_is_no_fine_tuning() -> None:
    """All of the model is trained, as its stack does."""
    assert tuned_run(training="pretraining").fine_tuning is None


@pytest.mark.parametrize(("training", "weights"), [("full", "stack"), ("lora", "bf16"), ("dora", "bf16"), ("qlora", "nf4-dq")])
def test_usual_weights_follow_from_the_training(training: str, weights: str) -> None:
    """What is frozen is in 16 bits, or in nf4 with double quantisation."""
    stack = "hf-deepspeed" if training == "full" else "hf-peft"
    tuning = tuned_run(training=training, stack=stack).fine_tuning
    assert tuning is not None
    assert tuning.weights == weights


@pytest.mark.parametrize(
    ("settings", "key", "error"),
    [
        ({"training": "pretraining", "optimizer": "sgd"}, "optimizer", InputError),
        ({"stack": "megatron-core"}, "training", NotSupportedError),
        ({"stack": "torchtune", "weights": "fp16"}, "weights", NotSupportedError),
        ({"stack": "unsloth", "training": "dora"}, "training", NotSupportedError),
        ({"training": "full", "weights": "nf4"}, "weights", InputError),
        ({"training": "qlora", "weights": "bf16"}, "weights", InputError),
        ({"frozen_parts": "head"}, "frozen_parts", InputError),
        ({"training": "full", "weights": "bf16", "trained_parts": "head"}, "trained_parts", InputError),
        (
            {"training": "full", "weights": "bf16", "frozen_parts": "embedding head attention mlp norms"},
            "frozen_parts",
            InputError,
        ),
        ({"tensor_parallel": 2}, "tensor_parallel", NotSupportedError),
        ({"precision": "fp32"}, "precision", NotSupportedError),
        ({"offload": "parameters"}, "offload", InputError),
        ({"offload": "activations", "recompute": "none"}, "offload", InputError),
        ({"model": "mixtral-8x7b", "adapter_targets": "fc1"}, "adapter_targets", NotSupportedError),
        ({"adapter_targets": "qkv query"}, "adapter_targets", InputError),
        ({"optimizer": "muon"}, "optimizer", NotSupportedError),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(settings: dict[str, Any], key: str, error: type[Exception]) -> None:
    """One sentence, about the very key."""
    with pytest.raises(error) as caught:
        tuned_run(**settings)
    assert getattr(caught.value, "key", "").endswith(key)


def test_names_of_other_software_are_told() -> None:
    """PEFT calls the linears of queries q_proj."""
    with pytest.raises(InputError, match="it is called query here"):
        tuned_run(adapter_targets="q_proj")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_optimizer_keeps_more_than_adam_in_fp32(name: str) -> None:
    """Two moments of 4 bytes are the most."""
    assert optimizer(name).bytes_of_state(4.0) <= optimizer("adamw").bytes_of_state(4.0) == 8.0
