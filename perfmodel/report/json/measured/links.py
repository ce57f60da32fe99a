"""How what nccl-tests say of the links of a cluster looks as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from perfmodel.exchange.measured.link_profiles import LinkCalibration
from perfmodel.explanation.measured.link_tests import LinkVerdict
from perfmodel.report.json.prediction import SCHEMA_VERSION

VERDICTS: Final = {-1: "slower", 0: "as expected", 1: "faster"}


def link_document(found: LinkCalibration) -> dict[str, Any]:
    """The verdict on each test and on each of its sizes, and the factors by which links are other than the cluster says."""
    return {
        "schema_version": SCHEMA_VERSION,
        "cluster": found.name,
        "tests": [_test(each) for each in found.verdicts],
        "fit": {
            "factors": [{**asdict(each), "paths": list(each.paths)} for each in found.fit.factors],
            "not_told": list(found.fit.untold),
            "median_error": found.fit.median_error,
            "p90_error": found.fit.p90_error,
        },
        "warnings": list(found.warnings),
    }


def _test(each: LinkVerdict) -> dict[str, Any]:
    low, high = each.expected_bus_bytes_per_s
    return {
        "collective": each.test.call.kind,
        "gpus": int(each.test.call.group.ranks),
        "nodes": each.test.nodes,
        "verdict": VERDICTS[each.sign],
        "is_slight": each.is_slight,
        "causes": [{"name": cause.name, "check": cause.check, "source": cause.source} for cause in each.causes],
        "sizes": [
            {
                "payload_bytes": float(size),
                "time_s": float(seconds),
                "bus_bytes_per_s": float(bus),
                "expected_bus_bytes_per_s": [float(lowest), float(highest)],
                "verdict": VERDICTS[int(sign)],
            }
            for size, seconds, bus, lowest, highest, sign in zip(
                each.test.payload_bytes, each.test.seconds, each.test.bus_bytes_per_s, low, high, each.signs, strict=True
            )
        ],
    }
