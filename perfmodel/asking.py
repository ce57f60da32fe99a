"""What a plan is asked, as a person types it: names, quantities and limits become a planning.question.Question.

tokens           8T                          of one stage; a ramp has its own
gpus             3072 | 1024,2048 | 512..4096 (doubling)
deadline         14d | 2027-03-01            a time from now on, or the day by which it has to be over
budget           5M                          dollars; needs a price
ramp             384:200B:768, 768:200B      batch:tokens[:gpus] of each stage
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from perfmodel.errors import InputError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.axes import value_texts
from perfmodel.exchange.building import build
from perfmodel.exchange.documents import FILE_SUFFIXES, read_mapping
from perfmodel.exchange.presets import economics_preset, expand_part, preset_names, read_preset
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.planning.question import PlanStage, Question, usual_batch_size
from perfmodel.planning.space import COLUMN_AXES, ROW_AXES, Choices
from perfmodel.spec.economics import Economics
from perfmodel.spec.fields import Choice, Number
from perfmodel.spec.hardware import PRECISIONS, Cluster
from perfmodel.spec.layout import PIPELINE_SCHEDULES, RECOMPUTES, SHARDING_NAMES, SHARDINGS
from perfmodel.spec.model import TransformerModel
from perfmodel.spec.run import Run
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import parse_quantity

Quantity: TypeAlias = str | float
USUAL_STACK: Final = "megatron-core"
USUAL_LENGTH: Final = 4096
DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
NUMERIC_SETTINGS: Final = (*ROW_AXES, *COLUMN_AXES)
OPTIONS: Final = {
    "precision": PRECISIONS,
    "sharding": SHARDINGS,
    "recompute": RECOMPUTES,
    "pipeline_schedule": PIPELINE_SCHEDULES,
    "sequence_parallel": ("true", "false"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and the numbers of GPUs to look at (none: the one that the limits ask for)."""

    question: Question
    gpus: tuple[int, ...]


class Wanted(TypedDict, total=False):
    """What a question may say beside its model; everything has a default but the cluster, and something that sets the GPUs.

    `leave_free` is a share of the GPU's memory that no layout may use; `choose` keeps settings to some values (precision,
    sharding, tensor_parallel ..); `economics` are terms over the typical.
    """

    cluster: str | Mapping[str, Any] | Cluster | None
    stack: str | Mapping[str, Any] | SoftwareStack | None
    gpus: str | int | Sequence[int] | None
    deadline: Quantity | date | None
    budget: Quantity | None
    tokens: Quantity | None
    global_batch_size: Quantity | None
    sequence_length: Quantity | None
    ramp: str | None
    leave_free: Quantity | None
    choose: Mapping[str, Any]
    economics: Mapping[str, Any] | Economics | None


def asked(model: str | Mapping[str, Any] | TransformerModel, **wanted: Unpack[Wanted]) -> Asked:
    """The question. `model` may also be a run (a file, or runs/NAME), whose settings then hold where nothing else is said.

    Errors: InputError for what is missing, contradicts itself or cannot be read.
    """
    given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    run, named = _run(model)
    named = named | {part: given[part] for part in ("cluster", "stack") if part in given}
    if "cluster" not in named:
        raise InputError("say on which cluster, as in --cluster dgx-h100 (perfmodel list clusters)", key="cluster")
    named.setdefault("stack", USUAL_STACK)
    chosen_model: TransformerModel = _part(TransformerModel, "models", named["model"], "model")
    chosen_cluster: Cluster = _part(Cluster, "clusters", named["cluster"], "cluster")
    chosen_stack: SoftwareStack = _part(SoftwareStack, "stacks", named["stack"], "stack")
    length = _count("sequence_length", given.get("sequence_length"))
    assumptions = [] if run or "stack" in given else [f"no stack is given: {chosen_stack.name} is assumed"]
    if length is None:
        length = int(run.sequence_length) if run else _usual_length(chosen_model)
        assumptions += [] if run else [f"no sequence length is given: {length:,} tokens are assumed"]
    stages, sentences = _stages(run, given, length)
    numbers = _gpus(given["gpus"]) if "gpus" in given else ()
    if numbers and "ramp" not in given:
        stages = tuple(replace(stage, gpus=None) for stage in stages)
    if not numbers and all(stage.gpus for stage in stages):
        numbers = (max(stage.gpus or 0 for stage in stages),)
    question = Question(
        model=chosen_model,
        cluster=_with_room(chosen_cluster, given.get("leave_free", 0.0)),
        stack=chosen_stack,
        sequence_length=length,
        stages=stages,
        choices=_choices(run, chosen_stack, given.get("choose", {})),
        terms=_terms(run, given.get("economics")),
        deadline_s=_deadline_s(given["deadline"]) if "deadline" in given else None,
        budget_dollars=_positive("budget", given["budget"], "count") if "budget" in given else None,
        assumptions=(*assumptions, *sentences),
        names={name: mapping_of(part) for name, part in named.items()},
    )
    _check(question, numbers)
    return Asked(question=question, gpus=numbers)


def _check(question: Question, gpus: tuple[int, ...]) -> None:
    limits = question.deadline_s is not None or question.budget_dollars is not None
    if not gpus and not limits:
        raise InputError(
            "say how many GPUs, or a deadline or a budget that decides: --gpus 1024, --deadline 14d, --budget 5M", key="gpus"
        )
    if limits and not question.has_tokens:
        raise InputError("a deadline or a budget needs to know how long it trains: --tokens 8T", key="tokens")
    if question.budget_dollars is not None and question.terms.dollars_per_gpu_hour is None:
        raise InputError("a budget needs a price: --price 2.5 dollars per GPU-hour", key="price")
    for precision in question.choices.precision:
        question.cluster.gpu.peak(precision)
        question.cluster.gpu.matmul(precision)
    if gpus and any(not stage.gpus for stage in question.stages) and any(stage.gpus for stage in question.stages):
        return
    if not gpus and any(stage.gpus for stage in question.stages):
        raise InputError("some stages of the ramp have no number of GPUs: --gpus 1024 gives it to them", key="gpus")


def _run(model: Any) -> tuple[Run | None, dict[str, Any]]:
    """The run that is named in the place of a model (runs/NAME, or a file that has stages), and its parts as it names them."""
    if not isinstance(model, str):
        return None, {"model": model}
    name, suffix = model.removeprefix("runs/"), Path(model).suffix.lower()
    is_file = suffix in FILE_SUFFIXES and suffix != ".json"
    if name != model and name in preset_names("runs"):
        mapping, _ = read_preset("runs", name)
    elif is_file and "stages" in (mapping := read_mapping(Path(model))):
        name = model
    else:
        return None, {"model": model}
    return read_candidates(name)[0].run, {part: mapping[part] for part in ("model", "cluster", "stack")}


def _part(spec: type[Any], kind: str, value: Any, key: str) -> Any:
    if isinstance(value, spec):
        return value
    try:
        return build(spec, expand_part(spec, kind, value))
    except PerfmodelError as error:
        raise error.under(key) from None


def _with_room(cluster: Cluster, share: Quantity) -> Cluster:
    """The cluster with a share of each GPU's memory left free."""
    try:
        free = parse_quantity(share, "ratio")
    except PerfmodelError as error:
        raise error.under("leave_free") from None
    if not 0 <= free < 1:
        raise InputError(f"{shown(share)} is not a share of the memory; write it like 5%", key="leave_free")
    return replace(cluster, gpu=replace(cluster.gpu, memory_bytes=cluster.gpu.memory_bytes * (1.0 - free)))


def _usual_length(model: TransformerModel) -> int:
    most = model.max_positions
    return USUAL_LENGTH if most is None else min(USUAL_LENGTH, int(most))


def _stages(run: Run | None, given: Mapping[str, Any], length: int) -> tuple[tuple[PlanStage, ...], list[str]]:
    """The ramp that is given, or that of the run, or one stage."""
    tokens, batch = given.get("tokens"), _count("global_batch_size", given.get("global_batch_size"))
    if "ramp" in given:
        if tokens is not None or batch is not None:
            raise InputError("a ramp has its own batches and tokens; leave out --tokens and --global-batch-size", key="ramp")
        return tuple(_ramp_stage(text) for text in given["ramp"].split(",")), []
    if run is not None and tokens is None and batch is None:
        return tuple(_stage_of(run, stage) for stage in run.stages), []
    wanted = _all_tokens(run) if tokens is None else _positive("tokens", tokens, "count")
    if batch is None and run is not None:
        batch = int(run.stages[-1].global_batch_size)
    if batch is not None:
        return (PlanStage(global_batch_size=batch, tokens=wanted),), []
    size = usual_batch_size(length)
    sentence = f"no global batch is given: about {size:,} sequences (4M tokens) are assumed, rounded to suit the GPUs"
    return (PlanStage(global_batch_size=size, tokens=wanted, rounded=True),), [sentence]


def _all_tokens(run: Run | None) -> float | None:
    """Those of all stages of a run, where all are stated."""
    stated = [] if run is None else [stage.tokens for stage in run.stages if stage.tokens is not None]
    return float(sum(stated)) if run is not None and len(stated) == len(run.stages) else None


def _stage_of(run: Run, stage: Any) -> PlanStage:
    return PlanStage(
        global_batch_size=int(stage.global_batch_size),
        tokens=None if stage.tokens is None else float(stage.tokens),
        gpus=int(run.layout(stage).gpus),
    )


def _ramp_stage(text: str) -> PlanStage:
    """batch:tokens[:gpus]"""
    pieces = [piece.strip() for piece in text.split(":")]
    if len(pieces) not in (2, 3):
        raise InputError(
            f"{shown(text)} is not a stage; write batch:tokens or batch:tokens:gpus, as in 384:200B:768", key="ramp"
        )
    try:
        batch = int(_count("batch", pieces[0]) or 1)
        wanted = _positive("tokens", pieces[1], "count")
        gpus = int(_count("gpus", pieces[2]) or 1) if len(pieces) == 3 else None
    except PerfmodelError as error:
        raise error.under("ramp") from None
    return PlanStage(global_batch_size=batch, tokens=wanted, gpus=gpus)


def _gpus(value: str | int | Sequence[int]) -> tuple[int, ...]:
    """Numbers of GPUs, each once, rising."""
    whole = Number("count", 1, None, 1e7, integer=True, optional=False)
    try:
        texts = value_texts(value, whole) if isinstance(value, str) else [value] if isinstance(value, int) else list(value)
        numbers = sorted({int(_count("", text) or 0) for text in texts})
    except PerfmodelError as error:
        raise error.under("gpus") from None
    return tuple(numbers)


def _count(key: str, value: Any) -> int | None:
    if value is None:
        return None
    number = _positive(key, value, "count")
    if number != int(number):
        raise InputError(f"{shown(value)} is not a whole number", key=key)
    return int(number)


def _positive(key: str, value: Any, dimension: str) -> float:
    try:
        number = parse_quantity(value, dimension)
    except PerfmodelError as error:
        raise error.under(key) from None
    if not number > 0:
        raise InputError(f"{shown(value)} must be greater than 0", key=key)
    return number


def _deadline_s(value: Quantity | date) -> float:
    """A time from now on: as it is given, or until the end of a day."""
    if isinstance(value, str) and DAY.fullmatch(value.strip()):
        try:
            value = date.fromisoformat(value.strip())
        except ValueError:
            raise InputError(f"{shown(value)} is no day of the calendar", key="deadline") from None
    if not isinstance(value, date):
        return _positive("deadline", value, "s")
    today = datetime.now(tz=UTC).date()
    if value <= today:
        raise InputError(
            f"{value} is not after today, {today}; give a later day, or a time from now on such as 14d", key="deadline"
        )
    return (value - today).days * 86400.0


def _choices(run: Run | None, stack: SoftwareStack, choose: Mapping[str, Any]) -> Choices:
    """What may be chosen: all that the stack offers, but for settings that are given."""
    for key in choose:
        if key not in (*OPTIONS, *NUMERIC_SETTINGS):
            raise InputError(f"a plan cannot fix it; {did_you_mean(key, [*OPTIONS, *NUMERIC_SETTINGS])}", key=key)
    precision = choose.get("precision") or (run.precision if run else "bf16")
    words = {name: _words(name, choose[name]) for name in OPTIONS if name in choose} | {
        "precision": _words("precision", precision)
    }
    fixed = {
        name: tuple(int(_count(name, each) or 0) for each in _listed(choose[name]))
        for name in NUMERIC_SETTINGS
        if name in choose
    }
    return Choices(
        precision=words["precision"],
        sharding=words.get("sharding", stack.offered_shardings),
        pipeline_schedule=words.get("pipeline_schedule", stack.offered_schedules),
        recompute=words.get("recompute", RECOMPUTES),
        sequence_parallel=tuple(each == "true" for each in words.get("sequence_parallel", ("true", "false"))),
        fixed=fixed,
    )


def _listed(value: Any) -> list[Any]:
    if isinstance(value, str):
        return [piece.strip() for piece in value.split(",")]
    return list(value) if isinstance(value, Sequence) else [value]


def _words(name: str, value: Any) -> tuple[str, ...]:
    """Some of the words of a setting, by any of their names; `all` stands for all."""
    options = OPTIONS[name]
    words = [str(word).lower() for word in _listed(value)]
    if words == ["all"]:
        return options
    rule = Choice(options, tuple(SHARDING_NAMES.items()) if name == "sharding" else ())
    for word in words:
        if problem := rule.problem(word):
            raise InputError(problem, key=name)
    return tuple(dict.fromkeys(words))


def _terms(run: Run | None, economics: Mapping[str, Any] | Economics | None) -> Economics:
    """Prices and failures: those given, over those of the run, over what is typical."""
    if isinstance(economics, Economics):
        return economics
    base = (run.economics if run else None) or economics_preset("typical")
    changed = mapping_of(base) | dict(economics or {})
    try:
        return build(Economics, changed)
    except PerfmodelError as error:
        raise error.under("economics") from None
