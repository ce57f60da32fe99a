"""Arguments of Megatron-LM in YAML: --yaml-cfg, and the MODEL_ARGS of a model_config.yaml of its tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from perfmodel.exchange.importers.registry import Document, run_importer
from perfmodel.exchange.translation.conversion import Conversion
from perfmodel.exchange.translation.megatron.environment import environment_sentences, words_of
from perfmodel.exchange.translation.megatron.facts import from_arguments, from_flags
from perfmodel.exchange.translation.words.word_table import flattened, says_nothing
from perfmodel.light_dataclass import replace

NAME: Final = "Megatron-LM YAML of arguments"
TEST_CASE: Final = "MODEL_ARGS"
ENVIRONMENT: Final = "ENV_VARS"
SECTIONS: Final = ("language_model", "model_parallel")


def _is_yaml(document: Document) -> bool:
    mapping = document.mapping
    return isinstance(mapping.get(TEST_CASE), Mapping) or all(isinstance(mapping.get(each), Mapping) for each in SECTIONS)


def _convert(document: Document) -> Conversion:
    mapping, path = document.mapping, document.path
    if isinstance(mapping.get(TEST_CASE), Mapping):
        name = path.resolve().parent.name if path and path.stem == "model_config" else path.stem if path else "run"
        given: dict[str, Any] = {str(flag): value for flag, value in mapping[TEST_CASE].items() if value is not False}
        environment = mapping.get(ENVIRONMENT)
        variables = environment if isinstance(environment, Mapping) else {}
        found = from_flags(words_of(variables) | given, format_name=NAME, name=name)
        return replace(found, ignored=(*found.ignored, *environment_sentences(variables)))
    arguments = {key.rpartition(".")[2]: value for key, value in flattened(mapping).items()}
    activation = str(arguments.pop("activation_func", "") or "")
    if activation in ("swiglu", "squared_relu"):
        arguments.setdefault(activation, True)
    if not says_nothing(arguments.get("num_query_groups")):  # which no switch turns on here, as in a script
        arguments["group_query_attention"] = True
    return from_flags(from_arguments(arguments), format_name=NAME, name=path.stem if path else "run")


IMPORTER: Final = run_importer(name=NAME, recognises=_is_yaml, convert=_convert)
