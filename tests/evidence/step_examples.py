"""A small run, and the record of steps that would be exactly as predicted."""

from __future__ import annotations

from typing import Any

from perfmodel.count.operators import Collective
from perfmodel.evidence.steps.step_records import CollectiveCount, MeasuredMemory, OperatorTime, StepRecord
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import Prediction, predict
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import OPTIMIZER
from perfmodel.timing.ledger import ledger

SETTINGS = ("stack=reference", "stages=[{data_parallel: 2, global_batch_size: 4}]", "micro_batch_size=1", "tensor_parallel=2")
PROVENANCE = {"gpu": "a GPU", "software": "torch", "date": "2026-01-01", "command": "perfmodel measure"}


def small_prediction(*more: str) -> Prediction:
    """Nemotron-4 15B on four GPUs, with the reference model's software."""
    return predict(read_candidates("nemotron-4-15b", (*SETTINGS, *more))[0].run)


def plain(spec: TransformerModel | Layout) -> dict[str, Any]:
    """Its fields by name."""
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}


def as_predicted(prediction: Prediction, *, slower: float = 1.0) -> StepRecord:
    """A record whose every operator takes `slower` times what is predicted, on average over pipeline stages."""
    run, stage = prediction.run, prediction.stages[0][1]
    entries = list(ledger(stage.work, gpus=stage.layout.gpus, cluster=run.cluster, stack=run.stack))
    times: dict[tuple[str, str], float] = {}
    counts: dict[tuple[str, int, int], list[int]] = {}
    for entry in entries:
        key = (entry.operator.name, entry.operator.phase)
        stages = 1 if entry.operator.phase == OPTIMIZER else stage.layout.pipeline_parallel
        times[key] = times.get(key, 0.0) + float(entry.repeats * entry.seconds / stages) * slower
    for place, held in enumerate(stage.work.every_stage, start=1):
        for operator, repeats in stage.work.stage_executions(held):
            if isinstance(operator, Collective) and operator.group.ranks > 1 and repeats:
                of_kind = counts.setdefault((operator.kind, int(operator.group.ranks), place), [0, 0])
                of_kind[0] += int(repeats)
                of_kind[1] += round(float(repeats * operator.payload_bytes))
    total = float(stage.iteration_time_s) * slower
    parts = [
        round(float(getattr(stage.memory, f"{name}_bytes")))
        for name in ("parameters", "gradients", "optimizer", "activations", "loss")
    ]
    return StepRecord(
        name=run.name,
        settings={"model": plain(run.model), "layout": plain(stage.layout)},
        gpus=int(stage.layout.gpus),
        tokens_per_iteration=int(stage.layout.tokens_per_iteration),
        iteration_time_s=total,
        spread=0.01,
        repeats=10,
        tokens_per_s=float(stage.layout.tokens_per_iteration) / total,
        model_flop_per_s=1e14,
        mfu=0.3,
        profiled_iteration_time_s=total,
        between_s=total - sum(times.values()),
        exposed_communication_s=sum(
            float(entry.repeats * entry.seconds) * slower for entry in entries if isinstance(entry.operator, Collective)
        ),
        operators=[OperatorTime(name=n, phase=p, seconds=s, fastest_s=s) for (n, p), s in times.items()],
        collectives=[
            CollectiveCount(kind=kind, ranks=ranks, calls=calls, payload_bytes=size, pipeline_stage=place)
            for (kind, ranks, place), (calls, size) in counts.items()
        ],
        memory=MeasuredMemory(
            parameters_bytes=parts[0],
            gradients_bytes=parts[1],
            optimizer_bytes=parts[2],
            activations_bytes=parts[3],
            loss_bytes=parts[4],
            peak_bytes=sum(parts),
        ),
        losses=[3.0, 2.0],
        power_w=None,
        warnings=[],
        provenance=PROVENANCE,
    )
