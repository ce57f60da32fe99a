"""A Python configuration for torchtitan: a function that returns the Trainer.Config of a run."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from keyword import iskeyword
from typing import Any, Final

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.building import build
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.presets import stack_preset
from perfmodel.exchange.translation.launch_texts import heading, steps_of, torchrun, world_of
from perfmodel.exchange.translation.named_models import named_model
from perfmodel.exchange.translation.torchtitan import SCHEDULES, TORCHTITAN, known_flavors, model_of
from perfmodel.exchange.translation.words.table_words import as_sections, spelled
from perfmodel.spec.axes import CONTEXT, EXPERT, PIPELINE, TENSOR
from perfmodel.spec.fields import whole
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "pytorch/torchtitan b5bcd76c6 (2026-08-21)"
SOFTWARE: Final = "a Python configuration of torchtitan"
STACK: Final = "torchtitan"
COMPILED: Final = {
    "torchtitan-eager": [],
    "torchtitan": ["model"],
    "torchtitan-2025": ["model", "loss"],
}  # preset -> components
CONVERTERS: Final = {"fp8": "Float8LinearConverter", "mxfp8": "MXFP8LinearConverter"}
CLASSES: Final = {"training": "TrainingConfig", "parallelism": "ParallelismConfig", "compile": "CompileConfig"}
LOSS: Final = "CrossEntropyLoss.Config"
YOURS: Final = """\
        # Yours: tokenizer, optimizer and data.
        hf_assets_path="./assets/hf",
        optimizer=default_adamw(lr=3e-4),
        dataloader=GrainDataLoader.Config(dataset=ConcatThenSplitPackingConfig(dataset=DATASETS["c4"])),
"""
IMPORTS: Final = {  # module -> what configurations take of it
    "torchtitan.components.data": ("ConcatThenSplitPackingConfig", "GrainDataLoader"),
    "torchtitan.components.loss": ("ChunkedLossWrapper", "CrossEntropyLoss"),
    "torchtitan.components.optimizer": ("default_adamw",),
    "torchtitan.components.quantization": tuple(CONVERTERS.values()),
    "torchtitan.config": ("CompileConfig", "ParallelismConfig", "TrainingConfig"),
    "torchtitan.distributed.activation_checkpoint": ("FullAC", "SelectiveAC"),
    "torchtitan.hf_datasets.text_datasets": ("DATASETS",),
    "torchtitan.models.common.config_utils": ("decoder_vocab_size",),
    "torchtitan.models.FAMILY": ("model_registry",),
    "torchtitan.trainer": ("Trainer",),
}


def _module(run: Run, stages: tuple[RampStage, ...]) -> str:
    """The text of a module. Errors: NotSupportedError."""
    layout, steps = run.layout(stages[-1]), steps_of(run, stages, SOFTWARE)
    family, flavor = _model(run)
    preset = _compiled(run)
    values = _training(run, layout, steps) | _degrees(run, layout) | _software(run, layout, preset)
    words = spelled(values, table=TORCHTITAN.table, software=SOFTWARE)
    name = _identifier(run.name)
    start = f"{torchrun(world_of(run, stages[-1]))} -m torchtitan.train --module FILE --config {name} (FILE without .py)"
    about = heading(run, stages, words="Keys", version=VERSION, start=start, stack=preset)
    converter = _converter(layout)
    made = f", converters=[{converter}.Config(model_compile_enabled={bool(COMPILED[preset])})]" if converter else ""
    body = (
        f'def {name}() -> Trainer.Config:\n    model_spec = model_registry("{flavor}"{made})\n'
        f"    return Trainer.Config(\n{YOURS}        model_spec=model_spec,\n{_arguments(words)}    )\n"
    )
    return f"{about}{_imports(body).replace('FAMILY', family)}\n\n{body}"


def _imports(body: str) -> str:
    """The imports of what a text uses."""
    used = {module: [each for each in names if each in body] for module, names in IMPORTS.items()}
    return "".join(f"from {module} import {', '.join(names)}\n" for module, names in used.items() if names)


def _identifier(name: str) -> str:
    """A name of a function."""
    word = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()
    return word if re.match(r"[a-z]", word) and not iskeyword(word) else f"run_{word}".rstrip("_")


def _model(run: Run) -> tuple[str, str]:
    """The family and the flavor of a model. Errors: NotSupportedError for one that torchtitan does not have by name."""
    known = {f"{family} {flavor}": (family, flavor) for family, flavor in known_flavors()}
    return known[named_model(run, known, lambda name: _flavor(*known[name]), SOFTWARE)]


@cache
def _flavor(family: str, flavor: str) -> TransformerModel:
    model: TransformerModel = build(TransformerModel, model_of(family, flavor))
    return model


def _compiled(run: Run) -> str:
    """The preset that compiles what the run's stack does: which norms run, and what the loss keeps, tell them apart."""
    for name in COMPILED:
        fusion = stack_preset(name).fusion
        if (fusion.norms, fusion.loss_peak_bytes) == (run.stack.fusion.norms, run.stack.fusion.loss_peak_bytes):
            return name
    return STACK


def _training(run: Run, layout: Layout, steps: int) -> dict[str, Any]:
    """Batches in tokens, and formats."""
    length = whole(layout.sequence_length)
    return {
        "microbatch_tokens": whole(layout.micro_batch_size) * length,
        "step_tokens": whole(layout.global_batch_size) * length,
        "sequence_length": length,
        "steps": steps,
        "precision": "bf16" if layout.recipe.casts else layout.precision,
        "reduced_bytes": float(run.stack.states.reduced_gradient_bytes),
        "no_graphs": not run.stack.host.cuda_graphs,
    }


def _degrees(run: Run, layout: Layout) -> dict[str, Any]:
    """How GPUs share the model, and the schedule of a pipeline."""
    every, pipeline = whole(layout.data_parallel), whole(layout.pipeline_parallel)
    replicas = {"none": every, "zero3": 1, "hsdp": whole(layout.data_parallel_replicas)}.get(layout.sharding)
    if replicas is None:
        raise NotSupportedError(f"{layout.sharding} cannot be said in {SOFTWARE}; none, zero3 and hsdp can", key="sharding")
    values: dict[str, Any] = {
        "replicas": replicas,
        "shards": every // replicas,
        "reshards": "always" if run.stack.states.regathers_parameters else "never",
        **{axis.name: whole(layout.degree(axis)) for axis in (TENSOR, PIPELINE, CONTEXT)},
        "cuts_sequence": layout.sequence_parallel,
    }
    if run.model.mixture is not None:
        values[EXPERT.name] = whole(layout.expert_parallel)
    if pipeline > 1:
        values |= {"schedule": _schedule(layout), "pipeline_passes": whole(layout.micro_batches)}
    if whole(layout.virtual_pipeline) > 1:
        values["layers_per_stage"] = -(-whole(run.model.layers) // (pipeline * whole(layout.virtual_pipeline)))
    return values


def _schedule(layout: Layout) -> str:
    is_interleaved = whole(layout.virtual_pipeline) > 1
    for name, (schedule, chunks) in SCHEDULES.items():
        if schedule == layout.pipeline_schedule and (chunks > 1) == is_interleaved:
            return name
    raise NotSupportedError(f"{layout.pipeline_schedule} cannot be said in {SOFTWARE}", key="pipeline_schedule")


def _software(run: Run, layout: Layout, preset: str) -> dict[str, Any]:
    """What is compiled, run again and overlapped."""
    chunks = whole(run.stack.fusion.loss_chunks)
    values: dict[str, Any] = {
        "recompute": layout.recompute,
        "compiles_loss": bool(COMPILED[preset]),
        "async_tensor_parallel": run.stack.overlap.tensor_parallel == "pipelined" and whole(layout.tensor_parallel) > 1,
        "loss": "whole" if chunks == 1 else "chunked",
    }
    values |= {"compiled": COMPILED[preset]} if COMPILED[preset] else {}
    return values | ({} if chunks == 1 else {"loss_chunks": chunks})


def _converter(layout: Layout) -> str:
    """The class that makes products of few bits; empty where there are none. Errors: NotSupportedError for another recipe."""
    if layout.precision in ("bf16", "fp32"):
        return ""
    if layout.precision not in CONVERTERS:
        raise NotSupportedError(f"{layout.precision} cannot be said in {SOFTWARE}", key="precision")
    return CONVERTERS[layout.precision]


def _arguments(words: Mapping[str, Any]) -> str:
    """The arguments of Trainer.Config: sections of constants, and classes where a word is one."""
    loss = f"{LOSS}(global_vocab_size=decoder_vocab_size(model_spec))"
    chunks, recompute = words.get("loss.num_chunks"), words["activation_checkpoint"]
    whole_loss = loss if chunks is None else f"{words['loss']}(num_chunks={chunks}, loss_fn={loss})"
    sections = as_sections({path: value for path, value in words.items() if path.partition(".")[0] in CLASSES})
    lines = [f"loss={whole_loss},", f"activation_checkpoint={'None' if recompute == 'none' else f'{recompute}()'},"]
    for name, section in sections.items():
        lines += [f"{name}={CLASSES[name]}(", *(f"    {key}={_constant(value)}," for key, value in section.items()), "),"]
    return "".join(f"        {line}\n" for line in lines)


def _constant(value: Any) -> str:
    """A constant as Python has it, with double quotes."""
    return str(value) if isinstance(value, bool) else json.dumps(value)


LAUNCHER: Final = Launcher(
    name="torchtitan",
    version=VERSION,
    software=SOFTWARE,
    families=("torchtitan",),
    stack=STACK,
    file="launch.py",
    written=_module,
)
