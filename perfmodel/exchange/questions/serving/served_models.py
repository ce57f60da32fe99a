"""What people say of a server (a model, a GPU, an engine, formats, numbers) as one setup."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import cluster_preset, expand_part, gpu_preset, preset_names, preset_path
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.formats import cache_format, weight_format
from perfmodel.spec.serving.profile import ServingProfile
from perfmodel.spec.serving.setup import ServingSetup

USUAL_ENGINE: Final = "vllm"
SERVED_VOCABULARY_MULTIPLE: Final = 64  # vLLM, DEFAULT_VOCAB_PADDING_SIZE


@cache
def engine_preset(name: str) -> Engine:
    """The shipped engine called `name`. Errors: InputError with a did-you-mean."""
    return build(Engine, expand_part(Engine, "engines", name))


def serving_profile(gpu: str) -> ServingProfile:
    """Kernels of serving on the GPU called so, or on the machine that `perfmodel calibrate` wrote to a file.

    Errors: InputError with a did-you-mean; NotSupportedError for a machine of which none were measured.
    """
    return own_profile(cluster_preset(gpu)) if _is_file(gpu) else _shipped_profile(gpu)


def own_profile(cluster: Cluster) -> ServingProfile:
    """Kernels of serving of a cluster: those that were measured on it, or those of its GPU. Errors: NotSupportedError."""
    if cluster.gpu.serving is not None:
        return cluster.gpu.serving
    for name in preset_names("serving"):
        if gpu_preset(name).name == cluster.gpu.name:
            return _shipped_profile(name)
    measured = "perfmodel calibrate -o here.yaml measures them on this machine"
    raise NotSupportedError(f"no kernels of serving are known of {cluster.gpu.name}; {measured}", key="cluster")


def _is_file(gpu: str) -> bool:
    return Path(gpu).suffix.lower() in FILE_SUFFIXES


@cache
def _shipped_profile(gpu: str) -> ServingProfile:
    preset_path("gpus", gpu)
    return build(ServingProfile, expand_part(ServingProfile, "serving", gpu))


def usual_cluster(gpu: str) -> Cluster:
    """The machine that a GPU usually stands in, with the very GPU; or the one in a file."""
    return cluster_preset(gpu) if _is_file(gpu) else _usual_cluster(gpu)


@cache
def _usual_cluster(gpu: str) -> Cluster:
    cluster = cluster_preset(_shipped_profile(gpu).cluster)
    return cluster if cluster.gpu == (own := gpu_preset(gpu)) else with_numbers(cluster, {"gpu": own})


@cache
def _model(name: str) -> TransformerModel:
    return served(build(TransformerModel, expand_part(TransformerModel, "models", name)))


def served(model: TransformerModel) -> TransformerModel:
    """The model as engines hold it: the vocabulary is padded to 64, and layers that predict further tokens are left out."""
    return with_numbers(model, {"vocab_padding_multiple": SERVED_VOCABULARY_MULTIPLE, "multi_token_layers": 0})


def serving_setup(
    model: str | TransformerModel | Mapping[str, Any],
    *,
    gpu: str,
    engine: str | Engine = USUAL_ENGINE,
    precision: str = "bf16",
    kv_precision: str = "bf16",
    tensor_parallel: int = 1,
    attention_replicas: int = 1,
    expert_parallel: int = 1,
) -> ServingSetup:
    """One replica. Errors: InputError for a name that is not known, with a did-you-mean, and for degrees that do not divide."""
    if isinstance(model, str):
        model = _model(model)
    elif isinstance(model, Mapping):
        model = served(build(TransformerModel, expand_part(TransformerModel, "models", model)))
    cluster = usual_cluster(gpu)
    if tensor_parallel > cluster.gpus_per_node:
        most = int(cluster.gpus_per_node)
        raise InputError(f"{tensor_parallel} GPUs are more than the {most} of one node", key="tensor_parallel")
    return ServingSetup(
        model=model,
        cluster=cluster,
        profile=serving_profile(gpu),
        engine=engine_preset(engine).on(cluster.gpu) if isinstance(engine, str) else engine,
        weights=weight_format(precision),
        cache=cache_format(kv_precision),
        tensor_parallel=tensor_parallel,
        attention_replicas=attention_replicas,
        expert_parallel=expert_parallel,
    )
