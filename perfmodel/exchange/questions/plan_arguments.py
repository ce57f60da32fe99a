"""How the arguments of `perfmodel plan`, and of `pm.plan`, become the question that a search answers (search/question.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, TypeAlias, TypedDict, TypeVar, Unpack

from perfmodel.errors import InputError, NotSupportedError, PerfmodelError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.measured.expert_loads import KEY as EXPERT_LOAD
from perfmodel.exchange.measured.expert_loads import load_sentences, planned_load
from perfmodel.exchange.measured.own_evidence import evidence_setting, own_runs_sentences
from perfmodel.exchange.presets import beside, economics_preset, expand_part, read_preset
from perfmodel.exchange.prices import offer_sentence, with_price
from perfmodel.exchange.questions.asked_runs import has_gpus, is_foreign_run, known_model, run_beside
from perfmodel.exchange.questions.plan_quantities import (
    budget_dollars,
    confidence,
    deadline_s,
    positive_number,
    ramp_stages,
    share_of_memory,
    whole_number,
    whole_numbers,
)
from perfmodel.exchange.run_assumptions import replaced_evidence
from perfmodel.exchange.run_files import TYPICAL, read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, read_mapping
from perfmodel.exchange.syntax.slips import slips_of_a_length
from perfmodel.light_dataclass import dataclass, replace
from perfmodel.search.layouts.space import NUMERIC_SETTINGS, SearchSpace
from perfmodel.search.question import USUAL_CONFIDENCE, PlanQuestion, StageRequest, usual_batch_size
from perfmodel.spec.economics import Economics
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.fields import Choice, Spec
from perfmodel.spec.layout import PIPELINE_SCHEDULES, RECOMPUTES, SHARDING_NAMES, SHARDINGS
from perfmodel.spec.machines.hardware import Cluster, Gpu
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.precision import PRECISIONS, RECIPES, PrecisionRecipe
from perfmodel.spec.refusals import check_precision
from perfmodel.spec.run import Run
from perfmodel.spec.stack import SoftwareStack
from perfmodel.units import share_text

Quantity: TypeAlias = str | float
S = TypeVar("S", bound=Spec)
USUAL_STACK: Final = "megatron-core"
USUAL_LENGTH: Final = 4096
RUN_PREFIX: Final = "runs/"  # marks a preset run, which may have the name of a preset model
ALL_VALUES: Final = "all"  # stands for every value of a setting
RUN_PARTS: Final = ("model", "cluster", "stack")
CATEGORY_VALUES: Final = {
    "precision": PRECISIONS,
    "sharding": SHARDINGS,
    "recompute": RECOMPUTES,
    "pipeline_schedule": PIPELINE_SCHEDULES,
    "sequence_parallel": ("true", "false"),
}


CHOSEN: Final = (*CATEGORY_VALUES, *NUMERIC_SETTINGS, EXPERT_LOAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """A plan question, and the numbers of GPUs to search (none: the deadline or the budget decides)."""

    question: PlanQuestion
    gpus: tuple[int, ...]


class SearchLimits(TypedDict, total=False):
    """What the layouts that are searched have in common: the stack where none is named, and what may be chosen."""

    usual_stack: str
    choose: Mapping[str, Any]
    all_layers_again: bool


class PlanArguments(TypedDict, total=False):
    """The arguments of a plan beside its model; all may be left out but the cluster, and one of gpus, deadline and budget.

    Quantities are numbers in SI units or texts (plan_quantities.py). `confidence` is the probability with which a plan has to
    meet the deadline and the budget, 90 % where it is left out; 50 % judges by medians. `leave_free` is a share of the GPU's
    memory that no layout may use; `choose` limits settings to some values (precision, sharding, tensor_parallel ..);
    `economics` are changes of the typical terms, or the name of others; `price` is that of a GPU-hour: dollars, the name of an
    offer (prices.py), or "on-demand" or "reserved" for its cluster. `evidence` is what `perfmodel calibrate --from-runs`
    wrote, in place of the cluster's own; `usual_stack` is the stack where neither `stack` nor the run names one; with
    `all_layers_again` a full recompute is one of all layers, as software has it that cannot choose some of them.
    """

    cluster: str | Mapping[str, Any] | Cluster | None
    evidence: str | None
    stack: str | Mapping[str, Any] | SoftwareStack | None
    usual_stack: str | None
    gpus: str | int | Sequence[int] | None
    deadline: Quantity | date | None
    budget: Quantity | None
    confidence: Quantity | None
    tokens: Quantity | None
    global_batch_size: Quantity | None
    sequence_length: Quantity | None
    ramp: str | Sequence[str] | None
    leave_free: Quantity | None
    choose: Mapping[str, Any]
    all_layers_again: bool | None
    economics: str | Mapping[str, Any] | Economics | None
    price: Quantity | None


def read_plan_request(model: str | Mapping[str, Any] | TransformerModel | Run, **wanted: Unpack[PlanArguments]) -> PlanRequest:
    """The plan question that these arguments ask.

    `model` may also be a run (a file, its mapping, or runs/NAME): its settings stand where no argument says otherwise.

    Errors: InputError for what is missing, contradicts itself or cannot be read.
    """
    given: dict[str, Any] = {key: value for key, value in wanted.items() if value is not None}
    for key in given:
        if key not in PlanArguments.__annotations__:
            raise InputError(f"not an argument of a plan; {did_you_mean(key, PlanArguments.__annotations__)}", key=key)
    run, named = _run(model, given)
    if run is not None and run.fine_tuning is not None:
        raise NotSupportedError("layouts of a fine-tuning are not searched; predict and sweep take them", key="training")
    named = named | {part: given[part] for part in RUN_PARTS if part in given}
    if "cluster" not in named:
        raise InputError("give a cluster, as in --cluster dgx-h100 (perfmodel list clusters)", key="cluster")
    replaced: tuple[str, ...] = ()
    if "evidence" in given:
        before, named["cluster"] = named["cluster"], _with_evidence(named["cluster"], given["evidence"])
        replaced = _replaced(before, named["cluster"], given["evidence"])
    named.setdefault("stack", given.get("usual_stack", USUAL_STACK))
    cluster = _part(Cluster, "clusters", named["cluster"], "cluster")
    stack = _part(SoftwareStack, "stacks", named["stack"], "stack")
    transformer = _part(TransformerModel, "models", named["model"], "model")
    length = (
        whole_number("sequence_length", given["sequence_length"]) if "sequence_length" in given else _length(run, transformer)
    )
    stages, terms = _stages(run, given, length), _terms(run, given, named["cluster"])
    question = PlanQuestion(
        model=transformer,
        cluster=_with_room(cluster, share_of_memory(given.get("leave_free", 0.0))),
        stack=stack,
        sequence_length=length,
        stages=stages,
        space=replace(
            _choices(run, stack, cluster.gpu, given.get("choose", {})), all_layers_again=given.get("all_layers_again", False)
        ),
        terms=terms,
        deadline_s=deadline_s(given["deadline"]) if "deadline" in given else None,
        budget_dollars=budget_dollars(given["budget"]) if "budget" in given else None,
        confidence=confidence(given.get("confidence", USUAL_CONFIDENCE)),
        expert_load=planned_load(run, given.get("choose", {})),
        assumptions=(
            *_assumptions(run, given, stack, length, stages),
            *load_sentences(transformer, planned_load(run, given.get("choose", {}))),
            *replaced,
            *own_runs_sentences(cluster.evidence, "layout"),
            *offer_sentence(terms),
        ),
        leave_free=share_of_memory(given.get("leave_free", 0.0)),
        names={name: mapping_of(part) for name, part in named.items()},
    )
    numbers = sorted(whole_numbers("gpus", given["gpus"], multiple=int(cluster.gpus_per_node))) if "gpus" in given else []
    _check(question, numbers)
    return PlanRequest(question=question, gpus=tuple(numbers) or _own_gpus(question))


def planned_source(source: str, *, model: str | None, cluster: str | None, gpus: str | None) -> str | dict[str, Any]:
    """What a plan is of: a model or a run that is named, a model beside nothing, or a run with another model.

    Errors: InputError for none, and for two models.
    """
    if not source and model is None:
        raise InputError("name a model or a run, as in llama-3.1-8b or --model config.json", key="model")
    if model is None or not source:
        return known_model(source or str(model)) or source or str(model)
    if known_model(source):
        raise InputError(f"{shown(source)} is a model itself; leave out --model")
    named = source.removeprefix(RUN_PREFIX)
    return run_beside(named, model=model, cluster=cluster, gpus=None if has_gpus(named) else _first(gpus))


def _own_gpus(question: PlanQuestion) -> tuple[int, ...]:
    """The number of GPUs of the largest ramp stage, where the stages state their own."""
    own = [stage.gpus for stage in question.stages if stage.gpus]
    return (max(own),) if own else ()


def _check(question: PlanQuestion, gpus: Sequence[int]) -> None:
    limits = question.deadline_s is not None or question.budget_dollars is not None
    own = [stage.gpus is not None for stage in question.stages]
    if gpus and all(own):
        raise InputError("every stage of the ramp states its own GPUs; leave out one of the two", key="gpus")
    if not gpus and any(own) and not all(own):
        raise InputError("some stages of the ramp state no number of GPUs; give it with --gpus, as in --gpus 1024", key="gpus")
    if not gpus and not any(own) and not limits:
        raise InputError(
            "give a number of GPUs, or a deadline or a budget that decides it: --gpus 1024, --deadline 14d, --budget 5M",
            key="gpus",
        )
    if limits and not question.has_tokens:
        raise InputError("a deadline or a budget needs the number of tokens, as in --tokens 8T", key="tokens")
    if question.budget_dollars is not None and question.terms.dollars_per_gpu_hour is None:
        raise InputError("a budget needs the price of one GPU-hour in dollars, as in --price 2.5", key="price")
    for precision in question.space.precision:
        check_precision(RECIPES[precision], question.cluster.gpu, question.stack)


def _run(
    model: str | Mapping[str, Any] | TransformerModel | Run, given: Mapping[str, Any]
) -> tuple[Run | None, dict[str, Any]]:
    """The run that stands in the place of a model (None where a model does), and its parts, or the model, as they are named."""
    if isinstance(model, Run):
        return model, {part: getattr(model, part) for part in RUN_PARTS}
    if isinstance(model, Mapping) and "stages" in model:
        return _read_run(model, separated(model)[0])
    if isinstance(model, str) and is_foreign_run(model):
        gpus = None if has_gpus(model) else _first(given.get("gpus"))
        cluster = given.get("cluster")
        return _read_run(asked := run_beside(model, cluster=cluster if isinstance(cluster, str) else None, gpus=gpus), asked)
    if isinstance(model, str) and Path(model).suffix.lower() in FILE_SUFFIXES:
        mapping, _ = separated(read_mapping(Path(model)))
        return _read_run(model, beside(Path(model), Run, mapping)) if "stages" in mapping else (None, {"model": model})
    if isinstance(model, str) and model.startswith(RUN_PREFIX):
        name = model.removeprefix(RUN_PREFIX)
        return _read_run(name, read_preset("runs", name)[0])
    return None, {"model": model}


def _first(gpus: Any) -> int | None:
    """The first of the numbers of GPUs that are searched."""
    return None if gpus is None else whole_numbers("gpus", gpus)[0]


def _read_run(source: str | Mapping[str, Any], mapping: Mapping[str, Any]) -> tuple[Run, dict[str, Any]]:
    """A run and its parts as they are named; the first candidate where it lists several values."""
    first, *others = read_candidates(source)
    return first.run, {part: getattr(first.run, part) if others else mapping[part] for part in RUN_PARTS}


def _part(spec: type[S], kind: str, value: Any, key: str) -> S:
    """A part of the question, from a spec, a mapping, or the name of a preset or a file."""
    if isinstance(value, spec):
        return value
    try:
        return build(spec, expand_part(spec, kind, value))
    except PerfmodelError as error:
        raise error.under(key) from None


def _with_evidence(cluster: Any, name: str) -> Any:
    """A cluster as it is named, with the evidence in a file, or of that name, in place of its own."""
    key, value = evidence_setting(name)
    key = key.rpartition(".")[2]
    if isinstance(cluster, Cluster):
        return replace(cluster, evidence=_part(RunEvidence, key, value, key))
    return {**({"extends": cluster} if isinstance(cluster, str) else cluster), key: value}


def _replaced(before: Any, now: Any, name: str) -> tuple[str, ...]:
    """A sentence where evidence that the cluster names gives way to that of this name."""
    first, then = (mapping_of(_part(Cluster, "clusters", each, "cluster").evidence) for each in (before, now))
    return replaced_evidence(first, then, name)


def _with_room(cluster: Cluster, free: float) -> Cluster:
    """The cluster with a share of each GPU's memory left free."""
    return replace(cluster, gpu=replace(cluster.gpu, memory_bytes=cluster.gpu.memory_bytes * (1.0 - free)))


def _length(run: Run | None, model: TransformerModel) -> int:
    if run is not None:
        return int(run.sequence_length)
    return USUAL_LENGTH if model.max_positions is None else min(USUAL_LENGTH, int(model.max_positions))


def _stages(run: Run | None, given: Mapping[str, Any], length: int) -> tuple[StageRequest, ...]:
    """The ramp stages to be planned: those that are given, or those of the run, or one."""
    if "ramp" in given:
        if "tokens" in given or "global_batch_size" in given:
            raise InputError("a ramp has its own batches and tokens; leave out --tokens and --global-batch-size", key="ramp")
        ramp = ramp_stages(given["ramp"])
        return tuple(StageRequest(global_batch_size=batch, tokens=tokens, gpus=gpus) for batch, tokens, gpus in ramp)
    if run is not None and "tokens" not in given and "global_batch_size" not in given:
        return _stages_of(run, keep_gpus=not {"gpus", "deadline", "budget"} & given.keys())
    tokens = positive_number("tokens", given["tokens"]) if "tokens" in given else _all_tokens(run)
    if "global_batch_size" in given or run is not None:
        batch = given.get("global_batch_size", run.stages[-1].global_batch_size if run else None)
        return (StageRequest(global_batch_size=whole_number("global_batch_size", batch), tokens=tokens),)
    return (StageRequest(global_batch_size=usual_batch_size(length), tokens=tokens, rounded=True),)


def _stages_of(run: Run, *, keep_gpus: bool) -> tuple[StageRequest, ...]:
    """The ramp stages of a run, with its numbers of GPUs where nothing else decides them."""
    return tuple(
        StageRequest(
            global_batch_size=int(stage.global_batch_size),
            tokens=None if stage.tokens is None else float(stage.tokens),
            gpus=int(run.layout(stage).gpus) if keep_gpus else None,
        )
        for stage in run.stages
    )


def _all_tokens(run: Run | None) -> float | None:
    """The tokens of all ramp stages of a run; None where a stage does not state them."""
    stated = [] if run is None else [stage.tokens for stage in run.stages if stage.tokens is not None]
    return float(sum(stated)) if run is not None and len(stated) == len(run.stages) else None


def _assumptions(
    run: Run | None, given: Mapping[str, Any], stack: SoftwareStack, length: int, stages: Sequence[StageRequest]
) -> list[str]:
    """A sentence for each default that is taken."""
    sentences = []
    if run is None and "stack" not in given:
        sentences.append(f"no stack is given: {stack.name} is assumed")
    if run is None and "sequence_length" not in given:
        sentences.append(f"no sequence length is given: {length:,} tokens are assumed")
    sentences += [*slips_of_a_length(length)] if "sequence_length" in given else []
    if "leave_free" in given and (share := share_of_memory(given["leave_free"])):
        sentences.append(f"{share_text(share)} of each GPU's memory is left free")
    if stages[0].rounded:
        size = stages[0].global_batch_size
        sequences = f"{size:,} sequences" if size > 1 else "one sequence"
        sentences.append(f"no global batch is given: about 4M tokens ({sequences}), rounded to suit the nodes, are assumed")
    return sentences


def _choices(run: Run | None, stack: SoftwareStack, gpu: Gpu, choose: Any) -> SearchSpace:
    """The search space: all that the stack offers, limited to the values that are given."""
    if not isinstance(choose, Mapping):
        raise InputError(f"{shown(choose)} is not a mapping of settings to values, as in precision=bf16,fp8", key="choose")
    for key in choose:
        if key not in CHOSEN:
            raise InputError(f"not a setting that a plan chooses; {did_you_mean(key, CHOSEN)}", key=str(key))
    every = CATEGORY_VALUES | {"precision": tuple(each for each in PRECISIONS if _runs(RECIPES[each], gpu, stack))}
    precision = choose.get("precision", run.precision if run else "bf16")
    words = {
        name: _words(name, value, every[name])
        for name, value in {**choose, "precision": precision}.items()
        if name in CATEGORY_VALUES
    }
    return SearchSpace(
        precision=words["precision"],
        sharding=words.get("sharding", stack.offers.shardings),
        pipeline_schedule=words.get("pipeline_schedule", stack.offers.schedules),
        recompute=words.get("recompute", RECOMPUTES),
        sequence_parallel=tuple(each == "true" for each in words.get("sequence_parallel", ("true", "false"))),
        fixed={
            name: whole_numbers(name, choose[name])
            for name in NUMERIC_SETTINGS
            if name in choose and choose[name] != ALL_VALUES
        },
    )


def _runs(recipe: PrecisionRecipe, gpu: Gpu, stack: SoftwareStack) -> bool:
    try:
        check_precision(recipe, gpu, stack)
    except NotSupportedError:
        return False
    return True


def _words(name: str, value: Any, every: tuple[str, ...]) -> tuple[str, ...]:
    """The values of a category: some of its words, or `every` of them for `all`."""
    texts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else [value]
    words = [str(word).strip().lower() for word in texts]
    if words == [ALL_VALUES]:
        return every
    rule = Choice(CATEGORY_VALUES[name], tuple(SHARDING_NAMES.items()) if name == "sharding" else ())
    for word in words:
        if problem := rule.problem(word):
            raise InputError(problem, key=name)
    return tuple(dict.fromkeys(words))


def _terms(run: Run | None, given: Mapping[str, Any], cluster: Any) -> Economics:
    """The economic terms: those that are given, over a price, over those of the run, over the typical ones."""
    economics, price = given.get("economics"), given.get("price")
    if isinstance(economics, str) and price is not None:
        economics = mapping_of(_part(Economics, "economics", economics, "economics"))
    if isinstance(economics, Economics):
        return economics
    if economics is None or isinstance(economics, Mapping):
        base = (run.economics if run else None) or economics_preset(TYPICAL)
        economics = mapping_of(base) | dict(with_price(economics or {}, price, cluster))
    return _part(Economics, "economics", economics, "economics")
