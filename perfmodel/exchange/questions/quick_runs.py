"""The run that answers a quick question: a model on so many GPUs, in the fastest layout that fits, with every choice said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

from perfmodel.errors import InputError
from perfmodel.exchange.measured.expert_loads import load_sentences
from perfmodel.exchange.presets import cluster_preset
from perfmodel.exchange.questions.plan_arguments import CHOSEN, USUAL_STACK, Quantity, SearchLimits, read_plan_request
from perfmodel.exchange.questions.plan_quantities import whole_number
from perfmodel.exchange.run_files import Setting, parsed_setting
from perfmodel.exchange.syntax.key_paths import is_factor, steps_of
from perfmodel.search.layouts.fastest import fastest_layout
from perfmodel.search.question import PlanQuestion
from perfmodel.spec.axes import FILLING, REPLICA_AXES, TENSOR
from perfmodel.spec.run import OF_A_STAGE, SETTINGS
from perfmodel.units import gpus_text

USUAL_CLUSTER: Final = "dgx-h100"
LAYOUT: Final = tuple(name for name in SETTINGS if name not in OF_A_STAGE)
WHOLE: Final = ("cluster", "stack", "sequence_length")  # keys of a run that are arguments of a plan as they are
BATCH: Final = "global_batch_size"  # of any ramp stage: a model alone has one


def quick_run(
    model: str | Mapping[str, Any],
    *,
    cluster: str | None = None,
    gpus: Quantity | None = None,
    tokens: Quantity | None = None,
    search: SearchLimits | None = None,
    settings: Sequence[Setting] = (),
) -> dict[str, Any]:
    """The mapping of a run of a model. What is not asked for is chosen, and said in its assumptions.

    `search` limits what may be chosen; so do `settings` of the run, of which the others are to be set in the mapping.
    Errors: InputError.
    """
    wanted = searched_settings(settings)
    given = {**(search or {}).get("choose", {}), **wanted.get("choose", {})}
    limits: dict[str, Any] = {**(search or {}), **wanted, "choose": given}
    hardware, assumptions = limits.pop("cluster", cluster), []
    if hardware is None:
        hardware = USUAL_CLUSTER
        assumptions.append(f"no cluster is given: {USUAL_CLUSTER} is assumed")
    if gpus is None:
        gpus = int(cluster_preset(hardware).gpus_per_node) if hardware == USUAL_CLUSTER else None
        assumptions += [f"no number of GPUs is given: one node of {gpus} is assumed"] if gpus else []
    number = None if gpus is None else whole_number("gpus", gpus)
    question = read_plan_request(model, cluster=hardware, gpus=number, tokens=tokens, **limits).question
    layout, sentence = _layout(question, number or 1, given=[*wanted.get("choose", {})])
    stage = {name: layout[name] for name in OF_A_STAGE} | ({} if tokens is None else {"tokens": tokens})
    of_experts = load_sentences(question.model, question.expert_load)  # the run says so itself, in its own words
    return {
        "name": f"{question.model.name} on {gpus_text(number or 1)}",
        "model": model,
        "cluster": hardware,
        "stack": limits.get("stack", limits.get("usual_stack", USUAL_STACK)),
        **{name: layout[name] for name in LAYOUT if name in layout},
        "stages": [stage],
        "assumptions": [*assumptions, *(each for each in question.assumptions if each not in of_experts), sentence],
    }


def searched_settings(settings: Sequence[Setting]) -> dict[str, Any]:
    """The arguments of a plan (PlanArguments) that settings of a run come to.

    Settings of other keys, factors (x2) and lists of candidates change the layout that is found. Errors: InputError for data
    parallelism, which is what the GPUs leave.

    >>> searched_settings(["tensor_parallel=8", "sequence_length=8k", "stages[*].global_batch_size=64", "micro_batch_size=x2"])
    {'choose': {'tensor_parallel': 8}, 'sequence_length': '8k', 'global_batch_size': 64}
    """
    pairs = [each for each in map(parsed_setting, settings) if not is_factor(each[1]) and not isinstance(each[1], list)]
    for key, _ in pairs:
        if key.startswith("stages") and key.endswith(f".{FILLING.name}"):
            raise InputError("of a model alone it follows from --gpus and the other degrees; give those alone", key=key)
    choose = {key: value for key, value in pairs if key in CHOSEN}
    found: dict[str, Any] = {"choose": choose} if choose else {}
    found |= {key: value for key, value in pairs if key in WHOLE}
    found |= {steps_of(key)[-1]: value for key, value in pairs if key.startswith("stages") and key.endswith(f".{BATCH}")}
    if choose.get("recompute") == "full" and "recompute_layers" not in choose:
        found["all_layers_again"] = True  # as a run that names no number of layers has it
    return found


def _layout(question: PlanQuestion, gpus: int, *, given: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The fastest layout that fits, or one that shows by how much nothing does; `given` are settings that were asked for."""
    (work,) = question.workloads(gpus)
    found = fastest_layout(work, question.space)
    said = f"beside {', '.join(given)} no layout is given" if given else "no layout is given"
    if found is not None:
        return dict(found.settings), f"{said}: the fastest that fits is taken, as perfmodel plan finds it"
    space, node = question.space, int(question.cluster.gpus_per_node)
    degrees = {axis.name: space.fixed.get(axis.name, (1,))[0] for axis in REPLICA_AXES}
    if TENSOR.name not in space.fixed:
        degrees[TENSOR.name] = max(min(gpus // prod(degrees.values()), node), 1)
    ranks, named = prod(degrees.values()), [f"{name} {degree}" for name, degree in degrees.items() if degree != 1]
    if gpus % ranks:
        raise InputError(f"{gpus_text(gpus)} are no multiple of {' x '.join(named)}", key="gpus")
    replicas, micro = gpus // ranks, space.fixed.get("micro_batch_size", (1,))[0]
    settings = {
        "precision": space.precision[0], **degrees, "sequence_parallel": degrees[TENSOR.name] > 1,
        "sharding": _usual("zero1", space.sharding), "recompute": _usual("full", space.recompute), "micro_batch_size": micro,
        "sequence_length": question.sequence_length, "data_parallel": replicas,
        "global_batch_size": max(question.stages[0].global_batch_size // (micro * replicas), 1) * micro * replicas,
    }  # fmt: skip
    return settings, f"{said}, and none fits: {', '.join(named) or 'one rank'} with {settings['recompute']} recompute is shown"


def _usual(value: str, allowed: Sequence[str]) -> str:
    """A value where it may be chosen, else the first that may."""
    return value if value in allowed else allowed[0]
