"""`perfmodel calibrate`: measures this machine and fits a cluster that run files can name, or learns from runs already made."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfmodel import __version__
from perfmodel.commands.console import STOPPED, emit_json, emit_table, progress, progress_bar, say, write_file
from perfmodel.commands.options import AsJson, Device
from perfmodel.commands.row_warnings import warn_of_memory, warn_of_rows
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from perfmodel.evidence.own_calibration import OwnCalibration

PROFILE: Final = Path("profile.yaml")
YAML: Final = (".yaml", ".yml")
EVIDENCE: Final = Path("evidence.yaml")


def calibrate(
    device: Device = "",
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the profile to FILE, and its records beside it. Default: profile.yaml, with --from-runs evidence.yaml.",
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Measure nothing; fit the records in FILE.")
    ] = None,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="Measure only a few tiny sizes, to check that calibration works.")
    ] = False,
    from_runs: Annotated[
        Path | None,
        typer.Option(
            "--from-runs",
            metavar="FILE.csv",
            help="Measure nothing; learn from your own runs, in a table with the columns of published_runs.csv.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine (some minutes) and fit a profile that a run file can name as its cluster.

    After Ctrl-C, the same command continues where it stopped.

    With --from-runs, learn from runs that you made: compare them with predictions,
    and write evidence that shifts and narrows later ones. The same configuration
    gains most, then other layouts of the model, then other models in the same
    software on the same GPUs.

    Examples:
    perfmodel calibrate -o here.yaml

    perfmodel predict run.yaml --set cluster=here.yaml

    perfmodel calibrate --from-runs runs.csv -o mine.yaml

    perfmodel predict run.yaml --evidence mine.yaml
    """
    if from_runs is not None:
        if device or records is not None or smallest:
            raise InputError("--from-runs measures nothing; it cannot be combined with --device, --records or --smallest")
        _learn_from(from_runs, output or EVIDENCE, as_json=as_json)
        return
    if as_json:
        raise InputError("--json goes with --from-runs; a profile is a file of settings itself")
    _measure(device, output or PROFILE, records, smallest=smallest)


def _measure(device: str, output: Path, records: Path | None, *, smallest: bool) -> None:
    """Measure and fit this machine, or fit the records of one."""
    from perfmodel.benchmarks.measure.steps.ranks import chosen_device

    device = chosen_device(device)  # refuses a Python without torch before anything below imports it
    from perfmodel.benchmarks.measure.calibrate import calibrate as calibrate_machine
    from perfmodel.benchmarks.measure.calibrate import records_beside, write_fitted
    from perfmodel.benchmarks.measure.kernels.record_file import read_records

    try:
        with progress_bar("measuring") as advance:
            if records is None:
                profile = calibrate_machine(output, device=device, smallest=smallest, on_progress=advance)
            else:
                profile = write_fitted(output, read_records(records))
    except KeyboardInterrupt:
        say(f"stopped; the same command continues with {records_beside(output)}")
        raise typer.Exit(STOPPED) from None
    from perfmodel.report.text.step import calibration_report

    emit_table(calibration_report(profile), None)
    say(f"wrote {output}", prefix="")


def _learn_from(table: Path, output: Path, *, as_json: bool) -> None:
    """Hold a table of runs against their predictions, and write what follows for later ones."""
    from perfmodel.exchange.own_evidence import evidence_text

    if output.suffix.lower() not in YAML:
        raise InputError(f"--output {output} must be a .yaml file: evidence is named by it")
    found = _calibration(table)
    text = evidence_text(found, table=table.name, day=datetime.now(UTC).date().isoformat(), version=__version__)
    write_file(text, output)
    if as_json:
        from perfmodel.report.json.own_runs import own_calibration_document

        emit_json(own_calibration_document(found, table=table.name), None)
    else:
        from perfmodel.report.text.own_runs import own_calibration_report

        emit_table(own_calibration_report(found, table=table.name), None)


def _calibration(path: Path) -> OwnCalibration:
    """What the runs of a table say. Errors: InputError where none of them is predicted."""
    from perfmodel.evidence.measured_rows import without_doubles
    from perfmodel.evidence.own_calibration import own_calibration
    from perfmodel.evidence.time_scores import compare_time
    from perfmodel.exchange.tables.published_runs import read_measured_runs

    table = without_doubles(read_measured_runs(path))
    warn_of_rows(table.rows, table.unread)
    try:
        compared: list[Any] = [compare_time(each) for each in progress(table.rows, "predicting")]
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        raise typer.Exit(STOPPED) from None
    warn_of_memory(compared)
    found = own_calibration(compared, table.unread)
    if not found.runs:
        why = [f"line {each.line}: {each.reason.removeprefix(f'line {each.line}, ')}" for each in found.left_out[:1]]
        raise InputError("; ".join([f"no row of {path} can be predicted, so nothing was written", *why]))
    return found
