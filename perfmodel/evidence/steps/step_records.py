"""A measured training step and where it was taken: what `measure` writes and `compare` reads, one JSON object a file.

Its operators have the names and phases of a prediction (count/operators.py); nothing in it was predicted.
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.evidence.steps.records import PROVENANCE
from perfmodel.light_dataclass import dataclass

STEP_SCHEMA_VERSION: Final = 1
KIND: Final = "training_step"
AGREEMENT: Final = 0.01  # of numbers that follow from each other
MOST_INSIDE: Final = 3.0  # of a step, in its operators: medians and means over ranks need not add up exactly
MOST: Final = 1e20  # of seconds, bytes, FLOP/s, whatever a step has: far above what a machine does


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """The time that all executions of one operator take in an iteration.

    `seconds` is the mean over ranks, 0 on those of pipeline stages that do not run it; `fastest_s` the sum over executions of
    the fastest rank: in a collective, the rank that comes last does not wait. A message between pipeline stages is as fast as
    the fastest of its kind, as all have one size. Both are medians over the profiled steps. `interval_s` is the 90 % interval
    of `seconds`, low and high; empty where there were too few steps to say.
    """

    name: str
    phase: str
    seconds: float
    fastest_s: float
    interval_s: Sequence[float] = ()

    def __post_init__(self) -> None:
        if self.interval_s and (len(self.interval_s) != 2 or not self.interval_s[0] <= self.seconds <= self.interval_s[1]):
            raise InputError(f"{shown(list(self.interval_s))} is not an interval around {self.seconds:g}", key="interval_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveCount:
    """Calls of one kind of collective in an iteration of one rank, as torch counts them; the payload is the full tensor.

    The rank is the first of a pipeline stage, counted from 1. A message between stages counts where it is sent.
    """

    kind: str
    ranks: int
    calls: int
    payload_bytes: int
    pipeline_stage: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Where the profiled steps of a pipeline stage went, the mean over them and its ranks: the four parts sum to a step.

    `messages_s` is what its messages to and from other stages take, and its share of collectives of all ranks; `waiting_s` what
    it waits in them for other stages; `between_s` what it spends in no operator.
    """

    operators_s: float
    messages_s: float
    waiting_s: float
    between_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredMemory:
    """Memory of the rank that needs most: what it holds between steps, and what the allocator holds at the peak.

    The rank is of a pipeline stage, counted from 1.
    """

    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int  # held when the logits begin; at the peak of a pipeline stage that forms none
    loss_bytes: int  # what the peak adds to all parts above
    peak_bytes: int
    pipeline_stage: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """Measured steps of one layout; `spread` is the distance between the quartiles of their time over the median.

    `settings` is the layout and the model that ran, as a run file has them; `between_s` what the profiled step spent in no
    operator; `exposed_communication_s` what it spent in collectives and messages with nothing beside them (the reference model
    runs none), without what pipeline stages wait for each other; `losses` those of all iterations in their order. `power_w` is
    the mean of the GPUs, None where nothing measures it. `pipeline_stages` are those of a pipeline, none of a single stage.
    `rank_waiting_s` is what ranks of a stage waited in their collectives for the last of them, a part of what is exposed; None
    in records of earlier versions.
    """

    name: str
    settings: Mapping[str, Any]
    gpus: int
    tokens_per_iteration: int
    iteration_time_s: float
    spread: float
    repeats: int
    tokens_per_s: float
    model_flop_per_s: float  # of one GPU
    mfu: float
    profiled_iteration_time_s: float
    between_s: float
    exposed_communication_s: float
    operators: Sequence[OperatorTime]
    collectives: Sequence[CollectiveCount]
    memory: MeasuredMemory
    losses: Sequence[float]
    power_w: float | None
    warnings: Sequence[str]
    provenance: Mapping[str, str]
    pipeline_stages: Sequence[StageTime] = ()
    rank_waiting_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("iteration_time_s", "profiled_iteration_time_s", "tokens_per_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"{shown(getattr(self, name))} is not a positive number", key=name)
        self._check_sums()
        missing = [name for name in PROVENANCE if name not in self.provenance]
        if missing:
            raise InputError("missing; every record states where it was measured", key=f"provenance.{missing[0]}")

    def _check_sums(self) -> None:
        """What belongs together has to agree, whoever wrote it."""
        rate = self.tokens_per_iteration / self.iteration_time_s
        if abs(rate - self.tokens_per_s) > AGREEMENT * rate:
            wrong = f"{self.tokens_per_s:.4g} is not the {rate:.4g} that follow from tokens_per_iteration and iteration_time_s"
            raise InputError(wrong, key="tokens_per_s")
        inside_s = sum(each.seconds for each in self.operators)
        if inside_s > MOST_INSIDE * self.profiled_iteration_time_s:
            step = f"profiled_iteration_time_s, {self.profiled_iteration_time_s:.4g} s"
            raise InputError(f"they take {inside_s:.4g} s together, far more than {step}", key="operators")

    def document(self) -> dict[str, Any]:
        """The JSON object of this record."""
        return {"schema_version": STEP_SCHEMA_VERSION, "kind": KIND} | asdict(self)


def step_record(document: Any) -> StepRecord:
    """The record that a JSON object describes. Errors: InputError with the key that is wrong."""
    if not isinstance(document, Mapping) or document.get("kind") != KIND:
        raise InputError(f"this is not the record of a {KIND}, which `perfmodel measure` writes")
    version = document.get("schema_version")
    if isinstance(version, bool) or version != STEP_SCHEMA_VERSION:
        raise InputError(f"{shown(version)} is not a known version; {STEP_SCHEMA_VERSION} is", key="schema_version")
    bare = {key: value for key, value in document.items() if key not in ("schema_version", "kind")}
    found: StepRecord = built(StepRecord, bare, "")
    return found


def built(kind: type, document: Any, path: str) -> Any:
    """The dataclass `kind` that a JSON object describes; every value must have the declared type."""
    if not isinstance(document, Mapping):
        raise InputError(f"{shown(document)} where an object is needed", key=path)
    names = {entry.name: entry.default is MISSING for entry in fields(kind)}  # and whether it must be there
    prefix = f"{path}." if path else ""
    for key in document:
        if key not in names:
            raise InputError(f"unknown key; {did_you_mean(str(key), names)}", key=f"{prefix}{key}")
    hints = get_type_hints(kind)
    values = {}
    for name, is_needed in names.items():
        if name in document:
            values[name] = _value(hints[name], document[name], f"{prefix}{name}")
        elif is_needed:
            raise InputError("missing", key=f"{prefix}{name}")
    return kind(**values)


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, inside = get_origin(hint), get_args(hint)
    if origin in (types.UnionType, Union):
        return None if value is None else _value(inside[0], value, path)
    if origin is not None and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            return dict(value)
    elif origin is not None:
        if isinstance(value, list | tuple):
            return tuple(_value(inside[0], member, f"{path}[{index}]") for index, member in enumerate(value))
    elif hasattr(hint, "__dataclass_fields__"):
        return built(hint, value, path)
    elif isinstance(value, (int, float) if hint is float else hint) and not isinstance(value, bool):
        if hint in {int, float} and not 0 <= value <= MOST and not (path.startswith("losses") and abs(value) <= MOST):
            raise InputError(f"{shown(value)} is not a number from 0 to {MOST:g}", key=path)
        return value
    raise InputError(f"{shown(value)} where {_words(hint)} is needed", key=path)


def _words(hint: Any) -> str:
    names = {float: "a number", int: "a whole number", str: "text"}
    return names.get(hint, "an object" if get_origin(hint) is not None and issubclass(get_origin(hint), Mapping) else "a list")
