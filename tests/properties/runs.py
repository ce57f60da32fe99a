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
from perfmodel.spec.run import TUNING, RampStage, Run
from perfmodel.spec.setup import Setup
from perfmodel.spec.tuning.fine_tuning import OF_ADAPTERS, TuningWork
from perfmodel.spec.tuning.rules import WITH_ADAPTERS
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
    "weights": {"weights": "usual"},
    "optimizer": {"optimizer": "adamw"},
    "offload": {"offload": ()},
    "cluster.gpu.host_bytes_per_s": {"offload": ()},
    "adapter_targets": {"adapter_targets": ()},
    "trained_parts": {"trained_parts": ()},
    "frozen_parts": {"frozen_parts": ()},
    "training": {"training": "full", "weights": "usual", "adapter_targets": (), "trained_parts": ()},
}  # fmt: skip
MOST_REPAIRS: Final = 16
RUN_DEFAULTS: Final = Run.__dataclass_fields__
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


def tuning_stacks() -> list[str]:
    """The stacks that fine-tune."""
    return [name for name in preset_names("stacks") if stack_preset(name).tuning is not None]


@st.composite
def tunings(draw: st.DrawFn, work: TuningWork) -> dict[str, Any]:
    """Settings of a fine-tuning that software has: what is trained, in which formats, by what, and what the host holds."""
    training = draw(st.sampled_from(work.trainings))
    offload = draw(st.sampled_from([(), *((each,) for each in work.offloads), work.offloads]))
    chosen: dict[str, Any] = {
        "training": training,
        "weights": draw(st.sampled_from(["usual", "usual", *work.weights])),
        "optimizer": draw(st.sampled_from(work.optimizers)),
        "offload": offload,
        **({"sharding": "zero3"} if "parameters" in offload else {}),
        **({"recompute": "full", "recompute_modules": (), "recompute_layers": None} if "activations" in offload else {}),
    }
    if training == "full":
        return chosen | {"frozen_parts": draw(st.sampled_from([(), ("embedding",), ("embedding", "head", "mlp")]))}
    targets = draw(st.sampled_from([(), ("query", "value"), ("fc2",)]))
    trained = draw(st.sampled_from([(), ("norms",), ("embedding", "head")]))
    return chosen | {"adapter_rank": draw(st.sampled_from([1, 8, 256])), "adapter_targets": targets, "trained_parts": trained}


def takes_adapters(model: TransformerModel) -> bool:
    """Whether every layer has linears that adapters go beside."""
    return all(kind.attention in WITH_ADAPTERS for kind in model.kinds.values())


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
        tuned = {name: value for name in TUNING if (value := getattr(self.run, name)) != RUN_DEFAULTS[name].default}
        return f"{model} on {self.cluster} under {self.stack}: {settings | tuned}"


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
    """A run that may exist, of three one that fine-tunes; `fixed` are settings that all of them have."""
    is_tuned = stack is None and draw(st.sampled_from([False, False, True]))
    names = {
        "cluster": draw(cluster or st.sampled_from(preset_names("clusters"))),
        "stack": draw(stack or st.sampled_from(tuning_stacks() if is_tuned else preset_names("stacks"))),
    }
    hardware, software = cluster_preset(names["cluster"]), stack_preset(names["stack"])
    assume(software.fusion.attention_library in hardware.gpu.attention_libraries)
    tuning = draw(tunings(software.tuning)) if is_tuned and software.tuning is not None else {}
    usual_models = models().filter(takes_adapters) if tuning.get("training") in OF_ADAPTERS else models()
    parts = {"model": draw(model or usual_models), "cluster": hardware, "stack": software}
    chosen: dict[str, Any] = {"name": "drawn", **parts, **draw(layouts()), **tuning, **fixed}
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
