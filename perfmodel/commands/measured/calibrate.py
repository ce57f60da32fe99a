"""`perfmodel calibrate`: measures this machine and fits a cluster that run files can name, or learns from runs already made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from perfmodel import __version__
from perfmodel.commands.console import STOPPED, emit_json, emit_table, progress, progress_bar, say, warn_of, write_file
from perfmodel.commands.measured.row_warnings import warn_of_memory, warn_of_rows
from perfmodel.commands.options import HARDWARE, AsJson, Device, Gpus, Model, OnCluster
from perfmodel.errors import InputError

if TYPE_CHECKING:
    from perfmodel.evidence.own_calibration import OwnCalibration

PROFILE: Final = Path("profile.yaml")
YAML: Final = (".yaml", ".yml")
EVIDENCE: Final = Path("evidence.yaml")
CLUSTER: Final = Path("cluster.yaml")
MOST_NAMED: Final = 3  # files, in one sentence


def calibrate(
    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE...]", help="More files for --from-runs or --from-nccl-tests, as in --from-runs logs/*.log."
        ),
    ] = None,
    *,
    device: Device = "",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write the profile to FILE, and its records beside it. Default: profile.yaml, with --from-runs evidence.yaml, "
            "with --from-nccl-tests cluster.yaml.",
        ),
    ] = None,
    records: Annotated[
        Path | None, typer.Option("--records", metavar="FILE", help="Measure nothing; fit the records in FILE.")
    ] = None,
    smallest: Annotated[
        bool, typer.Option("--smallest", help="Measure only a few tiny sizes, to check that calibration works.")
    ] = False,
    from_runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-runs",
            metavar="FILE",
            help="Measure nothing; learn from your own runs: tables with the columns of published_runs.csv, logs of training "
            "software, and folders of these. Repeatable.",
        ),
    ] = None,
    from_nccl_tests: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-nccl-tests",
            metavar="FILE",
            help="Measure nothing; fit the links of --cluster to what nccl-tests printed on it, or wrote with -J. Repeatable.",
        ),
    ] = None,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes",
            min=1,
            metavar="N",
            help="Number of nodes, where what nccl-tests printed does not list them.",
            rich_help_panel=HARDWARE,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure this machine (some minutes) and fit a profile that a run file can name as its cluster.

    After Ctrl-C, the same command continues where it stopped.

    With --from-runs, learn from runs that you made: compare them with predictions,
    and write evidence that shifts and narrows later ones. The same configuration
    gains most, then other layouts of the model, then other models in the same
    software on the same GPUs. The run of a log is in it or beside it, as for
    `perfmodel validate`; --model, --cluster and --gpus are for logs that do
    not say it.

    With --from-nccl-tests, hold what nccl-tests measured against what is
    expected of the cluster, size by size, name the fault that would explain
    what is slower, and write a cluster whose links start and run as measured.

    Examples:
    perfmodel calibrate -o here.yaml

    perfmodel predict run.yaml --set cluster=here.yaml

    perfmodel calibrate --from-runs runs.csv -o mine.yaml

    perfmodel calibrate --from-runs logs/ --cluster dgx-h100 -o mine.yaml

    perfmodel predict run.yaml --evidence mine.yaml

    perfmodel calibrate --from-nccl-tests sum.txt --cluster p5 -o ours.yaml

    perfmodel predict run.yaml --cluster ours.yaml
    """
    given = {"model": model, "cluster": cluster, "gpus": gpus}
    if from_nccl_tests:
        sources = {"--from-runs": from_runs, "--device": device, "--records": records, "--smallest": smallest, "--model": model}
        _check_alone("--from-nccl-tests", sources)
        _learn_links([*from_nccl_tests, *(more or ())], cluster, gpus, nodes, output or CLUSTER, as_json=as_json)
        return
    if nodes is not None:
        raise InputError("--nodes goes with --from-nccl-tests; the run of a log says its nodes")
    if from_runs:
        _check_alone("--from-runs", {"--device": device, "--records": records, "--smallest": smallest})
        _learn_from([*from_runs, *(more or ())], given, output or EVIDENCE, as_json=as_json)
        return
    if more:
        raise InputError(f"{more[0]} goes with --from-runs; without it this machine is measured")
    for option in (name for name, value in given.items() if value is not None):
        raise InputError(f"--{option} goes with --from-runs or --from-nccl-tests, which may not say it")
    if as_json:
        raise InputError("--json goes with --from-runs or --from-nccl-tests; a profile is a file of settings itself")
    _measure(device, output or PROFILE, records, smallest=smallest)


def _check_alone(option: str, others: Mapping[str, object]) -> None:
    """Raise InputError where an option that measures nothing stands beside another one."""
    for other in (name for name, value in others.items() if value):
        raise InputError(f"{option} measures nothing; it cannot be combined with {other}")


def _measure(device: str, output: Path, records: Path | None, *, smallest: bool) -> None:
    """Measure and fit this machine, or fit the records of one."""
    from perfmodel.benchmarks.measure.steps.ranks import chosen_device

    device = chosen_device(device)  # refuses a Python without torch before anything below imports it
    from perfmodel.benchmarks.measure.calibrate import calibrate as calibrate_machine
    from perfmodel.benchmarks.measure.calibrate import fit_file, records_beside

    warnings: list[str] = []
    try:
        with progress_bar("measuring") as advance:
            if records is None:
                profile = calibrate_machine(output, device=device, smallest=smallest, on_progress=advance, warn=warnings.extend)
            else:
                profile = fit_file(output, records, warn=warnings.extend)
    except KeyboardInterrupt:
        say(f"stopped; the same command continues with {records_beside(output)}")
        raise typer.Exit(STOPPED) from None
    warn_of(warnings)
    from perfmodel.report.text.measured.step import calibration_report

    emit_table(calibration_report(profile), None)
    say(f"wrote {output}", prefix="")


def _learn_from(files: Sequence[Path], given: Mapping[str, str | None], output: Path, *, as_json: bool) -> None:
    """Hold measured runs against their predictions, and write what follows for later ones."""
    from perfmodel.exchange.measured.own_evidence import evidence_text

    if output.suffix.lower() not in YAML:
        raise InputError(f"--output {output} must be a .yaml file: evidence is named by it")
    found, name = _calibration(files, given), _called(files)
    text = evidence_text(found, table=name, day=datetime.now(UTC).date().isoformat(), version=__version__)
    write_file(text, output)
    if as_json:
        from perfmodel.report.json.measured.own_runs import own_calibration_document

        emit_json(own_calibration_document(found, table=name), None)
    else:
        from perfmodel.report.text.measured.own_runs import own_calibration_report

        emit_table(own_calibration_report(found, table=name), None)


def _learn_links(
    files: Sequence[Path], cluster: str | None, gpus: str | None, nodes: int | None, output: Path, *, as_json: bool
) -> None:
    """Hold nccl-tests against what is expected of a cluster, and write the cluster with the links that they measured."""
    from perfmodel.exchange.measured.link_profiles import cluster_file_text, link_calibration
    from perfmodel.exchange.measured.nccl_calls import RanksBeside
    from perfmodel.exchange.questions.plan_quantities import whole_number

    if cluster is None:
        raise InputError("--from-nccl-tests needs the cluster that they ran on, as in --cluster dgx-h100")
    if output.suffix.lower() not in YAML:
        raise InputError(f"--output {output} must be a .yaml file: a cluster is named by it")
    ranks = None if gpus is None else int(whole_number("gpus", gpus))
    found = link_calibration(files, cluster, RanksBeside(gpus=ranks, nodes=nodes))
    warn_of(found.warnings)
    day, names = datetime.now(UTC).date().isoformat(), [each.name for each in files]
    write_file(cluster_file_text(found, files=names, folder=output.parent, day=day, version=__version__), output)
    if as_json:
        from perfmodel.report.json.measured.links import link_document

        emit_json(link_document(found), None)
    else:
        from perfmodel.report.text.measured.links import link_report

        emit_table(link_report(found), None)


def _called(files: Sequence[Path]) -> str:
    """Some files in words."""
    names = [each.resolve().name for each in files]
    return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")


def _calibration(files: Sequence[Path], given: Mapping[str, str | None]) -> OwnCalibration:
    """What measured runs say. Errors: InputError where none of them is predicted."""
    from perfmodel.evidence.measured_rows import without_doubles
    from perfmodel.evidence.own_calibration import own_calibration
    from perfmodel.evidence.time_scores import compare_time
    from perfmodel.exchange.tables.logged_runs import GivenBeside
    from perfmodel.exchange.tables.measured_files import read_measured_files

    table = without_doubles(read_measured_files(files, GivenBeside(**given)))
    warn_of_rows(table.rows, table.unread)
    try:
        compared: list[Any] = [compare_time(each) for each in progress(table.rows, "predicting")]
    except KeyboardInterrupt:
        say("stopped; nothing was written")
        raise typer.Exit(STOPPED) from None
    warn_of_memory(compared)
    found = own_calibration(compared, table.unread)
    if not found.runs:
        why = [f"{each.place}: {each.reason.removeprefix(each.place).lstrip(',: ')}" for each in found.left_out[:1]]
        where = files[0] if len(files) == 1 else _called(files)
        raise InputError("; ".join([f"no row of {where} can be predicted, so nothing was written", *why]))
    return found
