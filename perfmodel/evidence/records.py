"""One measured time and where it was taken: the schema that benchmarks write and fits read, one JSON object a line.

The sizes of a gradient are those of the forward product that it belongs to.

kind          sizes                                              labels
matmul        rows, columns, inner                               precision, phase (forward, data_gradient, weight_gradient)
attention     sequences, heads, kv_heads, head_size,             precision, phase (forward, data_gradient), mask (causal, none)
              sequence_length
memory_bound  moved_bytes                                        operator (copy, norm, activation, adam), phase, class (fused,
                                                                 compiled, eager)
collective    payload_bytes, ranks, nodes                        operator (all_reduce, all_gather, reduce_scatter, all_to_all,
                                                                 point_to_point)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean, shown

SCHEMA_VERSION: Final = 1
KINDS: Final = ("matmul", "attention", "memory_bound", "collective")
NUMBER: Final = (int, float)
LARGEST: Final = 1e12
PROVENANCE: Final = ("gpu", "software", "date", "command")  # what every record must say of itself


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The median of `repeats` timings; `spread` is the distance between their quartiles over the median."""

    kind: str
    sizes: Mapping[str, float]
    labels: Mapping[str, str]
    seconds: float
    spread: float
    repeats: int
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"{shown(self.kind)} is not a kind of record; {did_you_mean(self.kind, KINDS)}", key="kind")
        for name in ("labels", "provenance"):
            _check_all(name, getattr(self, name), str, "words")
        _check_all("sizes", self.sizes, NUMBER, "numbers")
        _check_all("", {name: getattr(self, name) for name in ("seconds", "spread", "repeats")}, NUMBER, "numbers")
        if not 0 < self.seconds < LARGEST:
            raise InputError(f"{shown(self.seconds)} is not a time", key="seconds")
        missing = [name for name in PROVENANCE if name not in self.provenance]
        if missing:
            raise InputError("missing; every record says where it comes from", key=f"provenance.{missing[0]}")

    def document(self) -> dict[str, Any]:
        """The JSON object of this record."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)


def _check_all(key: str, values: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise unless `values` is a mapping of names to `kind`."""
    if not isinstance(values, Mapping):
        raise InputError(f"{shown(values)} where a mapping of names to {what} is needed", key=key)
    for name, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise InputError(f"{shown(value)} where {what} are needed", key=f"{key}.{name}" if key else str(name))


def record(document: Any) -> Record:
    """The record that a JSON object describes. Errors: InputError with the key that is wrong."""
    if not isinstance(document, Mapping):
        raise InputError(f"{shown(document)} is not a record")
    version = document.get("schema_version")
    if isinstance(version, bool) or version != SCHEMA_VERSION:
        raise InputError(f"{shown(version)} is not {SCHEMA_VERSION}, the one that is known", key="schema_version")
    names = [entry.name for entry in fields(Record)]
    for key in document:
        if key not in (*names, "schema_version"):
            raise InputError(f"unknown key; {did_you_mean(str(key), names)}", key=str(key))
    for name in names:
        if name not in document:
            raise InputError("missing", key=name)
    return Record(**{name: document[name] for name in names})
