"""The file that `perfmodel calibrate --from-runs` writes: evidence that extends the published one by what own runs say.

It stands where evidence does: `--evidence mine.yaml`, or `cluster: {extends: dgx-h100, evidence: mine.yaml}` in a run file.
Runs were held against shipped clusters: what a cluster of one's own states otherwise (its clocks, say) is not known to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perfmodel.errors import InputError, PerfmodelError, shown
from perfmodel.exchange.building import build
from perfmodel.exchange.presets import expand_part, preset_names
from perfmodel.exchange.run_files import EVIDENCE, Setting, Settings, setting_pairs
from perfmodel.exchange.spec_mappings import mapping_of
from perfmodel.exchange.syntax.documents import FILE_SUFFIXES, yaml_text
from perfmodel.spec.evidence.own_runs import ANY
from perfmodel.spec.evidence.run_evidence import RunEvidence
from perfmodel.spec.setup import Setup

if TYPE_CHECKING:  # a prediction does not wait for what calibrates
    from perfmodel.evidence.own_calibration import OwnCalibration

BASE: Final = "published"
DIGITS: Final = 6
HEADER: Final = (
    "# What own runs say of predictions, beyond what published runs do (perfmodel/evidence/own_runs.py): the logarithm of\n"
    "# the time of a group moves by shift, its interval is remaining times as wide. For --evidence of all commands that\n"
    "# predict, and for run files: cluster: {extends: dgx-h100, evidence: THIS FILE}. Written by\n"
    "# perfmodel calibrate --from-runs\n"
)


def evidence_text(found: OwnCalibration, *, table: str, day: str, version: str) -> str:
    """The file's text; `table` is the name of the table of runs, `day` and `version` those of the predictions."""
    without = f", {len(found.left_out)} left out" if found.left_out else ""
    rows = f"{len(found.runs)} row{'s' * (len(found.runs) > 1)}"
    document = {
        "extends": BASE,
        "name": f"Runs of {table}",
        "source": f"{rows} of {table}{without}, against predictions of perfmodel {version} on {day}",
        "version": version,
        "own_shifts": [_without_defaults(_rounded(mapping_of(each))) for each in found.shifts],
        "own_runs": [_rounded(mapping_of(each)) for each in found.runs],
    }
    return HEADER + yaml_text(document)


def with_evidence(settings: Settings, evidence: str | None) -> list[Setting]:
    """Settings, and after them the evidence that predictions take, where some is named: whichever cluster they choose."""
    return [*setting_pairs(settings), *([] if evidence is None else [evidence_setting(evidence)])]


def evidence_setting(name: str) -> tuple[str, str]:
    """The setting that gives a run the evidence typed as `name`, a file or a preset. Errors: InputError for what is neither."""
    if Path(name).suffix.lower() in FILE_SUFFIXES or name in preset_names("evidence"):
        return EVIDENCE, name
    table = name if name.lower().endswith(".csv") else "runs.csv"
    made = f"`perfmodel calibrate --from-runs {table} -o mine.yaml` writes one"
    raise InputError(f"{shown(name)} is no file of evidence; {made}", key="--evidence")


def read_evidence(name: str) -> RunEvidence:
    """The evidence typed as `name`, a file or a preset, by itself. Errors: InputError for what is no evidence."""
    key, value = evidence_setting(name)
    try:
        return build(RunEvidence, expand_part(RunEvidence, "evidence", value))
    except PerfmodelError as error:
        raise error.under(key) from None


def own_runs_sentences(evidence: RunEvidence, each: str, before: Setup | None = None) -> tuple[str, ...]:
    """Whose own runs shift times, if any; `each` of several predictions has its own shift, that of `before` is named."""
    if not evidence.own_shifts:
        return ()
    if before is None:
        return (f"{evidence.name} shift times, each {each} by what they say of it",)
    change = 100 * (float(before.own_shift.factor) - 1.0)
    return (f"{evidence.name} shift the time of the run before by {change:+.1f} %, and each {each} by what they say of it",)


def _rounded(mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in mapping.items()}


def _without_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """A group without what it leaves open."""
    return {key: value for key, value in mapping.items() if value not in (ANY, "", None)}
