"""`perfmodel measure`: real training steps of a run on this machine, or real passes of its model as a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from perfmodel.commands.console import check_ending, emit_json, emit_table, progress, warn_of, write_file
from perfmodel.commands.options import AsJson, Device, Gpus, Model, OnCluster, Overrides, RunName, Tokens, asked
from perfmodel.errors import InputError, MachineError

if TYPE_CHECKING:
    from perfmodel.exchange.run_files import RunSource

RECORDS: Final = {".json": "json"}
SERVING: Final = "Serving"
USUAL_OUTPUT: Final = 32


def measure(
    run: RunName = "",
    overrides: Overrides = None,
    *,
    model: Model = None,
    cluster: OnCluster = None,
    gpus: Gpus = None,
    tokens: Tokens = None,
    stage: Annotated[int, typer.Option("--stage", metavar="N", help="Stage of the batch ramp, counted from 1.")] = 1,
    device: Device = "",
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="Time steps, or passes, for about this many seconds.")
    ] = 10.0,
    infer: Annotated[
        bool, typer.Option("--infer", help="Serve the model of RUN instead: time prefill and decode.", rich_help_panel=SERVING)
    ] = False,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            metavar="N",
            help="Prompts that are read together and decode together. Default: 1.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    input_tokens: Annotated[
        int | None,
        typer.Option(
            "--input-tokens",
            min=1,
            metavar="N",
            help="Tokens of each prompt. Default: the sequence length of RUN.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    output_tokens: Annotated[
        int | None,
        typer.Option(
            "--output-tokens",
            min=3,
            metavar="N",
            help=f"Tokens that come back of each. Default: {USUAL_OUTPUT}.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Without a device: count what one rank does in each stage and compare with the prediction."
        ),
    ] = False,
    profile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a torch.profiler trace of one more step, for compare --timeline."),
    ] = None,
    as_json: AsJson = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Write the record of the steps to FILE.")
    ] = Path("record.json"),
) -> None:
    """Run real training steps of RUN on this machine, one rank per GPU or core, and write a record of them.

    With --infer, generate with the model of RUN instead, in its precision and
    tensor parallelism: prompts are read in one pass, then tokens follow.

    Examples:
    perfmodel measure laptop

    perfmodel measure laptop --infer --batch 4 --output-tokens 32

    perfmodel measure nemotron-4-15b --dry-run
    """
    check_ending(output, RECORDS)
    of_load = {"--batch": batch, "--input-tokens": input_tokens, "--output-tokens": output_tokens}
    _check_options(infer, of_load, {"--dry-run": dry_run, "--profile": profile, "--stage": stage != 1})
    _check_folder()
    from tempfile import TemporaryDirectory

    from perfmodel.benchmarks.measure.steps.ranks import chosen_device, measure_run

    chosen_device()  # refuses a Python without torch
    source = asked(run, model, cluster, gpus, tokens, settings=overrides)
    if infer:
        load = {"sequences": batch, "input_tokens": input_tokens, "output_tokens": output_tokens}
        _passes(source, overrides or (), load, device=device, seconds=seconds, output=output, as_json=as_json)
        return
    if dry_run:
        _dry_run(source, overrides or (), as_json=as_json)
        return
    with TemporaryDirectory() as folder:
        name = _named(source, Path(folder))
        trace = None if profile is None else Path(folder) / "profile.json"
        record = measure_run(name, overrides or (), stage=stage, device=device, seconds=seconds, profile=trace)
        emit_json(record.document(), output)
        if profile is not None and trace is not None:
            write_file(trace.read_bytes(), profile)
    from perfmodel.report.text.measured.step import measurement_report

    if as_json:
        emit_json(record.document(), None)
    else:
        emit_table(measurement_report(record), None)
    warn_of(record.warnings)


def _check_options(infer: bool, of_load: Mapping[str, object], of_steps: Mapping[str, object]) -> None:
    """Raise InputError for options of a load without --infer, and for those of training steps with it."""
    for option in (name for name, value in of_load.items() if value is not None and not infer):
        raise InputError(f"{option} goes with --infer, which serves the model of RUN")
    for option in (name for name, value in of_steps.items() if value and infer):
        raise InputError(f"{option} goes with training steps; --infer serves the model of RUN")


def _passes(
    source: RunSource,
    overrides: Sequence[str],
    asked_load: Mapping[str, int | None],
    *,
    device: str,
    seconds: float,
    output: Path,
    as_json: bool,
) -> None:
    """Generate with the model of a run, and write a record of its passes."""
    from tempfile import TemporaryDirectory

    from perfmodel.benchmarks.measure.steps.ranks import ServedLoad, measure_served
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.text.measured.passes import passes_report

    usual = int(read_candidates(source, overrides)[0].run.sequence_length)
    chosen = {"sequences": 1, "input_tokens": usual, "output_tokens": USUAL_OUTPUT}
    load = ServedLoad(**chosen | {name: number for name, number in asked_load.items() if number is not None})
    with TemporaryDirectory() as folder:
        record = measure_served(_named(source, Path(folder)), load, overrides, device=device, seconds=seconds)
    emit_json(record.document(), output)
    if as_json:
        emit_json(record.document(), None)
    else:
        emit_table(passes_report(record), None)
    warn_of(record.warnings)


def _named(source: RunSource, folder: Path) -> str:
    """A name by which ranks read the run: its own, or that of a run file in `folder`."""
    if isinstance(source, str):
        return source
    from perfmodel.exchange.spec_mappings import mapping_of
    from perfmodel.exchange.syntax.documents import yaml_text

    path = folder / "run.yaml"
    path.write_text(yaml_text(mapping_of(source)), encoding="utf-8")
    return str(path)


def _check_folder() -> None:
    """Raise MachineError where the current folder is gone: libraries of torch end the process there, in their words."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise MachineError("the current folder is gone; measure in one that exists") from None


def _dry_run(name: RunSource, overrides: Sequence[str], *, as_json: bool) -> None:
    """Count one rank of every stage of the run; exit code 1 where a count differs from the prediction."""
    from perfmodel.benchmarks.measure.steps.dry_run import dry_run
    from perfmodel.exchange.run_files import read_candidates
    from perfmodel.report.json.measured.step import counts_document
    from perfmodel.report.text.measured.step import counts_report

    run = read_candidates(name, overrides)[0].run
    counted = [(stage, dry_run(run, stage)) for stage in progress(run.stages, "counting")]
    if as_json:
        emit_json(counts_document(counted), None)
    else:
        emit_table(counts_report(run.name, counted), None)
    if not all(each.equal for _, counts in counted for each in counts):
        raise typer.Exit(1)
