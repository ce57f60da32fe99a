"""Which stack preset the flags of Megatron-LM ask for, and what they change of it.

Kernels and coefficients are those of the preset; what overlaps, what travels and what is held is what the flags say: nothing
overlaps that is not asked to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from perfmodel.errors import InputError, shown
from perfmodel.exchange.translation.megatron.graph_scopes import graphed_parts

PRESET: Final = "megatron-core"
DETERMINISTIC: Final = "megatron-lm-2025"  # fitted on Megatron-LM's own tests, which run so
DEEPSPEED: Final = "megatron-deepspeed"
SIZES: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "float32": 4, "bfloat16": 2, "float16": 2, "torch.float32": 4}
SCALINGS: Final = {"delayed": "delayed", "tensorwise": "current"}
RECIPES: Final = {"mxfp8": "mxfp8", "blockwise": "fp8_blockwise", "custom": "fp8_custom"}
ATTENTION: Final[Mapping[str, Mapping[str, Any]]] = {
    "auto": {},
    "fused": {},
    "flash": {"stack.fusion.attention_library": "flash2"},
    "unfused": {"stack.fusion.attention": False},
    "local": {"stack.fusion.attention": False},
}
FUSED_LOSS: Final = {"stack.fusion.loss_forward_bytes": 22, "stack.fusion.loss_peak_bytes": 12}
NATIVE_LOSS: Final = {"stack.fusion.loss_forward_bytes": 30, "stack.fusion.loss_peak_bytes": 6}


Silent: TypeAlias = Callable[[str, str], None]


def software(facts: Mapping[str, Any], settings: Mapping[str, Any], silent: Silent) -> dict[str, Any]:
    """Settings of the stack and the precision; `silent` hears of each fact that is not given, and what is taken."""
    usual = str(facts.get("preset", PRESET))
    preset = DEEPSPEED if facts.get("deepspeed") else DETERMINISTIC if facts.get("deterministic") else usual
    is_pipelined = "stack.overlap.tensor_parallel" in settings
    result = {"stack.extends": preset, **dict(_precision(facts, silent)), **dict(_states(facts))}
    result |= {} if is_pipelined else {"stack.overlap.tensor_parallel": "backward"}
    result |= dict(_overlap(facts, settings, silent))
    result |= dict(_kernels(facts, settings)) | dict(_graphs(facts))
    return result


def _graphs(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What CUDA graphs replay: all, or the parts of layers that a scope names, where it names some."""
    if "graphs" not in facts:
        return
    scope = re.findall(r"[a-z_]+", str(facts.get("graphed", "")).lower().replace("cudagraphscope", ""))
    shared = bool(facts.get("shared_width")) and not facts.get("shared_beside")
    parts = sorted(graphed_parts(scope, shared_experts=shared))
    if facts["graphs"] == "none":
        yield "stack.host.cuda_graphs", False
    elif facts["graphs"] == "all" or not parts or "full_iteration" in scope:
        yield "stack.host.cuda_graphs", True
    else:
        yield "stack.host.graphed", " ".join(parts)


def _precision(facts: Mapping[str, Any], silent: Silent) -> Iterator[tuple[str, Any]]:
    wide = str(facts.get("precision") or ("bf16" if facts.get("bf16") else "fp16" if facts.get("fp16") else "fp32"))
    if facts.get("fp4_format"):
        yield "precision", str(facts.get("fp4_recipe", "nvfp4"))
        return
    if not facts.get("fp8_format") and not facts.get("has_fp8"):
        if wide == "fp32" and "precision" not in facts:
            silent("bf16", "it trains in fp32, as no other format is given")
        yield "precision", wide
        return
    recipe = str(facts.get("fp8_recipe", "delayed"))
    if "fp8_recipe" not in facts:
        silent("fp8_recipe", "delayed scaling is the default")
    yield "precision", RECIPES.get(recipe, "fp8")
    if recipe in SCALINGS:
        yield "stack.low_precision.scaling", SCALINGS[recipe]
    elif recipe not in RECIPES:
        raise InputError(f"{shown(recipe)} is none of {', '.join((*SCALINGS, *RECIPES))}", key="--fp8-recipe")


def _states(facts: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Gradients in 4 bytes unless they are reduced in bf16; masters and moments as wide as they are given."""
    if facts.get("deepspeed"):
        return
    gradients = 2 if facts.get("reduces_in_bf16") else 4
    is_aware = facts.get("precision_aware")
    if is_aware and facts.get("main_gradients"):
        gradients = _size(facts["main_gradients"], "--main-grads-dtype")
    yield "stack.states.gradient_bytes", gradients
    yield "stack.states.reduced_gradient_bytes", 2 if facts.get("reduces_in_bf16") else gradients
    if is_aware:
        flags = {
            "main_parameters": "--main-params-dtype",
            "first_moments": "--exp-avg-dtype",
            "second_moments": "--exp-avg-sq-dtype",
        }
        yield "stack.states.optimizer_bytes", sum(_size(facts.get(name, "fp32"), flag) for name, flag in flags.items())
    if str(facts.get("optimizer", "adam")) == "sgd":
        yield "stack.states.optimizer_bytes", 8


def _size(name: Any, flag: str) -> int:
    if str(name) not in SIZES:
        raise InputError(f"{shown(name)} is none of fp32, bf16, fp16, fp8", key=flag)
    return SIZES[str(name)]


def _overlap(facts: Mapping[str, Any], settings: Mapping[str, Any], silent: Silent) -> Iterator[tuple[str, Any]]:
    gradients, parameters = bool(facts.get("overlaps_gradients")), bool(facts.get("overlaps_parameters"))
    is_fsdp = bool(facts.get("torch_fsdp") or facts.get("megatron_fsdp"))
    hides = gradients or bool(facts.get("torch_fsdp"))
    yield "stack.overlap.data_parallel", hides
    if not hides:
        silent("overlaps_gradients", "nothing of data parallelism overlaps")
    elif not parameters and not is_fsdp and settings.get("sharding") != "none":
        silent("overlaps_parameters", "the gathering of parameters is predicted as if it overlapped too")
    if is_fsdp:
        yield "stack.overlap.bucket_rule", "layer"
    if size := facts.get("bucket_parameters"):
        yield from {"stack.overlap.bucket_parameters": size, "stack.overlap.bucket_parameters_per_rank": 0}.items()


def _kernels(facts: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    backend = str(facts.get("attention_backend", "auto")).removeprefix("AttnBackend.")
    if backend not in ATTENTION:
        raise InputError(f"{shown(backend)} is none of {', '.join(ATTENTION)}", key="--attention-backend")
    yield from ATTENTION[backend].items()
    is_local = facts.get("implementation") == "local"
    if is_local and backend == "auto":
        yield from (ATTENTION["flash"] if facts.get("flash_attention") else ATTENTION["unfused"]).items()
    if "fused_loss" in facts:
        yield from (FUSED_LOSS if facts["fused_loss"] else NATIVE_LOSS).items()
    unfused = "no_swiglu_fusion" if settings.get("model.activation") == "swiglu" else "no_gelu_fusion"
    if (facts.get(unfused) or facts.get("unfused_activation")) and settings.get("model.activation") in ("swiglu", "gelu"):
        yield "stack.fusion.activation", False
