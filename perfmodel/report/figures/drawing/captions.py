"""What stands above and below a figure: which run and stage it shows, and what the numbers come from."""

from __future__ import annotations

from typing import Final

import numpy as np

from perfmodel import __version__
from perfmodel.report.figures.drawing.lettering import shortened
from perfmodel.report.figures.drawing.style import SMALL, TEXT
from perfmodel.report.text.prediction import layout_words
from perfmodel.report.text.sweep import heading
from perfmodel.report.words import DEGREES, SETTINGS, SHORT
from perfmodel.serving.forecast import ServingForecast
from perfmodel.spec.axes import DATA
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import Run
from perfmodel.units import gpus_text

NAME: Final = 250.0  # points of the name of a run
PART: Final = 110.0  # of the name of a cluster or a stack
SHOWN: Final = {name: SHORT[name] for name in DEGREES}  # data parallelism stands in the name of a stage


def axis_name(key: str) -> str:
    """What the axis of a key path is called; values of other keys are written with their units.

    >>> axis_name("micro_batch_size"), axis_name("stages[0].data_parallel"), axis_name("cluster.links.network")
    ('micro-batch [sequences]', 'data parallel [replicas]', 'links.network')
    """
    last = key.rpartition(".")[2]
    is_known = last in SETTINGS and (last == key or key.startswith("stages"))
    return SETTINGS[last].caption if is_known else heading(key)


def run_caption(run: Run) -> str:
    """The name of a run, however long it is."""
    return shortened(run.name, NAME, TEXT)


def stage_caption(run: Run, place: int) -> str:
    """The run, and of a ramp which stage of it."""
    layout = run.layout(run.stages[place])
    which = "" if len(run.stages) == 1 else f"stage {place % len(run.stages) + 1} of {len(run.stages)}, "
    return f"{run_caption(run)}: {which}{stage_text(layout)}"


def stage_text(layout: Layout) -> str:
    """DP 96, 768 GPUs"""
    return f"{DATA.short} {int(layout.data_parallel)}, {gpus_text(int(layout.gpus))}"


def stage_labels(run: Run) -> list[str]:
    """One for each stage of the ramp; they differ where two stages have the same GPUs."""
    labels = [stage_text(run.layout(stage)) for stage in run.stages]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{label}, batch {int(stage.global_batch_size)}" for label, stage in zip(labels, run.stages, strict=True)]


def source_text(run: Run) -> str:
    """What was predicted, with what."""
    parts = [shortened(name, PART, SMALL) for name in (run.cluster.name, run.stack.name)]
    words = [*parts, *layout_words(run.layout(run.stages[0]), SHOWN), f"sequences of {int(run.sequence_length):,}"]
    return f"perfmodel {__version__}: {', '.join(words)}"


def server_caption(forecast: ServingForecast) -> str:
    """Qwen3 32B in fp8 on 2 GPUs (H100 SXM 80GB): 2,000 + 500 tokens."""
    setup, request = forecast.setup, forecast.request
    model = shortened(setup.model.name, NAME, TEXT)
    tokens = f"{int(np.asarray(request.input_tokens)):,} + {int(np.asarray(request.output_tokens)):,} tokens"
    return f"{model} in {setup.weights.name} on {gpus_text(setup.tensor_parallel)} ({setup.cluster.gpu.name}): {tokens}"


def server_source(forecast: ServingForecast) -> str:
    """What was forecast, with what software."""
    setup = forecast.setup
    parts = [shortened(name, PART, SMALL) for name in (setup.cluster.name, setup.engine.name)]
    return f"perfmodel {__version__}: {', '.join(parts)}, KV cache in {setup.cache.name}"
