"""Where a key path leads in a run, and how a value is put there: `stages[-1].data_parallel=384`, `stages[*].tokens=x0.5`.

List entries are [i] or .i; they count from 0, or with -1 from the end; [*] is all of them. `x0.5`, or `0.5x`, is half of
what stands there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, fields
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.exchange.presets import settings
from perfmodel.spec.axes import AXES
from perfmodel.spec.precision import RECIPES
from perfmodel.spec.run import RampStage, Run
from perfmodel.spec.stack import SoftwareStack

_TIMES: Final = r"((?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)"
FACTOR: Final = re.compile(rf"x{_TIMES}|{_TIMES}x")
QUANTITY: Final = re.compile(r"\s*([-+]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\d\s].*)?")

_NETWORK: Final = "cluster.links.network.bandwidth_bytes_per_s"
_LAST: Final = "stages[-1]."
_BATCH: Final = f"{_LAST}global_batch_size"
_SHORT: Final = {  # names that people type: the key that they mean
    **{(axis.short.lower(), *axis.also_called): f"{_LAST * axis.fills}{axis.name}" for axis in AXES},
    ("vp", "vpp", "interleaved"): "virtual_pipeline",
    ("sp",): "sequence_parallel",
    ("gbs", "batch", "batch_size", "global_batch"): _BATCH,
    ("mbs", "micro_batch", "micro_batches"): "micro_batch_size",
    ("seq", "seq_len", "seq_length", "context_length"): "sequence_length",
    ("dtype", *RECIPES): "precision",
    ("zero", "fsdp", "distributed_optimizer"): "sharding",
    ("checkpointing", "activation_checkpointing"): "recompute",
    ("schedule",): "pipeline_schedule",
    ("ib", "infiniband", "network", "nic", "roce", "ethernet", "bandwidth"): _NETWORK,
    ("nvlink", "nvswitch"): "cluster.links.node.bandwidth_bytes_per_s",
    ("gpu", "gpu_type", "hardware", "node"): "cluster (perfmodel list clusters)",
    ("hbm", "memory", "gpu_memory"): "cluster.gpu.memory_bytes",
    ("price", "cost", "dollars", "dollars_per_gpu_hour"): "economics.dollars_per_gpu_hour",
    ("mtbf", "node_mtbf", "failures", "failure_rate", "interruptions"): (
        "economics.failures_per_gpu_hour (one over the hours between two failures of a GPU)"
    ),
    ("pue",): "economics.power_usage_effectiveness",
    ("overlap", "no_overlap"): "stack.overlap.tensor_parallel or stack.overlap.data_parallel",
}
SHORT_NAMES: Final = {name: key for names, key in _SHORT.items() for name in names}


def with_value(mapping: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of the `mapping` of a run with `value` at every place that `key` leads to; `x2` is twice what stands there.

    Errors: InputError for a key that leads nowhere, with the key that is meant.
    """
    steps = steps_of(key)
    if steps[0] not in Run.__dataclass_fields__:
        raise InputError(f"unknown key; {_meant(key, steps[0], mapping)}", key=steps[0])
    if steps[0] == "stack" and len(steps) > 1 and steps[1] in SoftwareStack.moved_keys:
        raise InputError(f"unknown key; it is called stack.{SoftwareStack.moved_keys[steps[1]]} now", key=f"stack.{steps[1]}")
    result = deepcopy(dict(mapping))
    for place, last in _places(result, steps):
        place[last] = _times(_held(place, last, key), value, key) if is_factor(value) else value
    return result


def steps_of(key: str) -> list[str]:
    """The steps of a key path, each a name or a place in a list.

    >>> steps_of("stages[-1].tokens")
    ['stages', '-1', 'tokens']
    """
    return re.sub(r"\[(-?\d+|\*)\]", r".\1", key).split(".")


def _places(mapping: dict[str, Any], steps: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """Every place that the steps lead to: a mapping and a key, or a list and an index."""
    places: list[tuple[Any, str]] = [(mapping, "")]
    for step in steps[:-1]:
        places = [(place[index], f"{path}.{index}") for place, path in places for index in _indices(place, step, path)]
    for place, path in places:
        if isinstance(place, dict):
            yield place, steps[-1]
        else:
            yield from ((place, index) for index in _indices(place, steps[-1], path))


def _indices(place: Any, step: str, path: str) -> list[Any]:
    """The keys or indices that `step` means in `place`, a mapping or a list at `path`."""
    here = f"{path}.{step}".removeprefix(".")
    if isinstance(place, list):
        if step == "*":
            return list(range(len(place)))
        if not re.fullmatch(r"-?\d{1,9}", step) or not -len(place) <= int(step) < len(place):
            raise InputError(
                f"{shown(step)} is not a place in a list of {len(place)}: the first is 0, the last is -1", key=here
            )
        return [int(step) % len(place)]
    if not isinstance(place, dict):
        raise InputError(f"{shown(place)} has no keys below it", key=path.removeprefix("."))
    if step not in place:
        raise InputError(f"unknown key; {did_you_mean(step, map(str, place))}", key=here)
    return [step]


def is_factor(value: Any) -> bool:
    """Whether a value is a multiple of what stands there, such as x0.5 or 2x."""
    return isinstance(value, str) and FACTOR.fullmatch(value) is not None


def _held(place: Any, last: Any, key: str) -> Any:
    """What stands at a place, or the default of a run where nothing does."""
    if isinstance(place, list) or last in place:
        return place[last]
    entry = Run.__dataclass_fields__.get(key)
    if entry is None or entry.default is MISSING or entry.default is None:
        raise InputError("no value to multiply; write the value itself", key=key)
    return entry.default


def _times(held: Any, factor: str, key: str) -> Any:
    """A number, a quantity with its unit, or each entry of a list, times a factor such as x0.5.

    >>> _times(384, "x0.5", ""), _times("400Gb/s", "x2", ""), _times([1, 2], "x2", "")
    (192, '800Gb/s', [2, 4])
    """
    if isinstance(held, list):
        return [_times(each, factor, key) for each in held]
    match = QUANTITY.fullmatch(held) if isinstance(held, str) else None
    times = float(factor.strip("x"))
    if match is not None:
        return f"{float(match[1].replace('_', '')) * times:.17g}{match[2] or ''}"
    if isinstance(held, bool) or not isinstance(held, int | float):
        raise InputError(f"{shown(held)} is not a number, so {factor} cannot multiply it", key=key)
    return int(held * times) if isinstance(held, int) and (held * times).is_integer() else held * times


def _meant(key: str, word: str, mapping: Mapping[str, Any]) -> str:
    """The key that somebody means by `key`: one further down, one that `word` is short for, or one that is spelled alike."""
    from difflib import get_close_matches

    deep = [path for path, _ in settings(mapping) if "spread." not in path and not path.startswith("stages")]
    further = next((path for path in deep if path.endswith(f".{key}")), "")
    if further and key not in (*_names(RampStage), *RECIPES):
        return f"did you mean {further}?"
    paths = {path.rpartition(".")[2]: path for path in reversed(deep)}  # of several the first
    paths |= {name: f"stages[-1].{name} (the last stage) or stages[*].{name} (all)" for name in _names(RampStage)}
    paths |= {name: name for name in _names(Run)}
    paths |= {name: f"stack.{path}" for name, path in SoftwareStack.moved_keys.items() if name not in paths}
    close = get_close_matches(word[:100].lower(), paths, n=1, cutoff=0.6)
    meant = SHORT_NAMES.get(word.lower()) or (paths[close[0]] if close else "")
    return f"did you mean {meant}?" if meant else did_you_mean(word, _names(Run))


def key_called(word: str) -> str:
    """The key of a run that has this name, or this short name; "" where none has.

    >>> key_called("tp"), key_called("gbs"), key_called("price"), key_called("bogus")
    ('tensor_parallel', 'stages[*].global_batch_size', 'economics.dollars_per_gpu_hour', '')
    """
    name = SHORT_NAMES.get(word, word).removeprefix(_LAST)
    if name in _names(RampStage):
        return f"stages[*].{name}"
    is_path = word in SHORT_NAMES and "." in name and " " not in name
    return name if is_path or name in _names(Run) else ""


def _names(spec: type) -> list[str]:
    return [entry.name for entry in fields(spec)]
