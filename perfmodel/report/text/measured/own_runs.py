"""What own runs do to predictions, on a terminal: in one line, and as `perfmodel calibrate --from-runs` found it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from perfmodel import __version__
from perfmodel.prediction import StagePrediction
from perfmodel.report.text.terminal import Name, percent_text, plain_table, section, titled
from perfmodel.spec.evidence.own_runs import OwnRun, OwnShift
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.setup import SUBJECT
from perfmodel.units import seconds_text

if TYPE_CHECKING:
    from perfmodel.evidence.own_calibration import OwnCalibration

UNSAID: Final = ("=1", "=0", "=none", "=1f1b")  # ends of settings that every layout has that does not say
MOST_ROWS: Final = 30
LEAST_CHANGE: Final = 0.01  # of a width: less is not worth a word
ODD: Final = 0.5  # a run of less weight is named
A_SLIP: Final = 2.0  # times as long as predicted, or as short: a unit or a column that is another one


def own_runs_line(predicted: StagePrediction) -> Text | None:
    """Shifted by -3.1 % and narrowed to +-4.9 % by 2 of your runs of this configuration; None without own runs."""
    setup = predicted.work.setup
    own = setup.own_shift
    if own.group is None:
        return None
    low, high = (float(end) for end in predicted.iteration_time_interval_s)
    half = 100 * (high - low) / 2 / float(predicted.iteration_time_s)
    changed = own.group.remaining - 1
    way = ", interval still" if abs(changed) < LEAST_CHANGE else " and narrowed to" if changed < 0 else " and widened to"
    mine = f"{own.group.runs} of your runs {own.group.kin}" if own.group.runs > 1 else f"one of your runs {own.group.kin}"
    sentence = f"Shifted by {_change(own.group)}{way} +-{half:.1f} % by {mine}."
    return Text(sentence + _of_another_version(setup.cluster.evidence))


def _of_another_version(evidence: RunEvidence) -> str:
    if evidence.version == __version__:
        return ""
    return f" They were held against perfmodel {evidence.version}, this is {__version__}: calibrate again."


def own_runs_table(predicted: StagePrediction) -> Iterator[RenderableType]:
    """The runs that a shift rests on; none without own runs."""
    setup = predicted.work.setup
    if setup.own_shift.group is not None:
        evidence, remaining = setup.cluster.evidence, setup.own_shift.group.remaining
        before = seconds_text(float(predicted.iteration_time_s) / setup.own_shift.group.factor)
        width = f", in an interval {1 / remaining:.3g} times as wide" if remaining > 0 else ""
        yield titled(f"{evidence.name}; without them {before}{width}", _runs_table(evidence.own_runs))


def own_calibration_report(found: OwnCalibration, *, table: str) -> Group:
    """How far the runs are from predictions, one by one, what follows for later ones, and which rows were left out."""
    of = len(found.runs) + len(found.left_out)
    off = 100 * (np.exp(found.median_shift) - 1)
    longer = f"the median run took {abs(off):.1f} % {'longer' if off > 0 else 'less'} than predicted"
    parts: list[RenderableType] = [Text(f"{len(found.runs)} of {of} rows of {table} are used: {longer}.")]
    parts += _doubts(found)
    parts.append(titled("Runs", _runs_table(found.runs)))
    parts.append(titled("What they say of predictions", _shifts_table(found.shifts)))
    if found.left_out:
        lines = [(each.place, each.reason.removeprefix(each.place).lstrip(",: ")) for each in found.left_out[:MOST_ROWS]]
        more = len(found.left_out) - len(lines)
        parts.append(section("Left out", [*lines, *([("..", f"{more} more")] if more else [])]))
    return Group(*parts)


def _doubts(found: OwnCalibration) -> Iterator[Text]:
    """What somebody should look at before trusting the runs."""
    if found.stretch > 1.0:
        yield Text(f"Most are beyond their intervals: those of other predictions become {found.stretch:.2g} times as wide.")
    if abs(found.median_shift) > np.log(A_SLIP):
        yield Text("So far off is likely a slip: the unit of a time, a batch, a number of GPUs.", style="yellow")
    odd = [each.name for each in found.runs if each.weight < ODD]
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        one = len(odd) == 1
        yield Text(
            f"{', '.join(odd[:3])}{more} {'is' if one else 'are'} odd: {'it weighs' if one else 'they weigh'} little.",
            style="yellow",
        )


def _runs_table(runs: Sequence[OwnRun]) -> RenderableType:
    table = plain_table()
    table.add_column("run", overflow="fold")
    for heading in ("measured", "predicted", "off", "weight"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in runs[:MOST_ROWS]:
        times = (seconds_text(each.measured_s), seconds_text(each.predicted_s))
        table.add_row(Name(each.name), *times, percent_text(each.measured_s / each.predicted_s - 1), f"{each.weight:.2f}")
    if len(runs) > MOST_ROWS:
        table.add_section()
        table.add_row(f"{len(runs) - MOST_ROWS} others", "", "", "", "")
    return table


def _shifts_table(shifts: Sequence[OwnShift]) -> RenderableType:
    """A row a group; models and layouts by the settings that tell them apart."""
    table = plain_table()
    table.add_column("of predictions", overflow="fold", ratio=1)
    for heading in ("runs", "shift", "interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in shifts[:MOST_ROWS]:
        table.add_row(Name(_called(each)), f"{each.runs}", _change(each), f"x {each.remaining:.2f}")
    if len(shifts) > MOST_ROWS:
        table.add_section()
        table.add_row(f"{len(shifts) - MOST_ROWS} others", "", "", "")
    return table


def _change(shift: OwnShift) -> str:
    """How much longer times become; nothing has no sign of its own."""
    return percent_text(round(shift.factor - 1, 3) + 0.0)


def _called(shift: OwnShift) -> str:
    """A group in words: models by their widths and precision, configurations by what else is not 1 or off."""
    beyond = shift.settings[len(SUBJECT) :] or shift.settings
    told = [word for word in beyond if not word.endswith(UNSAID)]
    return shift.kin.removeprefix("of ") + (f": {', '.join(told)}" if told else "")
