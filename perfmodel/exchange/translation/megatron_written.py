"""All flags of a run for Megatron-LM, read again before they are handed out: what they cannot say is refused by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import reduce
from typing import Any, Final

from perfmodel.count.pipeline import pipeline_split
from perfmodel.errors import NotSupportedError
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.translation import megatron_run_flags as written
from perfmodel.exchange.translation.megatron import from_flags
from perfmodel.exchange.translation.megatron_model_flags import kinds_by_layer, model_flags
from perfmodel.spec.fields import Spec, plain, whole
from perfmodel.spec.layout import Layout
from perfmodel.spec.run import RampStage, Run

FAMILIES: Final = ("megatron-core", "megatron-lm")
SOFTWARE: Final = "flags of Megatron-LM"
BY_LAYER: Final = ("layer_kinds", "layer_pattern", "first_layers")  # of a model: compared layer by layer
NOT_SAID: Final = ("expert_load", "pipeline_layout")  # of a layout: a property of data; compared stage by stage
SWITCHES: Final = (  # keys of a stack that flags say
    *("overlap.tensor_parallel", "overlap.context_parallel_exchange", "overlap.pipeline", "overlap.data_parallel"),
    *("overlap.bucket_parameters", "fusion.attention", "fusion.attention_library", "fusion.softmax", "fusion.rotary"),
    *("fusion.activation", "fusion.gradient_accumulation", "fusion.fp32_stream", "fusion.loss_peak_bytes"),
    *("low_precision.scaling", "low_precision.parameter_gather", "states.gradient_bytes", "states.reduced_gradient_bytes"),
    *("states.optimizer_bytes", "experts.dispatcher", "experts.overlap", "host.cuda_graphs", "host.graphed"),
)


def flag_groups(run: Run, stages: tuple[RampStage, ...]) -> dict[str, dict[str, Any]]:
    """The flags of some stages of a run with as many GPUs, by subject; True for a bare flag.

    Errors: NotSupportedError for other software, and for what no flag says.
    """
    if run.stack.family not in FAMILIES:
        raise NotSupportedError(
            f"{run.stack.name} is other software than Megatron-LM; --set stack=megatron-core is that", key="stack"
        )
    layout = run.layout(stages[-1])
    groups = {
        "MODEL": dict(model_flags(run.model)),
        "PARALLEL": dict(written.degree_flags(run, layout)) | dict(written.state_flags(run, layout)),
        "TRAINING": dict(written.batch_flags(run, stages)) | dict(written.precision_flags(run, layout)),
        "KERNELS": dict(written.recompute_flags(layout)) | dict(written.kernel_flags(run, layout)),
    }
    _check(run, stages, {flag: _typed(value) for group in groups.values() for flag, value in group.items()})
    return groups


def _typed(value: Any) -> Any:
    """The value of a flag as it is read from a command line."""
    return value if value is True else str(value)


def _check(run: Run, stages: tuple[RampStage, ...], flags: Mapping[str, Any]) -> None:
    """Raise NotSupportedError where flags do not make the run again."""
    layout = run.layout(stages[-1])
    found = from_flags(flags, format_name=SOFTWARE, name=run.name, gpus=whole(layout.gpus))
    if found.refused:
        raise NotSupportedError("; ".join(found.refused))
    again = read_candidates({**(found.run or {}), "cluster": mapping_of(run.cluster)})[0].run
    for key, wanted in _unsaid(replace(run, stages=stages), again):
        value = wanted if isinstance(wanted, str) else _shown(wanted)
        raise NotSupportedError(f"{value} cannot be said in {SOFTWARE}", key=key)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return plain(value) if isinstance(value, int | float) else "this"


def _unsaid(run: Run, again: Run) -> Iterator[tuple[str, Any]]:
    """Keys of a run, with their values, in which flags that are read again have another one."""
    yield from _of_parts(run.model, again.model, "model")
    if kinds_by_layer(run.model) != kinds_by_layer(again.model):
        yield "model.layer_kinds", "this order of layers"
    for stage, other in zip(run.stages, again.stages, strict=True):
        yield from _of_layouts(run, run.layout(stage), again.layout(other))
        tokens = stage.tokens
        if tokens is not None and abs(float(tokens) - float(other.tokens or 0)) > float(run.sequence_length):
            yield "stages.tokens", tokens
    held, other_held = (
        [float(each.layers) for each in pipeline_split(one.setup(one.stages[-1])).stages] for one in (run, again)
    )
    if held != other_held:
        yield "pipeline_layout", "this split of layers"
    yield from _of_stacks(run, again)


def _of_parts(part: Any, again: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Of a model, or of a section that both have, by its fields."""
    for entry in fields(part):
        value, other = getattr(part, entry.name), getattr(again, entry.name)
        if entry.name in ("name", *BY_LAYER) or value == other:
            continue
        if isinstance(value, Spec) and isinstance(other, Spec):
            yield from _of_parts(value, other, f"{path}.{entry.name}")
        else:
            yield f"{path}.{entry.name}", value


def _of_layouts(run: Run, layout: Layout, again: Layout) -> Iterator[tuple[str, Any]]:
    ignored = {*NOT_SAID, *(("sequence_parallel",) if whole(layout.tensor_parallel) == 1 else ())}
    if run.model.mixture is None:
        ignored |= {"expert_tensor_parallel"}
    for entry in fields(layout):
        value, other = getattr(layout, entry.name), getattr(again, entry.name)
        if entry.name == "recompute_modules" and value == ("core_attn",):
            value = ()  # what is run again unless others are named
        if entry.name not in ignored and value != other:
            yield entry.name, value


def _of_stacks(run: Run, again: Run) -> Iterator[tuple[str, Any]]:
    for key in SWITCHES:
        value, other = (reduce(getattr, key.split("."), one.stack) for one in (run, again))
        if _matters(key, run) and value != other:
            yield f"stack.{key}", value


def _matters(key: str, run: Run) -> bool:
    """Whether a switch of the stack changes anything of a run."""
    layout, fusion = run.layout(run.stages[-1]), run.stack.fusion
    is_alone = {
        "overlap.tensor_parallel": whole(layout.tensor_parallel) == 1,
        "overlap.context_parallel_exchange": whole(layout.context_parallel) == 1,
        "overlap.pipeline": whole(layout.virtual_pipeline) == 1,
        "overlap.bucket_parameters": layout.sharding in written.FSDP,
        "fusion.attention_library": not fusion.attention,
        "fusion.softmax": fusion.attention,
        "fusion.rotary": run.model.position != "rotary",
        "fusion.activation": run.model.activation not in ("swiglu", "gelu"),
        "low_precision.scaling": layout.precision != "fp8",
        "low_precision.parameter_gather": not layout.recipe.casts,
        "experts.dispatcher": run.model.mixture is None,
        "experts.overlap": run.model.mixture is None,
        "states.gradient_bytes": layout.precision in ("fp16", "fp32"),
        "states.reduced_gradient_bytes": layout.precision in ("fp16", "fp32"),
    }
    return not is_alone.get(key, False)
