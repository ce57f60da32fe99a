"""`perfmodel calibrate`: measures this machine and fits a cluster that run files can name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from perfmodel.commands.console import STOPPED, emit_table, progress_bar, say
from perfmodel.commands.options import Device


def calibrate(
    device: Device = "",
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the profile to FILE, and its records beside it.")
    ] = Path("profile.yaml"),
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Measure nothing; fit the records in FILE.")
    ] = None,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="Measure only a few tiny sizes, to check that calibration works.")
    ] = False,
) -> None:
    """Measure this machine (some minutes) and fit a profile that a run file can name as its cluster.

    After Ctrl-C, the same command continues where it stopped.

    Examples:
    perfmodel calibrate -o here.yaml

    perfmodel predict run.yaml --set cluster=here.yaml
    """
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
