"""A profile of any training software beside the prediction of its run: kernels by the operators that they run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError
from perfmodel.evidence.steps.kernel_comparison import KernelComparison, has_kernels, kernel_comparison
from perfmodel.evidence.steps.profiled_step import ProfiledStep, profiled_step
from perfmodel.exchange.building import build
from perfmodel.exchange.chip_names import may_mean
from perfmodel.exchange.measured.trace_files import read_trace
from perfmodel.exchange.presets import DATA
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors
from perfmodel.exchange.questions.varied_runs import stage_index
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.frames import Tabular
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.spec.run import Run
from perfmodel.spec.trace_kinds import TraceKind, TraceKinds
from perfmodel.timing.ledger import seconds_of_a_gpu
from perfmodel.units import gpus_text, seconds_text


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ProfileComparison(Tabular):
    """The last step of a profile beside one ramp stage of a prediction, counted from 1; no kernels in a trace of CPUs alone."""

    name: str
    stage: int
    predicted: StagePrediction
    step: ProfiledStep
    kernels: KernelComparison | None
    doubts: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Predicted beside profiled time of the step."""
        predicted = seconds_text(float(self.predicted.iteration_time_s))
        return f"{self.name}: {predicted} predicted, {seconds_text(self.step.duration_s)} profiled"

    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind of kernels of an average GPU, then those that no pattern knows, without a prediction."""
        kinds = () if self.kernels is None else (*self.kernels.kinds, *self.kernels.unmatched)
        return [
            {
                "name": each.name,
                "predicted_s": each.predicted_s,
                "measured_s": each.measured_s,
                "error": each.error,
                "launches": each.launches,
            }
            for each in kinds
        ]


@cache
def trace_kinds() -> tuple[TraceKind, ...]:
    """The kinds of kernels (data/trace_kernels.yaml), each with its pattern."""
    known = diagnosis_priors().kernels
    kinds = [
        {key: value for key, value in each.items() if key != "like"}
        | ({"pattern": known[each["like"]].pattern} if "like" in each else {})
        for each in read_mapping(DATA / "trace_kernels.yaml")["kinds"]
    ]
    return build(TraceKinds, {"kinds": kinds}).kinds


def profile_step(path: Path) -> ProfiledStep:
    """The last step of the trace at `path`. Errors: InputError, naming the file."""
    document = read_trace(path)
    try:
        return profiled_step(document)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def profile_comparison(prediction: Prediction, step: ProfiledStep, *, stage: int | None = None) -> ProfileComparison:
    """A profiled step beside a named ramp stage (from 1), or the last."""
    run: Run = prediction.run
    place = stage_index(run, stage)
    predicted = prediction.stages[place][1]
    operators = seconds_of_a_gpu(predicted.work, gpus=predicted.layout.gpus, cluster=run.cluster, stack=run.stack)
    kernels = kernel_comparison(step, operators, trace_kinds()) if has_kernels(step) else None
    doubts = tuple(_doubts(step, predicted, run))
    return ProfileComparison(name=run.name, stage=place + 1, predicted=predicted, step=step, kernels=kernels, doubts=doubts)


def _doubts(step: ProfiledStep, predicted: StagePrediction, run: Run) -> Iterator[str]:
    """What of a profile is another run than the predicted one."""
    gpus = int(predicted.layout.gpus)
    if step.ranks is not None and step.ranks != gpus:
        yield f"the profile is of {gpus_text(step.ranks)}, the prediction of {gpus_text(gpus)}"
    if step.gpu and not may_mean(step.gpu, run.cluster.gpu.name):
        yield f"the profile is of {step.gpu}, the prediction of {run.cluster.gpu.name}"
