"""Servers that properties are tried on: any model that is served, on any GPU, under any engine."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from hypothesis import assume
from hypothesis import strategies as st

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import preset_names
from perfmodel.exchange.questions.serving.served_models import engine_preset, serving_setup, usual_cluster
from perfmodel.serving.law import served_load
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.fields import Numeric
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.serving.formats import CACHE_FORMATS, WEIGHT_FORMATS
from perfmodel.spec.serving.setup import Request, ServingSetup
from tests.properties.models import models

GPUS: Final = preset_names("serving")


class DrawnServer:
    """A server and a request; a failure shows what they are made of, not their numbers."""

    def __init__(self, setup: ServingSetup, request: Request, engine: str) -> None:
        self.setup, self.request, self.engine = setup, request, engine

    def __repr__(self) -> str:
        setup = self.setup
        formats = f"{setup.weights.name} weights, {setup.cache.name} cache"
        ways = f"tensor {setup.tensor_parallel}, experts {setup.expert_parallel}, replicas {setup.attention_replicas}"
        return f"{setup.model.name} on {setup.cluster.gpu.name} under {self.engine}, {formats}, {ways}, {self.request}"


@st.composite
def servers(draw: st.DrawFn) -> DrawnServer:
    """A replica that may exist, and a request of any lengths."""
    gpu, engine = draw(st.sampled_from(GPUS)), draw(st.sampled_from(preset_names("engines")))
    cluster, model = usual_cluster(gpu), draw(models())
    tensor = draw(st.sampled_from([1, 1, 2, 4, 8]))
    wanted: dict[str, Any] = {
        "precision": draw(st.sampled_from(["bf16", *WEIGHT_FORMATS])),
        "kv_precision": draw(st.sampled_from(["bf16", *CACHE_FORMATS])),
        "tensor_parallel": min(tensor, int(cluster.gpus_per_node)),
        "expert_parallel": draw(st.sampled_from([1, 1, 2])) if model.mixture is not None and tensor > 1 else 1,
        "attention_replicas": draw(st.sampled_from([1, 1, 2])) if tensor > 1 else 1,
    }
    request = Request(
        input_tokens=draw(st.sampled_from([1, 100, 1000, 5000, 30_000])), output_tokens=draw(st.sampled_from([1, 2, 100, 2000]))
    )
    for plain in (
        {},
        {"precision": "bf16"},
        {"kv_precision": "bf16"},
        {"tensor_parallel": 1, "expert_parallel": 1, "attention_replicas": 1},
    ):
        wanted |= plain
        try:
            setup = serving_setup(model, gpu=gpu, engine=engine_preset(engine).on(cluster.gpu), **wanted)
            served_load(setup, request, 1.0)
        except (InputError, NotSupportedError):
            continue
        return DrawnServer(setup, request, engine)
    assume(False)
    raise AssertionError


def with_gpu(setup: ServingSetup, **numbers: Numeric) -> ServingSetup:
    """The same on a GPU with other numbers."""
    return replace(setup, cluster=with_numbers(setup.cluster, {"gpu": with_numbers(setup.cluster.gpu, numbers)}))


def on(setup: ServingSetup, cluster: Cluster) -> ServingSetup:
    """The same on another machine."""
    return replace(setup, cluster=cluster)
