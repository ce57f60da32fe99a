"""A YAML for MaxText over its base.yml: the model, the mesh inside and between slices, and the batch of a device."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from math import gcd
from typing import Any, Final

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.building import build
from perfmodel.exchange.importers.configs.maxtext import AXES, MAXTEXT, REMAT, SIZES, known_models, model_called, model_of_sizes
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.syntax.documents import yaml_text
from perfmodel.exchange.translation.launch_texts import heading, steps_of, world_of
from perfmodel.exchange.translation.named_models import named_model
from perfmodel.exchange.translation.read_again import model_differences, refusal
from perfmodel.exchange.translation.words.table_words import spelled
from perfmodel.spec.fields import plain, whole
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "AI-Hypercomputer/maxtext e591f30cb"
SOFTWARE: Final = "keys of MaxText's YAML"
STACK: Final = "maxtext"
SHARES: Final = {"none": "data", "zero3": "fsdp", "hsdp": "fsdp"}  # the axis over which data parallelism goes
YOURS: Final = {
    "hardware": "gpu",
    "dataset_type": "synthetic",
    "attention": "cudnn_flash_te",
    "base_output_directory": "output",
}


def _yaml(run: Run, stages: tuple[RampStage, ...]) -> str:
    """The text of a YAML. Errors: NotSupportedError."""
    layout = run.layout(stages[-1])
    steps = steps_of(run, stages, SOFTWARE)
    values = _model(run) | _training(layout, steps) | _mesh(run, layout)
    words = {"base_config": "base.yml", "run_name": run.name} | spelled(values, table=MAXTEXT.table, software=SOFTWARE) | YOURS
    nodes = world_of(run, stages[-1]).nodes
    start = f"python3 -m maxtext.trainers.pre_train.train FILE{f', on each of {nodes} nodes' if nodes > 1 else ''}"
    about = heading(run, stages, words="Keys", version=VERSION, start=start, stack=STACK)
    yours = "# Yours: data (synthetic here), learning rate, checkpoints and where output goes.\n"
    return f"{about}{yours}{yaml_text(words)}"


def _model(run: Run) -> dict[str, Any]:
    """The name of a model that MaxText has, or the sizes of one over base.yml. Errors: NotSupportedError."""
    sizes = {size: whole(getattr(run.model, size)) for size in (*SIZES, "kv_heads", "head_size", "vocab_size")}
    try:
        return {"model": named_model(run, known_models(), _known, SOFTWARE)}
    except NotSupportedError:
        again = build(TransformerModel, model_of_sizes(sizes))
    for difference in model_differences(run.model, again, whole(run.tensor_parallel)):
        raise refusal(difference, f"{SOFTWARE}, but for models that it names")
    return sizes


@cache
def _known(name: str) -> TransformerModel:
    model: TransformerModel = build(TransformerModel, model_called(name))
    return model


def _training(layout: Layout, steps: int) -> dict[str, Any]:
    """Batches of a device, formats, and what runs again."""
    if layout.recompute not in REMAT.values():
        raise NotSupportedError(f"{layout.recompute} cannot be said in {SOFTWARE}", key="recompute")
    is_low = layout.recipe.casts
    passes, pipelined = whole(layout.micro_batches), whole(layout.pipeline_parallel) > 1
    ranks = whole(layout.tensor_parallel * layout.context_parallel * layout.pipeline_parallel)
    sequences = whole(layout.micro_batch_size) * (passes if pipelined else 1)
    each = sequences / ranks
    return {
        "device_batch": int(each) if each == int(each) else each,
        "passes": 1 if pipelined else passes,
        **({"pipeline_passes": passes} if pipelined else {}),
        "sequence_length": whole(layout.sequence_length),
        "steps": steps,
        "precision": "bf16" if is_low else layout.precision,
        **({"quantization": layout.precision} if is_low else {}),
        "remat": next(name for name, recompute in REMAT.items() if recompute == layout.recompute),
    }


def _mesh(run: Run, layout: Layout) -> dict[str, int]:
    """Degrees along the axes of the mesh: as many as fit inside a node, tensor parallelism first, the rest between nodes."""
    if layout.sharding not in SHARES:
        raise NotSupportedError(f"{layout.sharding} cannot be said in {SOFTWARE}; none, zero3 and hsdp can", key="sharding")
    is_cut = layout.sequence_parallel and whole(layout.tensor_parallel) > 1
    replicas, all_copies = whole(layout.data_parallel_replicas), whole(layout.data_parallel)
    degrees = {
        ("ici_tensor_sequence" if is_cut else "ici_tensor"): whole(layout.tensor_parallel),
        "ici_context": whole(layout.context_parallel),
        f"ici_{SHARES[layout.sharding]}": all_copies // replicas,
        "ici_pipeline": whole(layout.pipeline_parallel),
    }
    degrees |= {"ici_data": replicas} if layout.sharding == "hsdp" else {}
    left, inside = min(run.cluster.gpus_per_node, whole(layout.gpus)), dict[str, int]()
    for axis, degree in degrees.items():
        inside[axis] = gcd(degree, left)
        left //= inside[axis]
    between = {f"dcn{axis.removeprefix('ici')}": degree // inside[axis] for axis, degree in degrees.items()}
    if between.pop("dcn_tensor_sequence", 1) > 1:
        problem = (
            f"{plain(layout.tensor_parallel)} with sequence_parallel reaches beyond a node, which cannot be said in {SOFTWARE}"
        )
        raise NotSupportedError(problem, key="tensor_parallel")
    written = (
        "ici_data",
        "ici_fsdp",
        "dcn_data",
        "dcn_fsdp",
    )  # base.yml gives these the rest of the devices, where they are silent
    one = {axis: 1 for axes in AXES.values() for axis in axes if axis in written}
    return one | _in_order(inside | between)


def _in_order(degrees: Mapping[str, int]) -> dict[str, int]:
    """Axes inside a node before those between nodes; those of one rank are left out."""
    return {axis: degree for axis, degree in sorted(degrees.items(), key=lambda each: each[0] < "ici") if degree > 1}


LAUNCHER: Final = Launcher(
    name="maxtext",
    version=VERSION,
    software=SOFTWARE,
    families=("maxtext",),
    stack=STACK,
    file="launch.yaml",
    settings={"virtual_pipeline": "1", "pipeline_schedule": "1f1b"},
    written=_yaml,
)
