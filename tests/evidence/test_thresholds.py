"""Is a threshold read as it was meant, refused where it names nothing, and missed when its score lies above?"""

from __future__ import annotations

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.thresholds import Threshold, missed_thresholds, read_threshold
from perfmodel.evidence.time_scores import SCORES, ErrorSummary, TimeErrors

SOURCE = "NVIDIA/dgxc v25: a=b"
GROUPS = {"stack": {"megatron-core", "fsdp"}, "source": {SOURCE}}
SUMMARY = ErrorSummary(
    rows=10,
    median_abs_error=0.03,
    p90_abs_error=0.1,
    bias=-0.02,
    interval_coverage=0.9,
    winkler_score=0.4,
    half_width=0.1,
    by_source=TimeErrors(median_abs_error=0.04, p90_abs_error=0.2, bias=-0.03, interval_coverage=0.8, winkler_score=0.5),
    memory=None,
)


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("median=0.05", Threshold(score="median", highest=0.05)),
        ("p90=12.5%", Threshold(score="p90", highest=0.125)),
        ("stack/fsdp:bias=1", Threshold(score="bias", highest=1.0, group="stack", name="fsdp")),
        (f"source/{SOURCE}:median=3 %", Threshold(score="median", highest=0.03, group="source", name=SOURCE)),
    ],
)
def test_a_threshold_is_a_score_of_all_rows_or_of_a_group(text: str, threshold: Threshold) -> None:
    """A fraction or a percentage; a name may hold any sign."""
    assert read_threshold(text, scores=SCORES, groups=GROUPS) == threshold


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("median", "write SCORE=VALUE, as in median=5%"),
        ("=5%", "'' is not a score; known: bias, median, p90"),
        ("p9=5%", "'p9' is not a score; did you mean p90?"),
        ("median=fast", "'fast' is not a plain number or a percentage"),
        ("median=-0.1", "'-0.1' is not between 0 and 1 (0 and 100%)"),
        ("median=7", "'7' is not between 0 and 1 (0 and 100%); did you mean 7%?"),
        ("stak/fsdp:median=5%", "'stak' is not a group; did you mean stack?"),
        ("stack/fdsp:median=5%", "no row has stack 'fdsp'; did you mean fsdp?"),
        ("stack/fsdp=5%", "a score is missing; write stack/fsdp:median=5%"),
    ],
)
def test_a_threshold_that_names_nothing_is_refused(text: str, sentence: str) -> None:
    """With what would work."""
    with pytest.raises(InputError) as refused:
        read_threshold(text, scores=SCORES, groups=GROUPS)
    assert str(refused.value).startswith(f"--fail-above {text}: {sentence}")


@pytest.mark.parametrize(("score", "value"), [("median", 0.03), ("p90", 0.1), ("bias", 0.02)])
def test_a_threshold_is_missed_above_it_alone(score: str, value: float) -> None:
    """The score itself is still within; a bias counts without its sign."""
    for highest, sentences in ((value, 0), (value - 1e-6, 1)):
        assert len(missed_thresholds([Threshold(score=score, highest=highest)], overall=SUMMARY, groups={})) == sentences


def test_a_missed_threshold_is_said_with_its_score() -> None:
    """What, how much, and the threshold."""
    threshold = Threshold(score="median", highest=0.025, group="stack", name="fsdp")
    assert missed_thresholds([threshold], overall=None, groups={"stack": {"fsdp": SUMMARY}}) == [
        "stack/fsdp: median is 3 %; at most 2.5 % is allowed"
    ]


def test_no_covered_row_misses_every_threshold() -> None:
    """Nothing says that it would be met."""
    thresholds = [Threshold(score="median", highest=1.0), Threshold(score="p90", highest=1.0, group="stack", name="fsdp")]
    assert missed_thresholds(thresholds, overall=None, groups={"stack": {}}) == [
        "all rows: no covered row has a median; at most 100 % is allowed",
        "stack/fsdp: no covered row has a p90; at most 100 % is allowed",
    ]
