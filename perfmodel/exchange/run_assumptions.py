"""What is said of a run that somebody described: what was taken for granted in it, and what its settings make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Final

import numpy as np

from perfmodel.count.pipeline import pipeline_split
from perfmodel.exchange.measured.expert_loads import KEY as EXPERT_LOAD
from perfmodel.exchange.measured.expert_loads import load_text
from perfmodel.exchange.stack_fit import beyond_the_stack
from perfmodel.exchange.syntax.slips import likely_slips, slips_of_a_run
from perfmodel.spec.axes import FILLING
from perfmodel.spec.fields import plain, whole
from perfmodel.spec.run import Run
from perfmodel.units import gpus_text

STATED_SETTINGS: Final = ("precision", "sequence_parallel", "sharding", "recompute", "micro_batch_size")
STACK_SETTINGS: Final = ("sequence_parallel", "sharding")  # a run that does not give them takes those of its stack


def defaults_taken(run: Run, given: Sequence[str]) -> tuple[str, ...]:
    """A sentence for each setting of the layout that the run leaves to its default, and that makes a difference in it."""
    taken = {name: getattr(Run.__dataclass_fields__[name], "default", "") for name in STATED_SETTINGS}
    taken |= dict.fromkeys(STACK_SETTINGS, "that of the stack")
    without = {*given, *([] if np.any(np.asarray(run.tensor_parallel) > 1) else ["sequence_parallel"])}
    return tuple(f"{name} is not given: {value} is assumed" for name, value in taken.items() if name not in without)


def load_taken(run: Run, given: Sequence[str]) -> tuple[str, ...]:
    """A sentence where a mixture of experts does not say how evenly its router spreads tokens."""
    if run.model.mixture is None or EXPERT_LOAD in given:
        return ()
    load = load_text(float(np.max(run.expert_load)))
    return (f"{EXPERT_LOAD} is not given: {load} is assumed, as in benchmarks; natural routing takes longer",)


def of_the_whole(run: Run, *, in_parts: bool) -> tuple[str, ...]:
    """What the settings of a run make together; `in_parts`: its cluster is given by numbers, not by a preset's name alone."""
    slips = likely_slips(run.cluster) if in_parts else ()
    return (
        *_kept_in_a_pipeline(run),
        *_all_seen(run),
        *uneven_stages(run),
        *beyond_the_stack(run),
        *slips_of_a_run(run),
        *slips,
    )


def _kept_in_a_pipeline(run: Run) -> tuple[str, ...]:
    """A sentence where a pipeline keeps whole what the sharding would cut (count/data_parallel.py)."""
    if run.sharding in ("none", "zero1") or np.all(np.asarray(run.pipeline_parallel) == 1):
        return ()
    what = "gradients stay" if run.sharding == "zero2" else "parameters stay gathered and gradients"
    return (f"with pipeline stages {what} whole over the micro-batches of {run.sharding}, as PyTorch's pipelining keeps them",)


def _all_seen(run: Run) -> tuple[str, ...]:
    """A sentence where an indexer chooses what tokens see: training is counted as before it does."""
    of_latent = run.model.latent is not None and run.model.latent.indexer is not None
    if not of_latent and run.model.indexer is None:
        return ()
    key = "model.latent.indexer" if of_latent else "model.indexer"
    return (f"in training every token sees all before it: products of {key} are counted, its scores and choices not",)


def uneven_stages(run: Run) -> tuple[str, ...]:
    """A sentence where the layers do not divide over the stages of a pipeline, with what each end holds (count/pipeline.py)."""
    pieces = np.asarray(run.pipeline_parallel) * np.asarray(run.virtual_pipeline)
    if np.ndim(pieces) or np.ndim(run.model.layers) or not np.any(np.remainder(run.model.layers, pieces)):
        return ()
    first, middle, last = (plain(stage.layers) for stage in pipeline_split(run.setup(run.stages[0])).stages)
    between = f", at most {middle} on those between" if int(pieces) > 2 else ""
    dealt = f"{first} on the first stage{between} and {last} on the last are assumed, as {run.stack.name} deals them out"
    return (f"{plain(run.model.layers)} layers do not divide over {plain(pieces)} pieces of a pipeline: {dealt}",)


def other_gpus(run: Run, degrees: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence where an override of other degrees than the run has makes more GPUs, or fewer, of the same replicas."""
    single = {name: before for name, before in degrees.items() if isinstance(before, int) and before > 0}
    ranks = [(before, whole(getattr(run, name))) for name, before in single.items() if np.ndim(getattr(run, name)) == 0]
    before, now = (prod(each) for each in zip(*ranks, strict=True)) if ranks else (1, 1)
    if before == now:
        return ()
    gpus = int(run.layout(run.stages[0]).gpus)
    changed = [name for name, before in single.items() if np.any(getattr(run, name) != before)]
    made = f"{' and '.join(changed)} made {gpus_text(gpus)} of {gpus * before // now:,} in stage 1"
    return (f"{made}: each stage keeps its {FILLING.name}; whatif --same-gpus keeps the GPUs",)


def replaced_evidence(before: Any, now: Any, name: Any) -> tuple[str, ...]:
    """A sentence where evidence with own runs gives way to other evidence, which was typed as `name`."""
    if not isinstance(before, Mapping) or not before.get("own_shifts") or before == now:
        return ()
    other = name if isinstance(name, str) else "other evidence"
    return (f"{other} is taken in place of {before.get('name')}, the evidence that the cluster of the run names",)
