"""Which settings `perfmodel show` shows: those of presets, or of the file of a model; and what follows from a model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

from perfmodel.count.model_counts import ModelCounts, model_counts
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import expand_part, preset_settings, settings
from perfmodel.exchange.questions.asked_runs import is_model
from perfmodel.spec.models.model import TransformerModel

ShownSettings: TypeAlias = list[tuple[str, list[tuple[str, Any, str]]]]  # title; key path, value and source of each
MODELS = "models/"  # before the names of model presets


def shown_settings(name: str) -> ShownSettings:
    """The settings of every preset of a name, or of the model that a file describes. Errors: InputError."""
    if not (Path(name).is_file() and is_model(name)):
        return preset_settings(name)
    mapping = expand_part(TransformerModel, "models", name)
    return [(name, [(key, value, name) for key, value in settings(mapping)])]


def shown_counts(found: ShownSettings) -> dict[str, ModelCounts]:
    """What follows from the settings of each model among them, by its title."""
    models = [title for title, _ in found if title.startswith(MODELS) or Path(title).is_file()]
    return {title: model_counts(_model(title.removeprefix(MODELS))) for title in models}


def _model(name: str) -> TransformerModel:
    return build(TransformerModel, expand_part(TransformerModel, "models", name))
