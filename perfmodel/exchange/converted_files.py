"""How a file of other software is written as a run file: its settings, and what was assumed, ignored and refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from perfmodel.errors import InputError, PerfmodelError
from perfmodel.exchange.importers.registry import (
    check_is_no_measurement,
    conversion_at,
    document_at,
    importer_of,
    known_importers,
)
from perfmodel.exchange.presets import expand_part
from perfmodel.exchange.questions.plan_quantities import positive_number, whole_number
from perfmodel.exchange.replicas import GPUS, with_replicas
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, mapping_in, yaml_text
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.logs.log_records import record_document
from perfmodel.light_dataclass import replace
from perfmodel.spec.fields import Spec
from perfmodel.spec.machines.hardware import Cluster
from perfmodel.spec.models.model import TransformerModel

WIDTH: Final = 110
MODEL: Final = "model"


def converted(
    path: Path, *, model: str | None = None, cluster: str | None = None, gpus: str | None = None, tokens: str | None = None
) -> Conversion:
    """What becomes of the file at `path`, with the parts that are given beside it.

    Errors: InputError for a file that nothing recognises, and for what cannot be read.
    """
    found = conversion_at(path) or _model_alone(path)
    if found.run is None:
        return found
    for spec, kind, name, option in ((TransformerModel, "models", model, "model"), (Cluster, "clusters", cluster, "cluster")):
        if name is not None:
            _check_part(spec, kind, name, option)
    given: dict[str, Any] = {key: value for key, value in (("model", model), ("cluster", cluster)) if value is not None}
    if gpus is not None:
        given[GPUS] = whole_number("gpus", gpus)
    stages = list(found.run.get("stages", []))
    if tokens is not None and stages:
        stages[-1] = {**stages[-1], "tokens": positive_number("tokens", tokens)}
    return replace(found, run={**found.run, **given, **({"stages": stages} if stages else {})})


def _check_part(spec: type[Spec], kind: str, name: str, option: str) -> None:
    """Raise InputError for a name that is neither a preset nor a file of its kind."""
    try:
        expand_part(spec, kind, name)
    except PerfmodelError as error:
        raise error.under(option) from None


def _model_alone(path: Path) -> Conversion:
    """A config.json as the model of a run that says nothing else. Errors: InputError for a file that nothing recognises."""
    document = document_at(path)
    importer = importer_of(document)
    if importer is None:
        check_is_no_measurement(document)
    if importer is None and path.suffix.lower() in FILE_SUFFIXES:
        mapping_in(document.text, path, needs="settings of training software")
    if importer is None or importer.gives != "models":
        names = ", ".join(sorted(each.name for each in known_importers()))
        raise InputError(f"{path} is in none of the formats that are recognised by their content: {names}")
    return Conversion(format=importer.name, run={MODEL: importer.read(document)})


def conversion_document(found: Conversion) -> dict[str, Any]:
    """The conversion as JSON has it: a run whose stages have their replicas, where the GPUs are known."""
    return {
        "format": found.format,
        "run": None if found.run is None else _complete(found.run),
        "record": None if found.record is None else record_document(found.record),
        "assumed": list(found.assumed),
        "ignored": list(found.ignored),
        "refused": list(found.refused),
    }


def _complete(run: Mapping[str, Any]) -> dict[str, Any]:
    return with_replicas(run) if "stages" in run else dict(run)


def run_file_text(found: Conversion, *, source: str) -> str:
    """A run file with comments. Errors: InputError where the file describes no run."""
    if found.run is None:
        raise InputError(f"{source} is a {found.format}, which does not say what run it is of; there is no run file to write")
    run = _complete(found.run)
    known = {**run, **({"assumptions": list(found.assumed)} if found.assumed else {})}
    parts = [
        _comment(f"Read from {source}, a {found.format}, by perfmodel convert."),
        *(_section("Not covered: the run below leaves it out", found.refused)),
        *(_section("Not read", found.ignored)),
        *(_comment(each) for each in missing(run)),
        yaml_text(known),
    ]
    return "".join(parts)


def missing(run: Mapping[str, Any]) -> list[str]:
    """A sentence for each part that the run still needs."""
    found = []
    if "stages" not in run:
        return ["This is a model alone; the run needs a cluster, a layout and stages."]
    if MODEL not in run:
        found.append("model is missing: --model config.json, or --model llama-3.1-8b")
    if "cluster" not in run:
        found.append("cluster is missing: --cluster dgx-h100, or a line `cluster: dgx-h100` below")
    if any("data_parallel" not in each for each in run["stages"]):
        found.append("the number of GPUs is missing: --gpus 64, or a line `gpus: 64` below")
    return found


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    return [_comment(f"{title}:"), *(_comment(f"- {each}", indent="  ") for each in sentences)]


def _comment(text: str, *, indent: str = "") -> str:
    lines = wrap(" ".join(text.split()), WIDTH, subsequent_indent=indent) or [""]
    return "".join(f"# {line}\n" for line in lines)
