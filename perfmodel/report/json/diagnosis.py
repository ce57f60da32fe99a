"""How a diagnosis looks as JSON: every cause with all its alternatives, and what to measure next."""

from __future__ import annotations

from math import isfinite
from typing import Any

from perfmodel.explanation.measured.diagnosis import Diagnosis, row
from perfmodel.explanation.measured.next_measurements import Measurement, NextMeasurements
from perfmodel.report.json.prediction import SCHEMA_VERSION


def diagnosis_document(found: Diagnosis, following: NextMeasurements) -> dict[str, Any]:
    """The measured and the predicted iteration, causes with the most plausible first, and what tells them apart.

    The values of a measurement are those of the run as predicted, then of each contender; null where a layout cannot be.
    """
    low_s, high_s = found.predicted.iteration_time_interval_s
    return {
        "schema_version": SCHEMA_VERSION,
        "name": found.run.name,
        "stage": found.place + 1,
        "stages": len(found.run.stages),
        "gpus": int(found.predicted.layout.gpus),
        "measured": found.stated,
        "measured_iteration_time_s": found.measured_s,
        "iteration_time_s": float(found.predicted.iteration_time_s),
        "iteration_time_interval_s": [float(low_s), float(high_s)],
        "is_expected": found.is_expected,
        "is_explained": found.is_explained,
        "nothing_plausibility": found.nothing,
        "elsewhere_plausibility": found.elsewhere,
        "causes": [
            {
                "name": cause.name,
                "plausibility": cause.plausibility,
                "explains": cause.explains,
                "alternatives": [row(cause, finding) for finding in cause.findings],
            }
            for cause in found.causes
        ],
        "readings": [
            {"name": each.name, "measured": each.measured, "predicted": float(each.predicted(found.predicted.work.setup))}
            for each in found.readings
        ],
        "contenders": [each.hypothesis.cause for each in following.contenders],
        "measurements": [_measurement(each) for each in following.measurements],
    }


def _measurement(each: Measurement) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": each.kind}
    if each.call is not None:
        group = each.call.group
        document |= {"collective": each.call.kind, "payload_bytes": float(each.call.payload_bytes)}
        document |= {"ranks": int(group.ranks), "stride": int(group.stride)}
    if each.setup is not None:
        layout = each.setup.layout
        document |= {"layers": int(each.setup.model.layers), "data_parallel": int(layout.data_parallel)}
        document |= {"gpus": int(layout.gpus), "global_batch_size": int(layout.global_batch_size)}
    values = {name: [value if isfinite(value) else None for value in several] for name, several in each.quantities.items()}
    return document | {"values": values}
