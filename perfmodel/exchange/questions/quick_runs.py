"""The run that answers a quick question: a model on so many GPUs, in the fastest layout that fits, with every choice said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.exchange.presets import cluster_preset
from perfmodel.exchange.questions.plan_arguments import USUAL_STACK, Quantity, SearchLimits, read_plan_request
from perfmodel.exchange.questions.plan_quantities import whole_number
from perfmodel.search.option import sized_search
from perfmodel.search.question import PlanQuestion
from perfmodel.spec.axes import TENSOR
from perfmodel.spec.run import OF_A_STAGE, SETTINGS
from perfmodel.units import gpus_text

USUAL_CLUSTER: Final = "dgx-h100"
LAYOUT: Final = tuple(name for name in SETTINGS if name not in OF_A_STAGE)


def quick_run(
    model: str | Mapping[str, Any],
    *,
    cluster: str | None = None,
    gpus: Quantity | None = None,
    tokens: Quantity | None = None,
    search: SearchLimits | None = None,
) -> dict[str, Any]:
    """The mapping of a run of a model. What is not asked for is chosen, and said in its assumptions.

    `search` limits what may be chosen. Errors: InputError.
    """
    limits = search or SearchLimits()
    assumptions = []
    if cluster is None:
        assumptions.append(f"no cluster is given: {USUAL_CLUSTER} is assumed")
    hardware = cluster or USUAL_CLUSTER
    if gpus is None:
        gpus = int(cluster_preset(hardware).gpus_per_node) if hardware == USUAL_CLUSTER else None
        assumptions += [f"no number of GPUs is given: one node of {gpus} is assumed"] if gpus else []
    number = None if gpus is None else whole_number("gpus", gpus)
    question = read_plan_request(model, cluster=hardware, gpus=number, tokens=tokens, **limits).question
    layout, sentence = _layout(question, number or 1)
    stage = {name: layout[name] for name in OF_A_STAGE} | ({} if tokens is None else {"tokens": tokens})
    return {
        "name": f"{question.model.name} on {gpus_text(number or 1)}",
        "model": model,
        "cluster": hardware,
        "stack": limits.get("usual_stack", USUAL_STACK),
        **{name: layout[name] for name in LAYOUT if name in layout},
        "stages": [stage],
        "assumptions": [*assumptions, *question.assumptions, sentence],
    }


def _layout(question: PlanQuestion, gpus: int) -> tuple[dict[str, Any], str]:
    """The fastest layout that fits, or one that shows by how much nothing does."""
    found = sized_search(question, gpus, workers=None, on_progress=lambda _: None).option
    if found is not None:
        return dict(
            found.chain.layouts[0].settings
        ), "no layout is given: the fastest that fits is taken, as perfmodel plan finds it"
    ranks = min(gpus, int(question.cluster.gpus_per_node))
    batch = question.stages[0].global_batch_size // max(gpus // ranks, 1) * max(gpus // ranks, 1)
    settings = {
        "precision": "bf16", TENSOR.name: ranks, "sequence_parallel": ranks > 1, "sharding": "zero1", "recompute": "full",
        "micro_batch_size": 1, "sequence_length": question.sequence_length, "data_parallel": gpus // ranks,
        "global_batch_size": max(batch, gpus // ranks),
    }  # fmt: skip
    return settings, f"no layout is given, and none fits: {TENSOR.name} {ranks} with full recompute is shown"
