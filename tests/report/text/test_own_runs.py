"""Does a reader see what own runs do, and which of them to look at, in lines that fit 80 columns?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from perfmodel import __version__, api
from perfmodel.evidence.measured_rows import UnreadRow
from perfmodel.evidence.own_calibration import OwnCalibration
from perfmodel.report.text.measured.own_runs import MOST_ROWS, own_calibration_report, own_runs_line
from perfmodel.report.text.terminal import as_text
from perfmodel.spec.evidence.own_runs import OwnRun, OwnShift
from perfmodel.spec.evidence.run_evidence import RunEvidence

RUN = api.load("nemotron-4-15b")
SHIFT = OwnShift(runs=2, kin="of this configuration", shift=float(np.log(0.95)), remaining=0.5)


def line(shift: OwnShift, version: str = __version__) -> str:
    """What is said of a prediction with one group of own runs."""
    evidence = RunEvidence(name="mine", cells=RUN.cluster.evidence.cells, version=version, own_shifts=(shift,))
    predicted = api.predict(replace(RUN, cluster=replace(RUN.cluster, evidence=evidence))).stages[0][1]
    found = own_runs_line(predicted)
    return "" if found is None else found.plain


def calibration(*ratios: float, weight: float = 1.0, stretch: float = 1.0) -> OwnCalibration:
    """Runs that took so many times what was predicted."""
    runs = tuple(
        OwnRun(name=f"run {place}", measured_s=ratio, predicted_s=1.0, weight=weight) for place, ratio in enumerate(ratios)
    )
    unread = UnreadRow(line=7, run_id="x", source="a", reason="line 7, column gpus: no number")
    return OwnCalibration(runs=runs, shifts=(SHIFT,), stretch=stretch, left_out=(unread,))


def lines(found: OwnCalibration) -> list[str]:
    """The report at 80 columns."""
    return as_text(own_calibration_report(found, table="runs.csv"), width=80).splitlines()


def report(found: OwnCalibration) -> str:
    """Its words, wherever its lines break."""
    return " ".join(" ".join(lines(found)).split())


def test_the_line_says_how_far_how_wide_and_by_whose_runs() -> None:
    """Narrower or wider, one run or several; nothing without own runs."""
    plain = api.predict(RUN).stages[0][1]
    assert own_runs_line(plain) is None
    low, high = (np.log(end / plain.iteration_time_s) / 2 for end in plain.iteration_time_interval_s)
    half = 100 * (np.exp(high) - np.exp(low)) / 2
    assert line(SHIFT) == f"Shifted by -5.0 % and narrowed to +-{half:.1f} % by 2 of your runs of this configuration."
    for kept in (0.995, 1.0, 1.005):
        assert ", interval still +-" in line(replace(SHIFT, remaining=kept))
    assert "and narrowed to" in line(replace(SHIFT, remaining=0.99))
    wider = line(replace(SHIFT, runs=1, remaining=1.5))
    assert "and widened to" in wider
    assert wider.endswith("by one of your runs of this configuration.")


def test_runs_held_against_another_version_are_to_be_calibrated_again() -> None:
    """What they were off by may have been mended since."""
    assert f"perfmodel 0.0.9, this is {__version__}: calibrate again" in line(SHIFT, version="0.0.9")
    assert "calibrate again" not in line(SHIFT)


def test_the_report_says_how_far_the_median_run_is() -> None:
    """Longer or less, of how many rows; what was left out has its line and its reason once."""
    assert report(calibration(1.1, 1.2, 1.3)).startswith("3 of 4 rows of runs.csv are used: the median run took 20.0 % longer")
    assert "took 10.0 % less than predicted" in report(calibration(0.9))
    assert "line 7 column gpus: no number" in report(calibration(0.9))
    assert max(map(len, lines(calibration(0.9)))) <= 80


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (calibration(3.0, 3.1), "likely a slip"),
        (calibration(0.3, 0.31), "likely a slip"),
        (calibration(1.3, 1.3, stretch=2.5), "become 2.5 times as wide"),
        (calibration(1.3, weight=0.2), "run 0 is odd: it weighs little"),
        (calibration(*[1.3] * 5, weight=0.2), "run 0, run 1, run 2 and 2 more are odd: they weigh little"),
    ],
)
def test_what_is_doubtful_is_said(found: OwnCalibration, words: str) -> None:
    """And of runs that are as predicted, nothing is."""
    assert words in report(found)
    assert words not in report(calibration(1.01, 1.02))


def test_a_long_table_shows_its_beginning_and_how_many_more() -> None:
    """All of them are in the file."""
    text = report(calibration(*[1.0] * (MOST_ROWS + 5)))
    assert f"run {MOST_ROWS - 1} " in text
    assert f"run {MOST_ROWS} " not in text
    assert "5 others" in text
