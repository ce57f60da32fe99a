"""Arguments and options that several commands share, and the record that two of them read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

if TYPE_CHECKING:
    from perfmodel.evidence.step_records import StepRecord

FORM: Final = "Form"  # the panel of options that choose how a result looks
PRESETS: Final = Path(__file__).parent.parent / "data"


def completed(kind: str) -> Callable[[str], list[str]]:
    """What completes the name of a preset of one kind on the command line (without loading what reads presets)."""
    return lambda incomplete: sorted(path.stem for path in (PRESETS / kind).glob(f"{incomplete}*.yaml"))


def read_record(path: Path) -> StepRecord:
    """The step that `perfmodel measure` wrote to a file. Errors: InputError for a file that holds none."""
    from perfmodel.evidence.step_records import step_record
    from perfmodel.exchange.documents import read_mapping

    return step_record(read_mapping(path, needs="what `perfmodel measure` writes"))


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any key of the run, as in tensor_parallel=4; any number of times."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=FORM)]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of tables.", rich_help_panel=FORM)]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of tables.", rich_help_panel=FORM)]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Write to FILE instead; .json, .csv and .md choose the form.",
        rich_help_panel=FORM,
    ),
]
ShownStage = Annotated[
    int | None, typer.Option("--stage", metavar="N", help="Which stage of a ramp, from 1; the last without.")
]
RunName = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="A preset run (perfmodel list) or a YAML, TOML or JSON run file.", autocompletion=completed("runs")
    ),
]
