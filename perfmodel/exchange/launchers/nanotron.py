"""A YAML for nanotron: parallelism, tokens, the model and the optimizer of one ramp stage."""

from __future__ import annotations

from typing import Any, Final

from perfmodel.errors import NotSupportedError
from perfmodel.exchange.importers.configs.nanotron import BUCKET_NUMBERS, CONFIG, NANOTRON, WRITTEN_FAMILIES
from perfmodel.exchange.launchers.registry import Launcher
from perfmodel.exchange.syntax.documents import yaml_text
from perfmodel.exchange.translation.launch_texts import heading, steps_of, torchrun, world_of
from perfmodel.exchange.translation.words.table_words import as_sections, spelled
from perfmodel.exchange.translation.written_configs import written_config
from perfmodel.spec.axes import CONTEXT, PIPELINE, TENSOR
from perfmodel.spec.fields import whole
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.run import RampStage, Run

VERSION: Final = "huggingface/nanotron 2411b022"
SOFTWARE: Final = "keys of nanotron's YAML"
STACK: Final = "nanotron"
MODEL_KEYS: Final = (  # of a config.json, that nanotron's own has
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size"),
    *("hidden_act", "tie_word_embeddings"),
)
YOURS: Final[dict[str, Any]] = {  # what a run does not say, as nanotron needs it
    "general": {"seed": 42, "ignore_sanity_checks": True},
    "model": {"init_method": {"std": 0.025}},
    "optimizer": {
        "clip_grad": 1.0,
        "weight_decay": 0.1,
        "learning_rate_scheduler": {
            "learning_rate": 1e-4,
            "lr_warmup_steps": 0,
            "lr_decay_style": "cosine",
            "min_decay_lr": 1e-5,
        },
        "optimizer_factory": {
            "name": "adamW",
            "adam_beta1": 0.9,
            "adam_beta2": 0.95,
            "adam_eps": 1e-8,
            "torch_adam_is_fused": True,
        },
    },
    "tokenizer": {"tokenizer_name_or_path": "gpt2"},
    "data_stages": [
        {"name": "training", "start_training_step": 1, "data": {"dataset": None, "num_loading_workers": 1, "seed": 42}}
    ],
    "checkpoints": {"checkpoints_path": "checkpoints", "checkpoint_interval": 1000},
    "logging": {"iteration_step_info_interval": 1},
}


def _yaml(run: Run, stages: tuple[RampStage, ...]) -> str:
    """The text of a YAML. Errors: NotSupportedError."""
    layout, world = run.layout(stages[-1]), world_of(run, stages[-1])
    steps = steps_of(run, stages, SOFTWARE)
    words = spelled(_values(run, layout, steps), table=NANOTRON.table, software=SOFTWARE)
    words = {"general.project": "perfmodel", "general.run": run.name, **words} | {
        f"{CONFIG}{key}": value for key, value in _model(run.model, layout).items()
    }
    start = f"CUDA_DEVICE_MAX_CONNECTIONS=1 {torchrun(world)} run_train.py --config-file FILE"
    about = heading(run, stages, words="Keys", version=VERSION, start=start, stack=STACK)
    yours = "# Yours: data (without a dataset it makes its own), tokenizer, learning rate and checkpoints.\n"
    return f"{about}{yours}{yaml_text(_with(as_sections(words), YOURS))}"


def _values(run: Run, layout: Layout, steps: int) -> dict[str, Any]:
    """Keys of the run and facts of the format, as its table calls them."""
    stack = run.stack
    values: dict[str, Any] = {
        "replicas": whole(layout.data_parallel),
        **{axis.name: whole(layout.degree(axis)) for axis in (TENSOR, PIPELINE, CONTEXT)},
        "pipeline_schedule": layout.pipeline_schedule,
        "sequence_parallel": layout.sequence_parallel,
        "recompute": layout.recompute,
        "sequence_length": whole(layout.sequence_length),
        "micro_batch_size": whole(layout.micro_batch_size),
        "passes": whole(layout.micro_batches),
        "steps": steps,
        "precision": layout.precision,
        "bucket_mb": whole(stack.overlap.bucket_parameters / BUCKET_NUMBERS),
        "padding": run.model.vocab_padding_multiple,
        "sharding": layout.sharding,
        "stack.states.gradient_bytes": float(stack.states.gradient_bytes),
    }
    if whole(layout.context_parallel) == 1:
        values.pop(CONTEXT.name)
    if whole(layout.tensor_parallel) > 1:
        values["stack.overlap.tensor_parallel"] = stack.overlap.tensor_parallel
    return values


def _model(model: TransformerModel, layout: Layout) -> dict[str, Any]:
    """The model in the words of nanotron. Errors: NotSupportedError for a part that it does not have."""
    config = written_config(model, tuple(WRITTEN_FAMILIES), SOFTWARE)
    mark = WRITTEN_FAMILIES[config.pop("model_type")]
    if "head_dim" in config:
        raise NotSupportedError(f"{config['head_dim']} cannot be said in {SOFTWARE}", key="model.head_size")
    if other := next((key for key in config if key not in MODEL_KEYS), ""):
        raise NotSupportedError(f"{other} {config[other]} cannot be said in {SOFTWARE}", key="model")
    return {mark: True, **config, "max_position_embeddings": whole(layout.sequence_length)}


def _with(sections: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Sections with further keys behind their own."""
    joined = {name: {**section, **more.get(name, {})} for name, section in sections.items()}
    return {**joined, **{name: section for name, section in more.items() if name not in sections}}


LAUNCHER: Final = Launcher(
    name="nanotron",
    version=VERSION,
    software=SOFTWARE,
    families=("nanotron",),
    stack=STACK,
    settings={"recompute": "none,full", "virtual_pipeline": "1"},
    file="launch.yaml",
    written=_yaml,
)
