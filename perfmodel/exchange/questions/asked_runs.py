"""Which run a command is asked about: a preset, a run file, a file of other software, or a model; and what is beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.importers.registry import Importer, document_at, has_own_words, importer_of, read_settings
from perfmodel.exchange.presets import beside, preset_names, read_preset
from perfmodel.exchange.questions.plan_quantities import positive_number, whole_number
from perfmodel.exchange.replicas import GPUS
from perfmodel.exchange.run_files import RunSource, Setting
from perfmodel.exchange.syntax.annotations import separated
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, mapping_in
from perfmodel.spec.axes import FILLING
from perfmodel.spec.run import Run

if TYPE_CHECKING:
    from perfmodel.exchange.questions.plan_arguments import SearchLimits

STDIN: Final = Path("standard input")
OF_A_MODEL: Final = ("layers", "hidden_size")  # keys of a file that describes a model


def asked_run(
    source: str = "",
    *,
    model: str | None = None,
    cluster: str | None = None,
    gpus: str | int | None = None,
    tokens: str | float | None = None,
    search: SearchLimits | None = None,
    settings: Sequence[Setting] = (),
) -> RunSource:
    """The run that `source` names, with the model, cluster, GPUs and tokens that are given beside it.

    A model, preset or file, becomes a run in its fastest layout (quick_runs.py), of those that `search` allows and that have
    the `settings`, which are to be set in the run. Without anything beside it, a run stays as it is named. Errors: InputError.
    """
    if not source and model is None:
        raise InputError(
            "nothing is named, neither a run file, a preset run nor a model; name one, as in llama-3.1-8b --gpus 64"
        )
    known, beside_it = known_model(source), known_model(model or "")
    if not source or known is not None:
        if source and model is not None:
            raise InputError(f"{shown(source)} is a model itself; leave out --model")
        from perfmodel.exchange.questions.quick_runs import quick_run

        return quick_run(
            known or beside_it or str(model), cluster=cluster, gpus=gpus, tokens=tokens, search=search, settings=settings
        )
    if model is cluster is gpus is tokens is None:
        return source
    return run_beside(source, model=model, cluster=cluster, gpus=gpus, tokens=tokens)


def run_beside(
    source: str,
    *,
    model: str | None = None,
    cluster: str | None = None,
    gpus: str | int | None = None,
    tokens: str | float | None = None,
) -> dict[str, Any]:
    """The mapping of a run that is named, with the parts that are given beside it. Errors: InputError."""
    return _with_parts(_mapping(source), model=known_model(model or "") or model, cluster=cluster, gpus=gpus, tokens=tokens)


def run_in_text(
    text: str,
    *,
    model: str | None = None,
    cluster: str | None = None,
    gpus: str | int | None = None,
    tokens: str | float | None = None,
) -> dict[str, Any]:
    """The run that a text describes as a run file does, YAML or JSON, with the parts that are given beside it.

    Files that it names are looked for from here. Errors: InputError.
    """
    mapping = mapping_in(text, STDIN, needs="a run file: at least model, cluster, stack and stages")
    named = {"name": "standard input", **separated(mapping)[0]}
    given: dict[str, Any] = {"model": model, "cluster": cluster, "gpus": gpus, "tokens": tokens}
    return named if not any(given.values()) else _with_parts(named, **given)


def is_foreign_run(source: str) -> bool:
    """Whether a name is that of a file of other software that describes a run."""
    importer = _importer(source)
    return importer is not None and importer.gives == "runs"


def has_gpus(source: str) -> bool:
    """Whether a file of a run says on how many GPUs it runs."""
    mapping = _mapping(source)
    return GPUS in mapping or all(FILLING.name in each for each in _stages(mapping))


def _importer(source: str) -> Importer | None:
    try:
        document = document_at(Path(source)) if Path(source).is_file() else None
    except (OSError, ValueError):
        return None
    return None if document is None or has_own_words(document.mapping, Run) else importer_of(document)


def known_model(name: str) -> str | dict[str, Any] | None:
    """What a name is that of a model and not of a run: a preset, a file that describes one, or a repository that is known."""
    if is_model(name):
        return name
    if "/" not in name or Path(name).suffix in FILE_SUFFIXES or Path(name).exists():
        return None
    from perfmodel.exchange.tables.serving_models import repository_model

    return repository_model(name)


def is_model(source: str) -> bool:
    """Whether a name is that of a model and not of a run: a preset, or a file that describes one."""
    path = Path(source)
    if source in preset_names("runs") and not path.is_file():
        return False
    try:
        if not path.is_file():
            return source in preset_names("models")
    except (OSError, ValueError):
        return False
    document = document_at(path)
    importer = importer_of(document)
    if importer is not None:
        return importer.gives == "models"
    return "stages" not in document.mapping and all(key in document.mapping for key in OF_A_MODEL)


def _mapping(source: str) -> dict[str, Any]:
    """The mapping of a run that is named. Errors: InputError."""
    if source in preset_names("runs") and not Path(source).is_file():
        return read_preset("runs", source)[0]
    path = Path(source)
    if path.suffix.lower() not in FILE_SUFFIXES and not path.exists():
        names = {*preset_names("runs"), *preset_names("models")}
        raise InputError(f"{shown(source)} is neither a run file nor a preset run or model; {did_you_mean(source, names)}")
    mapping = beside(path, Run, separated(read_settings(path, "runs", spec=Run))[0])
    return {"name": path.stem, **mapping}


def _with_parts(
    mapping: dict[str, Any],
    *,
    model: str | Mapping[str, Any] | None,
    cluster: str | None,
    gpus: str | int | None,
    tokens: str | float | None,
) -> dict[str, Any]:
    """The mapping of a run with other parts; figures that its source published are then no longer of it."""
    given: dict[str, Any] = {key: value for key, value in (("model", model), ("cluster", cluster)) if value is not None}
    stages = [_without(each, "published") for each in _stages(mapping)]
    if gpus is not None:
        given[GPUS] = whole_number("gpus", gpus)
        stages = [_without(each, FILLING.name) for each in stages]
    if tokens is not None:
        stages = _with_tokens(stages, positive_number("tokens", tokens))
    return {**mapping, **given, "stages": stages, "assumptions": _still_true(mapping.get("assumptions", []), given)}


def _stages(mapping: Mapping[str, Any]) -> list[Any]:
    """The ramp stages of a mapping, each a mapping. Errors: InputError for anything else."""
    stages = mapping.get("stages", [])
    if not isinstance(stages, list) or not all(isinstance(each, Mapping) for each in stages):
        raise InputError(f"{shown(stages)} where a list of ramp stages is needed", key="stages")
    return stages


def _with_tokens(stages: list[dict[str, Any]], tokens: float) -> list[dict[str, Any]]:
    """The stages of a run of so many tokens: all but the last keep theirs."""
    if not stages:
        raise InputError("missing; at least one stage of the batch ramp is needed", key="stages")
    *rising, last = stages
    used = sum(positive_number("tokens", each.get("tokens", 0)) for each in rising)
    if used >= tokens:
        raise InputError(f"{tokens:.4g} are not more than the {used:.4g} of all stages but the last", key="tokens")
    return [*rising, {**last, "tokens": tokens - used}]


def _still_true(assumptions: Any, given: Mapping[str, Any]) -> Any:
    """Assumptions but those about what is given."""
    return (
        {key: each for key, each in assumptions.items() if key not in given}
        if isinstance(assumptions, Mapping)
        else assumptions
    )


def _without(stage: Any, key: str) -> Any:
    return {name: value for name, value in stage.items() if name != key} if isinstance(stage, Mapping) else stage
