"""What follows from the GPUs of a run where its file leaves it out: the data-parallel degree, and a batch of one pass."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.spec.axes import FILLING, REPLICA_AXES
from perfmodel.units import gpus_text, parse_quantity

GPUS: Final = "gpus"  # of the whole run, or of one of its ramp stages
BATCH: Final = "global_batch_size"
PASSES: Final = "micro_batches"  # of each replica in an iteration, from which the batch follows


def with_replicas(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping of a run whose ramp stages have what follows from `gpus`, which is left out.

    >>> with_replicas({"gpus": 16, "tensor_parallel": 4, "stages": [{"global_batch_size": 8}]})["stages"]
    [{'data_parallel': 4, 'global_batch_size': 8}]
    """
    result = {key: value for key, value in mapping.items() if key != GPUS}
    if not isinstance(mapping.get("stages"), list):
        return result
    stages = [_filled(mapping, each, f"stages[{index}]") for index, each in enumerate(mapping["stages"])]
    return {**result, "stages": stages}


def _filled(mapping: Mapping[str, Any], stage: Any, place: str) -> Any:
    if not isinstance(stage, Mapping):
        return stage
    gpus = stage.get(GPUS, mapping.get(GPUS))
    result = {key: value for key, value in stage.items() if key != GPUS}
    if gpus is not None and FILLING.name not in stage:
        result = {FILLING.name: _replicas(mapping, gpus, f"{place}.{GPUS}" if GPUS in stage else GPUS), **result}
    elif gpus is not None and isinstance(stage[FILLING.name], int):
        _check(mapping, gpus, stage[FILLING.name], f"{place}.{FILLING.name}")
    passes = result.pop(PASSES, 1)
    if BATCH not in result and isinstance(result.get(FILLING.name), int):
        each = _degree(mapping, "micro_batch_size") * _whole(passes, f"{place}.{PASSES}")
        result = {FILLING.name: result[FILLING.name], BATCH: each * result[FILLING.name], **result}
    return result


def _replicas(mapping: Mapping[str, Any], gpus: Any, key: str) -> int:
    """GPUs over those of one replica. Errors: InputError where that is no whole number."""
    number, ranks = _whole(gpus, key), _ranks(mapping)
    if number % ranks:
        named = " x ".join(
            f"{axis.name} {_degree(mapping, axis.name)}" for axis in REPLICA_AXES if _degree(mapping, axis.name) > 1
        )
        raise InputError(f"{gpus_text(number)} do not divide into replicas of {gpus_text(ranks)} ({named})", key=key)
    return number // ranks


def _check(mapping: Mapping[str, Any], gpus: Any, replicas: int, key: str) -> None:
    made, number = replicas * _ranks(mapping), _whole(gpus, GPUS)
    if made != number:
        raise InputError(
            f"{replicas} replicas make {gpus_text(made)}, where gpus says {number:,}; leave out one of the two", key=key
        )


def _ranks(mapping: Mapping[str, Any]) -> int:
    return prod(_degree(mapping, axis.name) for axis in REPLICA_AXES)


def _degree(mapping: Mapping[str, Any], key: str) -> int:
    value = mapping.get(key, 1)
    if isinstance(value, Mapping) and "value" in value:
        value = value["value"]
    if isinstance(value, list):
        raise InputError(f"{shown(value)} lists several values; the run then needs {FILLING.name} in place of {GPUS}", key=key)
    return _whole(value, key)


def _whole(value: Any, key: str) -> int:
    try:
        number = parse_quantity(value, "count")
    except InputError as error:
        raise error.under(key) from None
    if number < 1 or number != int(number):
        raise InputError(f"{shown(value)} is not a positive whole number", key=key)
    return int(number)
