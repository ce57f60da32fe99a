"""Is a bar read as it was meant, refused where it names nothing, and missed when its score lies above?"""

from __future__ import annotations

import pytest

from perfmodel.errors import InputError
from perfmodel.evidence.thresholds import Bar, missed_bars, read_bar
from perfmodel.evidence.validate import SCORES, ErrorSummary

SOURCE = "NVIDIA/dgxc v25: a=b"
GROUPS = {"stack": {"megatron-core", "fsdp"}, "source": {SOURCE}}
SUMMARY = ErrorSummary(rows=10, median_abs_error=0.03, p90_abs_error=0.1, bias=-0.02, interval_coverage=0.9)


@pytest.mark.parametrize(
    ("text", "bar"),
    [
        ("median=0.05", Bar(score="median", highest=0.05)),
        ("p90=12.5%", Bar(score="p90", highest=0.125)),
        ("stack/fsdp:bias=1", Bar(score="bias", highest=1.0, group="stack", name="fsdp")),
        (f"source/{SOURCE}:median=3 %", Bar(score="median", highest=0.03, group="source", name=SOURCE)),
    ],
)
def test_a_bar_is_a_score_of_all_rows_or_of_a_group(text: str, bar: Bar) -> None:
    """A fraction or a percentage; a name may hold any sign."""
    assert read_bar(text, scores=SCORES, groups=GROUPS) == bar


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("median", "a score and its bar are needed, as in median=5%"),
        ("=5%", "'' is not a score; known: bias, median, p90"),
        ("p9=5%", "'p9' is not a score; did you mean p90?"),
        ("median=fast", "'fast' is not a plain number or a percentage"),
        ("median=-0.1", "'-0.1' is not between 0 and 1 (0 and 100%)"),
        ("median=7", "'7' is not between 0 and 1 (0 and 100%); did you mean 7%?"),
        ("stak/fsdp:median=5%", "'stak' is not a group; did you mean stack?"),
        ("stack/fdsp:median=5%", "no row has stack 'fdsp'; did you mean fsdp?"),
        ("stack/fsdp=5%", "a group needs a score too, as in stack/fsdp:median=5%"),
    ],
)
def test_a_bar_that_names_nothing_is_refused(text: str, sentence: str) -> None:
    """With what would work."""
    with pytest.raises(InputError) as refused:
        read_bar(text, scores=SCORES, groups=GROUPS)
    assert str(refused.value).startswith(f"--fail-above {text}: {sentence}")


@pytest.mark.parametrize(("score", "value"), [("median", 0.03), ("p90", 0.1), ("bias", 0.02)])
def test_a_bar_is_missed_above_it_alone(score: str, value: float) -> None:
    """The score itself is still within; a bias counts without its sign."""
    for highest, sentences in ((value, 0), (value - 1e-6, 1)):
        assert len(missed_bars([Bar(score=score, highest=highest)], overall=SUMMARY, groups={})) == sentences


def test_a_missed_bar_is_said_with_its_score() -> None:
    """What, how much, and the bar."""
    bar = Bar(score="median", highest=0.025, group="stack", name="fsdp")
    assert missed_bars([bar], overall=None, groups={"stack": {"fsdp": SUMMARY}}) == [
        "stack/fsdp: median is 3 %; the bar is 2.5 %"
    ]


def test_no_covered_row_misses_every_bar() -> None:
    """Nothing says that it would be met."""
    bars = [Bar(score="median", highest=1.0), Bar(score="p90", highest=1.0, group="stack", name="fsdp")]
    assert missed_bars(bars, overall=None, groups={"stack": {}}) == [
        "all rows: no covered row tells the median; the bar is 100 %",
        "stack/fsdp: no covered row tells the p90; the bar is 100 %",
    ]
