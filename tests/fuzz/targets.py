"""Which readers are fuzzed: each with files to break, and with what it must hold of whatever it makes of them.

A reader that is in none of these rows is not fuzzed; tests/fuzz/test_fuzz.py fails for an importer whose format no corpus has,
and for a module of the readers' rooms that no target runs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from perfmodel.benchmarks.measure.kernels.record_file import read_records
from perfmodel.errors import InputError
from perfmodel.evidence.time_scores import compare_time
from perfmodel.exchange.building import build
from perfmodel.exchange.converted_files import conversion_document, converted, missing
from perfmodel.exchange.measured.nccl_calls import link_tests
from perfmodel.exchange.measured.own_evidence import read_evidence
from perfmodel.exchange.presets import cluster_preset, expand_part
from perfmodel.exchange.questions.measured_logs import log_record
from perfmodel.exchange.questions.profiled_runs import profile_step
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.tables.logged_runs import GivenBeside
from perfmodel.exchange.tables.measured_files import read_measured_files
from perfmodel.exchange.tables.memory_table import read_measured_fits
from perfmodel.spec.economics import Economics
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.profile import ServingProfile
from perfmodel.spec.stack import SoftwareStack
from tests.fuzz import corpus, uses
from tests.fuzz.corpus import Corpus

ROUNDING: Final = 1e-9
WITH_LOGS: Final = GivenBeside(cluster="dgx-h100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A reader, and the files that it reads; `beside` lies in the same folder, whole."""

    name: str
    read: Callable[[Path], object]
    files: Corpus
    beside: Corpus = field(default_factory=lambda: corpus.BESIDE)


def run_file(path: Path) -> None:
    """A run is predicted, with every combination of values that it lists."""
    for candidate in read_candidates(str(path))[:4]:
        uses.answered(candidate.run, path.read_bytes())


def part_file(spec: type[Any], kind: str, use: Callable[[Path], object]) -> Callable[[Path], object]:
    """A reader of files of one kind of preset, and what is made of them."""
    return then(lambda path: build(spec, expand_part(spec, kind, str(path))), use)


def then(*steps: Callable[[Path], object]) -> Callable[[Path], object]:
    """One after the other: a reader, and what is made of what it reads."""

    def run(path: Path) -> None:
        for step in steps:
            step(path)

    return run


def other_software(path: Path) -> None:
    """What becomes of a file of other software; a run that says all is predicted."""
    found = converted(path, cluster="dgx-h100")
    document = conversion_document(found)
    json.dumps(document, allow_nan=False)
    if document["run"] is not None and not missing(document["run"]):
        for candidate in read_candidates(document["run"])[:2]:
            uses.answered(candidate.run, path.read_bytes())


def log(path: Path) -> None:
    """What a log measured; and as one of the measured runs."""
    found = log_record(path)
    assert found.iteration_time_s is None or 0 < float(found.iteration_time_s) < math.inf
    with suppress(InputError):  # of another run than the script beside it
        for row in read_measured_files([path], WITH_LOGS).rows:
            compare_time(row)


def measured_table(path: Path) -> None:
    """Rows are predicted, and errors are numbers."""
    for row in read_measured_files([path]).rows[:3]:
        compared = compare_time(row)
        error = getattr(compared, "relative_error", None)
        assert error is None or math.isfinite(float(error))


def links(path: Path) -> None:
    """Tests of links, on a cluster they may be of."""
    for test in link_tests(path, cluster_preset("dgx-h100")):
        assert all(0 < float(each) < math.inf for each in test.seconds)


TARGETS: Final[tuple[Target, ...]] = (
    Target(name="run-file", read=run_file, files=corpus.RUNS),
    Target(
        name="model-file",
        read=part_file(TransformerModel, "models", uses.predicted_with("model")),
        files=corpus.presets("models"),
    ),
    Target(
        name="cluster-file",
        read=part_file(Cluster, "clusters", uses.predicted_with("cluster")),
        files=corpus.presets("clusters"),
    ),
    Target(name="gpu-file", read=part_file(Gpu, "gpus", uses.predicted_with("gpu")), files=corpus.presets("gpus")),
    Target(
        name="stack-file",
        read=part_file(SoftwareStack, "stacks", uses.predicted_with("stack")),
        files=corpus.presets("stacks"),
    ),
    Target(name="economics-file", read=part_file(Economics, "economics", uses.economics), files=corpus.presets("economics")),
    Target(name="engine-file", read=part_file(Engine, "engines", uses.engine), files=corpus.presets("engines")),
    Target(
        name="serving-file",
        read=part_file(ServingProfile, "serving", uses.serving_kernels),
        files=corpus.presets("serving"),
    ),
    Target(
        name="evidence-file", read=then(lambda path: read_evidence(str(path)), uses.evidence), files=corpus.presets("evidence")
    ),
    Target(
        name="config.json",
        read=part_file(TransformerModel, "models", uses.predicted_with("model")),
        files=corpus.MODEL_CONFIGS,
    ),
    Target(name="quantised-config", read=uses.served_model, files=corpus.QUANTISED),
    Target(name="other-software", read=other_software, files=corpus.CONFIGS_OF_RUNS),
    Target(name="log", read=log, files=corpus.LOGS, beside={"train.sh": corpus.CONFIGS_OF_RUNS["train.sh"]}),
    Target(name="measured-table", read=measured_table, files=corpus.TABLES),
    Target(name="memory-table", read=read_measured_fits, files={"fits.csv": corpus.FITS.encode()}),
    Target(name="tuning-table", read=uses.tuned_table, files={"tuned.csv": corpus.TUNED.encode()}),
    Target(name="serving-table", read=uses.served_table, files={"serving.csv": corpus.SERVED.encode()}),
    Target(name="nccl-tests", read=then(links, uses.links), files=corpus.LINKS),
    Target(name="trace", read=then(profile_step, uses.trace), files=corpus.TRACES),
    Target(name="records", read=read_records, files=corpus.RECORDS),
    Target(name="measured-step", read=uses.step, files=corpus.steps()),
)
BY_NAME: Final = {target.name: target for target in TARGETS}
