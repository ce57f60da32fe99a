"""How wide an interval is, and why: its three parts, and the numbers that bring most of it."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel.evidence.discrepancy import POOLED_SOURCES
from perfmodel.prediction import Prediction, StagePrediction
from perfmodel.report.text.terminal import Name, plain_table, titled
from perfmodel.spec.axes import DATA
from perfmodel.spec.evidence.run_evidence import Discrepancy
from perfmodel.spec.setup import SUBJECT

MOST_SOURCES: Final = 10
NARROWED_BY: Final = {
    "coefficients": "perfmodel calibrate on one of these GPUs: its own kernels",
    "machine": "calibrate and nccl-tests on the cluster itself: its clocks, links and hosts",
    "discrepancy": "one measured run of one's own: calibrate --from-runs",
}
OWN_RUNS_OF_OTHERS: Final = "a run of this very configuration among one's own: calibrate --from-runs"
OWN_RUNS_OF_IT: Final = "more runs of this configuration: calibrate --from-runs"


def interval_table(predicted: StagePrediction) -> RenderableType:
    """What each part of the 90 % interval alone would leave open, its share of the variance, and what would narrow it."""
    parts = {part: float(half_s) for part, half_s in predicted.uncertainty.parts_s.items()}
    total = sum(half_s * half_s for half_s in parts.values())
    table = plain_table()
    table.add_column("part", no_wrap=True)
    for heading in ("alone, ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("what would narrow it", overflow="fold", ratio=1)
    for part, half_s in parts.items():
        share = half_s * half_s / total if total else 0.0
        table.add_row(part, f"+-{1e3 * half_s:.1f}", f"{100 * share:.0f} %", _narrowed_by(part, predicted))
    return titled("Parts of the 90 % interval", Group(table, Text(discrepancy_sentence(predicted.uncertainty.discrepancy))))


def _narrowed_by(part: str, predicted: StagePrediction) -> str:
    """What would make a part of the interval smaller; where own runs did already, what they lack."""
    group = predicted.work.setup.own_shift.group
    if part != "discrepancy" or group is None:
        return NARROWED_BY[part]
    return OWN_RUNS_OF_IT if len(group.settings) > len(SUBJECT) else OWN_RUNS_OF_OTHERS


def discrepancy_sentence(discrepancy: Discrepancy) -> str:
    """Where the discrepancy of an interval comes from, in a sentence."""
    if not discrepancy.sources:
        return "No measured runs tell what predictions of it lack."
    rows, sources = int(discrepancy.rows), int(discrepancy.sources)
    whose = f"{rows:,} published run{'s' * (rows > 1)} of {sources} source{'s' * (sources > 1)}"
    if discrepancy.pooled:
        return f"Discrepancy: what else all {whose} were off by; none of them is of {discrepancy.cell}."
    others = f"drawn towards that of all software, which weighs as much as {POOLED_SOURCES:.0f} sources"
    return f"Discrepancy: what else {whose} of {discrepancy.cell} were off by, {others}."


def uncertain_numbers_table(prediction: Prediction) -> RenderableType:
    """The numbers that bring most of the interval's variance."""
    stage, predicted = prediction.stages[-1]
    table = plain_table()
    table.add_column("number", overflow="fold", ratio=1)
    for heading in ("alone, ms", "share"):
        table.add_column(heading, justify="right", no_wrap=True)
    shares, numbers_s = predicted.uncertainty.shares, predicted.uncertainty.numbers_s
    for path, share in list(shares.items())[:MOST_SOURCES]:
        half_s = float(numbers_s[path])
        table.add_row(Name(path), f"+-{1e3 * half_s:.1f}", f"{100 * float(share):.0f} %")
    rest = sum(float(share) for share in list(shares.values())[MOST_SOURCES:])
    if len(shares) > MOST_SOURCES:
        table.add_section()
        table.add_row(f"{len(shares) - MOST_SOURCES} others", "", f"{100 * rest:.0f} %")
    return titled(f"Where the uncertainty comes from, {DATA.short} {stage.data_parallel} (90 %)", table)
