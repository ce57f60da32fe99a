"""Does the schema of run files take what perfmodel takes, refuse what it refuses, and say what every key means?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import fastjsonschema
import pytest

from perfmodel.exchange.presets import DATA, preset_names
from perfmodel.exchange.run_schema import run_schema
from perfmodel.exchange.syntax.documents import read_mapping
from perfmodel.exchange.syntax.key_words import key_words, written_words
from perfmodel.spec.fields import Part, rules_of
from perfmodel.spec.run import Run
from perfmodel.spec.serving.engine import Engine
from perfmodel.spec.serving.profile import ServingProfile

PARTS = {"models": "transformer_model", "clusters": "cluster", "stacks": "software_stack", "gpus": "gpu"}
FILES = [("runs", ""), *PARTS.items()]
RUN = {"model": "llama-3.1-8b", "cluster": "dgx-h100", "stack": "generic", "sequence_length": 8192}
STAGE = {"data_parallel": 8, "global_batch_size": 64, "tokens": "1T"}


@cache
def check(part: str) -> Callable[[Any], Any]:
    """What checks a run file, or one part of it."""
    whole = run_schema()
    schema = {"$ref": f"#/definitions/{part}", "definitions": whole["definitions"]} if part else whole
    found: Callable[[Any], Any] = fastjsonschema.compile(schema, use_default=False)
    return found


def specs(spec: type, seen: dict[str, type]) -> Iterator[type]:
    """A spec and all that its fields hold."""
    if spec.__name__ not in seen:
        seen[spec.__name__] = spec
        yield spec
        for rule in rules_of(spec).values():
            if isinstance(rule, Part):
                yield from specs(rule.spec, seen)


@pytest.mark.parametrize(("kind", "part"), FILES, ids=[kind for kind, _ in FILES])
def test_every_shipped_file_is_valid(kind: str, part: str) -> None:
    """With sources, spreads, units and what it extends."""
    for name in preset_names(kind):
        check(part)(read_mapping(DATA / kind / f"{name}.yaml"))


@pytest.mark.parametrize(
    "change",
    [
        {"micro_batch_size": [1, 2]},
        {"cluster": {"extends": "dgx-h100", "network_scale": {"value": 0.8, "spread": "10%", "source": "our nccl-tests"}}},
        {"stages": [{"gpus": 64, "micro_batches": 4}]},
        {"expert_load": "natural"},
        {"sharding": "fsdp"},
    ],
    ids=str,
)
def test_what_a_run_file_may_say_is_valid(change: dict[str, Any]) -> None:
    """Candidates in a list, parts that extend a preset, GPUs in the place of replicas, other names."""
    check("")({**RUN, "stages": [STAGE], **change})


@pytest.mark.parametrize(
    "change",
    [{"tensor_paralel": 8}, {"tensor_parallel": 0}, {"precision": "fp9"}, {"stages": []}, {"cluster": {"gpu_per_node": 8}}],
    ids=str,
)
def test_what_perfmodel_refuses_is_not(change: dict[str, Any]) -> None:
    """A key that is spelled wrong, a number out of bounds, an unknown word."""
    with pytest.raises(fastjsonschema.JsonSchemaException):
        check("")({**RUN, "stages": [STAGE], **change})


def test_every_key_has_words_and_no_words_are_of_another_key() -> None:
    """Beside its declaration, or in data/keys.yaml."""
    seen: dict[str, type] = {}
    for root in (Run, Engine, ServingProfile):
        silent = [(spec.__name__, name) for spec in specs(root, seen) for name in rules_of(spec) if not key_words(spec, name)]
        assert silent == []
    assert [(name, key) for name, words in written_words().items() for key in words if key not in rules_of(seen[name])] == []


def test_the_command_prints_it(run: Any) -> None:
    """As it is."""
    assert json.loads(run("schema", "run").out) == run_schema()
