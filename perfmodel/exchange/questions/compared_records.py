"""What is measured in a file, held beside the prediction of its run: a record of steps, a log, or a profile, by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeAlias

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.steps.pass_records import InferRecord, infer_record, is_infer_record
from perfmodel.evidence.steps.step_comparison import StepComparison, compare_step
from perfmodel.evidence.steps.step_records import StepRecord, step_record
from perfmodel.exchange.importers.registry import DESCRIBED, check_is_no_measurement, document_at, importer_of
from perfmodel.exchange.measured.trace_files import is_trace
from perfmodel.exchange.questions.measured_logs import LogComparison, log_comparison
from perfmodel.exchange.questions.profiled_runs import ProfileComparison, profile_comparison, profile_step
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.prediction import predict
from perfmodel.spec.run import Run

Comparison: TypeAlias = StepComparison | LogComparison | ProfileComparison
RECORD: Final = "what `perfmodel measure` writes"


def measured_comparison(run: Run, path: Path, *, stage: int | None = None) -> Comparison:
    """The run beside what a file measured of it; `stage` is the ramp stage (from 1) of a log or a profile.

    Own runs tell of whole times, not of operators: they count beside a log alone.
    Errors: InputError for a file that measured nothing, and for a stage beside a record, which names its own.
    """
    if is_log(path):
        return log_comparison(predict(run), path, stage=stage)
    prediction = predict(run.without_own_runs)
    if is_trace(path):
        return profile_comparison(prediction, profile_step(path), stage=stage)
    if stage is not None:
        raise InputError("a record names its stage; leave it out", key="stage")
    return compare_step(prediction, read_record(path))


def is_log(path: Path) -> bool:
    """Whether there is a log of training software at `path`. Errors: InputError for a file that describes a run."""
    importer = importer_of(document_at(path)) if path.is_file() else None
    if importer is not None and not importer.measures:
        raise InputError(
            f"{path} is a {importer.name}, which describes {DESCRIBED[importer.gives]}; a log, a profile or a record is "
            "compared with RUN"
        )
    return importer is not None


def read_record(path: Path) -> StepRecord:
    """The step that `perfmodel measure` wrote to a file. Errors: InputError for a file that holds none."""
    document = document_at(path) if path.is_file() else None
    importer = None if document is None else importer_of(document)
    if document is not None:
        check_is_no_measurement(document)
    if importer is not None:
        raise InputError(f"{path} is a {importer.name}; {RECORD} is needed here")
    return step_record(read_mapping(path, needs=RECORD))


def read_passes(path: Path) -> InferRecord | None:
    """The passes that `perfmodel measure --infer` wrote to a file; None where it holds anything else."""
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        document = read_mapping(path)
    except PerfmodelError:
        return None  # whoever reads it as something else says what is wrong
    return infer_record(document) if is_infer_record(document) else None
