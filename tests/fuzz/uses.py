"""What is made of whatever a reader took from a broken file: a prediction, a server, a price, a comparison, a fit.

A reader alone can let through what only an equation shows to be impossible; each function here goes on to the equations.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from perfmodel import api
from perfmodel.economics.outlook import outlook
from perfmodel.errors import NotSupportedError
from perfmodel.evidence.serving.scores import compare_serving
from perfmodel.evidence.steps.step_comparison import compare_step
from perfmodel.evidence.steps.step_records import StepRecord
from perfmodel.evidence.tuning.scores import compare_tuning
from perfmodel.exchange.building import build
from perfmodel.exchange.launchers.registry import known_launchers, launch_files
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.exchange.presets import cluster_preset, expand_part
from perfmodel.exchange.questions.compared_records import read_record
from perfmodel.exchange.questions.diagnosed_runs import diagnosis_priors, nccl_readings, profile_readings
from perfmodel.exchange.questions.serving.asked_servers import asked_servers
from perfmodel.exchange.questions.serving.served_models import serving_setup
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.tables.serving_runs import read_serving_runs
from perfmodel.exchange.tables.tuning_runs import read_tuning_runs
from perfmodel.prediction import Prediction, predict
from perfmodel.report.json.explanation import explanation_document
from perfmodel.report.json.prediction import prediction_document
from perfmodel.report.json.serving import serving_document
from perfmodel.serving.forecast import ServingForecast, serving_forecast
from perfmodel.spec.run import Run
from perfmodel.spec.serving.profile import ServingProfile
from perfmodel.spec.serving.setup import Request, ServingSetup
from tests.evidence.step_examples import small_prediction

ROUNDING: Final = 1e-9
HIGHEST_MFU: Final = 2.0  # with attention counted in full, where kernels compute half of it
RUN: Final = {
    "model": "llama-3.1-8b",
    "cluster": "dgx-h100",
    "stack": "megatron-core",
    "tensor_parallel": 2,
    "sequence_parallel": True,
    "sequence_length": 512,
    "stages": [{"data_parallel": 4, "global_batch_size": 64, "tokens": "20B"}],
}
LONGEST_S: Final = 1e13
CLIENTS: Final = (1, 16)


def sane(prediction: Prediction) -> None:
    """Finite numbers alone, no part of less than nothing, and a speed that can be."""
    for _, stage in prediction.stages:
        parts = dict(stage.breakdown.items())
        total = float(stage.iteration_time_s)
        assert 0 < total < LONGEST_S, total
        assert min(map(float, parts.values())) >= -ROUNDING * total, parts
        assert abs(sum(map(float, parts.values())) / total - 1) < ROUNDING, (total, parts)
        assert 0 <= float(stage.mfu) < HIGHEST_MFU, float(stage.mfu)
        low_s, high_s = (float(end) for end in stage.iteration_time_interval_s)
        assert 0 <= low_s <= total * (1 + ROUNDING) and total <= high_s * (1 + ROUNDING) < math.inf, (low_s, total, high_s)  # noqa: PT018
        assert min(float(each) for each in dict(stage.memory.items()).values()) >= 0, stage.memory
    json.dumps(prediction_document(prediction, assumptions=()), allow_nan=False)


def sane_server(forecast: ServingForecast) -> None:
    """The same of a server: finite latencies, rates and memory."""
    for row in forecast.rows():
        numbers = {name: value for name, value in row.items() if isinstance(value, float)}
        assert all(0 <= value < math.inf for value in numbers.values()), numbers
    json.dumps(serving_document([forecast]), allow_nan=False)


def answered(run: Run, content: bytes) -> None:
    """A run is predicted, and one of the other questions is asked of it: which one, its bytes decide."""
    sane(predict(run))
    questions = (launched, explained, drawn, varied, diagnosed)
    questions[zlib.crc32(content) % len(questions)](run)


def launched(run: Run) -> None:
    """As the launch file of every software that has one; what it cannot say it refuses."""
    for name in known_launchers():
        with suppress(NotSupportedError):
            assert launch_files(run, name)


def explained(run: Run) -> None:
    """Where its time goes."""
    json.dumps(explanation_document(api.explain(run)), allow_nan=False)


def drawn(run: Run) -> None:
    """Its passes in time."""
    drawing = api.timeline(run, detail="passes", micro_batches=1)
    assert 0 < drawing.span_s < LONGEST_S
    assert all(math.isfinite(each.start_s) and math.isfinite(each.end_s) for each in drawing.spans)


def varied(run: Run) -> None:
    """Beside itself with another length, and at other batches."""
    longer = {"sequence_length": int(run.sequence_length) * 2}
    rows = [*api.whatif(run, {"longer": longer}).rows(), *api.sweep(run, {"micro_batch_size": [1, 2]}).rows()]
    numbers = [each for row in rows for each in row.values() if isinstance(each, float)]
    assert all(map(math.isfinite, numbers)), rows


def diagnosed(run: Run) -> None:
    """Half as fast as it should be."""
    seconds = float(predict(run).stages[-1][1].iteration_time_s)
    found = api.diagnose(run, 2 * seconds)
    assert all(math.isfinite(float(each.plausibility)) for each in found.causes)


def predicted_with(key: str) -> Callable[[Path], object]:
    """A run of which one part is in the file."""

    def run(path: Path) -> None:
        part: Any = {"extends": "dgx-h100", "gpu": str(path)} if key == "gpu" else str(path)
        for candidate in read_candidates(RUN | {"cluster" if key == "gpu" else key: part})[:2]:
            sane(predict(candidate.run))

    return run


def evidence(path: Path) -> None:
    """A run with the evidence in the file."""
    for candidate in read_candidates(RUN, [("cluster.evidence", str(path))]):
        sane(predict(candidate.run))


def economics(path: Path) -> None:
    """What a run costs and when it ends, with the terms in the file."""
    for candidate in read_candidates(RUN | {"economics": str(path)})[:2]:
        prediction = predict(candidate.run)
        json.dumps(prediction_document(prediction, assumptions=()), allow_nan=False)
        assert candidate.run.economics is not None
        terms = outlook(prediction, candidate.run.economics)
        numbers = (terms.days, terms.calendar_days, terms.gpu_hours, terms.dollars, terms.energy_j)
        known = [each for each in numbers if each is not None]
        assert all(0 <= each < math.inf for each in known), known


def engine(path: Path) -> None:
    """A server with the engine in the file."""
    for forecast in asked_servers("llama-3.1-8b", gpu="h100-sxm-80gb", engine=str(path), concurrency="1,16,max"):
        sane_server(forecast)


def served_model(path: Path) -> None:
    """A server of the model in the file, with weights as that says."""
    for forecast in asked_servers(str(path), gpu="h100-sxm-80gb", concurrency="1,16"):
        sane_server(forecast)


def serving_kernels(path: Path) -> None:
    """A server on a GPU whose kernels of serving are in the file."""
    profile = build(ServingProfile, expand_part(ServingProfile, "serving", str(path)))
    for precision in ("bf16", "fp8"):
        setup = replace(_usual_server(precision), profile=profile)
        request = Request(input_tokens=1000, output_tokens=100)
        sane_server(serving_forecast(setup, request, CLIENTS, evidence=serving_evidence()))


@cache
def _usual_server(precision: str) -> ServingSetup:
    return serving_setup("llama-3.1-8b", gpu="h100-sxm-80gb", precision=precision)


def served_table(path: Path) -> None:
    """Rows of served models beside their predictions."""
    for compared in compare_serving(read_serving_runs(path).rows[:4], serving_evidence()):
        _sane_comparison(compared.predicted, compared.interval, compared.value)


def tuned_table(path: Path) -> None:
    """Rows of fine-tuned models beside their predictions."""
    for row in read_tuning_runs(path).rows[:4]:
        for compared in compare_tuning(row):
            _sane_comparison(compared.predicted, compared.interval, compared.value)


def _sane_comparison(predicted: float | None, interval: tuple[float, float] | None, measured: float) -> None:
    numbers = [measured, *(interval or ()), *(() if predicted is None else (predicted,))]
    assert all(0 <= float(each) < math.inf for each in numbers), numbers


def trace(path: Path) -> None:
    """The kernels of a profile as readings of a diagnosis."""
    assert all(0 < each.measured < math.inf for each in profile_readings(path, diagnosis_priors()))


def links(path: Path) -> None:
    """What nccl-tests printed as readings of a diagnosis."""
    readings = nccl_readings(path, cluster_preset("dgx-h100"), diagnosis_priors())
    assert all(0 < each.measured < math.inf for each in readings)


def step(path: Path) -> None:
    """A measured step beside the prediction of its run."""
    record = read_record(path)
    if isinstance(record, StepRecord):
        compared = compare_step(small_prediction(), record)
        json.dumps(compared.rows(), allow_nan=False)
