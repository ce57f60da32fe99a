"""The run that answers "does it fine-tune on this GPU, and how fast": a model, a GPU, a training; every choice is said."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.chip_names import chips_in, did_you_mean_hardware
from perfmodel.exchange.presets import DATA, cluster_preset, expand_part, preset_names
from perfmodel.exchange.questions.asked_runs import is_model
from perfmodel.exchange.questions.plan_quantities import positive_number, whole_number
from perfmodel.exchange.run_files import read_candidates, setting_pairs
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.tables.serving_models import is_repository, served_model_rows
from perfmodel.exchange.tables.tuning_models import named_tuned_model
from perfmodel.light_dataclass import dataclass
from perfmodel.prediction import predict
from perfmodel.spec.evidence.spread import with_numbers
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.tuning.fine_tuning import OF_ADAPTERS, PRETRAINING, TRAININGS
from perfmodel.units import gpus_text

USUAL_GPU: Final = "rtx-4090"
USUAL_TRAINING: Final = "qlora"
USUAL_TUNING_STACK: Final = "hf-peft-2024"
USUAL_LENGTH: Final = 2048
USUAL_ACCUMULATION: Final = 8
LAYOUT_KEYS: Final = ("sharding", "recompute", "micro_batch_size", "sequence_length", "precision", "stack")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningQuestion:
    """What is asked of a fine-tuning beside its model: as people type it, None for what they leave out."""

    gpu: str | None = None
    training: str | None = None
    gpus: str | int | None = None
    examples: str | int | None = None
    epochs: str | float | None = None
    example_length: str | int | None = None
    padded: bool = False


def tuned_run(
    model: str | Mapping[str, Any], asked: TuningQuestion, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The mapping of the run, with what was assumed. `settings` are those that the asker gives: they are not assumed.

    Sharding follows from memory: none where the run fits so on each GPU, else zero3. Errors: InputError.
    """
    given = dict(settings or {})
    training = asked.training or str(given.get("training", USUAL_TRAINING))
    if training not in (*TRAININGS, PRETRAINING):
        raise InputError(f"{shown(training)} is no training; {did_you_mean(training, TRAININGS)}", key="training")
    gpu, gpus = asked.gpu or USUAL_GPU, 1 if asked.gpus is None else whole_number("gpus", asked.gpus)
    described, cluster = asked_tuned_model(model), cluster_of_gpu(gpu)
    length = whole_number("sequence_length", given.get("sequence_length", USUAL_LENGTH))
    micro = whole_number("micro_batch_size", given.get("micro_batch_size", 1))
    stage = {"data_parallel": gpus, "global_batch_size": micro * gpus * USUAL_ACCUMULATION}
    run: dict[str, Any] = {
        "name": f"{described.name}, {training} on {_machine(gpu, gpus)}",
        "model": mapping_of(described),
        "cluster": mapping_of(cluster),
        "stack": USUAL_TUNING_STACK,
        "precision": cluster.gpu.wide_precision,
        "training": training,
        "sharding": "none",
        "recompute": "full",
        "micro_batch_size": micro,
        "sequence_length": length,
        "stages": [stage | _tokens(asked, length)],
    }
    run["sharding"] = _sharding(run, given, gpus)
    return run | {"assumptions": _assumed(asked, run, given, length=length, gpus=gpus)}


def check_is_model(name: str) -> None:
    """Raise InputError for the name of a run, and for one that is neither that of a model nor that of a file of one."""
    if is_repository(name) or is_model(name):
        return
    if name in preset_names("runs") or Path(name).exists():
        raise InputError(f"{name} is a run; --set training=qlora makes it a fine-tuning, and --cluster moves it", key="gpu")
    near = get_close_matches(name, served_model_rows(), n=1)
    hint = f"did you mean {near[0]}?" if near else did_you_mean(name, preset_names("models"))
    raise InputError(f"{shown(name)} is neither a model nor a file of one; {hint}", key="model")


def asked_tuned_model(model: str | Mapping[str, Any]) -> TransformerModel:
    """A preset, a config.json, a repository that is known, or a mapping, with its vocabulary as it is. Errors: InputError."""
    if isinstance(model, str) and is_repository(model):
        return named_tuned_model(model)
    described = build(TransformerModel, expand_part(TransformerModel, "models", model))
    return with_numbers(described, {"vocab_padding_multiple": 1})


def cluster_of_gpu(gpu: str) -> Cluster:
    """The machine that a GPU usually stands in. Errors: InputError with a did-you-mean."""
    clusters = read_mapping(DATA / "csv_columns.yaml")["clusters"]
    names = {*clusters, *(name for name in preset_names("gpus") if name in clusters)}
    if gpu not in names:
        is_chip = any(chips_in(gpu) & chips_in(name) for name in names)  # else it is a slip
        hint = did_you_mean_hardware(gpu, names) if is_chip else did_you_mean(gpu, names)
        raise InputError(f"{shown(gpu)} is no GPU that is known here; {hint}", key="gpu")
    return cluster_preset(clusters[gpu])


def _machine(gpu: str, gpus: int) -> str:
    return cluster_of_gpu(gpu).gpu.name if gpus == 1 else f"{gpus} x {cluster_of_gpu(gpu).gpu.name}"


def _tokens(asked: TuningQuestion, length: int) -> dict[str, float]:
    """Tokens of all examples in all epochs: of each its own where they are packed, a whole sequence where they are padded."""
    if asked.examples is None:
        for key in ("epochs", "example_length"):
            if getattr(asked, key) is not None:
                raise InputError("it goes with --examples", key=key)
        return {}
    own = length if asked.example_length is None else whole_number("example_length", asked.example_length)
    if own > length:
        raise InputError(f"{own} tokens of an example are more than the {length} of a sequence", key="example_length")
    epochs = 1.0 if asked.epochs is None else positive_number("epochs", asked.epochs)
    return {"tokens": whole_number("examples", asked.examples) * epochs * (length if asked.padded else own)}


def _sharding(run: Mapping[str, Any], given: Mapping[str, Any], gpus: int) -> str:
    """None where the run may fit so, or where there is one GPU; else zero3."""
    if gpus == 1:
        return "none"
    settings = {key: value for key, value in given.items() if key != "sharding"}
    (candidate, *_) = read_candidates(dict(run), setting_pairs(settings))
    return "none" if predict(candidate.run).may_fit else "zero3"


def _assumed(
    asked: TuningQuestion, run: Mapping[str, Any], given: Mapping[str, Any], *, length: int, gpus: int
) -> dict[str, str]:
    """A sentence for each thing that was chosen, by the key that it is about."""
    said = {
        "cluster": "" if asked.gpu else f"no GPU is given: {USUAL_GPU} is assumed",
        "training": "" if asked.training else f"no training is given: {USUAL_TRAINING} is assumed",
        "stack": f"no stack is given: {run['stack']} is assumed",
        "precision": f"no precision is given: {run['precision']} is assumed",
        "sequence_length": f"no length of sequences is given: {length:,} tokens are assumed",
        "micro_batch_size": "no micro-batch is given: 1 sequence is assumed",
        "recompute": "gradient checkpointing is assumed to be on (recompute full)",
        "stages": f"gradients of {USUAL_ACCUMULATION} micro-batches are assumed to be accumulated for each step",
        "optimizer": "no optimizer is given: adamw is assumed",
    }
    if run["training"] in OF_ADAPTERS:
        said["adapter_rank"] = "no rank is given: 16 is assumed"
        said["adapter_targets"] = "no targets are given: adapters beside every linear of attention and dense MLPs are assumed"
    if gpus > 1:
        how = "none, which fits" if run["sharding"] == "none" else "zero3, as the run does not fit without"
        said["sharding"] = f"no sharding is given: {how}, is taken for {gpus_text(gpus)}"
    if asked.examples is not None:
        said["examples"] = _examples(asked, length)
    return {key: sentence for key, sentence in said.items() if sentence and key not in given}


def _examples(asked: TuningQuestion, length: int) -> str:
    """What the examples come to, in words."""
    number, epochs = (
        whole_number("examples", asked.examples),
        1.0 if asked.epochs is None else positive_number("epochs", asked.epochs),
    )
    own = length if asked.example_length is None else whole_number("example_length", asked.example_length)
    times = f", {epochs:g} times" if epochs != 1 else ""
    if asked.padded:
        return f"{number:,} examples{times}, each padded to {length:,} tokens: a whole sequence each"
    mean = "" if asked.example_length is not None else " (no mean length is given: those of a whole sequence are assumed)"
    return f"{number:,} examples{times} of {own:,} tokens on average{mean}, packed into sequences of {length:,}"
