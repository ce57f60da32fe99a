"""How a log becomes a measured run: what its steady steps took, of the run that it says itself or that lies beside it.

What neither of them says (model, cluster, GPUs) is taken from what is given beside the logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.evidence.measured_rows import MEMORY_KINDS, MeasuredRun
from perfmodel.exchange.importers.registry import conversion_at
from perfmodel.exchange.presets import preset_titles
from perfmodel.exchange.questions.asked_runs import run_beside
from perfmodel.exchange.questions.plan_quantities import whole_number
from perfmodel.exchange.replicas import BATCH, GPUS
from perfmodel.exchange.run_files import RunCandidate, read_candidates
from perfmodel.exchange.tables.printed_mfu import contradiction
from perfmodel.exchange.tables.run_folders import Folder
from perfmodel.exchange.translation.conversion import Conversion, run_mapping
from perfmodel.exchange.translation.logs.log_records import LogRecord
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.spec.axes import FILLING
from perfmodel.spec.precision import RECIPES
from perfmodel.spec.run import RampStage, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenBeside:
    """What is given beside logs, for those which do not say it: a model, a cluster, a number of GPUs."""

    model: str | None = None
    cluster: str | None = None
    gpus: str | None = None

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is given."""
        return self.model is self.cluster is self.gpus is None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRun:
    """The measured run of a log, and the file beside it that says which run it is; None where the log itself does."""

    measured: MeasuredRun
    described_in: Path | None


def logged_run(log: Path, folder: Callable[[], Folder], *, name: str, given: GivenBeside) -> LoggedRun:
    """The log at `log` as a measured run that is called `name`; its folder is looked at where the log does not say its run.

    Errors: PerfmodelError, one sentence that says why it is none.
    """
    found = conversion_at(log)
    if found is None or found.record is None:
        raise InputError(f"it is a {found.format if found else 'text'} without the line of a step")
    mapping, described_in = _described(found, log, folder)
    where = "its arguments" if described_in is None else described_in.name
    candidate = _candidate(_filled(mapping, found.record, given), where)
    stage = _stage(candidate.run, found.record, where)
    run = replace(candidate.run, stages=(stage,))
    beside = () if described_in is None else (f"its run is that of {described_in.name}, which lies beside it",)
    candidate = replace(candidate, run=run, assumptions=(*beside, *candidate.assumptions))
    measured = _measured(candidate, found.record, name=name, source=log.resolve().parent.name)
    doubt = contradiction(measured)
    if doubt:
        measured = replace(measured, warning=f"{name}: {doubt}", assumptions=(*measured.assumptions, doubt))
    return LoggedRun(measured=measured, described_in=described_in)


def _described(found: Conversion, log: Path, folder: Callable[[], Folder]) -> tuple[dict[str, Any], Path | None]:
    """The run of a log as a run file has it, and the file beside the log that it is from."""
    if found.run is not None or found.refused:
        return run_mapping(found), None
    try:
        path = folder().run_of(log)
    except InputError as error:
        raise InputError("; ".join([str(error), *found.ignored[:1]])) from None
    try:
        return run_beside(str(path)), path
    except PerfmodelError as error:
        raise InputError(str(error).replace(str(path), path.name)) from None


def _filled(mapping: Mapping[str, Any], record: LogRecord, given: GivenBeside) -> dict[str, Any]:
    """The run with what the log says, and then what is given, where it has a gap. Errors: InputError for one that stays."""
    filled = dict(mapping)
    for key, value, example in (("model", given.model, "llama-3.1-8b"), ("cluster", given.cluster, "dgx-h100")):
        if key not in filled:
            if value is None:
                raise InputError(f"nothing says it; --{key} {example} would", key=key)
            filled[key] = value
    stages = [dict(each) if isinstance(each, Mapping) else each for each in filled.get("stages", [])]
    if record.global_batch_size is not None and len(stages) == 1 and isinstance(stages[0], dict):
        stages[0].setdefault(BATCH, record.global_batch_size)
    filled["stages"] = stages
    is_open = any(isinstance(each, Mapping) and not {FILLING.name, GPUS} & each.keys() for each in stages)
    if GPUS not in filled and is_open:
        number = record.gpus if record.gpus is not None else None if given.gpus is None else whole_number(GPUS, given.gpus)
        if number is None:
            raise InputError("nothing says how many; --gpus 64 would", key=GPUS)
        filled[GPUS] = number
    return filled


def _candidate(mapping: Mapping[str, Any], where: str) -> RunCandidate:
    first, *others = read_candidates(mapping)
    if others:
        raise InputError(f"{where} lists several values; a log is of one run")
    return first


def _stage(run: Run, record: LogRecord, where: str) -> RampStage:
    """The ramp stage of a log: the last one with its batch and its GPUs. Errors: InputError where there is none."""
    stages = list(run.stages)
    for value, name, word in (
        (record.global_batch_size, "global_batch_size", "global batch"),
        (record.gpus, "gpus", "GPUs"),
    ):
        if value is not None:
            others = sorted({int(getattr(run.layout(each), name)) for each in stages})
            stages = [each for each in stages if int(getattr(run.layout(each), name)) == value]
            if not stages:
                named = " or ".join(f"{each:,}" for each in others)
                raise InputError(f"{word}: {value:,} in the log, {named} in {where}; it is another run")
    return stages[-1]


def _measured(candidate: RunCandidate, record: LogRecord, *, name: str, source: str) -> MeasuredRun:
    run, layout = candidate.run, candidate.run.layout(candidate.run.stages[0])
    tokens, batch = float(layout.tokens_per_iteration), int(layout.global_batch_size)
    seconds = record.time_s(tokens_of_a_gpu=tokens / float(layout.gpus), batch=batch)
    if not seconds:
        raise InputError("; ".join(["it does not say how long an iteration takes", *record.notes]))
    peak = run.cluster.gpu.peak_flop_per_s.get(RECIPES[run.precision].products)
    return MeasuredRun(
        run_id=name,
        source=source,
        labels={
            "gpu": _preset_called("gpus", run.cluster.gpu.name),
            "stack": _preset_called("stacks", run.stack.name),
            "precision": run.precision,
        },
        model=run.model,
        sequence_length=int(layout.sequence_length),
        global_batch_size=batch,
        gpus=int(layout.gpus),
        peak_flop_per_s=None if peak is None else float(peak),
        iteration_time_s=seconds,
        printed_mfu=None,
        mfu_convention="products",
        run=run,
        reason="",
        assumptions=(*candidate.assumptions, *record.notes),
        file=name,
        memory_bytes=record.memory_bytes,
        memory_kind=record.memory_kind or MEMORY_KINDS[0],
    )


@cache
def _preset_called(kind: str, title: str) -> str:
    """The preset of this title, as tables name it; the title where none has it."""
    return next((name for name, each in preset_titles(kind)[kind].items() if each == title), title)
