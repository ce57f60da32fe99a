"""A script for Megatron-Bridge: its configuration as YAML, and the program that trains by it under torchrun.

What its keys say is what flags of Megatron-LM say: flags of the run are read with their table, and written with that of Bridge.
"""

from __future__ import annotations

from typing import Any, Final

from perfmodel.exchange.importers.configs.megatron_bridge import BRIDGE, GATED
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.syntax.documents import yaml_text
from perfmodel.exchange.translation.launch_texts import ON_NODES, file_in_script, heading, steps_of, torchrun, world_of
from perfmodel.exchange.translation.megatron.facts import MEGATRON
from perfmodel.exchange.translation.megatron.layer_flags import flags_of_layers
from perfmodel.exchange.translation.megatron.run_flags import FSDP
from perfmodel.exchange.translation.megatron.written import FAMILIES, SWITCHES, flag_groups, host_environment
from perfmodel.exchange.translation.read_again import bucket_of
from perfmodel.exchange.translation.words.table_words import as_sections, spelled
from perfmodel.exchange.translation.words.word_table import reading, word_table
from perfmodel.spec.fields import whole
from perfmodel.spec.models.model import GATED_ACTIVATIONS, TransformerModel
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "NVIDIA-NeMo/Megatron-Bridge 067f987df"
SOFTWARE: Final = "a configuration of Megatron-Bridge"
STACK: Final = "megatron-bridge"
WITHOUT_WORD: Final = (  # facts of flags that follow from other keys here
    *("grouped_queries", "max_positions", "layers_per_chunk", "train_samples", "train_iterations", "model.activation"),
    *("no_swiglu_fusion", "no_gelu_fusion", "batch_schedule"),
)
FUNCTIONS: Final = {  # of activations, where PyTorch and Megatron-Core have them
    "silu": "torch.nn.functional.silu",
    "gelu": "torch.nn.functional.gelu",
    "relu": "torch.nn.functional.relu",
    "squared_relu": "megatron.core.activations.squared_relu",
}
TRAINING: Final = "megatron.bridge.training"
TARGETS: Final = {  # the class that a section is made of
    "train": f"{TRAINING}.config.TrainingConfig",
    "ddp": f"{TRAINING}.config.DistributedDataParallelConfig",
    "comm_overlap": f"{TRAINING}.comm_overlap.CommOverlapConfig",
    "mixed_precision": f"{TRAINING}.mixed_precision.MixedPrecisionConfig",
    "optimizer": f"{TRAINING}.config.OptimizerConfig",
    "scheduler": f"{TRAINING}.config.SchedulerConfig",
    "dataset": f"{TRAINING}.config.MockGPTDatasetConfig",
    "tokenizer": f"{TRAINING}.tokenizers.config.TokenizerConfig",
    "checkpoint": f"{TRAINING}.config.CheckpointConfig",
    "logger": f"{TRAINING}.config.LoggerConfig",
    "rng": f"{TRAINING}.config.RNGConfig",
}
PROVIDERS: Final = (
    "megatron.bridge.models.gpt_provider.GPTModelProvider",
    "megatron.bridge.models.mla_provider.MLAModelProvider",
)
DTYPES: Final = {"bf16": "torch.bfloat16", "fp16": "torch.float16", "fp32": "torch.float32"}
PROGRAM: Final = """from megatron.bridge.training.config import ConfigContainer
from megatron.bridge.training.gpt_step import forward_step
from megatron.bridge.training.pretrain import pretrain

pretrain(ConfigContainer.from_yaml("config.yaml"), forward_step)
"""


def _script(run: Run, stages: tuple[RampStage, ...]) -> str:
    """The text of a script. Errors: NotSupportedError."""
    steps = steps_of(run, stages, SOFTWARE)
    sections = as_sections(spelled(_values(run, stages, steps), table=BRIDGE.table, software=SOFTWARE))
    about = heading(run, stages, words="Keys", version=VERSION, start=ON_NODES, stack=STACK)
    return (
        f"#!/bin/bash\n{about}# Yours, in config.yaml: dataset, tokenizer, optimizer, scheduler and checkpoint.\n"
        f"{host_environment(run)}{file_in_script('config.yaml', yaml_text(_configuration(run, sections)))}"
        f"{file_in_script('pretrain.py', PROGRAM)}{torchrun(world_of(run, stages[-1]))} pretrain.py\n"
    )


def _values(run: Run, stages: tuple[RampStage, ...], steps: int) -> dict[str, Any]:
    """What the flags of the run say: keys and facts, those that only a flag needs left out."""
    flags = {flag: value for group in flag_groups(run, stages).values() for flag, value in group.items()}
    said = reading(flags, word_table(MEGATRON.table))
    values = {**said.settings, **said.facts}
    chunks = whole(run.virtual_pipeline)
    added: dict[str, Any] = {
        "model.tied_embeddings": run.model.tied_embeddings,
        "model.biases": run.model.biases,
        "sequence_parallel": bool(values.get("sequence_parallel")),
        "train_iterations": steps,
        "fused_loss": bool(values.get("fused_loss")),  # which Megatron-Bridge does unless it is told not to
        "reduces_in_bf16": bool(values.get("reduces_in_bf16")),
        **({"chunks": chunks} if chunks > 1 and "pipeline_layout" not in values else {}),
        **({} if run.sharding in FSDP else {"bucket_parameters": round(bucket_of(run))}),
        **({"unfused_activation": True} if values.keys() & {"no_swiglu_fusion", "no_gelu_fusion"} else {}),
    }
    for name in ("expert_layers", "window_layers"):
        if name in values:
            values[name] = flags_of_layers(values[name])
    for name in ("recompute_modules", "graphed"):
        if name in values:
            values[name] = str(values[name]).split()
    if "window" in values:
        values["window"] = [int(each) for each in str(values["window"]).split(",")]
    return {name: value for name, value in values.items() if name not in WITHOUT_WORD} | added


def _configuration(run: Run, sections: dict[str, Any]) -> dict[str, Any]:
    """All sections with their classes, and placeholders for what a run does not say."""
    length = whole(run.sequence_length)
    provider = PROVIDERS[run.model.latent is not None]
    given = {
        "model": {"_target_": provider, **_activation(run.model), **sections.get("model", {}), "params_dtype": _dtype(run)},
        "train": sections.get("train", {}),
        "ddp": sections.get("ddp", {}),
        "comm_overlap": {"tp_comm_overlap": False, **sections.get("comm_overlap", {})},
        "mixed_precision": {**sections.get("mixed_precision", {}), "params_dtype": _dtype(run), "pipeline_dtype": _dtype(run)},
        "optimizer": {"optimizer": "adam", "lr": 1e-4, "min_lr": 1e-5, **sections.get("optimizer", {})},
        "scheduler": {"lr_decay_style": "cosine", "lr_warmup_iters": 0},
        "dataset": {"seq_length": length, "random_seed": 1234, "dataloader_type": "single"},
        "tokenizer": {"tokenizer_type": "NullTokenizer", "vocab_size": whole(run.model.vocab_size)},
        "checkpoint": {"save": "checkpoints", "save_interval": 1000},
        "logger": {"log_interval": 10},
        "rng": {"seed": 1234},
    }
    made = {name: {"_target_": TARGETS[name], **section} if name in TARGETS else section for name, section in given.items()}
    return {"_target_": f"{TRAINING}.config.ConfigContainer", **made}


def _dtype(run: Run) -> dict[str, Any]:
    """The type of parameters; products of fewer bits are made from 16."""
    return {"_target_": DTYPES.get(run.precision, DTYPES["bf16"]), "_call_": False}


def _activation(model: TransformerModel) -> dict[str, Any]:
    """The activation as its function, and whether it is gated."""
    gated = {activation: name for name, activation in reversed(GATED.items())}
    function = FUNCTIONS[gated.get(model.activation, model.activation)]
    is_gated = model.activation in GATED_ACTIVATIONS
    return {"activation_func": {"_target_": function, "_call_": False}, "gated_linear_unit": is_gated}


LAUNCHER: Final = Launcher(
    name="megatron-bridge",
    version=VERSION,
    software=SOFTWARE,
    families=FAMILIES,
    stack=STACK,
    some_layers_again=True,
    switches=SWITCHES,
    written=_script,
)
