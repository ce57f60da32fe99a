"""Measured passes of a served model and where they were taken: what `measure --infer` writes and `compare` reads.

Prompts are read in one pass, and each decode pass adds a token to every sequence. Operators have the names of a forecast
(count/serving/forward_pass.py); nothing in it was predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from perfmodel.errors import InputError, shown
from perfmodel.evidence.steps.records import PROVENANCE
from perfmodel.evidence.steps.step_records import STEP_SCHEMA_VERSION, CollectiveCount, OperatorTime, built
from perfmodel.light_dataclass import dataclass

KIND: Final = "infer"


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """Passes of one sort: the median of their times, the distance between their quartiles over it, and what marks showed.

    `profiled_s` is the time of passes with marks, the median of several, of which `between_s` was spent in no operator.
    `spread` is that of passes, and of decode passes each is one token farther than the one before.
    """

    seconds: float
    spread: float
    repeats: int
    profiled_s: float
    between_s: float
    operators: Sequence[OperatorTime]
    collectives: Sequence[CollectiveCount]


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRecord:
    """Prefill and decode of `sequences` prompts of `input_tokens`, after each of which `output_tokens` come back.

    Decode passes are those of all tokens but the first; the bytes are those of the rank that holds most.
    """

    name: str
    settings: Mapping[str, Any]
    gpus: int
    sequences: int
    input_tokens: int
    output_tokens: int
    prefill: PassRecord
    decode: PassRecord
    weight_bytes: int
    cache_bytes: int
    warnings: Sequence[str]
    provenance: Mapping[str, str]

    def __post_init__(self) -> None:
        for name, part in (("prefill", self.prefill), ("decode", self.decode)):
            for field in ("seconds", "profiled_s"):
                if not getattr(part, field) > 0:
                    raise InputError(f"{shown(getattr(part, field))} is not a positive number", key=f"{name}.{field}")
        missing = [name for name in PROVENANCE if name not in self.provenance]
        if missing:
            raise InputError("missing; every record states where it was measured", key=f"provenance.{missing[0]}")

    @property
    def tokens_per_s(self) -> float:
        """Tokens that come back a second while all sequences decode."""
        return self.sequences / self.decode.seconds

    def document(self) -> dict[str, Any]:
        """The JSON object of this record."""
        return {"schema_version": STEP_SCHEMA_VERSION, "kind": KIND} | asdict(self)


def is_infer_record(document: Any) -> bool:
    """Whether a document is a record of a served model's passes."""
    return isinstance(document, Mapping) and document.get("kind") == KIND


def infer_record(document: Any) -> InferRecord:
    """The record that a JSON object describes. Errors: InputError with the key that is wrong."""
    if not is_infer_record(document):
        raise InputError("this is not a record of passes, which `perfmodel measure --infer` writes")
    version = document.get("schema_version")
    if isinstance(version, bool) or version != STEP_SCHEMA_VERSION:
        raise InputError(f"{shown(version)} is not a known version; {STEP_SCHEMA_VERSION} is", key="schema_version")
    found: InferRecord = built(
        InferRecord, {key: value for key, value in document.items() if key not in {"schema_version", "kind"}}, ""
    )
    return found
