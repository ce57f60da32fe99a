"""What the reference model runs: the rest is refused by name, never run as something else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch

from perfmodel.errors import NotSupportedError
from perfmodel.spec.axes import AXES, DATA, EXPERT, PIPELINE, TENSOR
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.layer_parts import LatentAttention, Mixture
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import FineTuning

DTYPES: Final = {"bf16": torch.bfloat16, "fp32": torch.float32}
SPREAD_OVER: Final = (TENSOR, DATA, PIPELINE, EXPERT)  # axes of parallelism that the model has
PARTS: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {  # field of a model -> what runs here of it, and a sentence
    "norm": (("rmsnorm", "layernorm"), "RMS norms, and layer norms with weight and bias"),
    "position": (("rotary", "learned", "none"), "rotary and learned positions, and no biases of scores (ALiBi)"),
    "pre_norms": ((True,), "a norm before each part of a layer"),
    "post_norms": ((False,), "no norms behind the parts of a layer"),
    "parallel_residual": (("none",), "attention and MLP one after the other, not beside each other"),
    "qk_norm": (("none", "head"), "norms of queries and keys by head alone"),
    "embedding_norm": ((False,), "no norm behind the embedding"),
    "softcaps": (((),), "no soft caps"),
    "scales": (((),), "no constant factors"),
    "dropout": ((False,), "no dropout"),
    "spare_positions": ((0,), "no learned positions that are never used"),
    "value_head_size": ((None,), "values of the size of its queries and keys"),
    "sinks": ((False,), "no sinks in the softmax of its heads"),
    "attention_gate": ((False,), "no gates of its heads"),
    "kv": (("own",), "keys and values out of products of their own"),
    "layer_embedding_size": ((0,), "no embeddings of layers"),
    "multi_token_layers": ((0,), "no layers that predict further tokens"),
}
PARTS_OF_EXPERTS: Final[Mapping[str, tuple[tuple[object, ...], str]]] = {
    "shared_gate": ((False,), "no gate of shared experts"),
    "own_norms": ((False,), "no norms of experts"),
    "latent_size": ((None,), "experts as wide as the stream"),
    "capacity_factor": ((None,), "experts that take all tokens, without a capacity"),
}
PARTS_OF_LAYERS: Final[Mapping[str, tuple[str, ...]]] = {
    "attention": ("full", "sliding", "latent"),
    "feed_forward": ("dense", "experts"),
}


def check_supported(model: TransformerModel, layout: Layout, tuning: FineTuning | None = None) -> None:
    """Raise NotSupportedError for what the reference model does not run."""
    _check_parts(model)
    if tuning is not None:
        _check_tuning(model, layout, tuning)
    for axis in AXES:
        if axis not in SPREAD_OVER and layout.degree(axis) > 1:
            raise NotSupportedError(f"the reference model runs {axis.name} 1, not {layout.degree(axis)}", key=axis.name)
    if layout.pipeline_schedule != "1f1b":
        sentence = f"the reference model runs 1f1b, plain or interleaved (virtual_pipeline), not {layout.pipeline_schedule}"
        raise NotSupportedError(sentence, key="pipeline_schedule")
    if layout.precision not in DTYPES:
        raise NotSupportedError(f"the reference model runs {' and '.join(DTYPES)}, not {layout.precision}", key="precision")
    if layout.sharding not in ("none", "zero1"):
        raise NotSupportedError(f"the reference model runs sharding none and zero1, not {layout.sharding}", key="sharding")
    if layout.recompute_modules:
        sentence = f"the reference model runs the core of attention again, and not {', '.join(layout.recompute_modules)} alone"
        raise NotSupportedError(sentence, key="recompute_modules")
    if layout.expert_load > 1:
        sentence = f"the reference model deals tokens out evenly, and has no expert_load of {layout.expert_load:g}"
        raise NotSupportedError(sentence, key="expert_load")
    if layout.tensor_parallel > 1:
        _check_tensor_parallel(model, layout)


def _check_tuning(model: TransformerModel, layout: Layout, tuning: FineTuning) -> None:
    """Raise NotSupportedError for a fine-tuning that the reference model does not run."""
    if tuning.training != "lora":
        raise NotSupportedError(f"the reference model trains adapters (lora), and not {tuning.training}", key="training")
    for key, has in (("trained_parts", tuning.trained_parts), ("offload", tuning.offload)):
        if has:
            raise NotSupportedError("the reference model trains adapters alone, and offloads nothing", key=key)
    for axis in AXES:
        if axis is not DATA and layout.degree(axis) > 1:
            sentence = f"the reference model trains adapters on data-parallel ranks alone, not with {axis.name} "
            raise NotSupportedError(f"{sentence}{layout.degree(axis)}", key=axis.name)
    if model.mixture is not None or model.latent is not None:
        raise NotSupportedError("the reference model has adapters beside grouped queries and dense MLPs alone", key="training")


def check_generates(model: TransformerModel, layout: Layout) -> None:
    """Raise NotSupportedError for what the reference model does not generate with, beyond what it does not train."""
    _check_parts(model)
    for axis in AXES:
        if axis is not TENSOR and layout.degree(axis) > 1:
            sentence = f"the reference model generates on one tensor-parallel group, not with {axis.name} {layout.degree(axis)}"
            raise NotSupportedError(sentence, key=axis.name)
    if layout.precision not in DTYPES:
        raise NotSupportedError(f"the reference model runs {' and '.join(DTYPES)}, not {layout.precision}", key="precision")
    if layout.tensor_parallel > 1 and model.mixture is not None:
        sentence = (
            "the reference model generates with experts on one rank: its ranks hold whole experts, engines cut each of them"
        )
        raise NotSupportedError(sentence, key="tensor_parallel")
    if layout.tensor_parallel > 1 and model.kv_heads % layout.tensor_parallel:
        sentence = (
            f"{layout.tensor_parallel} ranks would hold copies of {model.kv_heads} KV heads; the reference model has none"
        )
        raise NotSupportedError(sentence, key="tensor_parallel")


def _check_tensor_parallel(model: TransformerModel, layout: Layout) -> None:
    """Raise NotSupportedError for what several ranks cannot share, or would add up in other places than the forecast has it."""
    problem = ""
    if model.kv_heads % layout.tensor_parallel:
        problem = f"{layout.tensor_parallel} ranks would hold copies of {model.kv_heads} KV heads; the reference model has none"
    elif not layout.sequence_parallel:
        alone = {
            "experts": model.mixture,
            "latent attention": model.latent,
            "norms of queries and keys": model.qk_norm != "none",
        }
        what = " and ".join(name for name, part in alone.items() if part)
        problem = what and f"the reference model runs {what} on several tensor-parallel ranks with sequence_parallel alone"
    if problem:
        raise NotSupportedError(problem, key="tensor_parallel")


def _check_kinds(model: TransformerModel) -> None:
    """Raise NotSupportedError for a kind of layer that the reference model does not have."""
    for name, kind in model.kinds.items():
        for part, known in PARTS_OF_LAYERS.items():
            if (found := getattr(kind, part)) not in known:
                sentence = f"the reference model runs {', '.join(known)}, and no layers with {part} {found}"
                raise NotSupportedError(sentence, key=f"model.layer_kinds.{name}.{part}")
        for field in kind.own:
            sentence = "the reference model has layers of one size, and none of their own"
            raise NotSupportedError(sentence, key=f"model.layer_kinds.{name}.{field}")


def _check_parts(model: TransformerModel) -> None:
    """Raise NotSupportedError for a part of a model that the reference model does not have."""
    _check_kinds(model)
    for field, (run, sentence) in PARTS.items():
        if getattr(model, field) not in run:
            raise NotSupportedError(f"the reference model has {sentence}", key=f"model.{field}")
    if model.has_bias("head"):
        raise NotSupportedError("the reference model has no bias in its head", key="model.biases_of")
    if model.qk_norm != "none" and model.norm != "rmsnorm":
        raise NotSupportedError("the reference model has RMS norms of queries and keys alone", key="model.qk_norm")
    if model.latent is not None:
        _check_latent(model, model.latent)
    if model.mixture is not None:
        _check_experts(model, model.mixture)


def _check_latent(model: TransformerModel, latent: LatentAttention) -> None:
    if model.has_bias("qkv") or model.has_bias("projection"):
        raise NotSupportedError("the reference model has no biases in latent attention", key="model.biases_of")
    if latent.indexer is not None:
        raise NotSupportedError("the reference model has no indexer in latent attention", key="model.latent.indexer")


def _check_experts(model: TransformerModel, mixture: Mixture) -> None:
    for field, (run, sentence) in PARTS_OF_EXPERTS.items():
        if getattr(mixture, field) not in run:
            raise NotSupportedError(f"the reference model has {sentence}", key=f"model.mixture.{field}")
    if model.has_bias("mlp"):
        raise NotSupportedError("the reference model has no biases in experts", key="model.biases_of")
