"""Does a reader see what makes an interval wide, and on whose runs that rests?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from perfmodel.evidence.discrepancy import POOLED_SOURCES
from perfmodel.exchange.run_files import read_candidates
from perfmodel.prediction import Prediction, StagePrediction, predict
from perfmodel.report.json.prediction import prediction_document, uncertainty_parts
from perfmodel.report.text.interval import NARROWED_BY, discrepancy_sentence, interval_table, uncertain_numbers_table
from perfmodel.report.text.terminal import as_text
from perfmodel.spec.evidence.own_runs import OwnShift, setting_word
from perfmodel.spec.evidence.run_evidence import NO_EVIDENCE
from perfmodel.spec.run import Run
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


def test_no_number_alone_is_wider_than_its_part() -> None:
    """Where own runs narrow an interval, in JSON too."""
    shift = OwnShift(runs=1, kin="mine", shift=0.0, remaining=0.25)
    document = prediction_document(predict(with_own_runs(shift)), assumptions=())["stages"][-1]
    parts = document["uncertainty_parts"]
    total = sum(each["half_width_s"] ** 2 for each in document["uncertainty"])
    assert total == pytest.approx(parts["coefficients"]["half_width_s"] ** 2 + parts["machine"]["half_width_s"] ** 2)
    assert widest_number(predict(with_own_runs(shift))) == pytest.approx(widest_number(predict(RAMP)) / 4, abs=0.1)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [((), "a run of this very configuration"), ((1, 2, 3, 4, 5, 6), "a run of this very"), (range(30), "more runs of this")],
)
def test_with_own_runs_the_advice_is_what_they_lack(settings: Sequence[int], advice: str) -> None:
    """Nobody who has them is told to make one; of this configuration there may be more."""
    words = setting_words(predict(RAMP).stages[-1][1])
    shift = OwnShift(settings=tuple(words[: len(settings)]), runs=1, kin="mine", shift=0.0, remaining=0.5)
    table = as_text(interval_table(predict(with_own_runs(shift)).stages[-1][1]), width=120)
    assert advice in table
    assert NARROWED_BY["discrepancy"] not in table
    assert NARROWED_BY["discrepancy"] in as_text(interval_table(predicted()), width=120)


def with_own_runs(shift: OwnShift) -> Run:
    """The ramp's run where own runs are known."""
    evidence = replace(RAMP.cluster.evidence, own_shifts=(shift,))
    return replace(RAMP, cluster=replace(RAMP.cluster, evidence=evidence))


def setting_words(stage: StagePrediction) -> list[str]:
    """What tells its configuration apart, as groups of own runs have it."""
    return [setting_word(name, value) for name, value in stage.work.setup.settings.items()]


def widest_number(prediction: Prediction) -> float:
    """The half width [ms] in the first line of the table of uncertain numbers."""
    lines = as_text(uncertain_numbers_table(prediction), width=120).splitlines()
    return max(float(word.removeprefix("+-")) for line in lines for word in line.split() if word.startswith("+-"))


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
