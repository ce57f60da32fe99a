"""Does a reader see what makes an interval wide, and on whose runs that rests?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from perfmodel.evidence.discrepancy import POOLED_SOURCES
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import StagePrediction, predict
from perfmodel.report.json.prediction import uncertainty_parts
from perfmodel.report.text.interval import NARROWED_BY, discrepancy_sentence
from perfmodel.spec.run_evidence import NO_EVIDENCE
from perfmodel.timing.uncertainty import PARTS

RAMP = read_candidates("nemotron-4-15b")[0].run


def predicted(stack: str = "megatron-core") -> StagePrediction:
    """The last stage of the ramp in some software."""
    (run,) = (each.run for each in read_candidates("nemotron-4-15b", [("stack", stack)]))
    return predict(run).stages[-1][1]


def test_parts_share_the_variance() -> None:
    """In JSON as in the interval itself: squares of half widths, and all of them; each part has what would narrow it."""
    document = uncertainty_parts(predicted().uncertainty)
    assert tuple(document) == tuple(NARROWED_BY) == PARTS
    total = sum(part["half_width_s"] ** 2 for part in document.values())
    for part in document.values():
        assert part["share"] == pytest.approx(part["half_width_s"] ** 2 / total)
    assert document["discrepancy"]["cell"] == "megatron-core/hopper"


def test_the_sentence_says_on_whose_runs_it_rests() -> None:
    """Those of its own software where some were scored, else those of all, and none where nobody measured any."""
    own, pooled = predicted().uncertainty.discrepancy, predicted("paxml").uncertainty.discrepancy
    unknown = predicted("ideal").uncertainty.discrepancy
    assert f"{int(own.rows)} published runs of {int(own.sources)} sources of megatron-core/hopper" in discrepancy_sentence(own)
    assert f"as much as {POOLED_SOURCES:.0f} sources" in discrepancy_sentence(own)
    assert "of maxtext/hopper" in discrepancy_sentence(pooled)
    assert "none of them is of ideal/hopper" in discrepancy_sentence(unknown)
    assert int(unknown.sources) > int(own.sources)
    bare = replace(RAMP, cluster=replace(RAMP.cluster, evidence=NO_EVIDENCE))
    assert discrepancy_sentence(predict(bare).stages[0][1].uncertainty.discrepancy).startswith("No measured runs")
