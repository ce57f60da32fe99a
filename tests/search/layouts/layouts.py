"""Layouts of every kind that a prediction knows, for what must hold for all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from perfmodel.exchange.presets import cluster_preset, model_preset, stack_preset
from perfmodel.prediction import StagePrediction, predict_stage
from perfmodel.spec.layout import Layout
from tests.layouts import RAMP_STAGE
from tests.setups import setup_of

MODEL = model_preset("nemotron-4-15b")
CLUSTER = cluster_preset("dgx-h100")
PIPELINE = replace(RAMP_STAGE, pipeline_parallel=4, data_parallel=24)
LAYOUTS: dict[str, Layout] = {
    "dense": RAMP_STAGE,
    "fp8": replace(RAMP_STAGE, precision="fp8", micro_batch_size=2),
    "full recompute": replace(RAMP_STAGE, recompute="full"),
    "some layers": replace(RAMP_STAGE, recompute="full", recompute_layers=5),
    "selective": replace(RAMP_STAGE, recompute="selective", sequence_parallel=False, sharding="none"),
    "zero3": replace(RAMP_STAGE, tensor_parallel=1, data_parallel=768, global_batch_size=1536, sharding="zero3"),
    "hsdp": replace(RAMP_STAGE, sharding="hsdp", data_parallel_replicas=12),
    "context": replace(RAMP_STAGE, context_parallel=4, data_parallel=24),
    "pipeline": PIPELINE,
    "interleaved": replace(PIPELINE, virtual_pipeline=2),
    "zero bubble": replace(PIPELINE, pipeline_schedule="zb-h1"),
    "fp8 pipeline": replace(PIPELINE, precision="fp8", recompute="full", recompute_layers=3),
    "two stages": replace(PIPELINE, pipeline_parallel=2, data_parallel=48),
    "one GPU": replace(RAMP_STAGE, tensor_parallel=1, data_parallel=1, global_batch_size=4),
}
STACKS = ("megatron-core", "generic", "torchtitan-eager", "megatron-lm-2022", "ideal")


@cache
def predicted(layout: str, stack: str = "megatron-core") -> StagePrediction:
    """The prediction of one of them."""
    return predict_stage(setup_of(MODEL, LAYOUTS[layout], stack_preset(stack), cluster=CLUSTER))
