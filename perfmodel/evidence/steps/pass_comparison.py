"""Measured passes of a served model beside their forecast: prefill and decode, operator by operator, memory and messages.

The times on both sides add up to the pass: time outside operators has a row of its own, and so has what marks add to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perfmodel.count.operators import Collective
from perfmodel.count.serving.forward_pass import ForwardPass, ServedOperator, forward_operators
from perfmodel.count.serving.memory import sequence_bytes, weight_bytes
from perfmodel.evidence.steps.compared import (
    BETWEEN,
    MODEL_SIZES,
    OVERHEAD,
    ComparedOperator,
    ComparedValue,
    CountedCall,
    GroupOfRanks,
    compared_calls,
    differ,
    differences,
    interval_of,
    kind_of,
    longest,
)
from perfmodel.evidence.steps.pass_records import InferRecord, PassRecord
from perfmodel.evidence.steps.step_records import OperatorTime
from perfmodel.light_dataclass import dataclass
from perfmodel.serving.intervals import value_uncertainty
from perfmodel.serving.law import ServedLoad, static_batch
from perfmodel.spec.layout import Layout
from perfmodel.spec.models.model import TransformerModel
from perfmodel.spec.phases import FORWARD
from perfmodel.spec.serving.evidence import ServingEvidence, model_class
from perfmodel.spec.serving.loads import DECODE, STATIC, TTFT
from perfmodel.spec.serving.setup import Request, ServingSetup
from perfmodel.timing.serving.forward_pass import PassTime, operator_time_s

COMPARED: tuple[str, ...] = ("precision", "tensor_parallel")


@dataclass(frozen=True, slots=True, kw_only=True)
class PassComparison:
    """One sort of pass: `whole` is its time without marks, whose forecast has a 90 % interval."""

    record: PassRecord
    predicted: PassTime
    interval_s: tuple[float, float]
    operators: tuple[ComparedOperator, ...]  # in the order of the forecast, then time outside operators
    calls: Mapping[GroupOfRanks, ComparedValue]
    payload_bytes: Mapping[GroupOfRanks, ComparedValue]

    @property
    def whole(self) -> ComparedValue:
        """The time of the pass."""
        return ComparedValue(predicted=float(self.predicted.total_s), measured=self.record.seconds)

    def largest(self, share: float) -> tuple[ComparedOperator, ...]:
        """The operators that together make up `share` of the measured pass, the longest first."""
        return longest(self.operators, share * self.record.profiled_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferComparison:
    """A record of passes beside the forecast of the same load."""

    record: InferRecord
    setup: ServingSetup
    prefill: PassComparison
    decode: PassComparison
    memory: Mapping[str, ComparedValue]

    @property
    def passes(self) -> Mapping[str, PassComparison]:
        """Both by name."""
        return {"prefill": self.prefill, "decode": self.decode}

    def rows(self) -> list[dict[str, Any]]:
        """A row for each operator of each pass: seconds of the pass, the error None where nothing was measured."""
        return [{"pass": name} | pair.row() for name, each in self.passes.items() for pair in each.operators]


def compare_passes(
    setup: ServingSetup, model: TransformerModel, layout: Layout, record: InferRecord, evidence: ServingEvidence
) -> InferComparison:
    """A record beside the forecast of `setup`, which serves the `model` of a run in its `layout`.

    Errors: InputError where the run has other settings than the record.
    """
    parts = (("model", model, MODEL_SIZES), ("layout", layout, COMPARED))
    if different := differences(parts, record.settings):
        differ([different])
    sequences, context = record.sequences, record.input_tokens + record.output_tokens / 2.0
    request = Request(input_tokens=record.input_tokens, output_tokens=record.output_tokens)
    load = static_batch(setup, request, sequences)
    reading = ForwardPass(prompts=sequences, prompt_tokens=record.input_tokens)
    decoding = ForwardPass(sequences=sequences, context=context)
    passes = (
        (record.prefill, load.first, reading, _interval_s(setup, load, load.first, TTFT, evidence)),
        (record.decode, load.decode, decoding, _interval_s(setup, load, load.decode, DECODE, evidence)),
    )
    prefill, decode = (_compared(setup, *each) for each in passes)
    tokens = record.input_tokens + record.output_tokens
    cache = sequences * float(sequence_bytes(setup, tokens))
    return InferComparison(
        record=record,
        setup=setup,
        prefill=prefill,
        decode=decode,
        memory={
            "weights_bytes": ComparedValue(predicted=float(weight_bytes(setup)), measured=record.weight_bytes),
            "cache_bytes": ComparedValue(predicted=cache, measured=record.cache_bytes),
        },
    )


def _interval_s(
    setup: ServingSetup, load: ServedLoad, of: PassTime, metric: str, evidence: ServingEvidence
) -> tuple[float, float]:
    lack = evidence.discrepancy(metric, model_class(has_experts=setup.model.mixture is not None), STATIC)
    found = value_uncertainty(setup, load, of.total_s, metric, lack)
    return float(found.low_s), float(found.high_s)


def _compared(
    setup: ServingSetup, record: PassRecord, predicted: PassTime, tokens: ForwardPass, interval_s: tuple[float, float]
) -> PassComparison:
    operators = list(forward_operators(setup, tokens))
    calls, payload = compared_calls(_collectives(operators), record.collectives)
    return PassComparison(
        record=record,
        predicted=predicted,
        interval_s=interval_s,
        operators=(*_operators(operators, setup, record), *_rest(predicted, record)),
        calls=calls,
        payload_bytes=payload,
    )


def _operators(operators: Iterable[ServedOperator], setup: ServingSetup, record: PassRecord) -> Iterator[ComparedOperator]:
    """A row for each name that was predicted or measured."""
    measured = {each.name: each for each in record.operators}
    predicted: dict[str, list[ServedOperator]] = {}
    for operator in operators:
        predicted.setdefault(operator.name, []).append(operator)
    for name, of_name in predicted.items():
        found = measured.pop(name, OperatorTime(name=name, phase=FORWARD, seconds=0.0, fastest_s=0.0))
        kind = kind_of(of_name[0])
        yield ComparedOperator(
            name=name,
            phase=FORWARD,
            kind=kind,
            runs=float(sum(each.repeats for each in of_name)),
            predicted=float(sum(each.repeats * operator_time_s(each, setup) for each in of_name)),
            measured=found.seconds,
            measured_interval_s=interval_of(found),
            confidence="",
            waiting_s=found.seconds - found.fastest_s if kind == "collective" else 0.0,
        )
    for name, found in measured.items():
        kind, taken_s = "memory_bound", found.seconds
        yield ComparedOperator(name=name, phase=FORWARD, kind=kind, runs=0.0, predicted=0.0, measured=taken_s, confidence="")


def _rest(predicted: PassTime, record: PassRecord) -> Iterator[ComparedOperator]:
    """Rows for the time outside operators, and for what marks add to the pass."""
    rows = {BETWEEN: (float(predicted.host_s), record.between_s), OVERHEAD: (0.0, record.seconds - record.profiled_s)}
    for name, (ours, theirs) in rows.items():
        yield ComparedOperator(name=name, phase="", kind="", runs=0.0, predicted=ours, measured=theirs, confidence="")


def _collectives(operators: Iterable[ServedOperator]) -> Iterator[CountedCall]:
    for each in operators:
        if isinstance(each, Collective):
            yield GroupOfRanks(each.kind, int(each.group.ranks)), float(each.repeats), float(each.payload_bytes)
