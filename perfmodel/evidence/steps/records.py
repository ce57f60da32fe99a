"""One measured time of a kernel or a collective, and where it was taken: what benchmarks write and fits read, as JSON lines.

The sizes of a gradient are those of the forward product that it belongs to. Sizes and labels in [brackets] may be missing.

kind          sizes                                              labels
matmul        rows, columns, inner                               precision, phase (forward, data_gradient, weight_gradient)
attention     sequences, heads, kv_heads, head_size,             precision, phase (forward, data_gradient), mask (causal, none)
              sequence_length
memory_bound  moved_bytes, [rows, columns: the tensor],          operator (copy, or one of MEMORY_BOUND_KERNELS in
              [rotary_fraction], [table_rows]                    spec/machines/coefficients.py), phase (forward, data_gradient,
                                                                 weight_gradient, optimizer), class (fused, compiled, eager),
                                                                 [precision], [cache (cold, warm)]
few_rows      rows, columns, inner, matrices: each has so many     precision
              rows of its own
cached        sequences, context, heads, kv_heads, head_size,      precision
              value_size: attention of one query over a cache
served        moved_bytes, rows, columns: the tensor               operator (one of SERVED_KERNELS in
                                                                 spec/serving/profile.py), precision
host          layers: of a small model                           precision
collective    payload_bytes, ranks, [nodes: 1],                  operator (all_reduce, all_gather, reduce_scatter, all_to_all,
              [allocated_bytes: by one call, its result too]     point_to_point), [backend], [precision]
rank_times    rounds, ranks, period_s: from one meeting to the next     precision

The payload of a collective is the full tensor, before it is split or after it is joined; of an all-to-all, what one rank holds.
Collectives between CPUs state the mean of their repeats, and so do `rank_times`: what a rank waits for the last one where they
meet; everything else states the median. The label `busy` (all) of a memory-bound
operator says that every device of the machine ran it at once. Those of serving ran right behind a product, as in a
pass; `host` is what a pass spends between two operators.
Buffers are cold unless `cache` says otherwise: none of their bytes are in a cache when the operator begins. With `warm` those
are that the operator before it writes in a step, and nothing else is, the operator's code neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, Final

from perfmodel.errors import InputError, did_you_mean, shown
from perfmodel.light_dataclass import dataclass
from perfmodel.spec.phases import DATA_GRADIENT, FORWARD, OPTIMIZER, WEIGHT_GRADIENT

SCHEMA_VERSION: Final = 1
KINDS: Final = ("matmul", "attention", "memory_bound", "few_rows", "cached", "served", "host", "collective", "rank_times")
NUMBER: Final = (int, float)
LARGEST: Final = 1e12
MOST: Final = 1e18  # of any size
PROVENANCE: Final = ("gpu", "software", "date", "command")  # what every record has to state
SIZES: Final = {
    "matmul": ("rows", "columns", "inner"),
    "attention": ("sequences", "heads", "kv_heads", "head_size", "sequence_length"),
    "memory_bound": ("moved_bytes",),
    "few_rows": ("rows", "columns", "inner", "matrices"),
    "cached": ("sequences", "context", "heads", "kv_heads", "head_size", "value_size"),
    "served": ("moved_bytes", "rows", "columns"),
    "host": ("layers",),
    "collective": ("payload_bytes", "ranks"),
    "rank_times": ("rounds", "ranks", "period_s"),
}
LABELS: Final = {
    "matmul": ("precision", "phase"),
    "attention": ("precision", "phase", "mask"),
    "memory_bound": ("operator", "phase", "class"),
    "few_rows": ("precision",),
    "cached": ("precision",),
    "served": ("operator", "precision"),
    "host": ("precision",),
    "collective": ("operator",),
    "rank_times": ("precision",),
}
MAY_BE_ZERO: Final = ("allocated_bytes",)
PHASES: Final = (FORWARD, DATA_GRADIENT, WEIGHT_GRADIENT, OPTIMIZER)
WORDS: Final = {  # the values that a label may have, in records of every kind
    "phase": PHASES,
    "mask": ("causal", "none"),
    "class": ("fused", "compiled", "eager"),
    "cache": ("cold", "warm"),
}


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
        if not 0 <= self.spread < LARGEST:
            raise InputError(f"{shown(self.spread)} is not a spread", key="spread")
        if not 1 <= self.repeats < LARGEST:
            raise InputError(f"{shown(self.repeats)} is not a number of repeats", key="repeats")
        self._check_present("provenance", PROVENANCE, "every record states where it was measured")
        self._check_present("sizes", SIZES[self.kind], f"a {self.kind} record has {', '.join(SIZES[self.kind])}")
        self._check_present("labels", LABELS[self.kind], f"a {self.kind} record has {', '.join(LABELS[self.kind])}")
        self._check_values()

    def _check_present(self, part: str, names: tuple[str, ...], reason: str) -> None:
        missing = [name for name in names if name not in getattr(self, part)]
        if missing:
            raise InputError(f"missing; {reason}", key=f"{part}.{missing[0]}")

    def _check_values(self) -> None:
        for name, size in self.sizes.items():
            if not 0 <= size < MOST or (size == 0 and name not in MAY_BE_ZERO):
                raise InputError(f"{shown(size)} is not a size", key=f"sizes.{name}")
        for name, known in WORDS.items():
            if name in self.labels and self.labels[name] not in known:
                word = self.labels[name]
                raise InputError(f"{shown(word)} is not known; {did_you_mean(word, known)}", key=f"labels.{name}")

    def document(self) -> dict[str, Any]:
        """The JSON object of this record."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)


def _check_all(key: str, values: Any, kind: type | tuple[type, ...], what: str) -> None:
    """Raise InputError unless `values` maps names to values of `kind`."""
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
        raise InputError(f"{shown(version)} is not a known version; {SCHEMA_VERSION} is", key="schema_version")
    names = [entry.name for entry in fields(Record)]
    for key in document:
        if key not in (*names, "schema_version"):
            raise InputError(f"unknown key; {did_you_mean(str(key), names)}", key=str(key))
    for name in names:
        if name not in document:
            raise InputError("missing", key=name)
    return Record(**{name: document[name] for name in names})
