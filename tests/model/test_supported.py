"""What the reference model does not run is refused, never run as something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.model.supported import check_supported
from tests.layouts import RAMP_STAGE


@pytest.mark.parametrize("name", ["gemma-2-9b", "mistral-7b-v0.1"])
def test_layers_with_windows_are_not_run(name: str) -> None:
    """The forecast has them; a comparison would hold two models against each other."""
    with pytest.raises(NotSupportedError, match="layers of one kind, with full attention"):
        check_supported(model_preset(name), RAMP_STAGE)


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"norm": "layernorm_no_bias"}, "norm"),
        ({"position": "alibi"}, "position"),
        ({"pre_norms": False, "post_norms": True}, "pre_norms"),
        ({"post_norms": True}, "post_norms"),
        ({"parallel_residual": "two_norms"}, "parallel_residual"),
        ({"qk_norm": "head"}, "qk_norm"),
        ({"embedding_norm": True}, "embedding_norm"),
        ({"softcaps": ("logits",)}, "softcaps"),
        ({"scales": ("branches",)}, "scales"),
        ({"biases_of": ("head",)}, "biases_of"),
        ({"position": "learned", "max_positions": 4096, "spare_positions": 2}, "spare_positions"),
        ({"dropout": True}, "dropout"),
    ],
    ids=str,
)
def test_parts_that_the_reference_model_lacks_are_refused_by_their_key(parts: dict[str, Any], key: str) -> None:
    """A forecast of them is compared with no measurement of another model."""
    with pytest.raises(NotSupportedError, match=f"model.{key}: the reference model has"):
        check_supported(replace(model_preset("nemotron-4-15b"), **parts), RAMP_STAGE)


def test_biases_of_some_products_are_run() -> None:
    """Qwen2's of queries, keys and values."""
    check_supported(replace(model_preset("nemotron-4-15b"), biases_of=("qkv",), activation="relu"), RAMP_STAGE)
