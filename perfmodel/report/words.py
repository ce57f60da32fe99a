"""What settings of a layout and parts of an iteration and of memory are called, in tables, texts, figures and pages.

What belongs to an axis of parallelism follows from its row (spec/axes.py); all other words stand here, each once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from perfmodel.spec.axes import DATA, FILLING, PIPELINE, REPORTED, Axis


class Setting(NamedTuple):
    """A setting of a layout: its name where there is room, and where there is none; what its values count."""

    label: str
    short: str
    unit: str = ""

    @property
    def caption(self) -> str:
        """The name with what its values count, as it stands at an axis of a figure."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label


def _settings_of(axis: Axis) -> dict[str, Setting]:
    """The degree of an axis, and what belongs to it alone."""
    degree = {axis.name: Setting(axis.label, axis.short, axis.members)}
    if axis == PIPELINE:
        return degree | {"virtual_pipeline": Setting("virtual pipeline", "VP", "pieces of a stage")}
    if axis == DATA:
        return degree | {"data_parallel_replicas": Setting("copies of the shards", "copies")}
    return degree


_DEGREES: Final = {name: setting for axis in REPORTED for name, setting in _settings_of(axis).items()}
SETTINGS: Final = _DEGREES | {
    "micro_batch_size": Setting("micro-batch", "micro-batch", "sequences"),
    "recompute_layers": Setting("layers run again", "layers run again"),
    "recompute": Setting("recompute", "recompute"),
    "sharding": Setting("sharding", "sharding"),
    "pipeline_layout": Setting("pipeline layout", "pieces"),
    "recompute_modules": Setting("modules run again", "modules run again"),
    "expert_load": Setting("expert load", "expert load", "tokens of the busiest rank over their mean"),
    "stack.experts.dispatcher": Setting("dispatcher", "dispatcher"),
    "stack.experts.overlap": Setting("overlap of dispatch and combine", "dispatch beside"),
    "precision": Setting("precision", "precision"),
    "pipeline_schedule": Setting("pipeline schedule", "schedule"),
    "sequence_parallel": Setting("sequence parallel", "sequence parallel"),
    "gpus": Setting("GPUs", "GPUs"),
    "global_batch_size": Setting("global batch", "batch", "sequences"),
    "sequence_length": Setting("sequence", "sequence", "tokens"),
}
SHORT: Final = {name: setting.short for name, setting in SETTINGS.items()}
DEGREES: Final = {  # data parallelism differs between ramp stages, and stands in their names
    name: setting.label for name, setting in _DEGREES.items() if name != FILLING.name
}
SHORT_DEGREES: Final = {name: setting.short for name, setting in _DEGREES.items()}


def _parts_of(axis: Axis) -> dict[str, str]:
    """What of its messages is exposed, and where its ranks wait for each other, that wait."""
    exposed = {axis.exposed_part: f"exposed {axis.label}"}
    return exposed | ({axis.bubble_part: f"{axis.word} bubble"} if axis.bubble else {})


PARTS: Final = {  # of an iteration, by part of timing/breakdown.py
    "matmul_s": "matrix products",
    "attention_s": "attention",
    "memory_bound_s": "memory-bound operators",
    **{part: label for axis in REPORTED for part, label in _parts_of(axis).items()},
    "communication_slowdown_s": "SMs lost to communication",
    "launch_s": "waiting for launches",
    "unlisted_s": "unlisted work",
    "optimizer_s": "optimizer step",
    "offload_s": "waiting for the host",
    "rank_waiting_s": "waiting for other ranks",
}
MEMORY: Final = {  # of a GPU, by part of count/memory/needed.py
    "parameters_bytes": "parameters",
    "gradients_bytes": "gradients",
    "optimizer_bytes": "optimizer states",
    "activations_bytes": "activations",
    "loss_bytes": "logits and loss",
    "scratch_bytes": "scratch of the step",
    "workspaces_bytes": "library workspaces",
    "communication_bytes": "communication buffers",
    "framework_bytes": "framework",
    "fragmentation_bytes": "allocator margin",
}
LABELS: Final = PARTS | MEMORY
