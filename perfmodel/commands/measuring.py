"""Real training steps: `calibrate`, `measure`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from perfmodel.commands.console import (
    STOPPED,
    emit_json,
    emit_table,
    progress,
    progress_bar,
    say,
    warn_of,
    write_file,
)
from perfmodel.commands.options import AsJson, Overrides, RunName

Device = Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="GPUs where there are any, unless it is given.")]


def calibrate(
    device: Device = "",
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The profile; its records lie beside it.")
    ] = Path("profile.yaml"),
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Fit these records, taken elsewhere; measure nothing.")
    ] = None,
    smallest: Annotated[bool, typer.Option("--smallest", help="A few tiny sizes, to see that it works.")] = False,
) -> None:
    """Measure this machine (some minutes) and fit a profile that a run file can name as its cluster.

    Started again after Ctrl-C it goes on where it was.

    Examples:
    perfmodel calibrate -o here.yaml

    perfmodel predict run.yaml --set cluster=here.yaml
    """
    measuring = _measuring()
    from perfmodel.benchmarks.measure.calibrate import calibrate as calibrate_machine
    from perfmodel.benchmarks.measure.calibrate import records_beside, write_fitted
    from perfmodel.benchmarks.measure.kernels.record_file import read_records

    device = measuring.chosen_device(device)
    try:
        with progress_bar("measuring") as advance:
            if records is None:
                profile = calibrate_machine(output, device=device, smallest=smallest, on_progress=advance)
            else:
                profile = write_fitted(output, read_records(records))
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on with {records_beside(output)}")
        raise typer.Exit(STOPPED) from None
    from perfmodel.report.text.step import calibration_report

    emit_table(calibration_report(profile), None)
    say(f"wrote {output}", prefix="")


def measure(
    run: RunName,
    overrides: Overrides = None,
    *,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="Which stage of the run, from 1.")] = 1,
    device: Device = "",
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="How long to time steps.")] = 10.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="No device: count what one rank of every stage does, beside the forecast.")
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also a trace of one more step (torch.profiler), for compare --timeline."),
    ] = None,
    as_json: AsJson = False,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The record of the steps.")] = Path(
        "record.json"
    ),
) -> None:
    """Run real training steps of RUN on this machine, one rank a GPU or a core, and write their record.

    Examples:
    perfmodel measure laptop

    perfmodel measure nemotron-4-15b --dry-run
    """
    measuring = _measuring()
    if dry_run:
        _dry_run(run, overrides or (), as_json=as_json)
        return
    with TemporaryDirectory() as folder:
        trace = None if profile is None else Path(folder) / "profile.json"
        record = measuring.measure_run(run, overrides or (), stage=stage, device=device, seconds=seconds, profile=trace)
        emit_json(record.document(), output)
        if profile is not None and trace is not None:
            write_file(trace.read_bytes(), profile)
    from perfmodel.report.text.step import measurement_report

    if as_json:
        emit_json(record.document(), None)
    else:
        emit_table(measurement_report(record), None)
    warn_of(record.warnings)


def _dry_run(name: str, overrides: Sequence[str], *, as_json: bool) -> None:
    """Every stage of the run; exit code 1 where a count differs."""
    from perfmodel.benchmarks.measure.steps.dry_run import dry_run
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.json.step import counts_document
    from perfmodel.report.text.step import counts_report

    run = read_candidates(name, overrides)[0].run
    counted = [(stage, dry_run(run, stage)) for stage in progress(run.stages, "counting")]
    if as_json:
        emit_json(counts_document(counted), None)
    else:
        emit_table(counts_report(run.name, counted), None)
    if not all(each.equal for _, counts in counted for each in counts):
        raise typer.Exit(1)


def _measuring() -> Any:
    """What starts real steps. Errors: InputError without torch."""
    from perfmodel.benchmarks.measure.steps import ranks as measuring

    measuring.chosen_device()
    return measuring
