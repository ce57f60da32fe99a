"""What a report says of a mixture of experts: how many of them a token meets and a GPU holds, and how tokens travel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import RenderableType

from perfmodel.count.parts.expert_figures import ExpertFigures, expert_figures
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.text.terminal import section
from perfmodel.spec.axes import EXPERT, EXPERT_TENSOR
from perfmodel.spec.layout import Layout
from perfmodel.spec.stack import ExpertWork

OVERLAP: Final = {"passes": "beside the passes of another micro-batch", "none": "with nothing beside it"}


def experts_section(prediction: Prediction) -> list[RenderableType]:
    """The experts of the last ramp stage; nothing of a dense model."""
    _, predicted = prediction.stages[-1]
    figures = expert_figures(predicted.work.setup)
    return [] if figures is None else [section("Experts", list(_lines(figures, predicted)))]


def _lines(figures: ExpertFigures, predicted: StagePrediction) -> Iterator[tuple[str, str]]:
    layout, work = predicted.layout, predicted.work.setup.stack.experts
    yield "a token meets", f"{float(figures.experts_per_token):g} of {float(figures.experts):g} experts of a layer"
    yield "a GPU holds", _held(figures, layout)
    yield "rows", f"{float(figures.rows_of_an_expert):,.0f} tokens of a micro-batch an expert, on average"
    yield "load", _load(float(layout.expert_load))
    yield "dispatch", _dispatch(layout, work)


def _held(figures: ExpertFigures, layout: Layout) -> str:
    shared = float(layout.expert_tensor_parallel)
    held = f"{float(figures.experts_of_a_gpu):g} of them ({EXPERT.short} {float(layout.expert_parallel):g})"
    whole = f", a share of 1/{shared:g} of each ({EXPERT_TENSOR.short} {shared:g})" if shared > 1 else ""
    alike = float(layout.expert_data_parallel)
    return f"{held}{whole}" + (f"; {alike:g} GPUs of a pipeline stage hold the same" if alike > 1 else "")


def _load(load: float) -> str:
    if load == 1.0:
        return "balanced: every rank has as many tokens (expert_load)"
    return f"{load:g}: tokens of the busiest rank over their mean (expert_load)"


def _dispatch(layout: Layout, work: ExpertWork) -> str:
    if float(layout.expert_parallel) == 1:
        return "none: every GPU holds all experts"
    return f"{work.dispatcher}, {OVERLAP[work.overlap]} (stack.experts)"
