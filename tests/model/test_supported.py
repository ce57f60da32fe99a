"""What the reference model does not run is refused, never run as something else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.presets import model_preset
from perfmodel.model.supported import check_supported
from perfmodel.spec.models.layer_kinds import LayerKind
from perfmodel.spec.models.layer_parts import GatedDelta, StateSpace
from tests.layouts import RAMP_STAGE
from tests.model.small_mixtures import MIXTRAL
from tests.model.small_models import LLAMA, ONE_RANK


def test_an_indexer_is_refused() -> None:
    """The rest of latent attention runs."""
    with pytest.raises(NotSupportedError, match=r"^model\.latent\.indexer: the reference model has no indexer"):
        check_supported(model_preset("glm-5"), ONE_RANK)


def test_layers_with_windows_are_run() -> None:
    """Mistral's, each of which meets 4,096 tokens."""
    check_supported(model_preset("mistral-7b-v0.1"), RAMP_STAGE)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (LayerKind(attention="mamba2"), "attention"),
        (LayerKind(attention="gated_delta"), "attention"),
        (LayerKind(attention="none"), "attention"),
        (LayerKind(attention="linear"), "attention"),
        (LayerKind(feed_forward="none"), "feed_forward"),
    ],
    ids=str,
)
def test_layers_of_other_kinds_are_refused_by_their_name(kind: LayerKind, key: str) -> None:
    """The forecast has them; a comparison would hold two models against each other."""
    state_space = StateSpace(heads=4, head_size=16, groups=1, state_size=16) if kind.attention == "mamba2" else None
    heads = {"key_heads": 4, "value_heads": 4, "key_head_size": 16, "value_head_size": 16}
    model = replace(
        LLAMA,
        layer_kinds={"plain": LayerKind(), "other": kind},
        layer_pattern=("plain", "other"),
        state_space=state_space,
        delta=GatedDelta(**heads) if kind.attention == "gated_delta" else None,
    )
    with pytest.raises(NotSupportedError, match=rf"^model\.layer_kinds\.other\.{key}: the reference model runs"):
        check_supported(model, ONE_RANK)


def test_layers_with_sizes_of_their_own_are_refused() -> None:
    """The forecast has them."""
    kinds = {"plain": LayerKind(), "narrow": LayerKind(ffn_hidden_size=32)}
    model = replace(LLAMA, layer_kinds=kinds, layer_pattern=("plain", "narrow"))
    with pytest.raises(NotSupportedError, match=r"^model\.layer_kinds\.narrow\.ffn_hidden_size: the reference model"):
        check_supported(model, ONE_RANK)


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ({"capacity_factor": 1.25}, "capacity_factor"),
        ({"latent_size": 16}, "latent_size"),
        ({"shared_gate": True, "shared_experts": 1, "shared_ffn_hidden_size": 32}, "shared_gate"),
    ],
    ids=str,
)
def test_experts_that_the_reference_model_lacks_are_refused_by_their_key(part: dict[str, Any], key: str) -> None:
    """Those that drop tokens, and those narrower than the stream."""
    assert MIXTRAL.mixture is not None
    with pytest.raises(NotSupportedError, match=rf"^model\.mixture\.{key}: the reference model has"):
        check_supported(replace(MIXTRAL, mixture=replace(MIXTRAL.mixture, **part)), ONE_RANK)


@pytest.mark.parametrize(
    ("layout", "key"),
    [
        ({"data_parallel": 2, "expert_tensor_parallel": 2}, "expert_tensor_parallel"),
        ({"pipeline_parallel": 2, "pipeline_schedule": "zb-h1"}, "pipeline_schedule"),
        ({"context_parallel": 2}, "context_parallel"),
        ({"data_parallel": 2, "expert_parallel": 2, "expert_load": 1.2}, "expert_load"),
        ({"tensor_parallel": 2}, "tensor_parallel"),
        ({"recompute": "selective", "recompute_modules": ("moe_act",)}, "recompute_modules"),
    ],
    ids=str,
)
def test_layouts_of_experts_that_are_not_run_are_refused_by_their_key(layout: dict[str, Any], key: str) -> None:
    """Experts that are cut, loads that are none of a router, tokens that every rank would send."""
    with pytest.raises(NotSupportedError, match=f"^{key}: "):
        check_supported(MIXTRAL, replace(ONE_RANK, **layout))


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        ({"norm": "layernorm_no_bias"}, "norm"),
        ({"position": "alibi"}, "position"),
        ({"pre_norms": False, "post_norms": True}, "pre_norms"),
        ({"post_norms": True}, "post_norms"),
        ({"parallel_residual": "two_norms"}, "parallel_residual"),
        ({"qk_norm": "head"}, "qk_norm"),
        ({"norm": "rmsnorm", "qk_norm": "width"}, "qk_norm"),
        ({"value_head_size": 8}, "value_head_size"),
        ({"sinks": True}, "sinks"),
        ({"attention_gate": True}, "attention_gate"),
        ({"multi_token_layers": 1}, "multi_token_layers"),
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
