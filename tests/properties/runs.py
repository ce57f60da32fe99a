"""Runs that properties are tried on: any model, cluster, stack, precision and layout that may go together.

What is drawn may be refused. The refusal names the key that is in the way, which then takes its plainest value: so every
draw becomes a run, and no layout is left out that may exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from hypothesis import assume
from hypothesis import strategies as st

from perfmodel.errors import InputError, NotSupportedError
from perfmodel.exchange.presets import cluster_preset, model_preset, preset_names, stack_preset
from perfmodel.spec.layout import PIPELINE_SCHEDULES, SHARDINGS, Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.precision import PRECISIONS
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.setup import Setup
from tests.properties.models import models

PLAIN: Final[Mapping[str, Mapping[str, Any]]] = {  # by the key of a refusal, the settings that it cannot be about
    **{
        key: {key: value}
        for key, value in {
            "precision": "bf16", "tensor_parallel": 1, "pipeline_parallel": 1, "virtual_pipeline": 1, "context_parallel": 1,
            "expert_tensor_parallel": 1, "pipeline_schedule": "1f1b", "sequence_parallel": True, "sequence_length": 1024,
            "recompute_modules": (), "recompute_layers": None,
        }.items()
    },
    "recompute": {"recompute": "none", "recompute_modules": (), "recompute_layers": None},
    "expert_parallel": {"expert_parallel": 1, "expert_tensor_parallel": 1},
    "data_parallel_replicas": {"sharding": "zero1", "data_parallel_replicas": 1},
}  # fmt: skip
MOST_REPAIRS: Final = 12
DEGREES: Final = (1, 1, 2, 4, 8)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Settings of a run with one ramp stage, which may not go together with its model."""
    data, micro = draw(st.integers(1, 32)), draw(st.sampled_from([1, 1, 2, 4]))
    sharding = draw(st.sampled_from(SHARDINGS))
    recompute = draw(st.sampled_from(["none", "none", "selective", "full"]))
    pipeline = draw(st.sampled_from([1, 1, 2, 3, 4, 8]))
    chosen: dict[str, Any] = {
        "precision": draw(st.sampled_from(PRECISIONS)),
        "tensor_parallel": draw(st.sampled_from(DEGREES)),
        "pipeline_parallel": pipeline,
        "virtual_pipeline": draw(st.sampled_from([1, 1, 2, 3])) if pipeline > 1 else 1,
        "pipeline_schedule": draw(st.sampled_from(["1f1b", *PIPELINE_SCHEDULES])),
        "context_parallel": draw(st.sampled_from(DEGREES)),
        "expert_parallel": draw(st.sampled_from(DEGREES)),
        "expert_tensor_parallel": draw(st.sampled_from([1, 1, 2])),
        "expert_load": draw(st.sampled_from([1.0, 1.0, 1.3, 4.0])),
        "sequence_parallel": draw(st.booleans()),
        "sharding": sharding,
        "recompute": recompute,
        "micro_batch_size": micro,
        "sequence_length": draw(st.sampled_from([512, 1024, 4096, 8192, 32768])),
        "stages": (
            RampStage(
                data_parallel=data,
                global_batch_size=micro * data * pipeline * draw(st.integers(1, 6)),
                tokens=draw(st.sampled_from([None, 1e9, 8e12])),
            ),
        ),
    }
    if sharding == "hsdp":
        chosen["data_parallel_replicas"] = draw(
            st.sampled_from([each for each in range(2, data + 1) if data % each == 0] or [1])
        )
    if recompute == "full":
        chosen["recompute_layers"] = draw(st.sampled_from([None, 0, 1, 2]))
    if recompute == "selective":
        chosen["recompute_modules"] = draw(st.sampled_from([(), ("core_attn",), ("mlp", "layernorm")]))
    return chosen


class DrawnRun:
    """A run with one ramp stage, and the presets that it is made of: a failure shows these, not their numbers."""

    def __init__(self, run: Run, *, cluster: str, stack: str) -> None:
        self.run, self.cluster, self.stack = run, cluster, stack

    @property
    def setup(self) -> Setup:
        """What its ramp stage is predicted for."""
        (stage,) = self.run.stages
        return self.run.setup(stage)

    def __repr__(self) -> str:
        layout, plain = self.setup.layout, Layout.__dataclass_fields__
        settings = {name: getattr(layout, name) for name in plain if getattr(layout, name) != plain[name].default}
        model = self.run.model.name if self.run.model in map(model_preset, preset_names("models")) else self.run.model
        return f"{model} on {self.cluster} under {self.stack}: {settings}"


@st.composite
def runs(
    draw: st.DrawFn,
    /,
    *,
    model: st.SearchStrategy[TransformerModel] | None = None,
    cluster: st.SearchStrategy[str] | None = None,
    stack: st.SearchStrategy[str] | None = None,
    **fixed: Any,
) -> DrawnRun:
    """A run that may exist; `fixed` are settings that all of them have."""
    names = {
        "cluster": draw(cluster or st.sampled_from(preset_names("clusters"))),
        "stack": draw(stack or st.sampled_from(preset_names("stacks"))),
    }
    hardware, software = cluster_preset(names["cluster"]), stack_preset(names["stack"])
    assume(software.fusion.attention_library in hardware.gpu.attention_libraries)
    parts = {"model": draw(model or models()), "cluster": hardware, "stack": software}
    chosen: dict[str, Any] = {"name": "drawn", **parts, **draw(layouts()), **fixed}
    for _ in range(MOST_REPAIRS):
        try:
            return DrawnRun(Run(**chosen), **names)
        except (InputError, NotSupportedError) as error:
            plain = PLAIN.get(error.key, {})
            if plain.items() <= chosen.items() or plain.keys() & fixed.keys():
                break
            chosen |= plain
    assume(False)
    raise AssertionError
