"""Is a launch file, read again, the run that it was written from? What it does not say is refused by the key of the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import reduce
from typing import Any, Final, TypeAlias

import numpy as np

from perfmodel.count.pipeline import pipeline_split
from perfmodel.errors import InputError, NotSupportedError, PerfmodelError
from perfmodel.exchange.importers.registry import document_of, importer_of
from perfmodel.exchange.run_files import read_candidates
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.megatron.model_flags import kinds_by_layer
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Choice, Choices, Flag, Spec, plain, rule_of, whole
from perfmodel.spec.layout import EVEN, GATHERED, Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.stack import SoftwareStack

Difference: TypeAlias = tuple[str, Any, Any]  # the key path, its value in the run, and in the file
BY_LAYER: Final = ("layer_kinds", "layer_pattern", "first_layers")  # of a model: compared layer by layer
NOT_SAID: Final = ("expert_load", "pipeline_layout")  # of a layout: a property of data; compared stage by stage
PLAIN_WORDS: Final = {
    "Mixture": "a mixture of experts",
    "LatentAttention": "latent attention",
    "Indexer": "an indexer",
    "StateSpace": "Mamba-2",
    "GatedDelta": "gated delta",
}
NUMBERS: Final = (  # of a stack that settings of software decide; all other numbers are what its kernels take
    *("overlap.bucket_parameters", "fusion.loss_peak_bytes", "fusion.loss_chunks", "states.gradient_bytes"),
    *("states.reduced_gradient_bytes", "states.optimizer_bytes"),
)
SECTIONS: Final = ("host", "fusion", "overlap", "low_precision", "experts", "states")  # of a stack: what it does


def all_switches() -> tuple[str, ...]:
    """Every key of a stack that is a choice, and the numbers that follow from settings."""
    parts = {each.name: rule_of(each) for each in fields(SoftwareStack)}
    chosen = [
        f"{section}.{entry.name}"
        for section in SECTIONS
        for entry in fields(parts[section].spec)  # type: ignore[union-attr]
        if isinstance(rule_of(entry), Flag | Choice | Choices)
    ]
    return (*chosen, *NUMBERS)


def check_read_again(text: str, run: Run, stages: Sequence[RampStage], *, software: str, switches: Sequence[str]) -> None:
    """Raise NotSupportedError where the text of a launch file does not make these stages of a run again.

    `software` is what the words of the file are called in sentences, `switches` the keys of the stack that they decide.
    """
    found = _conversion(text)
    if found.refused:
        raise NotSupportedError("; ".join(found.refused))
    replica = run.layout(stages[-1])
    mapping = {"gpus": whole(replica.gpus), **(found.run or {}), "cluster": mapping_of(run.cluster)}
    try:
        again = read_candidates(mapping)[0].run
    except PerfmodelError as error:
        raise NotSupportedError(f"this run cannot be said in {software}: {error}") from None
    for difference in _differences(replace(run, stages=tuple(stages)), again, switches):
        raise refusal(difference, software)


def refusal(difference: Difference, software: str) -> NotSupportedError:
    """Why a value cannot be written, and what it would be when it is read again."""
    key, wanted, other = difference
    would = f"; it would be {_shown(other)}" if isinstance(other, bool | int | float | str) else ""
    return NotSupportedError(f"{_shown(wanted)} cannot be said in {software}{would}", key=key)


def _conversion(text: str) -> Conversion:
    document = document_of(text)
    importer = importer_of(document)
    if importer is None or importer.convert is None:
        raise InputError("the launch file that was written is recognised by no importer")
    return importer.convert(document)


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, str):
        return value
    return plain(value) if isinstance(value, int | float) else PLAIN_WORDS.get(type(value).__name__, "this")


def _differences(run: Run, again: Run, switches: Sequence[str]) -> Iterator[Difference]:
    """Keys of a run, with their values, in which a file that is read again has another one."""
    yield from model_differences(run.model, again.model, whole(run.tensor_parallel))
    if len(run.stages) != len(again.stages):
        yield "stages", f"a ramp of {len(run.stages)} batches", None
        return
    for stage, other in zip(run.stages, again.stages, strict=True):
        yield from _of_layouts(run, run.layout(stage), again.layout(other))
        if stage.tokens is not None and abs(float(stage.tokens) - float(other.tokens or 0)) > _least_tokens(run, stage):
            yield "stages.tokens", stage.tokens, other.tokens
    held, other_held = (
        [float(each.layers) for each in pipeline_split(one.setup(one.stages[-1])).stages] for one in (run, again)
    )
    if held != other_held:
        even = run.pipeline_layout == EVEN
        yield "pipeline_layout", "this split of layers" if even else run.pipeline_layout, None
    yield from _of_stacks(run, again, switches)


def _least_tokens(run: Run, stage: RampStage) -> float:
    """Tokens that a file may leave out or add: those of an iteration, as many files count steps."""
    return float(run.layout(stage).tokens_per_iteration)


def model_differences(model: TransformerModel, again: TransformerModel, tensor_parallel: int) -> Iterator[Difference]:
    """In which fields models differ; in their padding where the padded vocabulary does."""
    for key, value, other in _of_parts(model, again, "model"):
        padded, other_padded = (float(each.padded_vocab_size(tensor_parallel)) for each in (model, again))
        if key != "model.vocab_padding_multiple" or padded != other_padded:
            yield key, value, other
    if kinds_by_layer(model) != kinds_by_layer(again):
        yield "model.layer_kinds", "this order of layers", None


def _of_parts(part: Any, again: Any, path: str) -> Iterator[Difference]:
    """Of a model, or of a section that both have, by its fields."""
    for entry in fields(part):
        value, other = getattr(part, entry.name), getattr(again, entry.name)
        if entry.name in ("name", *BY_LAYER) or value == other:
            continue
        if isinstance(value, Spec) and isinstance(other, Spec):
            yield from _of_parts(value, other, f"{path}.{entry.name}")
        else:
            yield f"{path}.{entry.name}", value, other


def _of_layouts(run: Run, layout: Layout, again: Layout) -> Iterator[Difference]:
    ignored = {*NOT_SAID, *(("sequence_parallel",) if whole(layout.tensor_parallel) == 1 else ())}
    if run.model.mixture is None:
        ignored |= {"expert_tensor_parallel"}
    if whole(layout.data_parallel * layout.context_parallel) == 1:
        ignored |= {"sharding"}  # among one rank
    for entry in fields(layout):
        value, other = getattr(layout, entry.name), getattr(again, entry.name)
        if entry.name == "recompute_modules" and value == ("core_attn",):
            value = ()  # what is run again unless others are named
        if entry.name not in ignored and value != other:
            yield entry.name, value, other


def _of_stacks(run: Run, again: Run, switches: Sequence[str]) -> Iterator[Difference]:
    for key in switches:
        value, other = (_switch(key, one) for one in (run, again))
        if _matters(key, run) and value != other:
            yield f"stack.{key}", value, other


def _switch(key: str, run: Run) -> Any:
    """The value of a switch; the size of a bucket is that of the replicas of this run."""
    if key == "overlap.bucket_parameters":
        return bucket_of(run)
    return reduce(getattr, key.split("."), run.stack)


def bucket_of(run: Run) -> float:
    """Parameters of a bucket at the replicas of the last stage (count/data_parallel.py)."""
    overlap, ranks = run.stack.overlap, run.stages[-1].data_parallel * run.context_parallel
    return float(np.maximum(overlap.bucket_parameters, overlap.bucket_parameters_per_rank * ranks))


def _matters(key: str, run: Run) -> bool:
    """Whether a switch of the stack changes anything of a run."""
    layout, fusion = run.layout(run.stages[-1]), run.stack.fusion
    is_alone = {
        "overlap.tensor_parallel": whole(layout.tensor_parallel) == 1,
        "overlap.context_parallel_exchange": whole(layout.context_parallel) == 1,
        "overlap.pipeline": whole(layout.virtual_pipeline) == 1,
        "overlap.bucket_rule": whole(layout.data_parallel * layout.context_parallel) == 1 or layout.sharding in GATHERED,
        "overlap.bucket_parameters": layout.sharding in ("zero2", *GATHERED) or run.stack.overlap.bucket_rule == "layer",
        "fusion.attention_library": not fusion.attention,
        "fusion.softmax": fusion.attention,
        "fusion.rotary": run.model.position != "rotary",
        "fusion.activation": run.model.activation not in ("swiglu", "gelu"),
        "fusion.selective_recompute": layout.recompute != "selective",
        "states.regathers_parameters": layout.sharding not in GATHERED,
        "low_precision.scaling": not layout.recipe.casts or layout.recipe.has_blocks,
        "low_precision.parameter_gather": not layout.recipe.casts,
        "experts.dispatcher": run.model.mixture is None,
        "experts.overlap": run.model.mixture is None,
        "states.gradient_bytes": layout.precision in ("fp16", "fp32"),
        "states.reduced_gradient_bytes": layout.precision in ("fp16", "fp32"),
    }
    return not is_alone.get(key, False)
