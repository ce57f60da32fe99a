"""Are measured passes of a served model laid beside their forecast, operator by operator, and do both sides add up?"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace

import pytest

from perfmodel.count.operators import Collective
from perfmodel.count.serving.forward_pass import ForwardPass, forward_operators
from perfmodel.count.serving.memory import sequence_bytes, weight_bytes
from perfmodel.errors import InputError
from perfmodel.evidence.steps.pass_comparison import InferComparison, compare_passes
from perfmodel.evidence.steps.pass_records import InferRecord, PassRecord, infer_record
from perfmodel.evidence.steps.step_records import CollectiveCount, OperatorTime
from perfmodel.exchange.measured.serving_evidence import serving_evidence
from perfmodel.exchange.questions.serving.measured_servers import served_setup
from perfmodel.exchange.run_files import read_candidates
from perfmodel.spec.run import Run
from perfmodel.spec.serving.setup import ServingSetup
from perfmodel.timing.serving.forward_pass import operator_time_s, pass_time
from tests.evidence.step_examples import PROVENANCE, plain

SEQUENCES, INPUT, OUTPUT = 4, 200, 40
ON_TWO = ("cluster=dgx-h100", "tensor_parallel=2")


def small_run(*settings: str) -> Run:
    """A small model on two GPUs."""
    return read_candidates("laptop", (*ON_TWO, *settings))[0].run


def pass_as_predicted(setup: ServingSetup, tokens: ForwardPass, slower: float) -> PassRecord:
    """A record whose every operator takes `slower` times what is predicted."""
    times: dict[str, float] = {}
    calls: dict[str, list[float]] = {}
    for operator in forward_operators(setup, tokens):
        seconds = float(operator.repeats * operator_time_s(operator, setup)) * slower
        times[operator.name] = times.get(operator.name, 0.0) + seconds
        if isinstance(operator, Collective):
            total = calls.setdefault(operator.kind, [0.0, 0.0])
            total[0] += float(operator.repeats)
            total[1] += float(operator.repeats * operator.payload_bytes)
    between_s = float(pass_time(setup, tokens).host_s) * slower
    total_s = sum(times.values()) + between_s
    return PassRecord(
        seconds=total_s,
        spread=0.01,
        repeats=9,
        profiled_s=total_s,
        between_s=between_s,
        operators=[OperatorTime(name=name, phase="forward", seconds=s, fastest_s=s) for name, s in times.items()],
        collectives=[CollectiveCount(kind=kind, ranks=2, calls=int(n), payload_bytes=int(b)) for kind, (n, b) in calls.items()],
    )


def record_of(run: Run, *, slower: float = 1.0) -> InferRecord:
    """A record of the passes of a run's model."""
    layout = run.layout(run.stages[0])
    setup = served_setup(run, layout)
    return InferRecord(
        name=run.name,
        settings={"model": plain(run.model), "layout": plain(layout)},
        gpus=2,
        sequences=SEQUENCES,
        input_tokens=INPUT,
        output_tokens=OUTPUT,
        prefill=pass_as_predicted(setup, ForwardPass(prompts=SEQUENCES, prompt_tokens=INPUT), slower),
        decode=pass_as_predicted(setup, ForwardPass(sequences=SEQUENCES, context=INPUT + OUTPUT / 2), slower),
        weight_bytes=int(float(weight_bytes(setup))),
        cache_bytes=int(SEQUENCES * float(sequence_bytes(setup, INPUT + OUTPUT))),
        warnings=[],
        provenance=PROVENANCE,
    )


def compared(run: Run, record: InferRecord) -> InferComparison:
    """Both sides."""
    layout = run.layout(run.stages[0])
    return compare_passes(served_setup(run, layout), run.model, layout, record, serving_evidence())


def errors(values: Iterable[float | None]) -> list[float]:
    """Those that there are."""
    return [each for each in values if each is not None]


@pytest.mark.parametrize("slower", [1.0, 1.25])
def test_passes_that_took_longer_are_off_by_it_in_every_operator(slower: float) -> None:
    """And so are both passes; memory, calls and bytes are those of the forecast."""
    run = small_run()
    found = compared(run, record_of(run, slower=slower))
    for each in found.passes.values():
        assert each.whole.error == pytest.approx(1.0 / slower - 1.0)
        named = errors(pair.error for pair in each.operators if pair.kind)
        assert named == pytest.approx([1.0 / slower - 1.0] * len(named))
        assert len(named) == len(each.record.operators)
        assert errors(pair.error for pair in (*each.calls.values(), *each.payload_bytes.values())) == [0.0] * 4
    assert errors(pair.error for pair in found.memory.values()) == [0.0, 0.0]


def test_rows_of_both_sides_add_up_to_the_pass() -> None:
    """With the time outside operators, and what marks add to the measured one."""
    run = small_run()
    record = record_of(run)
    whole_s, between_s = record.decode.seconds, record.decode.between_s
    decode = replace(record.decode, profiled_s=1.5 * whole_s, between_s=between_s + 0.5 * whole_s)
    found = compared(run, replace(record, decode=decode)).decode
    assert sum(pair.predicted for pair in found.operators) == pytest.approx(found.whole.predicted)
    assert sum(pair.measured for pair in found.operators) == pytest.approx(found.whole.measured)


def test_an_operator_that_nobody_forecast_is_a_row_of_its_own() -> None:
    """With nothing on the side of the forecast."""
    run = small_run()
    record = record_of(run)
    more = OperatorTime(name="layer.spell", phase="forward", seconds=1e-3, fastest_s=1e-3)
    decode = replace(record.decode, operators=[*record.decode.operators, more])
    row = next(pair for pair in compared(run, replace(record, decode=decode)).decode.operators if pair.name == more.name)
    assert (row.predicted, row.measured) == (0.0, 1e-3)


@pytest.mark.parametrize(("setting", "key"), [("tensor_parallel=1", "tensor_parallel"), ("model.layers=3", "model.layers")])
def test_a_record_of_other_settings_is_refused(setting: str, key: str) -> None:
    """By the key that would have to change."""
    with pytest.raises(InputError) as error:
        compared(small_run(setting), record_of(small_run()))
    assert error.value.key == key
    assert f"--set {key}=" in str(error.value)


def test_a_record_is_read_as_it_was_written() -> None:
    """All of it; and no other document is."""
    record = record_of(small_run())
    document = json.loads(json.dumps(record.document()))
    assert json.loads(json.dumps(infer_record(document).document())) == document
    for wrong, key in (
        ({"kind": "training_step"}, ""),
        ({"schema_version": 9}, "schema_version"),
        ({"sequences": "4"}, "sequences"),
    ):
        with pytest.raises(InputError) as error:
            infer_record(document | wrong)
        assert error.value.key == key
